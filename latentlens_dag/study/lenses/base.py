"""The interface of a lens: states of visual tokens in, the k nearest candidates of each out.

`registry.py` says how a new one is added.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple

import numpy as np
import pyarrow as pa

from latentlens_dag.index.contextual_index import ContextualIndex
from latentlens_dag.index.state_tables import TokenStates
from latentlens_dag.schema import DECLARED_LENSES, NEIGHBORS, Candidates

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from latentlens_dag.models.vocabulary_parts import Vocabulary, VocabularyNeeds

Unique = Literal["none", "word", "sentence"]
"""In what the neighbors of a token must differ."""


@dataclass(frozen=True)
class LensInputs:
    """Where a lens gets its candidates; only what it needs is loaded."""

    index: Callable[[], ContextualIndex]
    vocabulary: Callable[[VocabularyNeeds], Vocabulary]
    """The language model, or at least the part of it that is needed."""
    progress: Callable[[int, int], None] = lambda done, total: None
    """Called with rows done and rows in all."""
    contextual_layers: Sequence[int] | None = None
    """The layers of the index that are searched; None for all."""
    shared_candidates: Callable[[], NDArray[np.int32]] | None = None
    """The tokens that the index has, by id in ascending order (`study/candidates.py`)."""


class LayerAnswers(NamedTuple):
    """The answers of one lens at one visual layer."""

    lens: str
    """Key of `schema.LENSES`."""
    visual_layer: int
    table: pa.Table
    """NEIGHBORS, in order of token and rank."""


@dataclass(frozen=True)
class Lens(ABC):
    """One lens on the states of one study, with one or more sets of candidates."""

    name: ClassVar[str]
    """Key of `schema.DECLARED_LENSES`."""
    needs: ClassVar[Literal["index", "head", "embedding"]]
    """Where its candidates are: the index, the model's head (final norm and unembedding), or its input embedding."""
    algorithm: ClassVar[int] = 1
    """Raised when the same input would give other bytes."""
    description: ClassVar[str]
    """Of its assets; `{layer}` is the visual layer."""

    study: str
    k: int
    """Neighbors per token."""
    unique: Unique = "none"
    of_texts: bool = False
    """Whether the tokens are those of texts; then a text's own sentence in the index is no neighbor."""
    candidates: tuple[Candidates, ...] = ("all",)
    """Of a lens on the vocabulary; LatentLens has those of its index in any case."""

    @abstractmethod
    def neighbors(self, states: Mapping[int, TokenStates], inputs: LensInputs) -> Iterator[LayerAnswers]:
        """The k nearest candidates of every token, for each layer of `states` and each set of candidates.

        A generator, so that a caller can write one layer before the next.

        Raises:
            UserError: if there are fewer than k candidates, or fewer than k different ones under `unique`.
        """

    def table(
        self, lens: str, layer: int, at: TokenStates, score: NDArray[np.float32], columns: Mapping[str, object]
    ) -> pa.Table:
        """NEIGHBORS of the tokens `at` one layer.

        Args:
            lens: for the column `lens`.
            layer: visual layer.
            at: N tokens.
            score: [N, k], best first; goes into the lens's column.
            columns: N * k values each, in order of token and rank; what is left out is null.
        """
        tokens, k = score.shape
        values = {
            "study": [self.study] * score.size,
            "image_id": pa.array(at.image_ids).take(pa.array(np.repeat(np.arange(tokens), k))),
            "token_index": np.repeat(at.token_index, k),
            "visual_layer": np.full(score.size, layer, np.int32),
            "lens": [lens] * score.size,
            "rank": np.tile(np.arange(1, k + 1, dtype=np.int32), tokens),
            DECLARED_LENSES[self.name].score: score.ravel(),
            **columns,
        }
        arrays = [values.get(field.name, pa.nulls(score.size, field.type)) for field in NEIGHBORS]
        return pa.table(arrays, names=NEIGHBORS.names).cast(NEIGHBORS)
