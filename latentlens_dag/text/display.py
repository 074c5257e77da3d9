"""Text from data, made readable: cut around a word, without control characters.

It is not made safe here: what draws it must treat it as text (`textContent`, `html.escape`).
"""

from __future__ import annotations

import re
from typing import NamedTuple

CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]")


class Marked(NamedTuple):
    """A sentence, cut at its word."""

    before: str
    word: str
    after: str


def cut(sentence: str, start: int | None, end: int | None) -> Marked:
    """The sentence cut at characters `start` and `end`; a span that does not lie in it marks nothing."""
    if start is None or end is None or not 0 <= start < end <= len(sentence):
        return Marked(sentence, "", "")
    return Marked(sentence[:start], sentence[start:end], sentence[end:])


def marked(sentence: str, start: int | None, end: int | None, around: int = 160) -> Marked:
    """The sentence as `cut` cuts it, as `visible` gives it, and shortened to `around` characters on each side."""
    before, word, after = cut(sentence, start, end)
    if not word:
        return Marked(clipped(sentence, 2 * around), "", "")
    head = "…" + before[-around:] if len(before) > around else before
    tail = after[:around] + "…" if len(after) > around else after
    return Marked(visible(head), clipped(word, around), visible(tail))


def visible(text: str) -> str:
    """The text with a sign in place of each character that would steer the reader's screen.

    Control characters have pictures of their own; marks that turn the direction of writing become U+FFFD.
    """
    return CONTROL.sub(lambda found: chr(0x2400 + ord(found[0])) if ord(found[0]) < 0x20 else "\ufffd", text)


def clipped(text: str | None, most: int) -> str:
    """The text as `visible` gives it, with an ellipsis where it has more than `most` characters."""
    shown = text or ""
    return visible(shown if len(shown) <= most else shown[: most - 1] + "…")


def bracketed(sentence: str | None, start: int | None, end: int | None, width: int | None = None) -> str:
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
