"""Words in every script: where they are in a text, the word of each token, and which are the same word.

- A word is letters and digits of scripts that are written with spaces, with their combining marks, joiners (ZWJ, ZWNJ)
  and soft hyphens, and with apostrophes, hyphens and the like between letters: `हिन्दी`, `dog's`, `well-known`, `צה״ל`.
- Scripts without spaces between words (Chinese, Japanese, Thai, Lao, Khmer, Burmese, Tai) have no words that can be
  seen, and we guess none: there the word of a token is its own text. So it is for punctuation and emoji.
- What a reader takes for one character (a grapheme cluster: a letter with its marks, a family emoji) is never split.

Words are compared in Unicode's composed form (NFC) and in lower case, so that "é" is one letter however it is stored.
What is stored is never changed: it is as the sentence has it.

Note: the properties of characters are those of the Unicode version of the package `regex`. `re` knows no properties,
and its `\\w` has no combining marks.
"""

from __future__ import annotations

import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise, takewhile

import regex

Span = tuple[int, int]
"""Start and end, in characters."""

_UNSPACED = (
    r"\p{scx=Hani}\p{scx=Hira}\p{scx=Kana}\p{scx=Thai}\p{scx=Laoo}"
    r"\p{scx=Khmr}\p{scx=Mymr}\p{scx=Tale}\p{scx=Talu}\p{scx=Lana}"
)
_LETTER = rf"[\p{{L}}\p{{N}}--[{_UNSPACED}]]"
_REST = rf"[{_LETTER}\p{{WB=Extend}}\p{{WB=Format}}\p{{WB=ZWJ}}]*"  # what Unicode's rules for words never cut off
_INNER = "['’·\\-\u2010\u2011\u058a\u05be\u05f3\u05f4]"  # then: hyphens, the Armenian and the Hebrew one, gereshes
_WORD = regex.compile(rf"(?V1){_LETTER}{_REST}(?:{_INNER}{_LETTER}{_REST})*")
_CHARACTER = regex.compile(r"\X")
_PUNCTUATION = regex.compile(r"[\p{P}\p{S}\p{M}\p{C}\s]+")  # with the marks and joiners of one character


def word_spans(text: str) -> list[Span]:
    """The words of a text, without those that only a token makes."""
    return [word.span() for word in _WORD.finditer(text)]


def word_span(text: str, start: int, end: int) -> Span:
    """The word of one token, as `token_words` finds it where no other token reaches into it."""
    ((_, *span),) = token_words(text, [(start, end)])
    return span[0], span[1]


def token_words(text: str, spans: Iterable[Span]) -> list[tuple[str, int, int]]:
    """The word of each token, with its start and end.

    It holds all words and characters of which the token has a part, without spaces and punctuation around them: `(dog`
    has the word `dog`. Only a token without a letter has its punctuation. Words never overlap: of two that would, as
    where a byte-level tokenizer splits a character, both tokens have the union.

    Args:
        text: any.
        spans: of all tokens of the text. A token of spaces only has an empty word.
    """
    words = word_spans(text)
    characters = [] if text.isascii() else [character.span() for character in _CHARACTER.finditer(text)]
    tokens = [_widened(_stripped(text, span), characters) for span in spans]
    whole = set(words)  # most tokens are one; the rest of the steps would give it again
    found = [token if token in whole else _around(text, token, words) for token in tokens]
    return [(text[start:end], start, end) for start, end in _without_overlap(found)]


def whole_characters(text: str) -> list[str]:
    """What a reader takes for the characters of a text (grapheme clusters); they may be joined again."""
    return list(text) if text.isascii() else _CHARACTER.findall(text)


def fitting_characters(characters: Iterable[str], room: float, size: Callable[[str], float] = len) -> Iterator[str]:
    """The first characters, as long as they fit together into the room, measured by `size`."""
    used = 0.0
    for character in characters:
        used += size(character)
        if used > room:
            return
        yield character


def fold_word(word: str | None) -> str:
    """What is equal for texts that are the same word: composed (NFC), in lower case, without spaces around it.

    In SQL: `lower(nfc_normalize(word))`.
    """
    return unicodedata.normalize("NFC", word or "").strip().lower()


def _around(text: str, token: Span, words: list[Span]) -> Span:
    """The words of which a token has a part, without punctuation around them; only punctuation where it has no other.

    A word may end in what is punctuation elsewhere, such as a soft hyphen: so its own ends come last.
    """
    return _widened(_trimmed(text, _widened(token, words)), words)


def _stripped(text: str, span: Span) -> Span:
    start, end = span
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    return start, end


def _trimmed(text: str, span: Span) -> Span:
    """The span without characters of punctuation at its ends, unless it has no others."""
    start, end = span
    if start == end or (text[start].isalnum() and text[end - 1].isalnum()) or _PUNCTUATION.fullmatch(text, start, end):
        return span
    characters = whole_characters(text[start:end])
    before = list(takewhile(_PUNCTUATION.fullmatch, characters))
    behind = list(takewhile(_PUNCTUATION.fullmatch, reversed(characters)))
    return start + len("".join(before)), end - len("".join(behind))


def _widened(span: Span, wholes: list[Span]) -> Span:
    """The span with all of the `wholes`, ascending and apart, of which it has a part."""
    start, end = span
    if start == end:
        return span
    first = bisect_right(wholes, start, key=_end)  # the first that ends behind the start
    behind = bisect_left(wholes, end, key=_start)  # the first that starts at the end or behind it
    return (min(start, wholes[first][0]), max(end, wholes[behind - 1][1])) if first < behind else span


def _start(span: Span) -> int:
    return span[0]


def _end(span: Span) -> int:
    return span[1]


def _without_overlap(spans: list[Span]) -> list[Span]:
    """Each span, or the union of those with which it overlaps, directly or through others."""
    different = sorted({span for span in spans if span[0] < span[1]})
    if all(before[1] <= after[0] for before, after in pairwise(different)):
        return spans
    unions: list[Span] = []
    for start, end in different:
        if unions and start < unions[-1][1]:
            unions[-1] = (unions[-1][0], max(unions[-1][1], end))
        else:
            unions.append((start, end))
    return [_widened(span, unions) for span in spans]
