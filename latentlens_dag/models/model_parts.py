"""A language model taken apart into what the lenses need, whatever its family calls the parts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeGuard

from latentlens_dag.device import float32_rows, full_precision, in_float32

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class ModelParts:
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
    """The model's final soft-cap of logits, where it has one, after the scale."""
    tokenizer: PreTrainedTokenizerBase
    logit_scale: float = 1.0
    """What the unembedding's products are multiplied by."""

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
        return position_limit_of(self.decoder.config)

    def logits(self, states: Tensor) -> Tensor:
        """What the model would answer if it stopped at `states` [.., d]: float32 [.., V] (the logit lens).

        All of it is computed in float32, whatever the dtype of the weights and the states: in bfloat16, logits are so
        coarse that many rows have equal ones among their first five.
        """
        import torch

        with full_precision():
            found = _unembedded(self.unembedding, in_float32(final_norm_of(self.decoder))(states.float()))
        found = found if self.logit_scale == 1 else found * self.logit_scale
        return found if self.softcap is None else torch.tanh(found / self.softcap) * self.softcap


def position_limit_of(config: Any) -> int | None:
    """`LanguageModel.positions`, from the config of a language model."""
    limits = (getattr(config, name, None) for name in ("max_position_embeddings", "max_seq_len"))
    return next((int(limit) for limit in limits if isinstance(limit, int)), None)


def _unembedded(unembedding: nn.Module, states: Tensor) -> Tensor:
    """The products of an unembedding with states [.., d], in float32, without a second copy of its weights.

    A copy is made only of what is not plainly linear.
    """
    import torch

    if not _is_plain(unembedding) or unembedding.weight.dtype == torch.float32:
        found: Tensor = in_float32(unembedding)(states)
        return found
    found = states.new_empty(*states.shape[:-1], len(unembedding.weight))
    for part, rows in float32_rows(unembedding.weight):
        bias = None if unembedding.bias is None else unembedding.bias[part].float()
        found[..., part] = torch.nn.functional.linear(states, rows, bias)
    return found


def _is_plain(module: nn.Module) -> TypeGuard[nn.Linear]:
    """Whether a module gives the product with its weights and nothing else."""
    from torch.nn import Linear

    return isinstance(module, Linear) and type(module).forward is Linear.forward and "forward" not in vars(module)


_BLOCKS = ("layers", "h", "blocks")
_FINAL_NORMS = (
    *("norm", "final_layernorm", "final_layer_norm", "ln_f", "norm_f", "final_norm"),
    *("embedding_norm", "layer_norm", "layernorm"),  # LFM2, XGLM, CTRL
)


def decoder_of(model: Any) -> nn.Module:
    """The part of a transformers model that has the blocks: its `get_decoder()`, or what that wraps in turn.

    The text half of a Llama 4 gives itself for its decoder, that of a BLIP-2 a whole language model.
    """
    found: nn.Module = model.get_decoder()
    inside: list[nn.Module] = [found, getattr(found, "get_decoder", lambda: found)(), getattr(found, "model", found)]
    return next((part for part in inside if any(hasattr(part, name) for name in _BLOCKS)), found)


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
