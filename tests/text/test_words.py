from __future__ import annotations

import unicodedata
from itertools import pairwise

import pytest
import regex
from hypothesis import example, given, settings
from hypothesis import strategies as st

from latentlens_dag.models.tokenization import tokenize
from latentlens_dag.testing.models import tiny_tokenizer
from latentlens_dag.text import words
from latentlens_dag.text.words import fold_word, token_words, word_span, word_spans

WHOLE = {
    "Hindi": "\u0939\u093f\u0928\u094d\u0926\u0940",
    "decomposed Latin": "cafe\u0301s",
    "decomposed Vietnamese": unicodedata.normalize("NFD", "Vi\u1ec7t"),
    "Hebrew with points": "\u05e9\u05b8\u05c1\u05dc\u05d5\u05b9\u05dd",
    "a Hebrew acronym": "\u05e6\u05d4\u05f4\u05dc",
    "Arabic with vowels": "\u0645\u064f\u062d\u064e\u0645\u064e\u0651\u062f",
    "Persian with a ZWNJ": "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
    "Tamil": "\u0ba4\u0bae\u0bbf\u0bb4\u0bcd",
    "Sinhala with a ZWJ": "\u0dc1\u0dca\u200d\u0dbb\u0dd3",
    "Korean": "\ud55c\uad6d\uc5b4",
    "Korean in jamo": unicodedata.normalize("NFD", "\ud55c\uad6d\uc5b4"),
    "an apostrophe": "dog\u2019s",
    "a hyphen": "well\u2010known",
    "a soft hyphen": "co\u00adoperate",
    "a family": "\U0001f469\u200d\U0001f469\u200d\U0001f467",
    "a flag": "\U0001f1eb\U0001f1ee",
    "a skin tone": "\U0001f44d\U0001f3fd",
}
UNSPACED = {
    "Japanese": "\u6771\u4eac\u30bf\u30ef\u30fc\u306f\u9ad8\u3044",
    "Thai": "\u0e20\u0e32\u0e29\u0e32\u0e44\u0e17\u0e22\u0e17\u0e35\u0e48\u0e19\u0e35\u0e48",
    "Lao": "\u0e9e\u0eb2\u0eaa\u0eb2\u0ea5\u0eb2\u0ea7",
    "Khmer": "\u1797\u17b6\u179f\u17b6\u1781\u17d2\u1798\u17c2\u179a",
    "Myanmar": "\u1019\u103c\u1014\u103a\u1019\u102c\u1018\u102c\u101e\u102c",
    "Chinese beyond the first plane": "\U00020bb7\u91ce\u5bb6",
}
TOKENIZER = tiny_tokenizer()  # byte-level: it spells every character


@pytest.mark.parametrize(
    ("text", "token", "word"),
    [
        ("that hat is a hat", (12, 13), "a"),  # not the "a" of "that"
        ("a well-known dog's tail", (2, 6), "well-known"),
        ("a well-known dog's tail", (16, 18), "dog's"),
        ("wait, what", (4, 5), ","),
        (" spaced out", (0, 7), "spaced"),
        ("naïve café", (6, 9), "café"),
        ("他看见狗了", (3, 4), "狗"),
        ("end.", (3, 4), "."),
        ("end. Go", (0, 4), "end"),  # a token that is more than its word
        ("go on ", (2, 6), "on"),
        ("a dog’s tail", (2, 5), "dog’s"),
    ],
)
def test_whole_words_are_found_from_character_spans(text: str, token: tuple[int, int], word: str) -> None:
    start, end = word_span(text, *token)
    assert text[start:end] == word


@pytest.mark.parametrize("kind", WHOLE)
def test_every_part_of_a_word_has_the_whole_word(kind: str) -> None:
    word, text = WHOLE[kind], f"x {WHOLE[kind]}, y"
    assert {word_span(text, at, at + 1) for at in range(2, 2 + len(word))} == {(2, 2 + len(word))}


@pytest.mark.parametrize("kind", WHOLE)
def test_tokens_that_are_bytes_of_a_word_have_the_whole_word(kind: str) -> None:
    (tokens,) = tokenize(TOKENIZER, [WHOLE[kind]])
    assert len(tokens.text_spans) > 1
    assert {word for word, _, _ in token_words(WHOLE[kind], tokens.text_spans)} == {WHOLE[kind]}


@pytest.mark.parametrize("language", UNSPACED)
def test_without_spaces_the_word_is_the_token_in_whole_characters(language: str) -> None:
    text = UNSPACED[language]
    characters = regex.findall(r"\X", text)
    assert word_spans(text) == []
    (tokens,) = tokenize(TOKENIZER, [text])  # a token is a byte
    words = list(dict.fromkeys(token_words(text, tokens.text_spans)))
    assert [word for word, _, _ in words] == characters
    two = len(characters[0] + characters[1])
    assert word_span(text, 0, two) == (0, two)


