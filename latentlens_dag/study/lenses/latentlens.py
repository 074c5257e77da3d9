"""LatentLens: the nearest states of text tokens in sentences, whatever their contextual layer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import pyarrow as pa

from latentlens_dag.errors import UserError
from latentlens_dag.index.contextual_index import SearchResult, TooFewNeighborsError
from latentlens_dag.index.state_tables import TokenStates
from latentlens_dag.schema import LATENTLENS
from latentlens_dag.study.lenses.base import Lens, LensInputs

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
        if not states:
            return
        found, start = self._search(states, inputs), 0
        for layer, at in states.items():
            part = found[start : start + len(at.states)]
            start += len(at.states)
            rows = found.index.occurrences.rows(part.key.ravel())
            copied = {name: rows[name] for name in _COPIED}
            columns = {**copied, "contextual_layer": part.contextual_layer.ravel()}
            yield layer, self.table(layer, at, part.cosine, columns)

    def _search(self, states: Mapping[int, TokenStates], inputs: LensInputs) -> SearchResult:
        """The neighbors of the tokens of all layers, one layer after the other."""
        queries = np.concatenate([at.states for at in states.values()])
        # A text's id is the hash that a sentence's id is.
        texts = [text_id for at in states.values() for text_id in at.image_ids] if self.of_texts else None
        unique = None if self.unique == "none" else self.unique
        index, layers = inputs.index(), inputs.contextual_layers
        try:
            return index.search(
                queries,
                self.k,
                layers,
                unique=unique,
                sentence_ids=texts,
                fraction=inputs.fraction,
                progress=inputs.progress,
            )
        except TooFewNeighborsError as error:
            part = "" if inputs.fraction == 1 else f" in {inputs.fraction:g} of its corpus (`corpus_ablation`)"
            raise UserError(
                f"`top_k: {self.k}` of Study {self.study} asks for more answers than its index has "
                f"{error.available}{part}: ask for fewer, or give the index a larger corpus."
            ) from error
