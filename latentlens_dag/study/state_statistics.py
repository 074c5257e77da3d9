"""Norms and drift of the states, layer by layer.

`norm_*` are norms of the residual stream, for visual tokens and for the index's text tokens. *Drift* is the cosine of a
token's state with its own state at the previous layer, and at the first layer: near 1, a layer changes little.

Note: a few tokens with norms a hundred times as large as others (attention sinks) often dominate the mean, so quantiles
are given too. Only norms are held for all tokens; states are read in blocks of rows, from all layers in step.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa

from latentlens_dag.index.lance_files import count_rows, matrix_of, open_table
from latentlens_dag.schema import SINKS, STATE_STATISTICS
from latentlens_dag.search.sinks import sink_norm

if TYPE_CHECKING:
    from numpy.typing import NDArray

VISUAL, CONNECTOR, CONTEXTUAL = "visual", "connector", "contextual"
_QUANTILES = (0.05, 0.5, 0.95)
_ROWS = 2048


class StateFiles(NamedTuple):
    """The states of one batch of visual tokens: Lance datasets with the same tokens in the same order."""

    visual: Mapping[int, Path]
    """By visual layer."""
    connector: Path | None
    """The connector's output, if stored."""


def state_statistics(study: str, batches: Iterable[StateFiles], contextual: Mapping[int, Path]) -> pa.Table:
    """Norms and drift of a study's states.

    Args:
        study: its name.
        batches: all of its visual tokens.
        contextual: the index's layer tables, by contextual layer.

    Returns:
        STATE_STATISTICS: visual layers in order, the connector, contextual layers in order.

    Raises:
        ValueError: if the layers of a batch do not have the same tokens.
    """
    visual: dict[int, _Sums] = {}
    connector = _Sums()
    for batch in batches:
        _check_same_tokens(batch)
        for start in range(0, count_rows(next(iter(batch.visual.values()))), _ROWS):
            _add_block(batch, range(start, start + _ROWS), visual, connector)
    rows = [_row(study, VISUAL, layer, sums) for layer, sums in sorted(visual.items())]
    rows += [_row(study, CONNECTOR, None, connector)] if connector.norms else []
    rows += [_row(study, CONTEXTUAL, layer, _Sums([_norms(table)])) for layer, table in sorted(contextual.items())]
    return pa.Table.from_pylist([row for row in rows if row["states"]], schema=STATE_STATISTICS)


def sink_tokens(study: str, visual: Mapping[int, Sequence[Path]]) -> pa.Table:
    """The visual tokens of a study that are attention sinks (`search/sinks.py`).

    Args:
        study: its name.
        visual: its stored states by visual layer, all batches. The norms of one layer are in memory at a time.

    Returns:
        SINKS, in order of image, layer and token. The threshold of a layer is that of all tokens of the study.
    """
    found = [_layer_sinks(study, layer, files) for layer, files in sorted(visual.items())]
    order = [(name, "ascending") for name in ("image_id", "visual_layer", "token_index")]
    return pa.concat_tables([SINKS.empty_table(), *found]).sort_by(order)


def _layer_sinks(study: str, layer: int, files: Sequence[Path]) -> pa.Table:
    norms = np.concatenate([np.empty(0, np.float32), *map(_norms, files)])
    limit = np.float32(sink_norm(norms, lambda least: _states_above(files, least)))
    if np.isinf(limit):
        return SINKS.empty_table()
    columns = ["image_id", "token_index", "norm"]
    parts = [open_table(file).to_table(columns=columns, filter=f"norm > {float(limit)!r}") for file in files]
    rows = pa.concat_tables(parts, promote_options="permissive")  # a batch without images has ids of no type
    same = {"study": study, "visual_layer": layer, "sink_norm": limit}
    values = {name: pa.repeat(pa.scalar(value), len(rows)) for name, value in same.items()}
    found = [values[name] if name in values else rows[name] for name in SINKS.names]
    return pa.table(found, SINKS.names).cast(SINKS)


def _states_above(files: Sequence[Path], norm: float) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Norms and states with a norm above the given one, in blocks."""
    for file in files:
        scanner = open_table(file).scanner(["state", "norm"], filter=f"norm > {norm!r}", batch_size=_ROWS)
        for batch in scanner.to_batches():
            if len(batch):
                yield batch["norm"].to_numpy(), matrix_of(batch["state"])


@dataclass
class _Sums:
    """Norms and sums of cosines of one layer."""

    norms: list[NDArray[np.float32]] = field(default_factory=list)
    to_previous: list[float] = field(default_factory=list)
    """One sum per block of tokens."""
    to_first: list[float] = field(default_factory=list)


class _StateBlock(NamedTuple):
    states: NDArray[np.float64]
    norms: NDArray[np.float32]


def _add_block(batch: StateFiles, rows: range, visual: dict[int, _Sums], connector: _Sums) -> None:
    """Add a block of tokens at every layer; three layers of it are in memory."""
    first: _StateBlock | None = None
    previous: _StateBlock | None = None
    for layer, table in sorted(batch.visual.items()):
        part, sums = _read(table, rows), visual.setdefault(layer, _Sums())
        first = first or part
        sums.norms.append(part.norms)
        sums.to_first.append(_sum_cosines(part, first))
        if previous is not None:
            sums.to_previous.append(_sum_cosines(part, previous))
        previous = part
    if batch.connector is not None and first is not None:
        part = _read(batch.connector, rows)
        connector.norms.append(part.norms)
        connector.to_first.append(_sum_cosines(part, first))


def _read(table: Path, rows: range) -> _StateBlock:
    dataset = open_table(table)
    numbers = list(range(rows.start, min(rows.stop, dataset.count_rows())))
    block = dataset.take(numbers, columns=["state", "norm"]).combine_chunks()
    states = matrix_of(block["state"].combine_chunks()).astype(np.float64)
    return _StateBlock(states, block["norm"].to_numpy())


def _sum_cosines(a: _StateBlock, b: _StateBlock) -> float:
    """The sum of the cosines of each token's two states; no stored state has norm 0."""
    products = np.einsum("nd,nd->n", a.states, b.states)
    norms = np.linalg.norm(a.states, axis=1) * np.linalg.norm(b.states, axis=1)
    return float((products / norms).sum())


def _row(study: str, source: str, layer: int | None, sums: _Sums) -> dict[str, object]:
    norms = np.concatenate(sums.norms).astype(np.float64)
    low, median, high = np.quantile(norms, _QUANTILES) if len(norms) else (None, None, None)
    return {
        "study": study,
        "source": source,
        "layer": layer,
        "states": len(norms),
        "norm_mean": norms.mean() if len(norms) else None,
        "norm_low": low,
        "norm_median": median,
        "norm_high": high,
        "cosine_to_previous": sum(sums.to_previous) / len(norms) if sums.to_previous else None,
        "cosine_to_first": sum(sums.to_first) / len(norms) if sums.to_first else None,
    }


def _check_same_tokens(batch: StateFiles) -> None:
    tables = [*batch.visual.values(), *([] if batch.connector is None else [batch.connector])]
    tokens = [open_table(table).to_table(columns=["image_id", "token_index"]).combine_chunks() for table in tables]
    for table, found in zip(tables, tokens, strict=True):
        if not found.equals(tokens[0]):
            raise ValueError(
                f"{table} is not of the tokens that {tables[0]} is of: were files changed by hand? Build the states "
                "again with `latentlens-dag build --force --select visual`."
            )


def _norms(table: Path) -> NDArray[np.float32]:
    norms: NDArray[np.float32] = open_table(table).to_table(columns=["norm"])["norm"].to_numpy()
    return norms
