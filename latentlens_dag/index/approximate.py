"""Approximate search for single, interactive queries: a Lance IVF_RQ index on a layer table, with measured recall.

The exact engine reads a whole table, which pays for the hundreds of visual tokens of an image and not for one of them.
An index answers one query from a few of its partitions (`nprobes`). Its recall is measured when it is built, against
the exact engine, and stored beside the table.

Note: recall is a property of these queries on this table. When a table is indexed there may be no states yet that it
is to serve, so each of 512 of its own rows is a query that must find others than itself, as the state of a text does
that the corpus does not have. Visual tokens are no text and may fare better or worse: `measure_recall` measures on
given states, and a study does on those that it has stored (`study/search_recall.py`). Cosines are exact in any case:
the rows found are scored again from the stored vectors.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from latentlens_dag.index.lance_files import Table, matrix_of, open_table
from latentlens_dag.index.layer_tables import sink_norm_of
from latentlens_dag.index.table_blocks import blocks
from latentlens_dag.search.exact import Block, cosine_top_k
from latentlens_dag.search.top_k import Neighbors, concat_neighbors
from latentlens_dag.storage.files import write_text
from latentlens_dag.storage.hashing import ids_to_integers

if TYPE_CHECKING:
    import lance
    from numpy.typing import NDArray

KIND = "IVF_RQ"
MEASURED_K = 5
WORTH_ROWS = 50_000
"""From so many rows on, an index answers a single query sooner than a scan does."""
_REFINE = 16  # times k candidates are compared by their stored vectors
_NPROBES = (4, 8, 16, 32, 64, 128, 256)
_QUERIES = 512
HELD_OUT = "held-out rows"
_NOISY = "rows with noise"  # by versions that did not say so


@dataclass(frozen=True)
class ApproximateIndex:
    """The index of a layer table and its measured recall."""

    version: int
    """Of the table."""
    partitions: int
    recall: dict[int, float]
    """Share of the true 5 nearest rows that are found, by nprobes."""
    queries: int
    """Number of queries that recall was measured with."""
    measured_on: str = _NOISY
    """What the queries were."""

    def nprobes_for(self, recall: float) -> int | None:
        """The fewest partitions that reached this recall; None where none did."""
        return min((nprobes for nprobes, found in self.recall.items() if found >= recall), default=None)


def build_approximate_index(table: Path) -> ApproximateIndex:
    """Index a layer table, measure the index's recall, and write it beside the table.

    The table gets a new version with the same rows. About a minute for half a million rows.
    """
    dataset = open_table(table)
    partitions = max(1, min(4096, round(np.sqrt(dataset.count_rows()) / 2.7)))  # 256 for half a million rows
    settings = {"metric": "cosine", "num_partitions": partitions, "num_bits": 1}
    dataset.create_index("vector", KIND, name="vector_rq", replace=True, **settings)
    indexed = open_table(table)
    queries, own = _sampled(indexed)
    truth = cosine_top_k(queries, blocks(table, 0), MEASURED_K + 1)
    recall = {
        nprobes: _recall(truth, [_nearest(indexed, query, MEASURED_K + 1, nprobes) for query in queries], own)
        for nprobes in _nprobes(partitions)
    }
    found = ApproximateIndex(indexed.version, partitions, recall, len(queries), HELD_OUT)
    write_text(json.dumps({"index": KIND, "k": MEASURED_K, **asdict(found)}, indent=1) + "\n", measurement_file(table))
    return found


def _nprobes(partitions: int) -> list[int]:
    return sorted({min(nprobes, partitions) for nprobes in _NPROBES})


def measure_recall(queries: NDArray[np.floating], table: Table) -> dict[int, float]:
    """The recall of a table's index for queries [Q, d], by nprobes; none where the table has no index.

    The share of the 5 nearest rows of the exact search that are found, over all queries together. Attention sinks are
    no answers.
    """
    facts = read_approximate_index(table)
    if facts is None:
        return {}
    truth, opened = cosine_top_k(queries, blocks(table, 0), MEASURED_K), open_table(table)
    nobody = np.zeros(len(queries), np.uint64)
    return {
        nprobes: _recall(truth, [_nearest(opened, query, MEASURED_K, nprobes) for query in queries], nobody)
        for nprobes in _nprobes(facts.partitions)
    }


def read_approximate_index(table: Table) -> ApproximateIndex | None:
    """The measured index of a table; None where it has none, or one of an older version."""
    path = measurement_file(table) if isinstance(table, Path) else table.measurement_file
    if path is None or not path.is_file():
        return None
    facts = json.loads(path.read_text(encoding="utf-8"))
    if facts["version"] != open_table(table).version:
        return None
    recall = {int(nprobes): share for nprobes, share in facts["recall"].items()}
    measured_on = facts.get("measured_on", _NOISY)
    return ApproximateIndex(facts["version"], facts["partitions"], recall, facts["queries"], measured_on)


class ApproximatePlan(NamedTuple):
    """How to search some layer tables through their indexes."""

    nprobes: dict[int, int]
    """Partitions to search, by contextual layer; empty where the indexes do not suffice."""
    description: str
    """The measured recall, or why the indexes do not suffice."""


class MeasuredRecall(NamedTuple):
    """The recall of some tables' indexes, measured on other states than those that a table was indexed with."""

    recall: Mapping[int, Mapping[int, float]]
    """By contextual layer and nprobes."""
    measured_on: str
    """What the queries were, for people: "512 visual states of study demo at layer 4"."""


