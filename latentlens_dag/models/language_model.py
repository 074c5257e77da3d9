"""A language model that reads texts: its parts (`model_parts.py`) and the states of texts (`text_states.py`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from latentlens_dag.models.model_parts import ModelParts

if TYPE_CHECKING:
    from latentlens_dag.models.text_states import TextStates


class LanguageModel(ModelParts):
    """A language model taken apart, which reads texts."""

    def text_states(self, texts: Sequence[str], layers: Sequence[int]) -> TextStates:
        """The states of every token of the texts, each read whole and alone, to ask an index with.

        Args:
            texts: as they stand, without a chat template; the tokenizer's own specials are added.
            layers: each from 0 (the input embeddings) to `depth` - 1.

        Returns:
            `states`: per layer [N, d] float32 on the CPU; `tokens`: what each of the N tokens is (Polars). Special
            tokens have no state.

        Raises:
            UserError: where a layer does not exist, a text has more tokens than the model has positions, or the
                device's memory does not hold one text.
        """
        from latentlens_dag.models.text_states import text_states

        return text_states(self, texts, layers)
