"""Norms, directions and drift of the states, layer by layer.

`norm_*` are norms of the residual stream, for visual tokens and for the index's text tokens. *Drift* is the cosine of a
token's state with its own state at the previous layer, and at the first layer: near 1, a layer changes little.
`study/directions.py` and `study/hubs.py` define the figures of directions and hubs, which are without attention sinks.

Note: a few tokens with norms a hundred times as large as others (attention sinks) often dominate the mean, so quantiles
are given too. Only norms are held for all tokens; states are read in blocks of rows, from all layers in step. Of a
contextual layer all norms are read, and a sample of the states.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa

from latentlens_dag.index.lance_files import READ_ROWS, count_rows, matrix_of, open_table
from latentlens_dag.index.row_samples import sampled_rows
from latentlens_dag.schema import SINKS, STATE_STATISTICS
from latentlens_dag.study.counted_tokens import TOKEN, counts
from latentlens_dag.study.directions import DirectionSums
from latentlens_dag.study.hubs import Hub
from latentlens_dag.study.norms import norms_of, sink_norm_of_states

if TYPE_CHECKING:
    import polars as pl
    from numpy.typing import NDArray

VISUAL, CONNECTOR, CONTEXTUAL = "visual", "connector", "contextual"
_QUANTILES = {"norm_low": 0.05, "norm_median": 0.5, "norm_high": 0.95, "norm_p99": 0.99, "norm_max": 1}
_ROWS = 2048
_SAMPLE = 16_384
"""Rows of a contextual layer whose directions are read: 128 MB of a layer of width 4,096, one block of it at a time."""
_NO_HUBS: Mapping[tuple[str, int | None], Hub] = {}


class StateFiles(NamedTuple):
    """The states of one batch of visual tokens: Lance datasets with the same tokens in the same order."""

    visual: Mapping[int, Path]
    """By visual layer."""
    connector: Path | None
    """The connector's output, if stored."""


def state_statistics(
    study: str,
    batches: Sequence[StateFiles],
    contextual: Mapping[int, Path],
    hubs: Mapping[tuple[str, int | None], Hub] = _NO_HUBS,
    blank: pl.DataFrame | None = None,
) -> pa.Table:
    """Norms, directions and drift of a study's states.

    Args:
        study: its name.
        batches: all of its visual tokens.
        contextual: the index's layer tables, by contextual layer.
        hubs: by source ("visual" or "contextual") and layer.
        blank: tokens that do not count (`counted_tokens.py`), but where it is found which states are sinks.

    Returns:
        STATE_STATISTICS: visual layers in order, the connector, contextual layers in order.

    Raises:
        ValueError: if the layers of a batch do not have the same tokens.
    """
    layers = sorted({layer for batch in batches for layer in batch.visual})
    for batch in batches:
        _check_same_tokens(batch)
    rows = [_counted_rows(next(iter(batch.visual.values())), blank) for batch in batches]
    visual = {layer: _Sums.of([batch.visual[layer] for batch in batches], rows) for layer in layers}
    of_connector = [(batch.connector, own) for batch, own in zip(batches, rows, strict=True) if batch.connector]
    connector = _Sums.of([file for file, _ in of_connector], [own for _, own in of_connector])
    for batch, own in zip(batches, rows, strict=True):
        for start in range(0, len(own), _ROWS):
            _add_block(batch, own[start : start + _ROWS].tolist(), visual, connector)
    found: list[tuple[str, int | None, _Sums]] = [(VISUAL, layer, sums) for layer, sums in visual.items()]
    found.append((CONNECTOR, None, connector))
    found += [(CONTEXTUAL, layer, _contextual_sums(table)) for layer, table in sorted(contextual.items())]
    described = [
        {"study": study, "source": source, "layer": layer, **_columns(sums), **_hub_columns(hubs.get((source, layer)))}
        for source, layer, sums in found
        if len(sums.norms)
    ]
    return pa.Table.from_pylist(described, schema=STATE_STATISTICS)


def _counted_rows(table: Path, blank: pl.DataFrame | None) -> NDArray[np.int64]:
    """The rows of the tokens that count."""
    if blank is None or blank.is_empty():
        return np.arange(count_rows(table))
    return np.flatnonzero(counts(open_table(table).to_table(columns=TOKEN), blank))


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
    limit = sink_norm_of_states(files, _joined([norms_of(file) for file in files]))
    if np.isinf(limit):
        return SINKS.empty_table()
    columns = ["image_id", "token_index", "norm"]
    parts = [open_table(file).to_table(columns=columns, filter=f"norm > {float(limit)!r}") for file in files]
    rows = pa.concat_tables(parts, promote_options="permissive")  # a batch without images has ids of no type
    same = {"study": study, "visual_layer": layer, "sink_norm": limit}
    values = {name: pa.repeat(pa.scalar(value), len(rows)) for name, value in same.items()}
    found = [values[name] if name in values else rows[name] for name in SINKS.names]
    return pa.table(found, SINKS.names).cast(SINKS)