def plan_approximate(
    tables: Mapping[int, Table], recall: float, measured: MeasuredRecall | None = None
) -> ApproximatePlan:
    """The least work that reached a recall on every one of the tables when their indexes were measured.

    With `measured`, its figures count in place of those that are stored with a table, where it has the table's layer.
    """
    nprobes, worth, kinds = {}, [], set()
    for layer, table in tables.items():
        facts = read_approximate_index(table)
        if facts is None:
            return ApproximatePlan(
                {}, f"contextual layer {layer} has no index; tables of {WORTH_ROWS:,} rows and more have one"
            )
        if measured is not None and layer in measured.recall:
            facts = replace(facts, recall=dict(measured.recall[layer]), measured_on=measured.measured_on)
        found = facts.nprobes_for(recall)
        if found is None:
            most = max(facts.recall.values())
            return ApproximatePlan(
                {},
                f"a recall of {recall} was asked for, the index of layer {layer} reached {most:.4f} on "
                f"{facts.measured_on}",
            )
        nprobes[layer] = found
        worth.append(facts.recall[found])
        kinds.add(facts.measured_on)
    return ApproximatePlan(
        nprobes,
        f"{KIND}, nprobes {max(nprobes.values())}, recall@{MEASURED_K} {min(worth):.4f}, measured on "
        f"{' and '.join(sorted(kinds))}",
    )


def approximate_top_k(
    queries: NDArray[np.floating], tables: Mapping[int, lance.LanceDataset], k: int, nprobes: Mapping[int, int]
) -> Neighbors:
    """The k nearest rows that the tables' indexes find for each query [Q, d], as `exact.cosine_top_k` gives them.

    Args:
        queries: any floating type; need not be normalized.
        tables: indexed layer tables, open, by contextual layer; an open table caches what it read of its index.
        k: neighbors per query.
        nprobes: partitions to search, by contextual layer.
    """
    found = [
        cosine_top_k(
            query[None], [_nearest(table, query, k, nprobes[layer], layer) for layer, table in tables.items()], k
        )
        for query in queries
    ]
    return concat_neighbors(found, axis=0)


def measurement_file(table: Path) -> Path:
    """JSON: the measurement of a layer table's index."""
    return table.with_suffix(".approximate.json")


def _nearest(table: lance.LanceDataset, query: NDArray[np.floating], k: int, nprobes: int, layer: int = 0) -> Block:
    """The rows that the index finds nearest, without attention sinks."""
    found = _from_index(table, query, k, nprobes)
    limit = sink_norm_of(table)
    if limit is not None:
        without_sinks = found.filter(pc.field("norm") <= pa.scalar(limit, pa.float32()))
        # Only queries that are sinks themselves find any; a filter before the search reads all norms.
        enough = len(without_sinks) == len(found)
        found = without_sinks if enough else _from_index(table, query, k, nprobes, f"norm <= {limit!r}")
    found = found.combine_chunks()
    return Block(layer, ids_to_integers(found["key"]), matrix_of(found["vector"].combine_chunks()))


def _from_index(
    table: lance.LanceDataset, query: NDArray[np.floating], k: int, nprobes: int, only: str | None = None
) -> pa.Table:
    nearest = {"column": "vector", "q": query.astype(np.float32), "k": k, "nprobes": nprobes, "refine_factor": _REFINE}
    return table.to_table(
        columns=["key", "vector", "norm"],
        nearest=nearest,
        filter=only,
        prefilter=only is not None,
        disable_scoring_autoprojection=True,
    )


def _sampled(table: lance.LanceDataset) -> tuple[NDArray[np.float32], NDArray[np.uint64]]:
    """Rows spread over the table, which are queries; and their keys."""
    rows = np.linspace(0, table.count_rows() - 1, min(_QUERIES, table.count_rows())).astype(np.int64)
    found = table.take(rows.tolist(), columns=["key", "vector", "norm"])
    if (limit := sink_norm_of(table)) is not None:
        found = found.filter(pc.field("norm") <= pa.scalar(limit, pa.float32()))
    return matrix_of(found["vector"].combine_chunks()).astype(np.float32), ids_to_integers(found["key"])


def _recall(truth: Neighbors, found: list[Block], own: NDArray[np.uint64]) -> float:
    """The share of the true nearest rows that were found; the row that a query is, `own`, is too easy, so left out."""
    hits = wanted = 0
    for true, block, own_key in zip(truth.key, found, own, strict=True):
        others = true[true != own_key][:MEASURED_K]
        hits += len(np.intersect1d(others, block.keys[np.arange(len(block.vectors))]))
        wanted += len(others)
    return hits / wanted
