"""The settings that decide a connector's weights, given the frozen parts, the images and their captions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from latentlens_dag.errors import UserError
from latentlens_dag.training.modules import Kind
from latentlens_dag.training.token_dropping import CAPTIONED, Rule

Shares = tuple[tuple[Rule | Literal["captioned"], float], ...]
RULES = (*get_args(Rule), CAPTIONED)
_MOST = 1 << 53  # what JSON keeps exactly


@dataclass(frozen=True)
class ConnectorSettings:
    """Of one training.

    Raises:
        UserError: for a value that makes no training.
    """

    kind: Kind = "mlp"
    seed: int = 0
    """Of the untrained weights, the order of images, and the visual tokens that are kept."""
    steps: int = 2000
    tokens: int = 2000
    """Visual and text tokens of a step, about: the fewer visual tokens a step keeps, the more images it has."""
    learning_rate: float = 5e-3
    """The peak: it rises for `warmup` steps and falls as half a cosine."""
    warmup: int = 40
    output_scale: float = 2.0
    """RMS of the untrained connector's output, in RMS of the text embeddings."""
    fixed_size: bool = False
    """Scale the visual tokens of every step together to `output_scale`; the factor goes into the finished weights.
    Without it the connector learns the size."""
    finished_scale: float | None = None
    """With `fixed_size`: the mean size that the finished connector has instead of `output_scale`. Large visual tokens
    are learned from sooner, but the language model may read smaller ones better."""
    whitening: float = 0.05
    """Above 0, the encoder's features are decorrelated first (see `Standardization`)."""
    kept: Shares = (("whole", 0.25), ("subset", 0.45), ("window", 0.2), ("few", 0.1))
    """What a step keeps of the visual tokens, and how often: all; a random half of them or so; a window; 1 to 8; or
    `captioned`: those that the captions of parts of images are about."""
    whole_steps: float = 0.2
    """The share of the steps, at the end, that keep all visual tokens."""

    def __post_init__(self) -> None:
        """Check the values."""
        for name, least in (("steps", 1), ("tokens", 1), ("warmup", 1), ("seed", 0)):
            value = getattr(self, name)
            if type(value) is not int or not least <= value < _MOST:
                raise _wrong(name, value, f"a whole number from {least} to {_MOST - 1:,}")
        for name in ("learning_rate", "output_scale"):
            if not 0 < getattr(self, name) < math.inf:
                raise _wrong(name, getattr(self, name), "a finite number above 0")
        if self.finished_scale is not None and not (self.fixed_size and 0 < self.finished_scale < math.inf):
            raise _wrong("finished_scale", self.finished_scale, "a finite number above 0, with `fixed_size: true`")
        if not 0 <= self.whole_steps <= 1:
            raise _wrong("whole_steps", self.whole_steps, "a number from 0 to 1")
        if not 0 <= self.whitening < math.inf:
            raise _wrong("whitening", self.whitening, "a finite number, at least 0")
        if self.kind not in get_args(Kind):
            raise _wrong("kind", self.kind, " or ".join(get_args(Kind)))
        self._check_kept()

    def _check_kept(self) -> None:
        try:
            right = bool(self.kept) and all(rule in RULES and 0 < share < math.inf for rule, share in self.kept)
        except (TypeError, ValueError):  # no pairs
            right = False
        if not right:
            raise _wrong("kept", self.kept, f"pairs of a rule ({', '.join(RULES)}) and a finite share above 0")


def _wrong(name: str, value: object, takes: str) -> UserError:
    return UserError(f"`{name}: {value}` of a connector must be {takes}.")
