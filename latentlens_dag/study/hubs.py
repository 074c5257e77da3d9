"""Hubs: rows of an index that are the first answer of many tokens.

In spaces of many dimensions some points are nearest neighbors of very many others (Radovanovic et al., JMLR 11, 2010),
so an answer may say more about the index than about the token. Of visual tokens all first answers of LatentLens are
counted. Of the index's own text a sample of rows is asked, each without its own sentence: what is a hub for text, too.

Note: the hub's share in a sample of n tokens is at least 1 / n, so shares of samples of different sizes compare only
where they are well above that.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa

from latentlens_dag.index.contextual_index import ContextualIndex
from latentlens_dag.index.lance_files import Table, matrix_of, open_table
from latentlens_dag.index.row_samples import sampled_rows
from latentlens_dag.index.search_result import TooFewNeighborsError
from latentlens_dag.schema import LATENTLENS
from latentlens_dag.study.norms import norms_of, sink_norm_of_states

if TYPE_CHECKING:
    from numpy.typing import NDArray

_TEXT_TOKENS = 128
"""Of each contextual layer. In the demo, with seven layers, they take 0.3 CPU seconds."""
_ROW = ["contextual_layer", "key", "word"]
HUB_COLUMNS = ["image_id", "token_index", "visual_layer", "lens", "rank", *_ROW]
"""Of NEIGHBORS: what `visual_hubs` needs."""


class Hub(NamedTuple):
    """The most frequent first answer of some tokens; of equally frequent ones that of the lowest layer and key."""

    tokens: int
    first_answers: int
    """Different rows among the tokens' first answers."""
    share: float
    """Of the tokens that have it."""
    contextual_layer: int
    key: str
    word: str


def visual_hubs(neighbors: Iterable[pa.Table], sinks: pa.Table) -> dict[int, Hub]:
    """The hub of each visual layer.

    Args:
        neighbors: NEIGHBORS of one study (HUB_COLUMNS at least), one table at a time in memory; other lenses are
            ignored.
        sinks: SINKS of the study: tokens that do not count.
    """
    left_out = pl.DataFrame(sinks.select(["image_id", "visual_layer", "token_index"]))
    parts = [_first_answers(pl.DataFrame(table), left_out) for table in neighbors]
    return _hubs(pl.concat(parts)) if parts else {}


def text_hubs(index: ContextualIndex, tables: Mapping[int, Table]) -> dict[int, Hub]:
    """The hub of each contextual layer, among the answers of up to 128 of its rows, in all of `tables`' layers.

    Args:
        index: where the rows lie.
        tables: its layer tables, by contextual layer.

    Returns:
        Nothing where all rows are of one sentence, so that none has an answer.
    """
    drawn = {layer: part for layer, table in sorted(tables.items()) if len((part := _drawn(table)).sentence_ids)}
    if not drawn:
        return {}
    queries = np.concatenate([part.vectors for part in drawn.values()])
    sentences = [one for part in drawn.values() for one in part.sentence_ids]
    try:
        found = index.search(queries, 1, list(tables), sentence_ids=sentences)
    except TooFewNeighborsError:
        return {}
    layer_of = np.repeat(list(drawn), [len(part.sentence_ids) for part in drawn.values()])
    rows = index.occurrences.rows(found.key.ravel())
    answers = pl.DataFrame({"layer": layer_of, "contextual_layer": found.contextual_layer.ravel()})
    answers = answers.with_columns(pl.Series("key", rows["key"]), pl.Series("word", rows["word"]))
    return _hubs(answers.group_by("layer", *_ROW).agg(pl.len()))


class _Drawn(NamedTuple):
    vectors: NDArray[np.float16]  # [n, d]
    sentence_ids: list[str]


def _drawn(table: Table) -> _Drawn:
    rows = sampled_rows(table, _TEXT_TOKENS, float(sink_norm_of_states([table], norms_of(table))))
    found = open_table(table).take(rows.tolist(), columns=["vector", "sentence_id"]).combine_chunks()
    return _Drawn(matrix_of(found["vector"].combine_chunks()), found["sentence_id"].to_pylist())


def _first_answers(neighbors: pl.DataFrame, left_out: pl.DataFrame) -> pl.DataFrame:
    first = neighbors.filter(pl.col("rank") == 1, pl.col("lens") == LATENTLENS)
    first = first.join(left_out, on=left_out.columns, how="anti")
    return first.group_by(pl.col("visual_layer").alias("layer"), *_ROW).agg(pl.len())


def _hubs(counts: pl.DataFrame) -> dict[int, Hub]:
    rows = counts.group_by("layer", *_ROW).agg(pl.col("len").sum())
    return dict(_largest(rows.sort("len", *_ROW, descending=[True, False, False, False])))


def _largest(rows: pl.DataFrame) -> Iterator[tuple[int, Hub]]:
    for (layer,), of_layer in rows.partition_by("layer", as_dict=True, maintain_order=True).items():
        hub, tokens = of_layer.row(0, named=True), int(of_layer["len"].sum())
        row = (hub["contextual_layer"], hub["key"], hub["word"])
        yield int(layer), Hub(tokens, len(of_layer), hub["len"] / tokens, *row)
