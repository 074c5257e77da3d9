"""The positions of the visual tokens in a VLM's sequence, as the model determines them in a forward pass.

Note: the image token of the processor is not always the token at whose positions the model writes visual features.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from latentlens_dag.errors import UserError
from latentlens_dag.models.hooks import record_calls

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@contextmanager
def visual_mask(model: Any, input_ids: Tensor) -> Iterator[Any]:
    """A function that returns the mask of the visual positions, bool [B, T], inside or after a forward pass.

    It is the model's own placeholder mask if the model computes one, else the positions of the config's image token.
    """
    recorded: list[torch.Tensor] = []

    def record(_args: tuple[Any, ...], _kwargs: dict[str, Any], result: Any) -> None:
        recorded.append(result[0] if isinstance(result, tuple) else result)

    def mask() -> torch.Tensor:
        if not recorded:
            return input_ids == _image_token_of(model)
        return recorded[-1][..., 0] if recorded[-1].ndim == 3 else recorded[-1]

    owner = next((module for module in model.modules() if hasattr(module, "get_placeholder_mask")), None)
    with record_calls(owner, "get_placeholder_mask", record):
        yield mask


def _image_token_of(model: Any) -> int:
    token_id: int | None = getattr(model.config, "image_token_id", getattr(model.config, "image_token_index", None))
    if token_id is None:
        raise UserError(
            f"A {type(model).__name__} does not say which tokens of its sequence are visual: it has neither a "
            "`get_placeholder_mask` nor an `image_token_id` in its config, so it cannot be read."
        )
    return token_id