@dataclass
class _Sums:
    """Norms, and sums over the states, of one layer."""

    norms: NDArray[np.float32]
    longest: np.float32
    """Above it, a state is a sink."""
    directions: DirectionSums | None = None
    to_previous: list[float] = field(default_factory=list)
    """One sum per block of tokens."""
    to_first: list[float] = field(default_factory=list)

    @classmethod
    def of(cls, files: Sequence[Path], rows: Sequence[NDArray[np.int64]] | None = None) -> _Sums:
        """The norms of the layer, of some rows of each file or all of them, and no state yet."""
        of_files = [norms_of(file) for file in files]
        longest = sink_norm_of_states(files, _joined(of_files))
        counted = of_files if rows is None else [norms[own] for norms, own in zip(of_files, rows, strict=True)]
        return cls(_joined(counted), longest)

    def add_directions(self, part: _StateBlock, groups: NDArray) -> None:
        self.directions = self.directions or DirectionSums(part.states.shape[1])
        usual = part.norms <= self.longest
        self.directions.add(part.states[usual], groups[usual])


class _StateBlock(NamedTuple):
    states: NDArray[np.float64]
    norms: NDArray[np.float32]


def _add_block(batch: StateFiles, rows: list[int], visual: dict[int, _Sums], connector: _Sums) -> None:
    """Add a block of tokens at every layer; three layers of it are in memory."""
    first: _StateBlock | None = None
    previous: _StateBlock | None = None
    images = _images(next(iter(batch.visual.values())), rows)
    for layer, table in sorted(batch.visual.items()):
        part, sums = _read(table, rows), visual[layer]
        first = first or part
        sums.add_directions(part, images)
        sums.to_first.append(_sum_cosines(part, first))
        if previous is not None:
            sums.to_previous.append(_sum_cosines(part, previous))
        previous = part
    if batch.connector is not None and first is not None:
        part = _read(batch.connector, rows)
        connector.add_directions(part, images)
        connector.to_first.append(_sum_cosines(part, first))


def _contextual_sums(table: Path) -> _Sums:
    """All norms of a contextual layer, and the directions of a sample of its rows, sentence by sentence."""
    sums, dataset = _Sums.of([table]), open_table(table)
    rows = sampled_rows(table, _SAMPLE, float(sums.longest))
    sentences = dataset.take(rows.tolist(), columns=["sentence_id"])["sentence_id"].to_numpy()
    order = np.argsort(sentences, kind="stable")
    for start in range(0, len(rows), READ_ROWS):
        part = order[start : start + READ_ROWS]
        found = dataset.take(rows[part].tolist(), columns=["vector", "norm"]).combine_chunks()
        states = matrix_of(found["vector"].combine_chunks()).astype(np.float64)
        sums.add_directions(_StateBlock(states, found["norm"].to_numpy()), sentences[part])
    return sums


def _images(table: Path, rows: list[int]) -> NDArray[np.object_]:
    """The image or text of each token."""
    images: NDArray[np.object_] = open_table(table).take(rows, columns=["image_id"])[0].to_numpy()
    return images


def _read(table: Path, rows: list[int]) -> _StateBlock:
    block = open_table(table).take(rows, columns=["state", "norm"]).combine_chunks()
    states = matrix_of(block["state"].combine_chunks()).astype(np.float64)
    return _StateBlock(states, block["norm"].to_numpy())


def _sum_cosines(a: _StateBlock, b: _StateBlock) -> float:
    """The sum of the cosines of each token's two states; no stored state has norm 0."""
    products = np.einsum("nd,nd->n", a.states, b.states)
    norms = np.linalg.norm(a.states, axis=1) * np.linalg.norm(b.states, axis=1)
    return float((products / norms).sum())


def _columns(sums: _Sums) -> dict[str, object]:
    """What is said of the states of a layer, of which there are some."""
    norms = sums.norms.astype(np.float64)
    return {
        "states": len(norms),
        "norm_mean": norms.mean(),
        **dict(zip(_QUANTILES, np.quantile(norms, [*_QUANTILES.values()]), strict=True)),
        "cosine_to_previous": sum(sums.to_previous) / len(norms) if sums.to_previous else None,
        "cosine_to_first": sum(sums.to_first) / len(norms) if sums.to_first else None,
        "sinks": int((sums.norms > sums.longest).sum()),
        **_direction_columns(sums.directions),
    }


def _direction_columns(sums: DirectionSums | None) -> dict[str, object]:
    found = None if sums is None else sums.figures()
    if found is None:
        return {"directions": 0}
    return {
        "dimensions": found.dimensions,
        "directions": found.states,
        "anisotropy": None if np.isnan(found.anisotropy) else found.anisotropy,
        "top_dimension": found.top_dimension,
        "top_dimension_share": found.top_share,
        "top_10_share": found.top_10_share,
    }


def _hub_columns(hub: Hub | None) -> dict[str, object]:
    if hub is None:
        return {}
    return {
        "hub_tokens": hub.tokens,
        "first_answers": hub.first_answers,
        "hub_share": hub.share,
        "hub_layer": hub.contextual_layer,
        "hub_key": hub.key,
        "hub_word": hub.word,
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


def _joined(norms: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    return np.concatenate([np.empty(0, np.float32), *norms])
