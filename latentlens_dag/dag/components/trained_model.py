"""What a study needs to know of a connector that is trained: its frozen language model, and the steps that it keeps.

It stands apart from the component Connector, which needs image sets, as studies do: the two would import one another.
"""

# `from __future__ import annotations` is left out: Dagster resolves these annotations itself.
from collections.abc import Sequence

from latentlens_dag.dag.components.base import NamedComponent
from latentlens_dag.dag.components.sources import ModelSource


class TrainedModel(NamedComponent):
    """The fields of a Connector that decide which models there will be."""

    language_model: ModelSource
    steps: int = 2000
    checkpoints: Sequence[int] = ()
    """Steps besides the last after which the connector is kept; 0 is the untrained one."""

    @property
    def kept_steps(self) -> list[int]:
        """All steps after which it is kept, in order."""
        return sorted({*self.checkpoints, self.steps})
