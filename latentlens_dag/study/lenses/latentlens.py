"""LatentLens: the nearest states of text tokens in sentences, whatever their contextual layer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from latentlens_dag.errors import UserError
from latentlens_dag.index.folder import IndexFiles, index_blocks
from latentlens_dag.index.layer_tables import count_searched_rows
from latentlens_dag.index.occurrence_lookup import OccurrenceLookup
from latentlens_dag.index.state_tables import TokenStates
from latentlens_dag.schema import LATENTLENS
from latentlens_dag.search.exact import cosine_top_k
from latentlens_dag.study.lenses.base import Lens, LensInputs

if TYPE_CHECKING:
    from latentlens_dag.search.top_k import LabelsOf, Neighbors

_COPIED = ("token_id", "token_str", "word", "key", "sentence_id", "position", "char_start", "char_end")


class LatentLens(Lens):
    """The contextual embeddings of an index with the highest cosine.

    With `unique` "word" or "sentence", the k neighbors of a token are of different words (whatever their case) or
    sentences, and each is the nearest of its own. Attention sinks are no neighbors (`search/sinks.py`).
    """

    name = LATENTLENS
    needs = "index"
    description = "The nearest contextual states of each visual token at layer {layer}, over all contextual layers."

    def neighbors(self, states: Mapping[int, TokenStates], inputs: LensInputs) -> Iterator[tuple[int, pa.Table]]:
        """As `Lens.neighbors`; the queries of all layers share one scan of the index."""
        index, start = inputs.index(), 0
        self._check_rows(index)
        occurrences = OccurrenceLookup.from_files(index.occurrences)
        labels_of = self._labels_of(occurrences)
        found = self._search(states, index, occurrences, labels_of, inputs) if states else None
        for layer, at in states.items():
            assert found is not None
            part = slice(start, start + len(at.states))
            start = part.stop
            rows = occurrences.rows(found.key[part].ravel())
            columns = {
                **{name: rows[name] for name in _COPIED},
                "contextual_layer": found.contextual_layer[part].ravel(),
            }
            yield layer, self.table(layer, at, found.cosine[part], columns)

    def _check_rows(self, index: IndexFiles) -> None:
        rows = sum(count_searched_rows(table) for table in index.tables.values())
        if rows < self.k:
            raise UserError(
                f"`top_k: {self.k}` of Study {self.study} asks for more answers than its index has rows ({rows}, over "
                f"{len(index.tables)} contextual layers): ask for fewer, or give the index a larger corpus."
            )

    def _labels_of(self, occurrences: OccurrenceLookup) -> LabelsOf | None:
        """The labels of which a token's neighbors have each only once."""
        if self.unique == "none":
            return None
        labels_of, different = occurrences.labels_of({"word": "word", "sentence": "sentence_id"}[self.unique])
        if different < self.k:
            raise UserError(
                f"`top_k: {self.k}` and `unique: {self.unique}` of Study {self.study} ask for more answers than its "
                f"index has different {self.unique}s ({different}): ask for fewer, or give the index a larger corpus."
            )
        return labels_of

    def _search(
        self,
        states: Mapping[int, TokenStates],
        index: IndexFiles,
        occurrences: OccurrenceLookup,
        labels_of: LabelsOf | None,
        inputs: LensInputs,
    ) -> Neighbors:
        """The neighbors of the tokens of all layers, one layer after the other."""
        queries = np.concatenate([at.states for at in states.values()])
        own = None
        if self.of_texts:  # a text's id is the hash that a sentence's id is
            own = occurrences.own_rows([text_id for at in states.values() for text_id in at.image_ids])
        found = cosine_top_k(queries, index_blocks(index.tables, inputs.progress, own=own), self.k, labels_of)
        if np.isneginf(found.cosine).any():
            raise UserError(
                f"`top_k: {self.k}` of Study {self.study} asks for more answers than its index has for some text, "
                "whose own sentence is no answer: ask for fewer, or give the index a larger corpus."
            )
        return found
