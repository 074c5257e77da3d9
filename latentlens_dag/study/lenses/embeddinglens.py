"""EmbeddingLens: the tokens whose input embeddings have the highest cosine to a state."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from latentlens_dag.device import float32_rows, full_precision
from latentlens_dag.study.lenses.vocabulary import VocabularyLens

if TYPE_CHECKING:
    from torch import Tensor

    from latentlens_dag.models.vocabulary_parts import Vocabulary


class EmbeddingLens(VocabularyLens):
    """Cosines to the rows of the input embedding; a row of zeros, as padding rows may be, is never a neighbor."""

    name = "embeddinglens"
    needs = "embedding"
    description = "The vocabulary tokens whose input embeddings are nearest to each visual token at layer {layer}."

    def scorer(self, vocabulary: Vocabulary) -> Callable[[Tensor], Tensor]:
        """The cosines; minus infinity to a row of zeros.

        An embedding in float32 is normalized once, another one in every pass: there is no float32 copy of it.
        """
        import torch

        embedding = vocabulary.embedding.detach()
        once = list(_unit_rows(embedding)) if embedding.dtype == torch.float32 else None
        return lambda states: _cosines(states, len(embedding), once or _unit_rows(embedding))


class _UnitRows(NamedTuple):
    """Some rows of the embedding in float32, divided by their lengths; NaN where one is 0."""

    rows: slice
    unit: Tensor
    zeros: Tensor
    """Which of these rows are 0, as numbers from the first of them."""


def _unit_rows(embedding: Tensor) -> Iterator[_UnitRows]:
    for part, rows in float32_rows(embedding):
        norms = rows.norm(dim=1, keepdim=True)
        yield _UnitRows(part, rows / norms, (norms[:, 0] == 0).nonzero()[:, 0])


def _cosines(states: Tensor, vocabulary_size: int, parts: Iterable[_UnitRows]) -> Tensor:
    import torch

    unit = torch.nn.functional.normalize(states, dim=1)
    cosines = states.new_empty(len(states), vocabulary_size)
    with full_precision():
        for part in parts:
            products = torch.mm(unit, part.unit.T, out=cosines[:, part.rows])
            if len(part.zeros):
                products.index_fill_(1, part.zeros, -torch.inf)
    return cosines
