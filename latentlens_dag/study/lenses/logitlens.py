"""LogitLens: the tokens with the highest logits, were the model to stop at a state."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from latentlens_dag.study.lenses.vocabulary import VocabularyLens

if TYPE_CHECKING:
    from torch import Tensor

    from latentlens_dag.models.vocabulary_parts import Vocabulary


class LogitLens(VocabularyLens):
    """Logits: the unembedding of the final norm, scaled and soft-capped as the model does it."""

    name = "logitlens"
    needs = "head"
    description = "The vocabulary tokens with the highest logits for each visual token at layer {layer}."

    def scorer(self, vocabulary: Vocabulary) -> Callable[[Tensor], Tensor]:
        """The model's logits."""
        return vocabulary.logits
