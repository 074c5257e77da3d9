"""The index: contextual states of a corpus, and the search for those nearest to a state.

`ContextualIndex.open` reads a folder, `build` makes one, and `search` is the one way from states to neighbors, for
users and for the studies' LatentLens. Note: the states must come from the same language model and be the residual
stream that enters a block (`models/layers.py`), not the output of the final norm.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from latentlens_dag.errors import UserError
from latentlens_dag.index.approximate import MEASURED_K, ApproximatePlan, approximate_top_k, plan_approximate
from latentlens_dag.index.folder import IndexFolder, read_index_folder
from latentlens_dag.index.lance_files import Table, open_table
from latentlens_dag.index.layer_tables import dtype_of, width_of
from latentlens_dag.index.occurrence_lookup import OccurrenceLookup
from latentlens_dag.index.table_blocks import (
    DEFAULT_ROWS,
    BlockReader,
    OwnRows,
    RowFilter,
    count_searched_rows,
    count_sinks,
)
from latentlens_dag.models.layers import as_int_list
from latentlens_dag.models.text_states import TextStates
from latentlens_dag.search.exact import cosine_top_k
from latentlens_dag.search.top_k import LabelsOf, Neighbors, concat_neighbors
from latentlens_dag.text.display import bracket_word
from latentlens_dag.text.html import some, table_html

if TYPE_CHECKING:
    import lance
    import polars as pl
    from numpy.typing import NDArray

    from latentlens_dag.index.remote import RemoteIndex

Progress = Callable[[int, int], None]
"""Called with the rows done and all rows."""
_FEW_QUERIES = 32  # for more, one scan for all of them is quicker
_LABELS = {"word": "word", "sentence": "sentence_id"}


class TooFewNeighborsError(UserError):
    """More neighbors were asked for than there are."""

    def __init__(self, k: int, available: str) -> None:
        """Say what there is less of than `k`, and how much there is: "different words (3)"."""
        super().__init__(f"`k={k}` asks for more answers than there are {available}: ask for fewer.")
        self.available = available


@dataclass(frozen=True)
class SearchResult:
    """The neighbors of each of Q queries, nearest first; equal cosines in order of (layer, key)."""

    cosine: NDArray[np.float32]  # [Q, k], or [Q, layers * k] where the layers were not merged
    contextual_layer: NDArray[np.int32]
    key: NDArray[np.uint64]
    rank: NDArray[np.int32]
    """[k], or [layers * k]: the rank of each column, 1 = nearest, among all layers or within its own."""
    method: str
    """How they were found: "exact", the kind of index and its measured recall, or why no index was used."""
    index: ContextualIndex = field(repr=False)

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


class ContextualIndex:
    """One language model's states of one corpus, at some contextual layers, on disk."""

    def __init__(self, folder: IndexFolder | RemoteIndex) -> None:
        """Take a whole index; use `open` or `build`."""
        self._folder = folder
        self._open_tables: dict[int, lance.LanceDataset] = {}

    @classmethod
    def open(cls, path: str | Path) -> ContextualIndex:
        """Open an index for reading: one that `build` or `latentlens-dag import-index` wrote, a warehouse's, a release.

        Args:
            path: its folder; in a home, warehouse/index/NAME. It is never written to. Or the address of a release on
                the Hub, hf://datasets/user/name, with @REVISION after it if you like: then only what a search needs
                is read, over the network.

        Raises:
            UserError: where there is no index, it is half-built or damaged, of a newer format, its tables were made by
                different models, or the Hub cannot be reached.
        """
        if isinstance(path, str) and "://" in path:
            from latentlens_dag.index.remote import open_remote_index

            return cls(open_remote_index(str(path)))
        return cls(read_index_folder(Path(path)))

    @classmethod
    def build(
        cls,
        model: Any,
        tokenizer: Any,
        sentences: Iterable[str],
        layers: Sequence[int] | None = None,
        contexts_per_token: int = 50,
        *,
        path: str | Path,
        min_position: int = 1,
        fraction: float = 1.0,
        sinks: Literal["exclude", "include"] = "exclude",
        progress: Progress = lambda done, total: None,
    ) -> ContextualIndex:
        """Read sentences with a language model and write their states as an index.

        The same sentences give the same occurrences in any order. Where `path` holds an index of the same model, only
        rows that it lacks are read by the model; the old index is replaced when the new one is whole, not before. A
        sentence of more tokens than the model has positions is read up to there, and named in a warning.

        Args:
            model: what `load_language_model` or `load_vlm` gives, or a causal language model or vision-language model
                of transformers; of a VLM, its language model is used.
            tokenizer: its fast tokenizer.
            sentences: texts, in any order; outer blanks are dropped, empty and equal ones too. Any number.
            layers: contextual layers; by default the paper's choice for the model's depth.
            contexts_per_token: the most occurrences kept of each token.
            path: folder of the index; made where it is missing.
            min_position: the first position that is kept, in real tokens (no specials) from 0.
            fraction: the part of the sentences that is used, chosen by their hashes.
            sinks: whether attention sinks, rows whose norm is an outlier of their layer (`search/sinks.py`), are left
                out of searches. They are stored in any case.
            progress: called with (rows encoded, rows).

        Raises:
            UserError: where an argument is wrong, the tokenizer is not fast, the model has not the layers, no sentence
                is long enough, `path` holds something else, or the disk is full or may not be written.
        """
        from latentlens_dag.index.build import OccurrenceFilter, build_index, split_language_model

        choice = OccurrenceFilter(contexts_per_token, min_position, fraction, sinks)
        build_index(split_language_model(model, tokenizer), sentences, layers, Path(path), choice, progress)
        return cls.open(path)

    @property
    def path(self) -> Path | str:
        """Its folder, or its address on the Hub."""
        return self._folder.path

    @property
    def _tables(self) -> Mapping[int, Table]:
        return self._folder.tables

    @property
    def layers(self) -> list[int]:
        """The contextual layers that it has, ascending."""
        return list(self._tables)

    @property
    def language_model(self) -> str:
        """The name of the language model that made its states."""
        return self._folder.language_model

    @cached_property
    def width(self) -> int:
        """The width of its vectors, d."""
        with self._folder.reading():
            return width_of(next(iter(self._tables.values())))

    @cached_property
    def dtype(self) -> str | None:
        """The dtype in which the language model computed its states; None where that is not known."""
        with self._folder.reading():
            return dtype_of(next(iter(self._tables.values())))

    @property
    def rows(self) -> int:
        """The number of its occurrences: the rows of every layer table."""
        return self._folder.rows

    @cached_property
    def sink_counts(self) -> dict[int, int]:
        """The number of attention sinks of each contextual layer, which are no neighbors by default."""
        with self._folder.reading():
            return {layer: count_sinks(table) for layer, table in self._tables.items()}

    @cached_property
    def occurrences(self) -> OccurrenceLookup:
        """Its occurrences, read into memory when first needed (about 150 bytes each)."""
        return OccurrenceLookup.from_files(self._folder.occurrence_files)

    def sentences(self, ids: Iterable[str]) -> pl.DataFrame:
        """The texts of some sentences: sentence_id, text; only the parts of the file that hold them are read."""
        import polars as pl

        wanted = pl.lit(pl.Series(list(ids), dtype=pl.String)).implode()
        found = pl.scan_parquet(self._folder.sentences, glob=False).filter(pl.col("sentence_id").is_in(wanted))
        return found.select("sentence_id", "text").collect()

    def __repr__(self) -> str:
        """Path, language model and layers."""
        return f"ContextualIndex({str(self.path)!r}, language_model={self.language_model!r}, layers={self.layers})"

    def _repr_html_(self) -> str:
        rows = [
            ("path", self.path),
            ("language model", self.language_model),
            ("contextual layers", some(self.layers)),
            ("occurrences", f"{self.rows:,}"),
        ]
        return table_html("ContextualIndex", [], rows)

    def search(
        self,
        states: Any,
        k: int = 5,
        layers: Sequence[int] | None = None,
        *,
        unique: Literal["word", "sentence"] | None = None,
        word: str | None = None,
        merge: bool = True,
        exact: bool = True,
        recall: float = 0.999,
        sentence_ids: Sequence[str | None] | None = None,
        own_sentence: bool = False,
        sinks: bool = False,
        fraction: float = 1.0,
        progress: Progress = lambda done, total: None,
    ) -> SearchResult:
        """Find the k occurrences whose states have the highest cosine to each query.

        Args:
            states: [Q, d], a tensor on any device or an array, of any floating type; need not be normalized. Or what
                `LanguageModel.text_states` gives for one layer: its tokens are the queries, in order.
            k: neighbors per query.
            layers: contextual layers to search; all by default.
            unique: the neighbors of a query are of different words (whatever their case) or sentences, each the nearest
                of its own.
            word: only occurrences whose whole word is this, whatever its case and Unicode form (`text/words.py`).
            merge: the k best over all layers; where false, the k best of every layer, layer by layer, so that any of
                the layers can be merged later: k * layers neighbors per query.
            exact: compare every row. Where false, large tables are searched through their indexes, which takes
                milliseconds for a single query; `SearchResult.method` names the method that was used.
            recall: where not exact, the share of the true nearest rows that the indexes must have found when they were
                measured; a higher one reads more of a table. Where no index reached it, the search is exact.
            sentence_ids: [Q], the id of the text that each query was taken from (`hashing.text_id`), None for those
                from no text. Known where `states` are those of `text_states`.
            own_sentence: whether a query's own text, where it is a sentence of the index, may be a neighbor. Its own
                state would be the nearest, with cosine 1.
            sinks: whether attention sinks may be neighbors (`search/sinks.py`): rows with outlying norms, which are
                left out where the index was built to leave them out (`sink_counts`).
            fraction: only occurrences of this part of the sentences, chosen by their hashes as `build` chooses them. An
                index that was built of this part has these rows and, of a token that occurs more than
                `contexts_per_token` times, others in place of those that this part lacks.
            progress: called with (rows read, rows), where exact.

        Raises:
            TooFewNeighborsError: a UserError, where there are not k neighbors.
            UserError: where the width is not the index's, it lacks a layer or the word, or `fraction` is none.
            ValueError: where a query has no direction (zero, infinite, NaN).

        Memory grows with Q (d + k), not with the index.
        """
        chosen = self._chosen(layers)
        if not isinstance(k, int) or k < 1:
            raise UserError(f"`k` must be a whole number of at least 1, not {k!r}.")
        if isinstance(states, TextStates):
            sentence_ids = states.sentence_ids() if sentence_ids is None else sentence_ids
            states = states.only_layer()
        if not 0 < fraction <= 1:
            raise UserError(f"`fraction={fraction}` must be above 0 and at most 1.")
        with self._folder.reading():
            queries = self._queries(states, width_of(self._tables[chosen[0]]))
            lookup = self.occurrences if word is None else self._occurrences_of(word)
            words = None if word is None else lookup.spellings()
            lookup = lookup if fraction == 1 else lookup.within(fraction)
            own = None if own_sentence else self._own_rows(sentence_ids, len(queries))
            rows = RowFilter(words, own, sinks, fraction)
            labels_of = self._labels(lookup, unique, k)
            groups = [chosen] if merge else [[layer] for layer in chosen]
            self._check_k(k, groups, rows)
            plain = merge and unique is None and rows == DEFAULT_ROWS
            plan = None if exact else self._plan(chosen, k, recall, len(queries), plain)
            if plan is not None and plan.nprobes:
                found = approximate_top_k(queries, self._keep_open(chosen), k, plan.nprobes)
                return self._result([found], k, plan.description)
            reader = BlockReader({layer: self._tables[layer] for layer in chosen}, rows, progress)
            neighbors = [cosine_top_k(queries, reader.read(group), k, labels_of) for group in groups]
            return self._result(neighbors, k, "exact" if plan is None else f"exact: {plan.description}")

    def _own_rows(self, sentence_ids: Sequence[str | None] | None, queries: int) -> OwnRows | None:
        if sentence_ids is None:
            return None
        if len(sentence_ids) != queries:
            raise UserError(
                f"`sentence_ids` names {len(sentence_ids)} texts, but there are {queries} queries: give one for each."
            )
        own = self.occurrences.own_rows(sentence_ids)
        return own if len(own.keys) else None

    def _plan(self, layers: list[int], k: int, recall: float, queries: int, plain: bool) -> ApproximatePlan:
        """How to search through the tables' indexes, or why not."""
        if not 0 < recall <= 1:
            raise UserError(f"`recall={recall}` must be above 0 and at most 1.")
        if not plain:
            return ApproximatePlan(
                {}, "`word`, `unique`, `merge=False`, `sinks`, `fraction` and own sentences are answered exactly"
            )
        if k > MEASURED_K or queries > _FEW_QUERIES:
            return ApproximatePlan({}, f"indexes are for at most {MEASURED_K} answers to {_FEW_QUERIES} queries")
        return plan_approximate({layer: self._tables[layer] for layer in layers}, recall)

    def _keep_open(self, layers: list[int]) -> dict[int, lance.LanceDataset]:
        """Layer tables that stay open, and so cache what was read of their indexes."""
        for layer in layers:
            if layer not in self._open_tables:
                self._open_tables[layer] = open_table(self._tables[layer])
        return {layer: self._open_tables[layer] for layer in layers}

    def _result(self, neighbors: list[Neighbors], k: int, method: str) -> SearchResult:
        found = concat_neighbors(neighbors, axis=1)
        if np.isneginf(found.cosine).any():
            raise TooFewNeighborsError(k, "neighbors of some query in these layers (its own sentence is left out)")
        rank = np.tile(np.arange(1, k + 1, dtype=np.int32), len(neighbors))
        return SearchResult(found.cosine, found.contextual_layer, found.key, rank, method, self)

    def _queries(self, states: Any, width: int) -> NDArray[np.floating]:
        if hasattr(states, "detach"):
            states = states.detach().cpu().double().numpy()  # NumPy has no bfloat16
        queries: NDArray[np.floating] = np.asarray(states)
        if queries.ndim != 2 or queries.dtype.kind not in "fiu":
            raise UserError(
                f"`states` must be a matrix of numbers [queries, {width}], not {queries.dtype} of shape "
                f"{queries.shape}. A single state is `state[None]`."
            )
        if queries.shape[1] != width:
            raise UserError(
                f"The states have width {queries.shape[1]}, the vectors of {self.path} have width {width}: were "
                f"both made by the same language model ({self.language_model})?"
            )
        return queries

    def _chosen(self, layers: Sequence[int] | None) -> list[int]:
        wanted = self.layers if layers is None else as_int_list(layers, "layers")
        lacking = [layer for layer in wanted if layer not in self.layers]
        if lacking or not wanted:
            raise UserError(
                f"`layers={list(wanted)}`: the index in {self.path} "
                f"{f'has no contextual layer {lacking[0]}' if lacking else 'must be searched at one layer at least'}; "
                f"it has {', '.join(map(str, self.layers))}."
            )
        return sorted(set(wanted))

    def _occurrences_of(self, word: str) -> OccurrenceLookup:
        lookup = self.occurrences.with_word(word)
        if not len(lookup):
            raise UserError(
                f"No row of the index in {self.path} has the word {word!r}. A word is whole (`dogs` is not `dog`); the "
                "corpus may not have it, or only where `min_position` leaves it out."
            )
        return lookup

    def _labels(self, lookup: OccurrenceLookup, unique: str | None, k: int) -> LabelsOf | None:
        if unique is None:
            return None
        if unique not in _LABELS:
            raise UserError(f"`unique={unique!r}` must be None, 'word' or 'sentence'.")
        labels_of, count = lookup.labels_of(_LABELS[unique])
        if count < k:
            raise TooFewNeighborsError(k, f"different {unique}s ({count})")
        return labels_of

    def _check_k(self, k: int, groups: list[list[int]], rows: RowFilter) -> None:
        counts = {layer: count_searched_rows(self._tables[layer], rows) for group in groups for layer in group}
        if (fewest := min(sum(counts[layer] for layer in group) for group in groups)) < k:
            which = "" if rows.words is None else " of this word"
            which += "" if rows.fraction == 1 else f" of {rows.fraction:g} of the sentences"
            raise TooFewNeighborsError(k, f"rows ({fewest}{which}, over {len(groups[0])} contextual layers)")
