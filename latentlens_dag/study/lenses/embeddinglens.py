"""EmbeddingLens: the tokens whose input embeddings have the highest cosine to a state."""

from __future__ import annotations

from typing import TYPE_CHECKING

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

    def scores(self, vocabulary: Vocabulary, states: Tensor) -> Tensor:
        """The cosines [N, V]; minus infinity to a row of zeros."""
        import torch

        embedding = vocabulary.embedding.detach()
        unit = torch.nn.functional.normalize(states, dim=1)
        cosines = states.new_empty(len(states), len(embedding))
        with full_precision():
            for part, rows in float32_rows(embedding):
                norms = rows.norm(dim=1, keepdim=True)
                products = torch.mm(unit, (rows / norms).T, out=cosines[:, part])  # NaN where the norm is 0
                if bool((zero := norms[:, 0] == 0).any()):
                    products.masked_fill_(zero, -torch.inf)
        return cosines
