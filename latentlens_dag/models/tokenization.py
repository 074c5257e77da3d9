"""Tokenizing texts, and finding the word of each token."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from latentlens_dag.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


# Letters and digits with inner apostrophes and hyphens. In scripts without spaces between words (Thai, Chinese,
# Japanese) the word of a token is its own text.
_UNSPACED = "\u0e00-\u0eff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[^\W_{_UNSPACED}]+(?:['’-][^\W_{_UNSPACED}]+)*")


class TokenizedText(NamedTuple):
    """The tokens of a text: ids, with the span in the text and whether the token is special.

    A special token that the text spells out ("<eos>", or those of a chat template) is special too.
    """

    ids: list[int]
    spans: list[tuple[int, int]]
    """Start and end of each token, in characters."""
    special: list[bool]

    @property
    def text_positions(self) -> list[int]:
        """The positions in `ids` of the tokens that are not special."""
        return [position for position, special in enumerate(self.special) if not special]


def tokenize(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> list[TokenizedText]:
    """Tokenize texts with special tokens, without padding or truncation.

    Raises:
        UserError: if the tokenizer is not a fast one.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise UserError(
            f"The tokenizer of {tokenizer.name_or_path or 'the language model'} ({type(tokenizer).__name__}) is not a "
            "fast one: it does not give the characters of a token, so its word cannot be found. Use a model folder "
            "with a tokenizer.json, which `AutoTokenizer.from_pretrained(...).save_pretrained(FOLDER)` writes for most "
            "models."
        )
    backend = tokenizer.backend_tokenizer  # called directly, because the wrapper takes longer than the tokenizer itself
    backend.no_truncation()
    backend.no_padding()
    special = _special_ids(tokenizer)  # the library's mask has only those that it adds itself
    encoded = ((encoding.ids, encoding.offsets) for encoding in backend.encode_batch(texts))  # each makes a new list
    return [TokenizedText(ids, spans, [token_id in special for token_id in ids]) for ids, spans in encoded]


def _special_ids(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """All special tokens of a tokenizer: beginning, end, padding, image tokens and those of its chat template."""
    added = tokenizer.added_tokens_decoder.items()
    return {*tokenizer.all_special_ids, *(token_id for token_id, token in added if token.special)}


def word_span(text: str, start: int, end: int) -> tuple[int, int]:
    """The span of the word that contains a token's span; without a word, the token's span."""
    return find_word_span(word_spans(text), text, start, end)


def whole_words(text: str, spans: Iterable[tuple[int, int]]) -> list[tuple[str, int, int]]:
    """The word of each token, as in `word_span`, with its start and end."""
    words = word_spans(text)
    of_tokens = [find_word_span(words, text, *span) for span in spans]
    return [(text[start:end], start, end) for start, end in of_tokens]


def token_texts(tokenizer: PreTrainedTokenizerBase, ids: Iterable[int]) -> dict[int, str]:
    """The text of each token; a part of a character has none, and is written as in the tokenizer's vocabulary."""
    texts = {}
    for token_id in ids:
        text = tokenizer.decode([token_id], clean_up_tokenization_spaces=False)
        texts[token_id] = tokenizer.convert_ids_to_tokens(token_id) if "\ufffd" in text or text == "" else text
    return texts


def word_spans(text: str) -> list[tuple[int, int]]:
    """Start and end of every word of a text."""
    return [word.span() for word in _WORD.finditer(text)]


def find_word_span(words: list[tuple[int, int]], text: str, start: int, end: int) -> tuple[int, int]:
    """`word_span` for the known `words` of the text."""
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    before = bisect_right(words, (start, len(text)))
    if before and start < words[before - 1][1]:
        return words[before - 1][0], max(words[before - 1][1], end)
    return start, end
