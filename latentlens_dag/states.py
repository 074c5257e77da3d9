"""Reading the residual stream of a language model while it runs.

State i is what enters block i; it is taken by a hook before the block, so that only the rows and layers
that are wanted are kept. What a newcomer gets wrong: `output_hidden_states` is no substitute. Its last
entry is after the final norm, and some models add visual features after it is recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedTokenizerBase

    from latentlens_dag.texts import TextStates


@dataclass(frozen=True)
class LanguageModel:
    """The language model of a VLM, or one that stands alone, taken apart into what the lenses need."""

    name: str
    """What a person wrote to name it: a folder, or user/name of the Hub with the commit, as user/name@commit."""
    decoder: nn.Module
    """The blocks and the final norm (`blocks_of`, `final_norm_of`); maps input ids to final hidden states."""
    embedding: Tensor
    """[V, d]: the rows of the input embedding."""
    unembedding: nn.Module
    """Maps [.., d] to logits [.., V]."""
    softcap: float | None
    """The model's final soft-cap of logits, where it has one."""
    tokenizer: PreTrainedTokenizerBase

    def __repr__(self) -> str:
        """One line: a module's own representation has a line per part."""
        return f"<LanguageModel {self.name}: {type(self.decoder).__name__}, {self.depth} blocks, width {self.width}>"

    @property
    def depth(self) -> int:
        """Number of blocks, L."""
        return len(blocks_of(self.decoder))

    @property
    def width(self) -> int:
        """Width of the residual stream, d."""
        return int(self.embedding.shape[1])

    @property
    def positions(self) -> int | None:
        """How many tokens of one text it was made for, specials counted; None where its config sets no limit."""
        return positions_of(self.decoder.config)

    def text_states(self, texts: Sequence[str], layers: Sequence[int]) -> TextStates:
        """The states of every token of the texts, each read whole and alone, to ask an index with.

        Args:
            texts: as they stand, without a chat template; the tokenizer's own specials are added.
            layers: each from 0 (the input embeddings) to `depth` - 1.

        Returns:
            `states`: per layer [N, d] float32 on the CPU; `tokens`: what each of the N tokens is (Polars). Special
            tokens have no state.

        Raises:
            UserError: where a layer does not exist, a text has more tokens than the model has positions, or the
                device's memory does not hold one text.
        """
        from latentlens_dag.texts import text_states

        return text_states(self, texts, layers)

    def logits(self, states: Tensor) -> Tensor:
        """What the model would answer if it stopped at `states` [.., d]: [.., V] (the logit lens)."""
        import torch

        found: Tensor = self.unembedding(final_norm_of(self.decoder)(states))
        return found if self.softcap is None else torch.tanh(found / self.softcap) * self.softcap


def positions_of(config: Any) -> int | None:
    """`LanguageModel.positions`, from the config of a language model."""
    limits = (getattr(config, name, None) for name in ("max_position_embeddings", "max_seq_len"))
    return next((int(limit) for limit in limits if isinstance(limit, int)), None)


_BLOCKS = ("layers", "h", "blocks")
_FINAL_NORMS = ("norm", "final_layernorm", "final_layer_norm", "ln_f", "norm_f")


def blocks_of(decoder: nn.Module) -> nn.ModuleList:
    """The blocks of a decoder, whatever its family calls them.

    Raises:
        AttributeError: where it calls them none of what we know.
    """
    return _part(decoder, _BLOCKS)  # type: ignore[return-value]


def final_norm_of(decoder: nn.Module) -> nn.Module:
    """What comes after the last block; errors as `blocks_of`."""
    return _part(decoder, _FINAL_NORMS)


def _part(decoder: nn.Module, names: Sequence[str]) -> nn.Module:
    found = next((part for name in names if (part := getattr(decoder, name, None)) is not None), None)
    if found is None:
        raise AttributeError(f"{type(decoder).__name__} has none of {', '.join(names)}")
    return found


@contextmanager
def captured(
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
def stopping(decoder: nn.Module, layer: int) -> Iterator[None]:
    """End a forward pass inside the block as soon as it reaches a layer, for what comes after is not wanted.

    To be entered after `captured`, whose hooks then run first.
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
