"""A language model: its parts (`model_parts.py`) and the states of texts (`text_states.py`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from latentlens_dag.models.model_parts import ModelParts

if TYPE_CHECKING:
    from latentlens_dag.models.text_states import TextStates


class LanguageModel(ModelParts):
    """A language model whose parts are accessible, and which reads texts."""

    def text_states(self, texts: Sequence[str], layers: Sequence[int]) -> TextStates:
        """The states of every token of the texts, each read as a whole and by itself, for searching an index.

        Args:
            texts: verbatim, without a chat template; the tokenizer's special tokens are added.
            layers: each from 0 (the input embeddings) to `depth` - 1.

        Returns:
            `states`: per layer [N, d] float32 on the CPU; `tokens`: a Polars table of the N tokens. Special tokens have
            no states.

        Raises:
            UserError: if a layer does not exist, a text has more tokens than the model has positions, or the memory of
                the device cannot hold one text.
        """
        from latentlens_dag.models.text_states import text_states

        return text_states(self, texts, layers)
