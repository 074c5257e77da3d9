"""The index: contextual states of a corpus, and the search for those nearest to a state.

`ContextualIndex.open` reads a folder, `build` makes one, and `search` is the one way from states to neighbors, for
users and for the studies' LatentLens. Note: the states must come from the same language model and be the residual
stream that enters a block (`models/layers.py`), not the output of the final norm.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from latentlens_dag.errors import UserError
from latentlens_dag.index.approximate import MeasuredRecall, measure_recall
from latentlens_dag.index.centered import Similarity, check_similarity, mean_of_rows
from latentlens_dag.index.folder import IndexFolder, read_index_folder
from latentlens_dag.index.index_search import IndexSearch, Progress, SearchSettings, Unique
from latentlens_dag.index.lance_files import Table, open_table
from latentlens_dag.index.layer_tables import dtype_of, width_of
from latentlens_dag.index.occurrence_lookup import OccurrenceLookup
from latentlens_dag.index.query_states import query_matrix
from latentlens_dag.index.search_result import SearchResult
from latentlens_dag.index.table_blocks import OwnRows, count_sinks
from latentlens_dag.models.layers import as_int_list
from latentlens_dag.models.text_states import TextStates
from latentlens_dag.text.html import some, table_html

if TYPE_CHECKING:
    import lance
    import polars as pl
    from numpy.typing import NDArray

    from latentlens_dag.index.remote import RemoteIndex


class ContextualIndex:
    """One language model's states of one corpus, at some contextual layers, on disk."""

    def __init__(self, folder: IndexFolder | RemoteIndex) -> None:
        """Take a whole index; use `open` or `build`."""
        self._folder = folder
        self._open_tables: dict[int, lance.LanceDataset] = {}
        self._means: dict[int, NDArray[np.float64]] = {}

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
            contexts_per_token: the most occurrences kept of each token, a uniform sample of its distinct prefixes.
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
    def tables(self) -> Mapping[int, Table]:
        """Its layer tables, by contextual layer."""
        return self._folder.tables

    @property
    def layers(self) -> list[int]:
        """The contextual layers that it has, ascending."""
        return list(self.tables)

    @property
    def language_model(self) -> str:
        """The name of the language model that made its states."""
        return self._folder.language_model

    @cached_property
    def width(self) -> int:
        """The width of its vectors, d."""
        with self._folder.reading():
            return width_of(next(iter(self.tables.values())))

    @cached_property
    def dtype(self) -> str | None:
        """The dtype in which the language model computed its states; None where that is not known."""
        with self._folder.reading():
            return dtype_of(next(iter(self.tables.values())))

    @property
    def rows(self) -> int:
        """The number of its occurrences: the rows of every layer table."""
        return self._folder.rows

    @cached_property
    def sink_counts(self) -> dict[int, int]:
        """The number of attention sinks of each contextual layer, which are no neighbors by default."""
        with self._folder.reading():
            return {layer: count_sinks(table) for layer, table in self.tables.items()}

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
        unique: Unique | None = None,
        word: str | None = None,
        merge: bool = True,
        exact: bool = True,
        recall: float = 0.999,
        measured: MeasuredRecall | None = None,
        sentence_ids: Sequence[str | None] | None = None,
        own_sentence: bool = False,
        sinks: bool = False,
        similarity: Similarity = "cosine",
        query_mean: Any = None,
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
            exact: compare every row, as it is stored: a unit vector in float16. Where false, large tables are searched
                through their indexes, which takes milliseconds for a single query; `SearchResult.method` names the
                method that was used.
            recall: where not exact, the share of the true nearest rows that the indexes must have found when they were
                measured; a higher one reads more of a table. Where no index reached it, the search is exact.
            measured: what `measure_recall` gave for states like these. Without it the recall is that of rows of the
                tables, each a query that must find others than itself: that of texts, of which visual tokens may be far
                (docs/search.md).
            sentence_ids: [Q], the id of the text that each query was taken from (`hashing.text_id`), None for those
                from no text. Known where `states` are those of `text_states`.
            own_sentence: whether a query's own text, where it is a sentence of the index, may be a neighbor. Its own
                state would be the nearest, with cosine 1.
            sinks: whether attention sinks may be neighbors (`search/sinks.py`): rows with outlying norms, which are
                left out where the index was built to leave them out (`sink_counts`).
            similarity: "centered" subtracts from each row the mean of its contextual layer, and from each query
                `query_mean`, before the cosine (`index/centered.py`). A variant for comparison: always exact.
            query_mean: [d], the mean of the states at the layer that the queries are of, where centered. Where `states`
                are those of `text_states`, by default `mean_state` of their layer.
            fraction: only occurrences of this part of the sentences, chosen by their hashes as `build` chooses them. An
                index that was built of this part has these rows and, of a token that occurs more than
                `contexts_per_token` times, others in place of those that this part lacks.
            progress: called with (rows read, rows), where exact.

        Raises:
            TooFewNeighborsError: a UserError, where there are not k neighbors.
            UserError: where the width is not the index's, it lacks a layer or the word, no mean is known, or `fraction`
                is none.
            ValueError: where a query has no direction (zero, infinite, NaN).

        Memory grows with Q (d + k), not with the index.
        """
        settings = SearchSettings(k, self._chosen(layers), unique, word, merge, sinks, similarity, (fraction,))
        if isinstance(states, TextStates):
            sentence_ids = states.sentence_ids() if sentence_ids is None else sentence_ids
            query_mean = self._mean_of_texts(states, similarity) if query_mean is None else query_mean
        with self._folder.reading():
            queries = self._queries(states, settings.layers[0], similarity, query_mean)
            own = None if own_sentence else self._own_rows(sentence_ids, len(queries))
            search = IndexSearch(self, settings, queries, own)
            search.check()
            plan = None if exact else search.plan(recall, measured)
            if plan is not None and plan.nprobes:
                return search.by_indexes(plan, self._keep_open(settings.layers))
            return search.by_scan(progress, plan)[0]

    def search_parts(
        self,
        states: Any,
        fractions: Sequence[float],
        k: int = 5,
        layers: Sequence[int] | None = None,
        *,
        unique: Unique | None = None,
        sentence_ids: Sequence[str | None] | None = None,
        progress: Progress = lambda done, total: None,
    ) -> list[SearchResult]:
        """Search nested parts of the index: what `search` gives for each `fraction`, by one scan of the largest part.

        Args:
            states: [Q, d], as `search` takes them.
            fractions: of the sentences, ascending.
            k, layers, unique, sentence_ids, progress: as of `search`.

        Raises:
            TooFewNeighborsError: a UserError, where a part has not k neighbors; it names the fraction.
            UserError, ValueError: as of `search`.
        """
        settings = SearchSettings(k, self._chosen(layers), unique, fractions=tuple(fractions))
        with self._folder.reading():
            queries = self._queries(states, settings.layers[0])
            search = IndexSearch(self, settings, queries, self._own_rows(sentence_ids, len(queries)))
            search.check()
            return search.by_scan(progress)

    def mean_state(self, layer: int) -> NDArray[np.float64]:
        """The mean state [d] of a contextual layer, without attention sinks; computed once.

        Raises:
            UserError: where the index lacks the layer.
        """
        (layer,) = self._chosen([layer])
        if layer not in self._means:
            with self._folder.reading():
                self._means[layer] = mean_of_rows(self.tables[layer])
        return self._means[layer]

    def _mean_of_texts(self, states: TextStates, similarity: str) -> NDArray[np.float64] | None:
        """The mean of the layer that the states of texts are of, where they are centered."""
        layers = list(states.states)
        return self.mean_state(layers[0]) if similarity == "centered" and len(layers) == 1 else None

    def _queries(self, states: Any, layer: int, similarity: str = "cosine", mean: Any = None) -> NDArray[np.floating]:
        """The matrix [Q, d] that is searched with; d is looked up in one layer, for others may lie on the Hub."""
        states = states.only_layer() if isinstance(states, TextStates) else states
        width = width_of(self.tables[layer])
        queries = query_matrix(states, width, self.path, self.language_model)
        check_similarity(similarity, mean is not None)
        if mean is None:
            return queries
        (center,) = query_matrix(mean[None], width, self.path, self.language_model)
        return queries.astype(np.float64) - center

    def measure_recall(self, states: Any) -> MeasuredRecall:
        """Measure how many of the 5 true nearest rows `search(exact=False)` finds for states like yours.

        Args:
            states: [Q, d], as `search` takes them; some hundred are enough. Each takes milliseconds a layer, and the
                exact search once.

        Returns:
            The recall by contextual layer and number of partitions searched, of the layers that have an index: tables
            of 50,000 rows and more. Give it to `search` as `measured`.

        Raises:
            UserError: where the width is not the index's.
            ValueError: where a state has no direction (zero, infinite, NaN).
        """
        with self._folder.reading():
            queries = self._queries(states, self.layers[0])
            found = {layer: measure_recall(queries, table) for layer, table in self.tables.items()}
        return MeasuredRecall({layer: one for layer, one in found.items() if one}, f"{len(queries):,} given states")

    def _own_rows(self, sentence_ids: Sequence[str | None] | None, queries: int) -> OwnRows | None:
        if sentence_ids is None:
            return None
        if len(sentence_ids) != queries:
            raise UserError(
                f"`sentence_ids` names {len(sentence_ids)} texts, but there are {queries} queries: give one for each."
            )
        own = self.occurrences.own_rows(sentence_ids)
        return own if len(own.keys) else None

    def _keep_open(self, layers: list[int]) -> dict[int, lance.LanceDataset]:
        """Layer tables that stay open, and so cache what was read of their indexes."""
        for layer in layers:
            if layer not in self._open_tables:
                self._open_tables[layer] = open_table(self.tables[layer])
        return {layer: self._open_tables[layer] for layer in layers}

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
