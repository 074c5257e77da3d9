"""Reading the residual stream of a language model while it runs.

State i is what enters block i; it is taken by a hook before the block, so that only the rows and layers
that are wanted are kept. Note: `output_hidden_states` is no substitute. Its last entry is after the final
norm, and some models add visual features after it is recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from latentlens_dag.models.model_parts import blocks_of, final_norm_of

if TYPE_CHECKING:
    from torch import Tensor, nn


@contextmanager
def capture_hidden_states(
    decoder: nn.Module, layers: Sequence[int], rows: Callable[[Tensor], Tensor]
) -> Iterator[dict[int, Tensor]]:
    """Collect the states that enter the given blocks during forward passes inside the block.

    Args:
        decoder: as in `LanguageModel`; layer L is what enters the final norm.
        layers: the layers wanted.
        rows: takes the states [B, T, d] and gives what is kept of them.

    Yields:
        A dict that holds, after a forward pass, what was kept of each layer.
    """
    kept: dict[int, Tensor] = {}

    def hook_of(layer: int) -> Callable[..., None]:
        def hook(_module: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            kept[layer] = rows(args[0] if args else kwargs["hidden_states"])

        return hook

    entered = [*blocks_of(decoder), final_norm_of(decoder)]
    hooks = [entered[i].register_forward_pre_hook(hook_of(i), with_kwargs=True) for i in layers]
    try:
        yield kept
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def stop_at_layer(decoder: nn.Module, layer: int) -> Iterator[None]:
    """End a forward pass inside the block as soon as it reaches a layer, for what comes after is not wanted.

    To be entered after `capture_hidden_states`, whose hooks then run first.
    """

    def hook(_module: object, _args: object) -> None:
        raise _ReachedError

    part = [*blocks_of(decoder), final_norm_of(decoder)][layer]
    handle = part.register_forward_pre_hook(hook)
    try:
        yield
    except _ReachedError:
        pass
    finally:
        handle.remove()


class _ReachedError(Exception):
    """Not an error: the way out of a forward pass."""
