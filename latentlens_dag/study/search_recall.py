"""The recall of an index's approximate search on the states that a study has stored: the states that it serves.

Visual tokens are no text, so the recall of the rows of a table says little about them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from latentlens_dag.index.approximate import MeasuredRecall
from latentlens_dag.index.contextual_index import ContextualIndex
from latentlens_dag.index.lance_files import matrix_of, open_table
from latentlens_dag.storage.warehouse import Warehouse

SEARCH_RECALL = pa.schema(
    [
        ("study", pa.string()),
        ("visual_layer", pa.int32()),
        ("contextual_layer", pa.int32()),
        ("nprobes", pa.int32()),  # partitions of the layer's index that were searched
        ("queries", pa.int64()),  # stored states, spread evenly over the study's tokens
        ("recall", pa.float64()),  # share of the 5 nearest rows of the exact search that were found
    ]
)
QUERIES = 512
"""The most states of a layer that are queries."""


def search_recall(study: str, files: Mapping[int, Sequence[Path]], index: ContextualIndex) -> pa.Table:
    """Measure the recall of a study's index on its states.

    Args:
        study: its name.
        files: the files of its states, by visual layer.
        index: of the study.

    Returns:
        SEARCH_RECALL by visual layer, contextual layer and nprobes; no rows where no layer of the index has an
        approximate search, or each text of the study is a sentence of the index and would find itself.
    """
    rows = []
    for visual_layer, of_layer in sorted(files.items()):
        states = _spread(of_layer, index)
        measured = index.measure_recall(states).recall if len(states) else {}
        rows += [
            (study, visual_layer, layer, nprobes, len(states), recall)
            for layer, found in measured.items()
            for nprobes, recall in sorted(found.items())
        ]
    return pa.Table.from_pylist([dict(zip(SEARCH_RECALL.names, row, strict=True)) for row in rows], SEARCH_RECALL)


def _spread(files: Sequence[Path], index: ContextualIndex) -> NDArray[np.float32]:
    """At most QUERIES states [Q, d], spread evenly, without those of texts that are sentences of the index."""
    tables = [open_table(file) for file in files]
    counts = [table.count_rows() for table in tables]
    chosen = np.unique(np.linspace(0, sum(counts) - 1, min(QUERIES, sum(counts))).astype(np.int64))
    ends = np.cumsum(counts)
    parts = []
    for table, count, end in zip(tables, counts, ends, strict=True):
        mine = chosen[(chosen >= end - count) & (chosen < end)] - (end - count)
        found = table.take(mine.tolist(), columns=["image_id", "state"])
        known = set(index.sentences(found["image_id"].unique().to_pylist())["sentence_id"])
        other = [image_id not in known for image_id in found["image_id"].to_pylist()]
        parts.append(matrix_of(found["state"].combine_chunks()).astype(np.float32)[other])
    return np.concatenate(parts)


def stored_recall(warehouse: Warehouse, study: str, visual_layer: int) -> MeasuredRecall | None:
    """What was measured for a visual layer of a study; None where nothing was."""
    path = warehouse.summary(study, "search_recall")
    if not path.is_file():
        return None
    rows = pq.read_table(path, filters=[("visual_layer", "=", visual_layer)]).to_pylist()
    recall: dict[int, dict[int, float]] = {}
    for row in rows:
        recall.setdefault(row["contextual_layer"], {})[row["nprobes"]] = row["recall"]
    if not rows:
        return None
    return MeasuredRecall(recall, f"{rows[0]['queries']:,} states that {study} has stored at layer {visual_layer}")
