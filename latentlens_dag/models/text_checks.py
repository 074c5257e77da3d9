"""Checks that the states of a text token depend only on the tokens before it, not on later ones or on the batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from latentlens_dag.models.hooks import capture_hidden_states
from latentlens_dag.models.model_parts import ModelParts

if TYPE_CHECKING:
    from torch import Tensor


_TOLERANCE = 1e-3  # relative to the largest value; float32 models reach 1e-6
_ROUNDINGS = 4  # a model in 16 bits may differ by this many: 3 % in bfloat16


class ModelCheck(NamedTuple):
    """One property of a model."""

    name: str
    passed: bool
    figure: float | None
    """None if it was not checked."""
    meaning: str
    not_checked: str | None = None
    """Why it could not be checked; then `passed` is False."""


def causality(model: ModelParts) -> ModelCheck:
    """Check that a later token does not change the states of earlier ones, at every layer."""
    ids = ordinary_token_ids(model, 8)
    original, changed = (_text_states(model, [row], [[1] * 8])[:, 0, :-1] for row in (ids, [*ids[:-1], ids[0]]))
    return closeness(model, "causality", original, changed, "change of earlier text states when the last token changes")


def padding_invariance(model: ModelParts) -> ModelCheck:
    """Check that a text has the same states alone and in a padded batch with another one."""
    ids = ordinary_token_ids(model, 8)
    alone = _text_states(model, [ids[:5]], [[1] * 5])[:, 0]
    padded = _text_states(model, [ids[::-1], ids[:5] + [0] * 3], [[1] * 8, [1] * 5 + [0] * 3])[:, 1, :5]
    return closeness(model, "padding_invariance", alone, padded, "change of text states when their batch is padded")


def batch_invariance(model: ModelParts) -> ModelCheck:
    """Check that a text has the same states alone and in a batch with another one of the same length."""
    ids = ordinary_token_ids(model, 8)
    alone = _text_states(model, [ids], [[1] * 8])[:, 0]
    beside = _text_states(model, [ids[::-1], ids], [[1] * 8] * 2)[:, 1]
    return closeness(model, "company_invariance", alone, beside, "change of text states beside another sentence")


def _text_states(model: ModelParts, ids: Sequence[list[int]], mask: Sequence[list[int]]) -> Tensor:
    """The states of all layers: [L, B, T, d]."""
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
    """Some tokens from the beginning of the vocabulary that are not special."""
    special = set(model.tokenizer.all_special_ids)
    return [i for i in range(len(model.embedding)) if i not in special][5 : 5 + count]


def closeness(model: ModelParts, name: str, expected: Tensor, actual: Tensor, meaning: str) -> ModelCheck:
    """The check `name`: two tensors are equal except for rounding, relative to the largest expected value."""
    import torch

    difference = float((expected - actual).abs().max() / expected.abs().max().clamp_min(1e-12))
    allowed = max(_TOLERANCE, _ROUNDINGS * torch.finfo(model.embedding.dtype).eps)
    return ModelCheck(name, difference <= allowed, difference, f"{meaning}, relative to the largest value")
