"""Text of data for display: excerpts around a word, without control characters.

Note: nothing is escaped here; what draws it must treat it as text (`textContent`, `html.escape`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]")


class SentenceParts(NamedTuple):
    """A sentence split at its word."""

    before: str
    word: str
    after: str


def split_at(sentence: str, start: int | None, end: int | None) -> SentenceParts:
    """The sentence split at characters `start` and `end`; with a span outside of it, all is `before`."""
    if start is None or end is None or not 0 <= start < end <= len(sentence):
        return SentenceParts(sentence, "", "")
    return SentenceParts(sentence[:start], sentence[start:end], sentence[end:])


def excerpt(sentence: str, start: int | None, end: int | None, room: int = 160) -> SentenceParts:
    """The sentence split at its word, printable, with at most `room` characters on each side."""
    before, word, after = split_at(sentence, start, end)
    if not word:
        return SentenceParts(clip(sentence, 2 * room), "", "")
    head = "…" + last_characters(before, room) if len(before) > room else before
    tail = first_characters(after, room) + "…" if len(after) > room else after
    return SentenceParts(printable(head), clip(word, room), printable(tail))


def printable(text: str) -> str:
    """The text with a visible sign in place of every control character.

    C0 controls become their control pictures; others, and marks of writing direction, become U+FFFD.
    """
    return CONTROL.sub(lambda found: chr(0x2400 + ord(found[0])) if ord(found[0]) < 0x20 else "\ufffd", text)


def clip(text: str | None, length: int) -> str:
    """The printable text, cut to `length` characters with an ellipsis; null is empty."""
    return printable(_ellipsize(text or "", length))


def name_list(names: Sequence[str], most: int = 30, length: int = 40) -> str:
    """Names of data for a message, with commas: at most so many, each of at most so many characters."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return (", ".join(clip(name, length) for name in names[:most]) or "none") + more


def _ellipsize(text: str, length: int) -> str:
    return text if len(text) <= length else first_characters(text, length - 1) + "…"


def first_characters(text: str, length: int) -> str:
    """The beginning of a text, at most `length` long; no letter loses its marks."""
    if text.isascii():
        return text[:length]
    from latentlens_dag.text.words import fitting_characters, whole_characters  # not when the command line starts

    return "".join(fitting_characters(whole_characters(text), length))


def last_characters(text: str, length: int) -> str:
    """The end of a text, at most `length` long; no letter loses its marks."""
    if text.isascii():
        return text[max(0, len(text) - length) :]
    from latentlens_dag.text.words import fitting_characters, whole_characters

    return "".join(reversed([*fitting_characters(reversed(whole_characters(text)), length)]))


def bracket_word(sentence: str | None, start: int | None, end: int | None, width: int | None = None) -> str:
    """The sentence with its word in brackets, cut to about `width` characters; without a span, no brackets."""
    if sentence is None:
        return "(the corpus has it no more)"
    before, word, after = split_at(sentence, start, end)
    if not word:
        return sentence if width is None else _ellipsize(sentence, width)
    if width is not None and len(sentence) > width:
        room = max(0, width - len(word)) // 2
        before = before if len(before) <= room else "…" + last_characters(before, room)
        after = after if len(after) <= room else first_characters(after, room) + "…"
    return f"{before}[{word}]{after}"
