"""The settings that decide a connector's weights, given the frozen parts, the images and their captions."""

from __future__ import annotations

from dataclasses import dataclass

from latentlens_dag.errors import UserError
from latentlens_dag.training.modules import Kind
from latentlens_dag.training.token_dropping import Rule

Shares = tuple[tuple[Rule, float], ...]


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
    whitening: float = 0.05
    """Above 0, the encoder's features are decorrelated first (see `Standardization`)."""
    kept: Shares = (("whole", 0.25), ("subset", 0.45), ("window", 0.2), ("few", 0.1))
    """What a step keeps of the visual tokens, and how often: all; a random half of them or so; a window; 1 to 8."""
    whole_steps: float = 0.2
    """The share of the steps, at the end, that keep all visual tokens."""

    def __post_init__(self) -> None:
        """Check the values."""
        for name, least in (("steps", 1), ("tokens", 1), ("warmup", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise UserError(f"`{name}: {getattr(self, name)}` of a connector must be at least {least}.")
        for name in ("learning_rate", "output_scale"):
            if not getattr(self, name) > 0:
                raise UserError(f"`{name}: {getattr(self, name)}` of a connector must be above 0.")
        if not 0 <= self.whole_steps <= 1:
            raise UserError(f"`whole_steps: {self.whole_steps}` of a connector must be from 0 to 1.")
        if not self.whitening >= 0:
            raise UserError(f"`whitening: {self.whitening}` of a connector must be at least 0.")
        if not self.kept or any(not share > 0 for _, share in self.kept):
            raise UserError(
                f"`kept: {dict(self.kept)}` of a connector must give at least one rule, each a share above 0."
            )
