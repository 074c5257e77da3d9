"""Text from data, made readable: cut around a word, without control characters.

It is not made safe here: what draws it must treat it as text (`textContent`, `html.escape`).
"""

from __future__ import annotations

import re
from typing import NamedTuple

CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]")


class SentenceParts(NamedTuple):
    """A sentence, cut at its word."""

    before: str
    word: str
    after: str


def split_at(sentence: str, start: int | None, end: int | None) -> SentenceParts:
    """The sentence cut at characters `start` and `end`; a span that does not lie in it marks nothing."""
    if start is None or end is None or not 0 <= start < end <= len(sentence):
        return SentenceParts(sentence, "", "")
    return SentenceParts(sentence[:start], sentence[start:end], sentence[end:])


def excerpt(sentence: str, start: int | None, end: int | None, room: int = 160) -> SentenceParts:
    """The sentence as `split_at` cuts it, as `printable` gives it, and shortened to `room` characters on each side."""
    before, word, after = split_at(sentence, start, end)
    if not word:
        return SentenceParts(clip(sentence, 2 * room), "", "")
    head = "…" + before[-room:] if len(before) > room else before
    tail = after[:room] + "…" if len(after) > room else after
    return SentenceParts(printable(head), clip(word, room), printable(tail))


def printable(text: str) -> str:
    """The text with a sign in place of each character that would steer the reader's screen.

    Control characters have pictures of their own; marks that turn the direction of writing become U+FFFD.
    """
    return CONTROL.sub(lambda found: chr(0x2400 + ord(found[0])) if ord(found[0]) < 0x20 else "\ufffd", text)


def clip(text: str | None, most: int) -> str:
    """The text as `printable` gives it, with an ellipsis where it has more than `most` characters."""
    shown = text or ""
    return printable(shown if len(shown) <= most else shown[: most - 1] + "…")


def bracket_word(sentence: str | None, start: int | None, end: int | None, width: int | None = None) -> str:
    """The sentence with its word in brackets, or the sentence where it is not known which word; cut to `width`."""
    if sentence is None:
        return "(the corpus has it no more)"
    if start is None or end is None:
        return sentence if width is None or len(sentence) <= width else sentence[: width - 1] + "…"
    before, word, after = sentence[:start], sentence[start:end], sentence[end:]
    if width is not None and len(sentence) > width:
        room = max(0, width - len(word)) // 2
        before = before if len(before) <= room else "…" + before[len(before) - room :]
        after = after if len(after) <= room else after[:room] + "…"
    return f"{before}[{word}]{after}"
