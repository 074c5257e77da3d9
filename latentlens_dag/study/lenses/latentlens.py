"""LatentLens: the nearest states of text tokens in sentences, whatever their contextual layer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from latentlens_dag.errors import UserError
from latentlens_dag.index.search_result import SearchResult, TooFewNeighborsError
from latentlens_dag.index.state_tables import TokenStates
from latentlens_dag.schema import LATENTLENS
from latentlens_dag.study.lenses.base import LayerAnswers, Lens, LensInputs

_COPIED = ("token_id", "token_str", "word", "key", "sentence_id", "position", "char_start", "char_end")


class LatentLens(Lens):
    """The contextual embeddings of an index with the highest cosine.

    With `unique` "word" or "sentence", the k neighbors of a token are of different words (whatever their case) or
    sentences, and each is the nearest of its own. Attention sinks are no neighbors (`search/sinks.py`).
    """

    name = LATENTLENS
    needs = "index"
    description = "The nearest contextual states of each visual token at layer {layer}, over all contextual layers."

    def neighbors(self, states: Mapping[int, TokenStates], inputs: LensInputs) -> Iterator[LayerAnswers]:
        """As `Lens.neighbors`; the queries of all layers share one scan of the index."""
        for _, answers in self.neighbors_in_parts(states, inputs, [1.0]):
            yield answers

    def neighbors_in_parts(
        self, states: Mapping[int, TokenStates], inputs: LensInputs, fractions: Sequence[float]
    ) -> Iterator[tuple[float, LayerAnswers]]:
        """The answers from nested parts of the index, part by part; one scan of the index serves them all.

        Args:
            states: as of `neighbors`.
            inputs: as of `neighbors`.
            fractions: of the index's sentences, ascending.

        Raises:
            UserError: if a part has fewer than k candidates, or fewer than k different ones under `unique`.
        """
        if not states:
            return
        for fraction, found in zip(fractions, self._search(states, inputs, fractions), strict=True):
            start = 0
            for layer, at in states.items():
                yield fraction, self._answers(layer, at, found[start : start + len(at.states)])
                start += len(at.states)

    def _answers(self, layer: int, at: TokenStates, found: SearchResult) -> LayerAnswers:
        rows = found.index.occurrences.rows(found.key.ravel())
        columns = {**{name: rows[name] for name in _COPIED}, "contextual_layer": found.contextual_layer.ravel()}
        return LayerAnswers(self.name, layer, self.table(self.name, layer, at, found.cosine, columns))

    def _search(
        self, states: Mapping[int, TokenStates], inputs: LensInputs, fractions: Sequence[float]
    ) -> list[SearchResult]:
        """The neighbors of the tokens of all layers, one layer after the other, in each part of the index."""
        queries = np.concatenate([at.states for at in states.values()])
        # A text's id is the hash that a sentence's id is.
        texts = [text_id for at in states.values() for text_id in at.image_ids] if self.of_texts else None
        unique = None if self.unique == "none" else self.unique
        options: dict[str, Any] = {"unique": unique, "sentence_ids": texts, "progress": inputs.progress}
        try:
            return inputs.index().search_parts(queries, fractions, self.k, inputs.contextual_layers, **options)
        except TooFewNeighborsError as error:
            part = "" if error.fraction == 1 else f" in {error.fraction:g} of its corpus (`corpus_ablation`)"
            raise UserError(
                f"`top_k: {self.k}` of Study {self.study} asks for more answers than its index has "
                f"{error.available}{part}: ask for fewer, or give the index a larger corpus."
            ) from error
