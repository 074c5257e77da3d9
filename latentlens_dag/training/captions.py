"""The sequences of a training step, and the loss of their captions.

A sequence is the text before the image (with <bos>, if the tokenizer puts one), the visual tokens, the text after them,
the caption, its end, and padding on the right, where causal attention never looks. All sequences of a step have the
same number of visual tokens, so that nothing is padded on the left and a mask of ones is right. Note: without a mask,
transformers 5 takes jumps of the positions for packed sequences.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from latentlens_dag.models.model_parts import ModelParts
from latentlens_dag.training.standardization import root_mean_square

if TYPE_CHECKING:
    from torch import Tensor, nn

IGNORED = -100
"""The target of a position without loss."""


class Batch(NamedTuple):
    """One step's sequences."""

    features: Tensor
    """[B, kept, hidden]: standardized features of the visual tokens that are kept."""
    token_ids: Tensor
    """int64 [B, text]: the text after the image, the caption, its end, padding."""
    targets: Tensor
    """int64 [B, text]: the caption's tokens and its end; IGNORED elsewhere."""
    weights: Tensor
    """float32 [B, text]: weight of each target in the loss."""


def padded_texts(after: Sequence[int], captions: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """`token_ids` and `targets` of a batch, padded on the right with token 0.

    Args:
        after: the tokens between the image and every caption.
        captions: the tokens of each caption and its end.
    """
    import torch

    longest = max(map(len, captions))
    token_ids = torch.zeros(len(captions), len(after) + longest, dtype=torch.int64)
    targets = torch.full_like(token_ids, IGNORED)
    for row, ids in enumerate(captions):
        token_ids[row, : len(after) + len(ids)] = torch.tensor([*after, *ids])
        targets[row, len(after) : len(after) + len(ids)] = torch.tensor(ids)
    return token_ids, targets


def caption_loss(
    language: ModelParts,
    connector: nn.Module,
    batch: Batch,
    before: Sequence[int],
    output_rms: float,
    fixed_size: bool = False,
) -> Tensor:
    """Weighted mean cross-entropy of the captions' tokens given the visual tokens that are kept and the text.

    Args:
        language: a causal language model, frozen; gradients go through it.
        connector: takes [.., hidden], gives [.., width].
        batch: the sequences.
        before: the tokens before the visual tokens.
        output_rms: what the connector's output is multiplied by.
        fixed_size: scale the visual tokens of the batch together to RMS `output_rms` instead.
    """
    import torch

    visual = connector(batch.features.float())
    visual = visual * (output_rms / root_mean_square(visual) if fixed_size else output_rms)
    states = _final_states(language, before, visual, batch.token_ids)
    # The state before a token predicts it.
    predicting = states[:, len(before) + visual.shape[1] - 1 : -1]
    is_target = batch.targets != IGNORED
    losses = torch.nn.functional.cross_entropy(
        _logits(language, predicting[is_target]), batch.targets[is_target], reduction="none"
    )
    weights = batch.weights[is_target]
    return (losses * weights).sum() / weights.sum()


def _final_states(language: ModelParts, before: Sequence[int], visual: Tensor, token_ids: Tensor) -> Tensor:
    """The states after the final norm, [B, T, d]: those that predict the next token."""
    import torch

    decoder: Any = language.decoder
    embed = decoder.get_input_embeddings()
    start = torch.tensor([list(before)], dtype=torch.int64, device=visual.device).expand(len(visual), -1)
    inputs = torch.cat([embed(start), visual.to(embed.weight.dtype), embed(token_ids)], dim=1)
    ones = torch.ones(inputs.shape[:2], dtype=torch.int64, device=visual.device)
    states: Tensor = decoder(inputs_embeds=inputs, attention_mask=ones, use_cache=False).last_hidden_state
    return states


def _logits(language: ModelParts, states: Tensor) -> Tensor:
    """The model's own logits [.., V] of final states, float32; the unembedding is computed in the model's dtype."""
    import torch

    logits = language.unembedding(states).float() * language.logit_scale
    return logits if language.softcap is None else torch.tanh(logits / language.softcap) * language.softcap


def embedding_rms(language: Any) -> float:
    """Root mean square of the entries of the text embeddings, as they enter a model or decoder of transformers."""
    import torch

    embed = language.get_input_embeddings()  # some families scale the rows of the matrix
    with torch.inference_mode():
        return float(root_mean_square(embed(torch.arange(len(embed.weight), device=embed.weight.device)).float()))
