"""The component Connector: its place among the components; its assets come with the training."""

# `from __future__ import annotations` is left out: Dagster resolves these annotations itself.
import dagster as dg

from latentlens_dag.dag.components.trained_model import TrainedModel


class Connector(TrainedModel):
    """What maps the features of a frozen vision encoder into a frozen language model."""

    features: str

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """Its assets."""
        self.check_name(context)
        return dg.Definitions()
