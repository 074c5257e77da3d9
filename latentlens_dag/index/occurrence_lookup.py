"""The occurrences of an index by their keys: sentence, word and place of each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from latentlens_dag.index.table_blocks import OwnRows
from latentlens_dag.search.top_k import LabelsOf
from latentlens_dag.storage.hashing import fraction_end, ids_to_integers
from latentlens_dag.text.words import fold_word

if TYPE_CHECKING:
    from numpy.typing import NDArray


def word_labels(texts: Iterable[str | None]) -> NDArray[np.int64]:
    """A number per text, the same for texts that are one word (`fold_word`)."""
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(fold_word(text), len(numbers)) for text in texts], np.int64)


class OccurrenceLookup:
    """The occurrences of an index, by key."""

    def __init__(self, occurrences: pa.Table) -> None:
        """Sort the rows (OCCURRENCES) of all shards by key."""
        self._rows = occurrences.sort_by("key")
        self._keys = ids_to_integers(self._rows["key"])

    @classmethod
    def from_files(cls, files: Iterable[Path]) -> OccurrenceLookup:
        """The occurrences of all parts of an index (Parquet)."""
        return cls(pa.concat_tables([pq.read_table(file) for file in files]))

    def __len__(self) -> int:
        """The number of occurrences."""
        return len(self._keys)

    def with_word(self, word: str) -> OccurrenceLookup:
        """Only the occurrences whose whole word is this (`fold_word`)."""
        folded = fold_word(word)
        spellings = [other for other in self._rows["word"].unique().to_pylist() if fold_word(other) == folded]
        return OccurrenceLookup(self._rows.filter(pc.is_in(self._rows["word"], pa.array(spellings, pa.string()))))

    def within(self, fraction: float) -> OccurrenceLookup:
        """Only the occurrences of this part of all sentences, chosen by their ids (`hashing.within_fraction`)."""
        return OccurrenceLookup(self._rows.filter(pc.less(self._rows["sentence_id"], fraction_end(fraction))))

    def own_rows(self, sentence_ids: Sequence[str | None]) -> OwnRows:
        """The occurrences of the sentences that queries were taken from; None of a query from no sentence."""
        queries: dict[str, list[int]] = {}
        for query, sentence_id in enumerate(sentence_ids):
            if sentence_id is not None:
                queries.setdefault(sentence_id, []).append(query)
        column = self._rows["sentence_id"]
        rows = np.flatnonzero(pc.is_in(column, value_set=pa.array(list(queries), pa.string())).to_numpy())
        of_row = [queries[sentence_id] for sentence_id in column.take(pa.array(rows)).to_pylist()]
        keys = np.repeat(self._keys[rows], [len(numbers) for numbers in of_row])
        return OwnRows(keys, np.array([number for numbers in of_row for number in numbers], np.int64))

    def spellings(self) -> list[str]:
        """The different words, as they are written."""
        return sorted(word for word in self._rows["word"].unique().to_pylist() if word is not None)

    def labels_of(self, column: str) -> tuple[LabelsOf, int]:
        """A function that numbers the word or the sentence_id of each key, and the count of different ones."""
        encoded = self._rows[column].combine_chunks().dictionary_encode(null_encoding="encode")
        labels = word_labels(encoded.dictionary.to_pylist())[encoded.indices.to_numpy()]
        return lambda keys: labels[self._where(keys)], len(np.unique(labels))

    def rows(self, keys: NDArray[np.uint64]) -> pa.Table:
        """The occurrences of the given keys, in their order."""
        return self._rows.take(pa.array(self._where(keys)))

    def _where(self, keys: NDArray[np.uint64]) -> NDArray[np.int64]:
        where = np.searchsorted(self._keys, keys)
        if not (self._keys[where.clip(max=len(self._keys) - 1)] == keys).all():
            raise ValueError(
                "A layer table holds a key that its index does not list: they were made by different builds."
            )
        return where
