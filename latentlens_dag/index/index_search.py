"""One search of an index: which rows may answer, and the nearest of them, by a scan or through the tables' indexes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np

from latentlens_dag.errors import UserError
from latentlens_dag.index.approximate import (
    MEASURED_K,
    ApproximatePlan,
    MeasuredRecall,
    approximate_top_k,
    plan_approximate,
)
from latentlens_dag.index.centered import Similarity, centered
from latentlens_dag.index.lance_files import Table
from latentlens_dag.index.occurrence_lookup import OccurrenceLookup
from latentlens_dag.index.search_result import Corpus, SearchResult, TooFewNeighborsError
from latentlens_dag.index.table_blocks import DEFAULT_ROWS, BlockReader, OwnRows, RowFilter, count_searched_rows
from latentlens_dag.search.exact import Block, nested_top_k
from latentlens_dag.search.top_k import LabelsOf, Neighbors, concat_neighbors

if TYPE_CHECKING:
    import lance
    from numpy.typing import NDArray

Progress = Callable[[int, int], None]
"""Called with the rows done and all rows."""
Unique = Literal["word", "sentence"]
_FEW_QUERIES = 32  # for more, one scan for all of them is quicker
_ANSWERED_EXACTLY = (
    "searches for a word, unique answers, layers ranked apart, sinks, parts of an index, centered similarity and "
    "without own sentences are exact"
)
_LABELS = {"word": "word", "sentence": "sentence_id"}


class SearchedIndex(Corpus, Protocol):
    """What a search reads of an index."""

    @property
    def path(self) -> Path | str:
        """Its name in messages."""

    @property
    def tables(self) -> Mapping[int, Table]:
        """Its layer tables, by contextual layer."""

    def mean_state(self, layer: int) -> NDArray[np.float64]:
        """The mean state [d] of a contextual layer."""


@dataclass(frozen=True)
class SearchSettings:
    """What may answer, and how many are wanted, as `ContextualIndex.search` describes it."""

    k: int
    layers: list[int]
    """Ascending."""
    unique: Unique | None = None
    word: str | None = None
    merge: bool = True
    sinks: bool = False
    similarity: Similarity = "cosine"
    fractions: Sequence[float] = (1.0,)
    """Of the sentences, ascending; each part is searched, and one scan serves them all."""

    def __post_init__(self) -> None:
        """Refuse numbers that cannot be.

        Raises:
            UserError: naming the argument of `ContextualIndex.search`.
        """
        if not isinstance(self.k, int) or self.k < 1:
            raise UserError(f"`k` must be a whole number of at least 1, not {self.k!r}.")
        for fraction in self.fractions:
            if not 0 < fraction <= 1:
                raise UserError(f"`fraction={fraction}` must be above 0 and at most 1.")
        if not self.fractions or any(one >= other for one, other in pairwise(self.fractions)):
            raise UserError(f"`fractions={list(self.fractions)}` must be ascending, each once, and one at least.")

    @property
    def groups(self) -> list[list[int]]:
        """The layers among which neighbors are ranked together."""
        return [self.layers] if self.merge else [[layer] for layer in self.layers]


@dataclass(frozen=True)
class IndexSearch:
    """Some queries, the index in which they are searched for, and which of its rows may answer."""

    index: SearchedIndex
    settings: SearchSettings
    queries: NDArray[np.floating]
    """[Q, d]"""
    own: OwnRows | None
    """Rows of the sentences that the queries were taken from."""

    def by_scan(self, progress: Progress, plan: ApproximatePlan | None = None) -> list[SearchResult]:
        """Compare every row; the result for each part of the sentences.

        Args:
            progress: called with (rows read, rows).
            plan: why the tables' indexes do not serve, where they might have.
        """
        settings, labels_of, parts = self.settings, self._labels[0], self._rows.in_parts(self.settings.fractions)
        reader = BlockReader(self._tables, parts, progress)
        found = [
            nested_top_k(self.queries, (self._blocks(reader, group, rows) for rows in parts), settings.k, labels_of)
            for group in settings.groups
        ]
        name = "exact" if settings.similarity == "cosine" else "exact, by centered cosine"
        method = name if plan is None else f"{name}: {plan.description}"
        return [self._result(list(of_part), method) for of_part in zip(*found, strict=True)]

    def by_indexes(self, plan: ApproximatePlan, tables: Mapping[int, lance.LanceDataset]) -> SearchResult:
        """Compare the rows that the indexes of the open `tables` find."""
        return self._result([approximate_top_k(self.queries, tables, self.settings.k, plan.nprobes)], plan.description)

    def plan(self, recall: float, measured: MeasuredRecall | None) -> ApproximatePlan:
        """How to search through the tables' indexes, or why not.

        Raises:
            UserError: where `recall` is none.
        """
        if not 0 < recall <= 1:
            raise UserError(f"`recall={recall}` must be above 0 and at most 1.")
        settings = self.settings
        if not (settings.merge and settings.unique is None and settings.similarity == "cosine") or (
            self._rows != DEFAULT_ROWS
        ):
            return ApproximatePlan({}, _ANSWERED_EXACTLY)
        if settings.k > MEASURED_K or len(self.queries) > _FEW_QUERIES:
            return ApproximatePlan({}, f"indexes are for at most {MEASURED_K} answers to {_FEW_QUERIES} queries")
        return plan_approximate(self._tables, recall, measured)

    def check(self) -> None:
        """Refuse to search for more neighbors than there are.

        Raises:
            TooFewNeighborsError: naming the part of the sentences.
            UserError: where the word is not there, or `unique` names nothing.
        """
        for fraction in self.settings.fractions:
            self._check_labels(fraction)
        for fraction in self.settings.fractions:
            self._check_rows(self._rows._replace(fraction=fraction))

    @cached_property
    def _tables(self) -> dict[int, Table]:
        return {layer: self.index.tables[layer] for layer in self.settings.layers}

    @cached_property
    def _of_word(self) -> OccurrenceLookup:
        """The occurrences of the word that is asked for; without one, all."""
        if (word := self.settings.word) is None:
            return self.index.occurrences
        lookup = self.index.occurrences.with_word(word)
        if not len(lookup):
            raise UserError(
                f"No row of the index in {self.index.path} has the word {word!r}. A word is whole (`dogs` is not "
                "`dog`); the corpus may not have it, or only where `min_position` leaves it out."
            )
        return lookup

    @cached_property
    def _rows(self) -> RowFilter:
        """The rows of the largest part."""
        words = None if self.settings.word is None else self._of_word.spellings()
        return RowFilter(words, self.own, self.settings.sinks, self.settings.fractions[-1])

    @cached_property
    def _labels(self) -> tuple[LabelsOf | None, int]:
        """What must differ between the neighbors of a query, and how many different ones the largest part has."""
        return self._labels_in(self.settings.fractions[-1])

    def _labels_in(self, fraction: float) -> tuple[LabelsOf | None, int]:
        unique = self.settings.unique
        if unique is None:
            return None, 0
        if unique not in _LABELS:
            raise UserError(f"`unique={unique!r}` must be None, 'word' or 'sentence'.")
        lookup = self._of_word if fraction == 1 else self._of_word.within(fraction)
        return lookup.labels_of(_LABELS[unique])

    def _check_labels(self, fraction: float) -> None:
        unique, k = self.settings.unique, self.settings.k
        _, count = self._labels if fraction == self.settings.fractions[-1] else self._labels_in(fraction)
        if unique is not None and count < k:
            raise TooFewNeighborsError(k, f"different {unique}s ({count})", fraction)

    def _check_rows(self, rows: RowFilter) -> None:
        groups, k = self.settings.groups, self.settings.k
        counts = {layer: count_searched_rows(table, rows) for layer, table in self._tables.items()}
        if (fewest := min(sum(counts[layer] for layer in group) for group in groups)) < k:
            which = "" if rows.words is None else " of this word"
            which += "" if rows.fraction == 1 else f" of {rows.fraction:g} of the sentences"
            available = f"rows ({fewest}{which}, over {len(groups[0])} contextual layers)"
            raise TooFewNeighborsError(k, available, rows.fraction)

    def _blocks(self, reader: BlockReader, layers: list[int], rows: RowFilter) -> Iterable[Block]:
        """The rows of a part in some of the tables, as they are compared with the queries."""
        part = reader.read(layers, rows)
        if self.settings.similarity == "cosine":
            return part
        return centered(part, self._tables.__getitem__, rows, self.index.mean_state)

    def _result(self, neighbors: list[Neighbors], method: str) -> SearchResult:
        found, k = concat_neighbors(neighbors, axis=1), self.settings.k
        if np.isneginf(found.cosine).any():
            raise TooFewNeighborsError(k, "neighbors of some query in these layers (its own sentence is left out)")
        rank = np.tile(np.arange(1, k + 1, dtype=np.int32), len(neighbors))
        return SearchResult(found.cosine, found.contextual_layer, found.key, rank, method, self.index)