def test_a_character_that_two_tokens_share_makes_them_one_word() -> None:
    assert token_words("\u65e5\u672c\u8a9e", [(0, 2), (1, 3)]) == [("\u65e5\u672c\u8a9e", 0, 3)] * 2


def test_a_token_that_reaches_into_a_word_has_it_without_its_own_punctuation() -> None:
    assert token_words("(doggy)", [(0, 3), (3, 6), (6, 7)]) == [("doggy", 1, 6), ("doggy", 1, 6), (")", 6, 7)]
    assert token_words("(dog, 、日。", [(0, 5), (5, 9)]) == [("dog", 1, 4), ("日", 7, 8)]
    assert token_words("¿́no", [(0, 3), (3, 4)]) == [("no", 2, 4)] * 2
    assert token_words("New York", [(0, 6), (6, 8)]) == [("New York", 0, 8)] * 2


def test_a_zero_width_space_and_an_underscore_end_a_word() -> None:
    assert [("a\u200bb_c d")[start:end] for start, end in word_spans("a\u200bb_c d")] == ["a", "b", "c", "d"]


alphabet = [*"ab1 '-_.(\n", *"\u0301\u0939\u093f\u094d\u05e9\u05b8\u0645\u064f\u0ba4\u0bcd\u200c\u200d"]
alphabet += ["\u0e17", "\u0e35", "\u65e5", "\u30fc", "\U0001f469", "\ufe0f", "\u0600", "\u1100", "\u1161", "\u00a0"]
texts = st.text(st.sampled_from(alphabet), max_size=24) | st.text(max_size=12)


@st.composite
def texts_and_tokens(draw: st.DrawFn) -> tuple[str, list[tuple[int, int]]]:
    """A text and tokens of it in order, which may share characters, as those of byte-level tokenizers do."""
    text, spans, at = draw(texts), [], 0
    while at < len(text):
        end = min(len(text), at + draw(st.integers(1, 5)))
        spans.append((max(0, at - draw(st.integers(0, 1))), end))
        at = end
    return text, spans


@settings(max_examples=500, deadline=None)
@given(texts_and_tokens())
@example(("\u0600" + "12", [(0, 1), (1, 2), (2, 3)]))
@example(("111_\u06001", [(0, 3), (3, 5), (5, 6)]))
@example((":\U00018d80", [(0, 2)]))
def test_the_words_of_tokens_hold_their_letters_and_never_overlap(case: tuple[str, list[tuple[int, int]]]) -> None:
    text, spans = case
    found = token_words(text, spans)
    inner = word_spans(text)
    for (start, end), (word, word_start, word_end) in zip(spans, found, strict=True):
        assert word == text[word_start:word_end]
        token = text[start:end]
        if token.strip():
            touched = [(a, b) for a, b in inner if a < end and start < b]
            letters = [place for place in range(start, end) if text[place].isalnum()]
            assert all(word_start <= place < word_end for place in letters)
            # Not `isalnum`: Python's tables may lack letters that those of `regex` have, as U+18D80.
            assert regex.search(r"[\p{L}\p{N}]", word) or word_start <= start + len(token) - len(token.lstrip())
            assert all(word_start <= a and b <= word_end for a, b in touched)
        else:
            assert word == ""
    placed = sorted({(start, end) for _, start, end in found if start < end})
    assert all(before[1] <= after[0] for before, after in pairwise(placed))


@settings(max_examples=500, deadline=None)
@given(texts_and_tokens())
@example(("co\u00adoperate e\u0301\u00ad.", [(0, 10), (10, 15)]))
def test_a_token_that_is_a_whole_word_needs_no_search_for_the_words_around_it(
    case: tuple[str, list[tuple[int, int]]],
) -> None:
    text, spans = case
    inner = word_spans(text)
    assert all(words._around(text, span, inner) == span for span in inner)
    found = token_words(text, [*spans, *inner])
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(words, "set", lambda _: (), raising=False)
        assert token_words(text, [*spans, *inner]) == found


@settings(max_examples=200, deadline=None)
@given(st.text(st.sampled_from(alphabet), max_size=24))
def test_real_tokens_of_any_text_hold_their_letters_and_never_overlap(text: str) -> None:
    (tokens,) = tokenize(TOKENIZER, [text])
    placed = sorted({(start, end) for _, start, end in token_words(text, tokens.text_spans) if start < end})
    assert all(before[1] <= after[0] for before, after in pairwise(placed))
    covered = {place for start, end in placed for place in range(start, end)}
    assert {place for place, character in enumerate(text) if character.isalnum()} <= covered


@given(texts)
def test_words_are_the_same_however_their_marks_are_stored(word: str) -> None:
    assert fold_word(unicodedata.normalize("NFD", word)) == fold_word(unicodedata.normalize("NFC", word))


def test_words_are_compared_in_composed_form_and_lower_case() -> None:
    assert fold_word(" CAFE\u0301 ") == fold_word("caf\u00e9") == "caf\u00e9"
    assert fold_word(None) == ""
