"""Which positions of a VLM's sequence are visual tokens, as the model itself sees them in a forward pass.

What a newcomer gets wrong: the image token that a processor names is not always the one whose positions the model
fills with what it sees.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from latentlens_dag.errors import UserError

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@contextmanager
def visual_mask(model: Any, input_ids: Tensor) -> Iterator[Any]:
    """A function that says, inside the forward pass, which positions are visual: bool [B, T].

    The model's own placeholder mask is recorded where it makes one, for a processor's image token may be
    another one; else the positions of the config's image token.
    """
    recorded: list[torch.Tensor] = []
    owner = next((module for module in model.modules() if hasattr(module, "get_placeholder_mask")), None)
    if owner is not None:
        original = owner.get_placeholder_mask

        def recording(*args: Any, **kwargs: Any) -> Any:
            found = original(*args, **kwargs)
            recorded.append(found[0] if isinstance(found, tuple) else found)
            return found

        owner.get_placeholder_mask = recording

    def mask() -> torch.Tensor:
        if not recorded:
            return input_ids == _image_token_of(model)
        found = recorded[-1]
        return found[..., 0] if found.ndim == 3 else found

    try:
        yield mask
    finally:
        if owner is not None:
            del owner.get_placeholder_mask


def _image_token_of(model: Any) -> int:
    found: int | None = getattr(model.config, "image_token_id", getattr(model.config, "image_token_index", None))
    if found is None:
        raise UserError(
            f"A {type(model).__name__} does not say which tokens of its sequence are visual: it has neither a "
            "`get_placeholder_mask` nor an `image_token_id` in its config, so it cannot be read."
        )
    return found
