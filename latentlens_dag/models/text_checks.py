"""Checks of how a language model reads text: a token's states depend on what they should, and on nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from latentlens_dag.models.hooks import capture_hidden_states
from latentlens_dag.models.model_parts import ModelParts

if TYPE_CHECKING:
    from torch import Tensor


_TOLERANCE = 1e-3  # relative to the largest value; float32 models reach 1e-6
_ROUNDINGS = 4  # that a model in 16 bits may differ by: 3 % in bfloat16


class ModelCheck(NamedTuple):
    """One property of a model."""

    name: str
    passed: bool
    figure: float | None
    """None where it was not checked."""
    meaning: str
    not_checked: str | None = None
    """Why it could not be checked; then it has not passed."""


def causality(model: ModelParts) -> ModelCheck:
    """Whether what follows a text token leaves its states as they were, at every layer."""
    ids = ordinary_token_ids(model, 8)
    changed = [*ids[:-1], ids[0]]
    one, other = (_text_states(model, [row], [[1] * 8])[:, 0, :-1] for row in (ids, changed))
    return closeness(model, "causality", one, other, "change of earlier text states when the last token changes")


def padding_invariance(model: ModelParts) -> ModelCheck:
    """Whether a text token's states are the same alone and in a padded batch, beside another sentence."""
    ids = ordinary_token_ids(model, 8)
    alone = _text_states(model, [ids[:5]], [[1] * 5])[:, 0]
    padded = _text_states(model, [ids[::-1], ids[:5] + [0] * 3], [[1] * 8, [1] * 5 + [0] * 3])[:, 1, :5]
    return closeness(model, "padding_invariance", alone, padded, "change of text states when their batch is padded")


def batch_invariance(model: ModelParts) -> ModelCheck:
    """Whether a text token's states are the same alone and beside another sentence of the same length."""
    ids = ordinary_token_ids(model, 8)
    alone = _text_states(model, [ids], [[1] * 8])[:, 0]
    beside = _text_states(model, [ids[::-1], ids], [[1] * 8] * 2)[:, 1]
    return closeness(model, "company_invariance", alone, beside, "change of text states beside another sentence")


def _text_states(model: ModelParts, ids: Sequence[list[int]], mask: Sequence[list[int]]) -> Tensor:
    """All layers' states: [L, B, T, d]."""
    import torch

    device = model.embedding.device
    layers = list(range(model.depth))
    with capture_hidden_states(model.decoder, layers, lambda s: s.float().cpu()) as states, torch.inference_mode():
        model.decoder(
            input_ids=torch.tensor(ids, device=device),
            attention_mask=torch.tensor(mask, device=device),
            use_cache=False,
        )
    return torch.stack([states[layer] for layer in layers])


def ordinary_token_ids(model: ModelParts, count: int) -> list[int]:
    """The first few tokens of the vocabulary that are no specials."""
    special = set(model.tokenizer.all_special_ids)
    return [i for i in range(len(model.embedding)) if i not in special][5 : 5 + count]


def closeness(model: ModelParts, name: str, one: Tensor, other: Tensor, meaning: str) -> ModelCheck:
    """Whether two states are the same but for rounding, as the check of that name."""
    import torch

    difference = float((one - other).abs().max() / one.abs().max().clamp_min(1e-12))
    allowed = max(_TOLERANCE, _ROUNDINGS * torch.finfo(model.embedding.dtype).eps)
    return ModelCheck(name, difference <= allowed, difference, f"{meaning}, relative to the largest value")
