"""The output of the connector: what a model writes, or adds, at the positions of its visual tokens.

Layer 0 is what enters block 0. Most families write the connector's output there unchanged; Molmo adds it to the
embedding of the placeholder token, so that the two differ. Note: a hook on the projector does not capture it, because
views are still joined, cropped and given newlines after the projector.
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
    """Capture the connector's output for the visual tokens in a forward pass inside the block.

    It is the argument of the model's `get_placeholder_mask`, or else the result of its `get_image_features`.

    Args:
        model: a VLM.
        width: d, the width of its language model.

    Yields:
        A function to call after the pass, from the mask of the visual tokens, bool [B, T], to the output [N, d],
        float32 on the CPU, sequence after sequence.

    Raises:
        UserError: from that function, if the model has neither method, or not one row of width d per token.
    """
    arguments: list[Tensor] = []
    results: list[Tensor] = []
    with ExitStack() as stack:
        for module in model.modules():
            for name, wrapper in (
                ("get_placeholder_mask", _recording_argument(arguments)),
                ("get_image_features", _recording_result(results)),
            ):
                if hasattr(module, name):
                    stack.enter_context(_patched_method(module, name, wrapper))
        yield lambda mask: _rows(model, (arguments or results)[-1:], int(mask.sum()), width)


def _recording_argument(recorded: list[Tensor]) -> Wrapper:
    def wrapper(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            features = kwargs.get("image_features", args[2] if len(args) > 2 else None)
            if features is not None:
                recorded.append(_flat(features))
            return original(*args, **kwargs)

        return call

    return wrapper


def _recording_result(recorded: list[Tensor]) -> Wrapper:
    def wrapper(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            result = original(*args, **kwargs)
            recorded.append(_flat(getattr(result, "pooler_output", result)))
            return result

        return call

    return wrapper


def _flat(features: Any) -> Tensor:
    """The features of one view, or of a list of views, as rows."""
    import torch

    views = features if isinstance(features, list | tuple) else [features]
    return torch.cat([view.reshape(-1, view.shape[-1]) for view in views]).float().cpu()


def _rows(model: Any, recorded: list[Tensor], tokens: int, width: int) -> Tensor:
    if recorded and recorded[0].shape == (tokens, width):
        return recorded[0]
    reason = (
        f"its image features are {len(recorded[0])} rows of width {recorded[0].shape[1]}, but its sequences have "
        f"{tokens} visual tokens of width {width}"
        if recorded
        else "it neither passes image features to a `get_placeholder_mask` nor has a `get_image_features`"
    )
    raise UserError(
        f"The connector's output of a {type(model).__name__} cannot be captured: {reason}. Leave out `connector`; "
        "layer 0 is what enters the first block."
    )


@contextmanager
def _patched_method(module: Any, name: str, wrapper: Wrapper) -> Iterator[None]:
    """Replace a module's method by a wrapper of it inside the block."""
    own_attribute = vars(module).get(name)
    setattr(module, name, wrapper(getattr(module, name)))
    try:
        yield
    finally:
        delattr(module, name)
        if own_attribute is not None:
            setattr(module, name, own_attribute)
