"""The states of the tokens of texts, for studies of texts.

Note: the model reads special tokens (beginning of sequence, padding), but they are not tokens of the text, so they have
no states here, and `position` does not count them, as in an index.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from latentlens_dag.errors import UserError
from latentlens_dag.models.hooks import capture_hidden_states, stop_at_layer
from latentlens_dag.models.layers import check_layers, states_text
from latentlens_dag.models.model_parts import ModelParts
from latentlens_dag.models.text_batches import run_decoder, run_in_batches, select_positions
from latentlens_dag.models.tokenization import TokenizedText, token_texts, tokenize
from latentlens_dag.storage.hashing import text_id
from latentlens_dag.text.html import table_html
from latentlens_dag.text.words import token_words

if TYPE_CHECKING:
    import polars as pl
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase


class TextStates(NamedTuple):
    """The tokens of some texts, at some layers."""

    states: dict[int, Tensor]
    """Per layer: [N, d] float32 on the CPU, rows as in `tokens`."""
    tokens: pl.DataFrame
    """text_index, token_index, position, token_id, token_str, word, char_start, char_end (of the word, in characters).

    Text after text, each from its first token to its last, without special tokens.
    """
    text_ids: Sequence[str] = ()
    """The ids of the texts, by `text_index`; a corpus has the same id for an equal sentence."""

    def __repr__(self) -> str:
        """The sizes, on one line."""
        return f"<TextStates of {states_text(self.states, self.tokens.height, 'token')}>"

    def _repr_html_(self) -> str:
        return table_html(repr(self), self.tokens.columns, self.tokens.head(5).iter_rows(), "the first tokens")

    def sentence_ids(self) -> list[str]:
        """The id of the text of each row."""
        return [self.text_ids[number] for number in self.tokens["text_index"].to_list()]

    def only_layer(self) -> Tensor:
        """The states [N, d] of the only layer.

        Raises:
            UserError: if there are several layers, or none.
        """
        if len(self.states) != 1:
            raise UserError(
                f"These text states are of the layers {list(self.states)}: ask an index with those of one layer, as "
                "from `model.text_states(texts, [8])`."
            )
        return next(iter(self.states.values()))


class _Text(NamedTuple):
    ids: list[int]
    positions: list[int]  # in `ids`, of the tokens that are not special
    first_row: int  # of these tokens, in the table of all texts


def text_states(
    model: ModelParts,
    texts: Sequence[str],
    layers: Sequence[int],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> TextStates:
    """The states of every token of the texts, each read as a whole and by itself, at the given layers.

    Args:
        model: on any device and in any dtype.
        texts: any number; without texts, the tables are empty.
        layers: each below `depth`; without layers, the model is not run.
        progress: called after every forward pass with the tokens read and all tokens.

    Raises:
        UserError: if `texts` is one string, a layer does not exist, a text has more tokens than the model has
            positions, or one text does not fit into the memory of the device.
    """
    import torch

    from latentlens_dag.models.text_checks import padding_invariance

    if isinstance(texts, str | bytes):
        raise UserError(f"`texts` is one text, {texts[:40]!r}: give a list of texts, [text].")
    check_layers(layers, model.depth, model.name, "the call of text_states")
    tokenized = tokenize(model.tokenizer, list(texts))
    for text, tokens in zip(texts, tokenized, strict=True):
        _check_length(model, text, tokens)
    table = _token_table(model.tokenizer, texts, tokenized)
    states = {layer: torch.empty(len(table), model.width) for layer in layers}
    by_length = sorted((text for text in _with_rows(tokenized) if text.positions), key=lambda text: len(text.ids))
    to_read = by_length if layers else []
    padded = len({len(text.ids) for text in to_read}) < 2 or padding_invariance(model).passed
    total, done = sum(len(text.ids) for text in to_read), 0
    with closing(run_in_batches(model, to_read, partial(_read, states), padded)) as batches:
        for batch in batches:
            done += sum(len(text.ids) for text in batch)
            progress(done, total)
    return TextStates(states, table, [text_id(text.strip()) for text in texts])


def _read(states: dict[int, Tensor], model: ModelParts, batch: list[_Text]) -> None:
    """Write the states of a batch into their rows."""
    import torch

    select = select_positions([text.positions for text in batch])
    rows = torch.cat([torch.arange(text.first_row, text.first_row + len(text.positions)) for text in batch])
    with (
        capture_hidden_states(model.decoder, list(states), select) as captured,
        stop_at_layer(model.decoder, max(states)),
    ):
        run_decoder(model, batch)
    for layer, of_texts in states.items():
        of_texts[rows] = captured[layer]


def _with_rows(tokenized: list[TokenizedText]) -> Iterator[_Text]:
    row = 0
    for tokens in tokenized:
        yield _Text(tokens.ids, tokens.text_positions, row)
        row += len(tokens.text_positions)


def _check_length(model: ModelParts, text: str, tokens: TokenizedText) -> None:
    if model.positions is not None and len(tokens.ids) > model.positions:
        raise UserError(
            f"The text {text_id(text)} ({text[:60]!r}...) has {len(tokens.ids):,} tokens, but {model.name} was made "
            f"for at most {model.positions:,}, and texts are never cut. Split it, or remove it from the source."
        )


def token_table(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> pl.DataFrame:
    """`TextStates.tokens` of the texts, without a model."""
    return _token_table(tokenizer, texts, tokenize(tokenizer, list(texts)))


def _token_table(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], tokenized: list[TokenizedText]
) -> pl.DataFrame:
    import polars as pl

    strings = token_texts(tokenizer, {token_id for tokens in tokenized for token_id in tokens.ids})
    pairs = zip(texts, tokenized, strict=True)
    rows = [row for number, (text, tokens) in enumerate(pairs) for row in _rows(number, text, tokens, strings)]
    numbers = ("text_index", "token_index", "position", "token_id", "char_start", "char_end")
    table = pl.DataFrame(rows, schema=_COLUMNS, orient="row", schema_overrides=dict.fromkeys(numbers, pl.Int32))
    return table.with_columns(pl.col("token_str", "word").cast(pl.String))


_COLUMNS = ("text_index", "token_index", "position", "token_id", "token_str", "word", "char_start", "char_end")


def _rows(number: int, text: str, tokens: TokenizedText, strings: dict[int, str]) -> Iterator[tuple[int | str, ...]]:
    positions = tokens.text_positions
    words = token_words(text, tokens.text_spans)
    for index, (position, (word, start, end)) in enumerate(zip(positions, words, strict=True)):
        token_id = tokens.ids[position]
        yield number, index, index, token_id, strings[token_id], word, start, end
