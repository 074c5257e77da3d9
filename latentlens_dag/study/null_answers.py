"""What LatentLens answers to states that mean nothing: the null beside which the layer alignment stands.

A dimension that is large in all states draws every query to the layers where it is largest, whatever the query means.
The null keeps each state's numbers, and so its norm, and shuffles its dimensions, with a permutation of its own: what
it still answers comes from the index, not from the token. In SmolLM2-135M such states answer from the first contextual
layer in about half of the cases.

Tokens are sampled, and permutations drawn, by hashes of image and token: the same ones however batches are cut.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa

from latentlens_dag.index.lance_files import matrix_of, open_table
from latentlens_dag.index.row_samples import mixed, smallest
from latentlens_dag.index.state_tables import TokenStates
from latentlens_dag.storage.hashing import ids_to_integers
from latentlens_dag.study.counted_tokens import TOKEN, counts
from latentlens_dag.study.lenses.base import Lens, LensInputs

if TYPE_CHECKING:
    import polars as pl
    from numpy.typing import NDArray

_TOKENS = 256
"""Of each visual layer. In the demo, with eight layers, they take 0.4 CPU seconds."""
_SEED = 20_260_202


def null_answers(
    lens: Lens, states: Mapping[int, Sequence[Path]], inputs: LensInputs, blank: pl.DataFrame | None = None
) -> Iterator[pa.Table]:
    """The lens's answers to states with shuffled dimensions, of up to 256 tokens of each visual layer.

    Args:
        lens: of the study, so that k and `unique` are those of its answers.
        states: the stored states by visual layer, all batches; of the same tokens at every layer.
        inputs: of the lens.
        blank: tokens that do not count (`counted_tokens.py`).

    Yields:
        NEIGHBORS, a visual layer at a time.
    """
    if not states:
        return
    tokens = _sampled_tokens(next(iter(states.values())), blank)
    queries = {layer: _shuffled(layer, files, tokens) for layer, files in sorted(states.items())}
    if tokens:
        for answers in lens.neighbors(queries, inputs):
            yield answers.table


class _Token(NamedTuple):
    image_id: str
    token_index: int
    file: int
    row: int
    number: int
    """The hash of image and token."""


def _sampled_tokens(files: Sequence[Path], blank: pl.DataFrame | None = None) -> list[_Token]:
    """The tokens with the smallest hashes among those that count, in order of image and token."""
    tables = [open_table(file).to_table(columns=TOKEN) for file in files]
    counted = [np.arange(len(table)) if blank is None else np.flatnonzero(counts(table, blank)) for table in tables]
    tables = [table.take(pa.array(rows)) for table, rows in zip(tables, counted, strict=True)]
    numbers = [_token_numbers(table) for table in tables]
    starts = np.cumsum([0, *map(len, numbers)])
    found = []
    for place in smallest(numbers, _TOKENS).tolist():
        file = int(np.searchsorted(starts, place, side="right")) - 1
        row = place - int(starts[file])
        image_id, token = (tables[file][name][row].as_py() for name in ("image_id", "token_index"))
        found.append(_Token(image_id, token, file, int(counted[file][row]), int(numbers[file][row])))
    return sorted(found)


def _token_numbers(table: pa.Table) -> NDArray[np.uint64]:
    if not len(table):  # then the ids have no type
        return np.empty(0, np.uint64)
    return mixed(ids_to_integers(table["image_id"]) ^ mixed(table["token_index"].to_numpy().astype(np.uint64)))


def _shuffled(layer: int, files: Sequence[Path], tokens: Sequence[_Token]) -> TokenStates:
    """The states of the tokens at a layer, each with its dimensions in an order of its own."""
    rows: dict[int, NDArray[np.float32]] = {}
    for number, file in enumerate(files):
        places = [place for place, token in enumerate(tokens) if token.file == number]
        if places:
            found = open_table(file).take([tokens[place].row for place in places], columns=["state"]).combine_chunks()
            for place, state in zip(places, matrix_of(found["state"].combine_chunks()), strict=True):
                rows[place] = np.random.default_rng([_SEED, layer, tokens[place].number]).permutation(state)
    ids, numbers = [token.image_id for token in tokens], [token.token_index for token in tokens]
    states = np.array([rows[place] for place in range(len(tokens))], np.float32)
    return TokenStates(ids, np.array(numbers, np.int32), states)
