"""Setting lines of anybody's text where no font is at hand: how wide it is about, where it is cut and broken.

What a newcomer gets wrong: the font is the reader's, so widths are estimates, on the wide side; and scripts whose
letters join, emoji of several characters and marks above letters must not be cut apart.
"""

from __future__ import annotations

import re
import unicodedata
from itertools import pairwise
from xml.sax.saxutils import escape

from latentlens_dag.text.display import CONTROL

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_BREAK = re.compile("[\t\n\v\f\r\x85\u2028\u2029]+")
_NARROW, _WIDE = set("iIljtfr.,:;'|!()[] -·"), set("mwMW@%…")
_JOINERS = {"\u200c", "\u200d", "\u20e3", *map(chr, range(0xFE00, 0xFE10))}


def xml_text(text: str) -> str:
    """The text for XML: markup escaped; control characters, turns of direction and what XML forbids left out."""
    return escape(_NOT_XML.sub("", CONTROL.sub("", _BREAK.sub(" ", text))))


def text_width(text: str) -> float:
    """About how wide a text is, in units of its size; on the wide side."""
    return sum(map(_advance, text))


def _advance(sign: str) -> float:
    if unicodedata.combining(sign) or sign in _JOINERS:
        return 0.0
    if unicodedata.east_asian_width(sign) in "WF":
        return 1.1
    if sign in _NARROW:
        return 0.38
    if sign in _WIDE:
        return 0.98
    return 0.74 if sign.isupper() else 0.6


def truncate(text: str, width: float) -> str:
    """The text, or as much of its beginning as fits, and an ellipsis."""
    if text_width(text) <= width:
        return text
    return _beginning(text, width - text_width("…")) + "…"


def kwic(before: str, word: str, after: str, width: float) -> tuple[str, str, str]:
    """A sentence cut at its word, shortened at both ends so that it fits."""
    word = truncate(word, 0.6 * width)
    room = width - text_width(word)
    left = min(text_width(before), max(room / 2, room - text_width(after)))
    head = before if text_width(before) <= left else "…" + _end(before, left - text_width("…"))
    return head, word, truncate(after, room - text_width(head))


def hyphenate(word: str, count: int) -> list[str]:
    """The word in `count` lines of about the same length, or in one where it may not be broken."""
    if count < 2 or len(word) < 3 * count or not _may_be_broken(word):
        return [word]
    ends = [round(len(word) * part / count) for part in range(count + 1)]
    pieces = [word[start:end] for start, end in pairwise(ends)]
    return [piece + "-" for piece in pieces[:-1]] + pieces[-1:]


def _may_be_broken(word: str) -> bool:
    """Whether it is made of letters that stand alone."""
    return all(
        sign.isalpha() and unicodedata.name(sign, "").startswith(("LATIN", "GREEK", "CYRILLIC")) for sign in word
    )


def _beginning(text: str, width: float) -> str:
    """As many characters from the beginning as fit, without a part of one that is made of several."""
    used, end = 0.0, 0
    while end < len(text) and (used := used + _advance(text[end])) <= width:
        end += 1
    while 0 < end < len(text) and _is_within(text, end):
        end -= 1
    return text[:end]


def _end(text: str, width: float) -> str:
    """As many characters from the end as fit."""
    used, start = 0.0, len(text)
    while start > 0 and (used := used + _advance(text[start - 1])) <= width:
        start -= 1
    while 0 < start < len(text) and _is_within(text, start):
        start += 1
    return text[start:]


def _is_within(text: str, place: int) -> bool:
    """Whether what stands at a place belongs to what stands before it."""
    return _advance(text[place]) == 0 or text[place - 1] == "\u200d"


def reads_right_to_left(text: str) -> bool:
    """Whether the first letter that has a direction is written from right to left."""
    sides = (unicodedata.bidirectional(sign) for sign in text)
    return next((side != "L" for side in sides if side in ("L", "R", "AL")), False)
