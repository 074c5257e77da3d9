"""What a model applies to its logits after the unembedding: a scale, then a soft-cap.

Granite divides its logits by `logits_scaling`, Cohere multiplies them by `logit_scale`, Gemma applies a soft-cap. The
numbers are in the config of the language model, but the class that computes the logits decides whether to apply them:
Aya Vision of transformers omits the scale of the Cohere inside it. So a number counts only if the code of that class
mentions it. An unknown rule fails the check `logits_reproduced` (`self_checks.py`).
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
_MULTIPLIED_BY_DIVISORS = ("hyperclovax",)  # families that multiply by the numbers that others divide by
_SOFTCAPS = ("final_logit_softcapping", "logits_soft_cap")


class LogitRule(NamedTuple):
    """How the products of the unembedding become logits."""

    scale: float
    softcap: float | None
    """If not None, a scaled logit x becomes softcap * tanh(x / softcap)."""


def logit_rule(model: Any) -> LogitRule:
    """The rule of a model of transformers."""
    config = model.config.get_text_config(decoder=True)
    used_names = _names_in_logit_code(model)

    def numbers(attributes: tuple[str, ...]) -> list[float]:
        values = [getattr(config, attribute, None) for attribute in attributes if attribute in used_names]
        return [float(value) for value in values if isinstance(value, int | float) and value]

    divisor = math.prod(numbers(_DIVISORS))
    for width in numbers(("dim_model_base",)):  # MiniCPM: the divisor is a ratio of two widths
        divisor *= config.hidden_size / width
    if config.model_type in _MULTIPLIED_BY_DIVISORS:
        divisor = 1 / divisor
    return LogitRule(math.prod(numbers(_MULTIPLIERS)) / divisor, next(iter(numbers(_SOFTCAPS)), None))


def _names_in_logit_code(model: Any) -> set[str]:
    """The names in the code of every class that has the unembedding: the model's own and those it wraps."""
    unembedding = model.get_output_embeddings()
    classes = {type(module) for module in model.modules() if unembedding_of(module) is unembedding}
    return {name for class_ in classes for code in _code_objects(class_) for name in _names_in(code)}


def unembedding_of(module: nn.Module) -> nn.Module | None:
    """The unembedding of a module that is a model by itself; None for any other."""
    unembedding: nn.Module | None = getattr(module, "get_output_embeddings", lambda: None)()
    return unembedding


def _code_objects(class_: type) -> Iterator[Any]:
    """The code objects of the functions of a class, including those inherited from below PreTrainedModel."""
    from transformers import PreTrainedModel

    classes = [base for base in class_.__mro__ if issubclass(base, PreTrainedModel) and base is not PreTrainedModel]
    for value in (value for base in classes for value in vars(base).values()):
        if inspect.isfunction(function := inspect.unwrap(value) if callable(value) else None):
            yield function.__code__


def _names_in(code: Any) -> Iterator[str]:
    yield from code.co_names
    yield from (constant for constant in code.co_consts if isinstance(constant, str))  # as in getattr(config, "name")
