"""What a model does to its logits after the unembedding: a scale, then a soft-cap.

Granite divides its logits by `logits_scaling`, Cohere multiplies them by `logit_scale`, Gemma caps them softly. The
numbers stand in the config of the language model, but whether they are applied is up to the class that makes the
logits: in transformers, an Aya Vision leaves out the scale of the Cohere inside it. So a number counts only where that
class names it. A rule that is not known here fails the check `logits_reproduced` (`self_checks.py`).
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from torch import nn

_MULTIPLIERS = ("logit_scale", "lm_head_multiplier", "output_multiplier")
_DIVISORS = ("logits_scaling", "logits_mup_width_multiplier")
_MULTIPLIED_BY_DIVISORS = ("hyperclovax",)  # families whose logits are multiplied by what others divide by
_SOFTCAPS = ("final_logit_softcapping", "logits_soft_cap")


class LogitRule(NamedTuple):
    """How the products of the unembedding become logits."""

    scale: float
    """What they are multiplied by."""
    softcap: float | None
    """Then, where there is one, a logit x becomes softcap * tanh(x / softcap)."""


def logit_rule(model: Any) -> LogitRule:
    """The rule of a transformers model, whole as it is loaded."""
    config = model.config.get_text_config(decoder=True)
    named = _names_where_logits_are_made(model)

    def numbers(attributes: tuple[str, ...]) -> list[float]:
        found = [getattr(config, attribute, None) for attribute in attributes if attribute in named]
        return [float(number) for number in found if isinstance(number, int | float) and number]

    divisor = math.prod(numbers(_DIVISORS))
    for width in numbers(("dim_model_base",)):  # MiniCPM, whose config states the divisor as two widths
        divisor *= config.hidden_size / width
    if config.model_type in _MULTIPLIED_BY_DIVISORS:
        divisor = 1 / divisor
    return LogitRule(math.prod(numbers(_MULTIPLIERS)) / divisor, next(iter(numbers(_SOFTCAPS)), None))


def _names_where_logits_are_made(model: Any) -> set[str]:
    """The names in the code of every class that holds the unembedding: the model's own and those it wraps."""
    unembedding = model.get_output_embeddings()
    classes = {type(part) for part in model.modules() if _unembedding_of(part) is unembedding}
    return {name for one in classes for code in _code_of(one) for name in _names_in(code)}


def _unembedding_of(part: nn.Module) -> nn.Module | None:
    """Of a part that is a model by itself; None of any other."""
    found: nn.Module | None = getattr(part, "get_output_embeddings", lambda: None)()
    return found


def _code_of(one: type) -> Iterator[Any]:
    """The code objects of a class's functions, and of those it inherits from classes below PreTrainedModel."""
    from transformers import PreTrainedModel

    own = [base for base in one.__mro__ if issubclass(base, PreTrainedModel) and base is not PreTrainedModel]
    for value in (value for base in own for value in vars(base).values()):
        if inspect.isfunction(function := inspect.unwrap(value) if callable(value) else None):
            yield function.__code__


def _names_in(code: Any) -> Iterator[str]:
    yield from code.co_names
    yield from (constant for constant in code.co_consts if isinstance(constant, str))  # as in getattr(config, "name")
