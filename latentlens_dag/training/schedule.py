"""The learning rate of a step, and the step of the optimizer."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

_LARGEST_GRADIENT = 1.0


def warmup_cosine(step: int, steps: int, warmup: int) -> float:
    """Factor on the learning rate: linear to 1 over `warmup` steps, then half a cosine to 0.02."""
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def take_step(optimizer: Any, loss: Tensor, weights: Iterable[Tensor], rate: float) -> None:
    """One step of `optimizer` down `loss` at the learning rate `rate`, the norm of the gradient clipped at 1."""
    import torch

    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(weights, _LARGEST_GRADIENT)
    optimizer.step()
