"""The connector's output: what a model puts, or adds, where its visual tokens are.

Layer 0 is what enters block 0. Most families write the connector's output there as it is; Molmo's add it to the
embedding of the placeholder, so that the two differ. What a newcomer gets wrong: a hook on the projector is no tap.
What comes out of it is not yet what enters the sequence: views are still to be joined, cut and given newlines.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from latentlens_dag.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

Wrapper = Callable[[Callable[..., Any]], Callable[..., Any]]


@contextmanager
def connector_output(model: Any, width: int) -> Iterator[Callable[[Tensor], Tensor]]:
    """A function that gives, after a forward pass inside the block, the connector's output of the visual tokens.

    It is what the model hands to `get_placeholder_mask`, or else what its `get_image_features` gives.

    Args:
        model: a VLM.
        width: of its language model, d.

    Yields:
        A function of the visual tokens' mask, bool [B, T], that gives [N, d] float32 on the CPU, in the order of the
        N tokens: those of one sequence after the other.

    Raises:
        UserError: from that function, where the model does neither, or not one row of width d for each token.
    """
    handed: list[Tensor] = []
    given: list[Tensor] = []
    with ExitStack() as stack:
        for module in model.modules():
            for name, wrapper in (
                ("get_placeholder_mask", _keeping_argument(handed)),
                ("get_image_features", _keeping_result(given)),
            ):
                if hasattr(module, name):
                    stack.enter_context(_wrapped(module, name, wrapper))
        yield lambda mask: _rows(model, (handed or given)[-1:], int(mask.sum()), width)


def _keeping_argument(kept: list[Tensor]) -> Wrapper:
    def wrapper(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            features = kwargs.get("image_features", args[2] if len(args) > 2 else None)
            if features is not None:
                kept.append(_flat(features))
            return original(*args, **kwargs)

        return call

    return wrapper


def _keeping_result(kept: list[Tensor]) -> Wrapper:
    def wrapper(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            found = original(*args, **kwargs)
            features = getattr(found, "pooler_output", found)
            kept.append(_flat(features))
            return found

        return call

    return wrapper


def _flat(features: Any) -> Tensor:
    """Features of one view, or of a list of them, as rows."""
    import torch

    views = features if isinstance(features, list | tuple) else [features]
    return torch.cat([view.reshape(-1, view.shape[-1]) for view in views]).float().cpu()


def _rows(model: Any, kept: list[Tensor], tokens: int, width: int) -> Tensor:
    if kept and kept[0].shape == (tokens, width):
        return kept[0]
    reason = (
        f"its image features are {len(kept[0])} rows of width {kept[0].shape[1]}, but {tokens} tokens of its sequences "
        f"are visual, of width {width}"
        if kept
        else "it neither hands image features to a `get_placeholder_mask` nor has a `get_image_features`"
    )
    raise UserError(
        f"The connector's output of a {type(model).__name__} cannot be told: {reason}. Do without it (`connector`): "
        "layer 0 is what enters the first block."
    )


@contextmanager
def _wrapped(module: Any, name: str, wrapper: Wrapper) -> Iterator[None]:
    """Let a module call `wrapper` of its method for the while; what was in its place before comes back after."""
    before = vars(module).get(name)
    setattr(module, name, wrapper(getattr(module, name)))
    try:
        yield
    finally:
        delattr(module, name)
        if before is not None:
            setattr(module, name, before)
