"""Interpretability by LatentLens against the size of the index it answers from (arXiv 2602.00462, table 1).

The part of an index at a fraction is its occurrences whose sentences are among this fraction of the index's sentences,
chosen by their ids. So smaller parts lie in larger ones, and each layer table holds the vectors of all of them: nothing
is read by a model again. The rows at fraction 1 are LatentLens's own of table `interpretability`.

An occurrence belongs to the sentence with the smallest id of all that have its prefix. Where any of them is in the
part, that one is. So as long as no token has more than `contexts_per_token` occurrences, the part is exactly the index
that the field `fraction` of an Index would build. Of a token that has more, the part has those of the kept ones that
lie in it, about this fraction of them; that other index would have these and others, up to `contexts_per_token` again.
The curve is therefore one of the number of vectors, each token having its share. Sinks are those of the whole index.

Note: with `sampling: first` an occurrence belongs to the first sentence that has its prefix, which may not be in the
part though another one is. Then the part lacks it, and an index built of these sentences does not.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from latentlens_dag.schema import CORPUS_ABLATION, LATENTLENS
from latentlens_dag.storage.hashing import fraction_end
from latentlens_dag.study.interpretability import interpretability


class IndexPart(NamedTuple):
    """The size of a part of an index."""

    fraction: float
    """Of the index's sentences."""
    occurrences: int
    """Vectors per contextual layer, attention sinks among them."""
    sentences: int
    """Different ones that have an occurrence."""
    token_ids: int
    """Different ones."""


def index_parts(occurrence_files: Iterable[Path], fractions: Sequence[float], of_all: float = 1.0) -> list[IndexPart]:
    """The sizes of parts of an index.

    Args:
        occurrence_files: all its occurrences (OCCURRENCES).
        fractions: of the index's sentences.
        of_all: the index's own `fraction` of its corpus.
    """
    columns = ["sentence_id", "token_id"]
    rows = pa.concat_tables([pq.read_table(file, columns=columns) for file in occurrence_files])
    found = []
    for fraction in fractions:
        part = rows.filter(pc.less(rows["sentence_id"], fraction_end(fraction * of_all)))
        distinct = (pc.count_distinct(part[name]).as_py() for name in columns)
        found.append(IndexPart(fraction, len(part), *distinct))
    return found


def corpus_ablation(
    judgements: Mapping[IndexPart, Iterable[pa.Table]], top_k: int, sinks: pa.Table | None = None
) -> pa.Table:
    """Shares of verdicts on LatentLens's answers from parts of the index, with their intervals and chance.

    Args:
        judgements: JUDGEMENTS of LatentLens for every part, in one or many tables (one at a time in memory).
        top_k: how many answers were judged.
        sinks: SINKS; these tokens are a group of their own and count in no other.

    Returns:
        CORPUS_ABLATION, in the order of the parts and then as `interpretability` orders its rows.
    """
    tables = [CORPUS_ABLATION.empty_table()]
    for part, tables_of_part in judgements.items():
        shares = interpretability(tables_of_part, top_k, sinks)
        for name, value in part._asdict().items():
            kind = CORPUS_ABLATION.field(name).type
            shares = shares.append_column(name, pa.repeat(pa.scalar(value, kind), len(shares)))
        tables.append(shares.select(CORPUS_ABLATION.names).cast(CORPUS_ABLATION))
    return pa.concat_tables(tables)


def of_latentlens(judgement_file: Path) -> pa.Table:
    """The judgements (JUDGEMENTS) of LatentLens among those of all lenses."""
    return pq.read_table(judgement_file, filters=[("lens", "=", LATENTLENS)])
