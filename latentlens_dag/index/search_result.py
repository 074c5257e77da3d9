"""What a search of an index gives: the neighbors of each query, and how they were found."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from latentlens_dag.errors import UserError
from latentlens_dag.index.occurrence_lookup import OccurrenceLookup
from latentlens_dag.text.display import bracket_word
from latentlens_dag.text.html import some, table_html

if TYPE_CHECKING:
    import polars as pl
    from numpy.typing import NDArray


class Corpus(Protocol):
    """Where neighbors are looked up: an index."""

    @property
    def occurrences(self) -> OccurrenceLookup:
        """Its occurrences."""

    def sentences(self, ids: Iterable[str]) -> pl.DataFrame:
        """The texts of some sentences: sentence_id, text."""


class TooFewNeighborsError(UserError):
    """More neighbors were asked for than there are."""

    def __init__(self, k: int, available: str, fraction: float = 1.0) -> None:
        """Say what there is less of than `k`, and how much there is: "different words (3)"; in which part."""
        super().__init__(f"`k={k}` asks for more answers than there are {available}: ask for fewer.")
        self.available, self.fraction = available, fraction


@dataclass(frozen=True)
class SearchResult:
    """The neighbors of each of Q queries, nearest first; equal cosines in order of (layer, key)."""

    cosine: NDArray[np.float32]  # plain or centered; [Q, k], or [Q, layers * k] where the layers were not merged
    contextual_layer: NDArray[np.int32]
    key: NDArray[np.uint64]
    rank: NDArray[np.int32]
    """[k], or [layers * k]: the rank of each column, 1 = nearest, among all layers or within its own."""
    method: str
    """How they were found: "exact", the kind of index and its measured recall, or why no index was used."""
    index: Corpus = field(repr=False)

    def __repr__(self) -> str:
        """The sizes, on one line; `to_polars` gives the neighbors."""
        queries, neighbors = self.key.shape
        layers = some(np.unique(self.contextual_layer).tolist())
        return f"<SearchResult: {queries:,} queries, {neighbors:,} neighbors each, of layers {layers}; {self.method}>"

    def _repr_html_(self) -> str:
        rows = (
            (row["query"], row["rank"], f"{row['cosine']:.3f}", row["contextual_layer"], _in_sentence(row))
            for row in self[:_QUERIES_SHOWN].to_polars().to_dicts()
        )
        more = f"the first {_QUERIES_SHOWN} queries; to_polars() gives all" if len(self.key) > _QUERIES_SHOWN else ""
        return table_html(repr(self), ("query", "rank", "cosine", "layer", "word in its sentence"), rows, more)

    def __getitem__(self, queries: slice) -> SearchResult:
        """The neighbors of some of the queries."""
        columns = {name: getattr(self, name)[queries] for name in ("cosine", "contextual_layer", "key")}
        return replace(self, **columns)

    def to_polars(self) -> pl.DataFrame:
        """One row per neighbor, in order of query, of layer where layers were not merged, and of rank.

        Returns:
            query, rank, word, sentence (its text), token_id, token_str, char_start, char_end (of the word in the
            sentence, in characters), position, sentence_id, key, contextual_layer, cosine. Polars shows the first and
            last columns of a wide frame.
        """
        import polars as pl

        queries, neighbors = self.key.shape
        rows: Any = pl.from_arrow(self.index.occurrences.rows(self.key.ravel()).drop_columns("index"))
        frame: pl.DataFrame = rows.with_columns(
            pl.Series("query", np.repeat(np.arange(queries, dtype=np.int32), neighbors)),
            pl.Series("rank", np.tile(self.rank, queries)),
            pl.Series("contextual_layer", self.contextual_layer.ravel()),
            pl.Series("cosine", self.cosine.ravel()),
        )
        texts = self.index.sentences(frame["sentence_id"].unique()).rename({"text": "sentence"})
        joined = frame.join(texts, on="sentence_id", how="left", maintain_order="left")
        return joined.select("query", "rank", "word", "sentence", *_OF_OCCURRENCE, "key", "contextual_layer", "cosine")


def _in_sentence(row: Mapping[str, Any]) -> str:
    return bracket_word(row["sentence"], row["char_start"], row["char_end"], _SENTENCE_SHOWN)


_QUERIES_SHOWN = 5
_SENTENCE_SHOWN = 80  # characters
_OF_OCCURRENCE = ("token_id", "token_str", "char_start", "char_end", "position", "sentence_id")
