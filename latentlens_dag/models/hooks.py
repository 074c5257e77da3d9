"""Reading the residual stream of a language model during a forward pass.

The state of layer i is what enters block i, or would if the model did not skip it; hooks before the blocks capture it,
so that only the requested rows and layers are kept. Note: `output_hidden_states` is not equivalent. Its last entry is
after the final norm, and some models add visual features after an entry is recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from latentlens_dag.errors import UserError
from latentlens_dag.models.model_parts import blocks_of, final_norm_of

if TYPE_CHECKING:
    from torch import Tensor, nn


@contextmanager
def capture_hidden_states(
    decoder: nn.Module, layers: Sequence[int], rows: Callable[[Tensor], Tensor]
) -> Iterator[dict[int, Tensor]]:
    """Capture the states of some layers in forward passes inside the block.

    Args:
        decoder: as in `LanguageModel`.
        layers: each in 0..L; layer L is what enters the final norm.
        rows: selects from the states [B, T, d] what is kept.

    Yields:
        A dict that has, after a forward pass, the selected states of each layer.

    Raises:
        UserError: in the forward pass, if the blocks pass on more than one state per token.
    """
    states: dict[int, Tensor] = {}
    reached: list[int] = []  # the numbers of the modules that ran in this pass

    def hook_of(number: int) -> Callable[..., None]:
        def hook(_module: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            last = min(max(reached, default=-1), number - 1)
            reached.append(number)
            # Blocks after the last one were skipped, as those of Mllama with cross-attention are for a text.
            if entered := [layer for layer in layers if last < layer <= number]:
                stream = _one_stream(args[0] if args else kwargs["hidden_states"], decoder)
                states.update(dict.fromkeys(entered, rows(stream)))

        return hook

    modules = list(enumerate([*blocks_of(decoder), final_norm_of(decoder)]))
    hooks = [decoder.register_forward_pre_hook(lambda *_: reached.clear())]
    for number, module in modules[min(layers) :] if layers else []:
        hooks.append(module.register_forward_pre_hook(hook_of(number), with_kwargs=True))
    try:
        yield states
    finally:
        for hook in hooks:
            hook.remove()


def _one_stream(states: Tensor, decoder: nn.Module) -> Tensor:
    if states.ndim == 3:
        return states
    raise UserError(
        f"A {type(decoder).__name__} cannot be read: its blocks pass on several streams that each block mixes "
        f"(states of shape {list(states.shape)}, not [sequences, tokens, width]), so there is no one residual stream."
    )


@contextmanager
def record_calls(
    module: Any, name: str, record: Callable[[tuple[Any, ...], dict[str, Any], Any], None]
) -> Iterator[None]:
    """Call `record(args, kwargs, result)` after each call of a module's method, if it has it, inside the block."""
    if not hasattr(module, name):
        yield
        return
    own_attribute, original = vars(module).get(name), getattr(module, name)

    def call(*args: Any, **kwargs: Any) -> Any:
        result = original(*args, **kwargs)
        record(args, kwargs, result)
        return result

    setattr(module, name, call)
    try:
        yield
    finally:
        delattr(module, name)
        if own_attribute is not None:
            setattr(module, name, own_attribute)


@contextmanager
def stop_at_layer(decoder: nn.Module, layer: int) -> Iterator[None]:
    """End a forward pass inside the block when it reaches a layer.

    Must be entered after `capture_hidden_states`, so that its hooks run first.
    """

    def hook(_module: object, _args: object) -> None:
        raise _StopForwardError

    module = [*blocks_of(decoder), final_norm_of(decoder)][layer]
    handle = module.register_forward_pre_hook(hook)
    try:
        yield
    except _StopForwardError:
        pass
    finally:
        handle.remove()


class _StopForwardError(Exception):
    """Ends a forward pass; not an error."""
