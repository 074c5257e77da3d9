"""Tokenizing texts, and the texts of tokens."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from latentlens_dag.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class TokenizedText(NamedTuple):
    """The tokens of a text: ids, with the span in the text and whether the token is special.

    A special token that the text spells out ("<eos>", or those of a chat template) is special too.
    """

    ids: list[int]
    spans: list[tuple[int, int]]
    """Start and end of each token, in characters."""
    special: list[bool]

    @property
    def text_spans(self) -> list[tuple[int, int]]:
        """The spans of the tokens that are not special."""
        return [span for span, special in zip(self.spans, self.special, strict=True) if not special]

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


def token_texts(tokenizer: PreTrainedTokenizerBase, ids: Iterable[int]) -> dict[int, str]:
    """The text of each token; a part of a character has none, and is written as in the tokenizer's vocabulary."""
    texts = {}
    for token_id in ids:
        text = tokenizer.decode([token_id], clean_up_tokenization_spaces=False)
        texts[token_id] = tokenizer.convert_ids_to_tokens(token_id) if "\ufffd" in text or text == "" else text
    return texts
