"""Texts as a study reads them: the states of every token of a text, as images have those of their visual tokens.

What a newcomer gets wrong: special tokens (a beginning of the sequence, padding) are read by the model but are no
tokens of the text, so they have no state here, and `position` counts without them, as in an index.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from latentlens_dag.errors import UserError
from latentlens_dag.models.hooks import capture_hidden_states, stop_at_layer
from latentlens_dag.models.layers import check_layers
from latentlens_dag.models.model_parts import ModelParts
from latentlens_dag.models.text_batches import run_decoder, run_in_batches, select_positions
from latentlens_dag.models.tokenization import TokenizedText, token_texts, tokenize, whole_words
from latentlens_dag.storage.hashing import text_id

if TYPE_CHECKING:
    import polars as pl
    from torch import Tensor


class TextStates(NamedTuple):
    """The tokens of some texts, at some layers."""

    states: dict[int, Tensor]
    """Per layer: [N, d] float32 on the CPU, rows as in `tokens`."""
    tokens: pl.DataFrame
    """text_index, token_index, position, token_id, token_str, word, char_start, char_end (of the word, in characters).

    Text after text, each from its first token to its last; specials are left out.
    """
    text_ids: Sequence[str] = ()
    """Of the texts, by `text_index`; the same as a corpus has for an equal sentence."""

    def sentence_ids(self) -> list[str]:
        """The id of the text of each row."""
        return [self.text_ids[number] for number in self.tokens["text_index"].to_list()]

    def only_layer(self) -> Tensor:
        """The states [N, d] where there are those of one layer.

        Raises:
            UserError: where there are several, or none.
        """
        if len(self.states) != 1:
            raise UserError(
                f"These text states are of the layers {list(self.states)}: ask an index with those of one, as "
                "`model.text_states(texts, [8])` gives them."
            )
        return next(iter(self.states.values()))


class _Text(NamedTuple):
    ids: list[int]
    places: list[int]  # of the real tokens in `ids`
    first_row: int  # of its tokens, among those of all texts


def text_states(model: ModelParts, texts: Sequence[str], layers: Sequence[int]) -> TextStates:
    """The states of every token of the texts, each read whole and alone, at the given layers.

    Args:
        model: on any device and in any dtype.
        texts: none give empty tables.
        layers: each below `depth`; with none the model is not run.

    Raises:
        UserError: where `texts` is one text, a layer does not exist, a text has more tokens than the model has
            positions, or the device's memory does not hold one text.
    """
    import torch

    from latentlens_dag.models.text_checks import padding_invariance

    if isinstance(texts, str | bytes):
        raise UserError(f"`texts` is one text, {texts[:40]!r}: give a list of texts, [text].")
    check_layers(layers, model.depth, model.name, "the call of text_states")
    found = tokenize(model.tokenizer, list(texts))
    for text, tokens in zip(texts, found, strict=True):
        _check_length(model, text, tokens)
    table = _token_table(model, texts, found)
    states = {layer: torch.empty(len(table), model.width) for layer in layers}
    wanted = sorted((text for text in _with_rows(found) if text.places), key=lambda text: len(text.ids))
    wanted = wanted if layers else []
    padded = len({len(text.ids) for text in wanted}) < 2 or padding_invariance(model).passed
    for _ in run_in_batches(model, wanted, lambda batch: _read(model, batch, states), padded):
        pass
    return TextStates(states, table, [text_id(text.strip()) for text in texts])


def _read(model: ModelParts, batch: list[_Text], states: dict[int, Tensor]) -> None:
    """Put a batch's states into their rows."""
    import torch

    keep = select_positions(batch, [text.places for text in batch])
    rows = torch.cat([torch.arange(text.first_row, text.first_row + len(text.places)) for text in batch])
    with capture_hidden_states(model.decoder, list(states), keep) as found, stop_at_layer(model.decoder, max(states)):
        run_decoder(model, batch)
    for layer, kept in found.items():
        states[layer][rows] = kept


def _with_rows(found: list[TokenizedText]) -> Iterator[_Text]:
    row = 0
    for tokens in found:
        places = [place for place, special in enumerate(tokens.special) if not special]
        yield _Text(tokens.ids, places, row)
        row += len(places)


def _check_length(model: ModelParts, text: str, tokens: TokenizedText) -> None:
    if model.positions is not None and len(tokens.ids) > model.positions:
        raise UserError(
            f"The text {text_id(text)} ({text[:60]!r}...) has {len(tokens.ids):,} tokens, but {model.name} was made "
            f"for at most {model.positions:,}, and texts are never cut. Divide it into shorter ones, or leave it "
            "out of the source."
        )


def _token_table(model: ModelParts, texts: Sequence[str], found: list[TokenizedText]) -> pl.DataFrame:
    import polars as pl

    names = token_texts(model.tokenizer, {token_id for tokens in found for token_id in tokens.ids})
    pairs = zip(texts, found, strict=True)
    rows = [row for number, (text, tokens) in enumerate(pairs) for row in _rows(number, text, tokens, names)]
    numbers = ("text_index", "token_index", "position", "token_id", "char_start", "char_end")
    table = pl.DataFrame(rows, schema=_COLUMNS, orient="row", schema_overrides=dict.fromkeys(numbers, pl.Int32))
    return table.with_columns(pl.col("token_str", "word").cast(pl.String))


_COLUMNS = ("text_index", "token_index", "position", "token_id", "token_str", "word", "char_start", "char_end")


def _rows(number: int, text: str, tokens: TokenizedText, names: dict[int, str]) -> Iterator[tuple[int | str, ...]]:
    real = [place for place, special in enumerate(tokens.special) if not special]
    words = whole_words(text, [tokens.spans[place] for place in real])
    for token, (place, (word, start, end)) in enumerate(zip(real, words, strict=True)):
        token_id = tokens.ids[place]
        yield number, token, token, token_id, names[token_id], word, start, end
