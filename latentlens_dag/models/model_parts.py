"""The parts of a language model that the lenses need, under one name for all families."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeGuard

from latentlens_dag.device import float32_rows, full_precision, in_float32
from latentlens_dag.text.html import table_html

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Head:
    """The final norm and the unembedding of a language model, and its rule for logits."""

    final_norm: nn.Module
    unembedding: nn.Module
    """As in `ModelParts`, and so the next two."""
    softcap: float | None = None
    logit_scale: float = 1.0

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.unembedding.parameters()).device

    def to(self, device: str) -> Head:
        """The head with its weights on a device."""
        return replace(self, final_norm=self.final_norm.to(device), unembedding=self.unembedding.to(device))

    @cached_property
    def _norm_in_float32(self) -> nn.Module:
        return in_float32(self.final_norm)

    def logits(self, states: Tensor) -> Tensor:
        """The logits of states [.., d] as if the model ended there: float32 [.., V] (the logit lens).

        Computed in float32, whatever the dtype of the weights and states: in bfloat16, many rows have equal logits
        among their first five.
        """
        import torch

        with full_precision():
            logits = _unembed(self.unembedding, self._norm_in_float32(states.float()))
        logits = logits if self.logit_scale == 1 else logits * self.logit_scale
        return logits if self.softcap is None else torch.tanh(logits / self.softcap) * self.softcap


@dataclass(frozen=True)
class ModelParts:
    """The parts of a language model, of a VLM or by itself."""

    name: str
    """The folder as the user wrote it, or user/name@commit for a model of the Hub."""
    decoder: nn.Module
    """The blocks and the final norm (`blocks_of`, `final_norm_of`); maps input ids to final hidden states."""
    embedding: Tensor
    """[V, d]: the input embedding."""
    unembedding: nn.Module
    """Maps [.., d] to logits [.., V]."""
    softcap: float | None
    """The final soft-cap of the logits, applied after the scale, if the model has one."""
    tokenizer: PreTrainedTokenizerBase
    logit_scale: float = 1.0
    """The factor of the products of the unembedding."""

    def __repr__(self) -> str:
        """One line, in contrast to the representation of a torch module."""
        return f"<LanguageModel {self.name}: {type(self.decoder).__name__}, {self.depth} blocks, width {self.width}>"

    def _repr_html_(self) -> str:
        blocks = f"{type(self.decoder).__name__}, {self.depth} blocks, width {self.width:,}"
        return table_html(f"LanguageModel {self.name}", [], [("model", blocks), ("layers", f"0 to {self.depth - 1}")])

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
        """The most tokens of a text, special tokens included; None if the config sets no limit."""
        return position_limit_of(self.decoder.config)

    @property
    def vocabulary_size(self) -> int:
        """Rows of the input embedding, V; some may have no token."""
        return len(self.embedding)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.embedding.device

    @cached_property
    def head(self) -> Head:
        """What makes logits of final hidden states; its weights must not change once it was used."""
        return Head(final_norm_of(self.decoder), self.unembedding, self.softcap, self.logit_scale)

    def logits(self, states: Tensor) -> Tensor:
        """As `Head.logits`."""
        return self.head.logits(states)


def position_limit_of(config: Any) -> int | None:
    """`LanguageModel.positions` by the config of a language model."""
    limits = (getattr(config, name, None) for name in ("max_position_embeddings", "max_seq_len"))
    return next((int(limit) for limit in limits if isinstance(limit, int)), None)


def _unembed(unembedding: nn.Module, states: Tensor) -> Tensor:
    """The products of an unembedding with states [.., d] in float32; the weights of a plain layer are not copied."""
    import torch

    if not _is_plain_linear(unembedding) or unembedding.weight.dtype == torch.float32:
        products: Tensor = in_float32(unembedding)(states)
        return products
    products = states.new_empty(*states.shape[:-1], len(unembedding.weight))
    for part, rows in float32_rows(unembedding.weight):
        bias = None if unembedding.bias is None else unembedding.bias[part].float()
        products[..., part] = torch.nn.functional.linear(states, rows, bias)
    return products


def _is_plain_linear(module: nn.Module) -> TypeGuard[nn.Linear]:
    """Whether a module is a linear layer without changes."""
    from torch.nn import Linear

    return isinstance(module, Linear) and type(module).forward is Linear.forward and "forward" not in vars(module)


_BLOCKS = ("layers", "h", "blocks")
_FINAL_NORMS = (
    *("norm", "final_layernorm", "final_layer_norm", "ln_f", "norm_f", "final_norm"),
    *("embedding_norm", "layer_norm", "layernorm"),  # LFM2, XGLM, CTRL
)


def decoder_of(model: Any) -> nn.Module:
    """The module of a model of transformers that has the blocks: its `get_decoder()`, or a module inside that.

    For the text half of Llama 4, `get_decoder()` returns that model itself; for BLIP-2, a whole language model.
    """
    outer: nn.Module = model.get_decoder()
    candidates = (outer, getattr(outer, "get_decoder", lambda: outer)(), getattr(outer, "model", outer))
    return next((module for module in candidates if any(hasattr(module, name) for name in _BLOCKS)), outer)


def blocks_of(decoder: nn.Module) -> nn.ModuleList:
    """The blocks of a decoder of any family.

    Raises:
        AttributeError: if they are under an unknown name.
    """
    return _part(decoder, _BLOCKS)  # type: ignore[return-value]


def final_norm_of(decoder: nn.Module) -> nn.Module:
    """The norm after the last block; errors as `blocks_of`."""
    return _part(decoder, _FINAL_NORMS)


def _part(decoder: nn.Module, names: Sequence[str]) -> nn.Module:
    part = next((part for name in names if (part := getattr(decoder, name, None)) is not None), None)
    if part is None:
        raise AttributeError(f"{type(decoder).__name__} has none of {', '.join(names)}")
    return part
