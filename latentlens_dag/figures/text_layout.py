"""Layout of text for SVG: estimated widths, truncation and hyphenation.

Note: the font is the reader's, so widths are estimates, on the wide side. Scripts with joining letters, emoji of
several characters and combining marks must not be cut apart.
"""

from __future__ import annotations

import re
import unicodedata
from itertools import pairwise
from xml.sax.saxutils import escape

from latentlens_dag.text.display import CONTROL
from latentlens_dag.text.words import fitting_characters, whole_characters

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_BREAK = re.compile("[\t\n\v\f\r\x85\u2028\u2029]+")
_NARROW, _WIDE = set("iIljtfr.,:;'|!()[] -·"), set("mwMW@%…")
_JOINERS = {"\u200c", "\u200d", "\u20e3", *map(chr, range(0xFE00, 0xFE10))}


def xml_text(text: str) -> str:
    """The text escaped for XML, without control characters, direction marks and characters that XML forbids."""
    return escape(_NOT_XML.sub("", CONTROL.sub("", _BREAK.sub(" ", text))))


def text_width(text: str) -> float:
    """The estimated width of a text in units of its font size, on the wide side."""
    return sum(map(_advance, text))


def _advance(char: str) -> float:
    if unicodedata.category(char) in ("Mn", "Me") or char in _JOINERS:
        return 0.0
    if unicodedata.east_asian_width(char) in "WF":
        return 1.1
    if char in _NARROW:
        return 0.38
    if char in _WIDE:
        return 0.98
    return 0.74 if char.isupper() else 0.6


def truncate(text: str, width: float) -> str:
    """The text, or as much of its beginning as fits with an ellipsis."""
    if text_width(text) <= width:
        return text
    return _prefix(text, width - text_width("…")) + "…"


def kwic(before: str, word: str, after: str, width: float) -> tuple[str, str, str]:
    """A keyword in context: the sentence shortened at both ends until it fits."""
    word = truncate(word, 0.6 * width)
    room = width - text_width(word)
    left = min(text_width(before), max(room / 2, room - text_width(after)))
    head = before if text_width(before) <= left else "…" + _suffix(before, left - text_width("…"))
    return head, word, truncate(after, room - text_width(head))


def hyphenate(word: str, count: int) -> list[str]:
    """The word in `count` lines of about the same length, or in one if it must not be hyphenated."""
    if count < 2 or len(word) < 3 * count or not _has_separate_letters(word):
        return [word]
    ends = [round(len(word) * part / count) for part in range(count + 1)]
    pieces = [word[start:end] for start, end in pairwise(ends)]
    return [piece + "-" for piece in pieces[:-1]] + pieces[-1:]


def _has_separate_letters(word: str) -> bool:
    """Whether the word has only letters of scripts whose letters do not join."""
    scripts = ("LATIN", "GREEK", "CYRILLIC")
    return all(char.isalpha() and unicodedata.name(char, "").startswith(scripts) for char in word)


def _prefix(text: str, width: float) -> str:
    """As many characters from the beginning as fit, without splitting combined ones."""
    return "".join(fitting_characters(whole_characters(text), width, text_width))


def _suffix(text: str, width: float) -> str:
    """As many characters from the end as fit."""
    return "".join(reversed([*fitting_characters(reversed(whole_characters(text)), width, text_width)]))


def reads_right_to_left(text: str) -> bool:
    """Whether the first character with a direction is written from right to left."""
    directions = (unicodedata.bidirectional(char) for char in text)
    return next((direction != "L" for direction in directions if direction in ("L", "R", "AL")), False)
