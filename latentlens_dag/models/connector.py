"""The positions of the visual tokens in a VLM's sequence, and the output of the connector, written or added there.

Both are captured in a forward pass. Note: the image token of the processor is not always the token at whose positions
the model writes visual features.

Layer 0 is what enters block 0. Most families write the connector's output there unchanged; Molmo adds it to the
embedding of the placeholder token, and Granite scales it as it does embeddings, so that the two differ. Note: a hook on
the projector does not capture it, because views are still joined, cropped and given newlines after the projector.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from latentlens_dag.errors import UserError
from latentlens_dag.models.hooks import record_calls

if TYPE_CHECKING:
    from torch import Tensor


@contextmanager
def visual_mask(model: Any, input_ids: Tensor) -> Iterator[Any]:
    """A function that returns the mask of the visual positions, bool [B, T], inside or after a forward pass.

    It is the model's own placeholder mask if the model computes one, else the positions of the config's image token.
    """
    recorded: list[Tensor] = []

    def record(_args: tuple[Any, ...], _kwargs: dict[str, Any], result: Any) -> None:
        recorded.append(result[0] if isinstance(result, tuple) else result)

    def mask() -> Tensor:
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

    def record_argument(args: tuple[Any, ...], kwargs: dict[str, Any], _result: Any) -> None:
        features = kwargs.get("image_features", args[2] if len(args) > 2 else None)
        if features is not None:
            arguments.append(_flat(features))

    def record_result(_args: tuple[Any, ...], _kwargs: dict[str, Any], result: Any) -> None:
        features = getattr(result, "pooler_output", result)
        if features is not None:  # it is in Llama 4, whose projector comes later
            results.append(_flat(features))

    with ExitStack() as stack:
        for module in model.modules():
            stack.enter_context(record_calls(module, "get_placeholder_mask", record_argument))
            stack.enter_context(record_calls(module, "get_image_features", record_result))
        yield lambda mask: _rows(model, (arguments or results)[-1:], int(mask.sum()), width)


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
