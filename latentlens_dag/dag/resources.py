"""What steps are given besides their inputs: the warehouse of the home in force."""

from pathlib import Path

import dagster as dg

from latentlens_dag.warehouse import Warehouse


class WarehouseResource(dg.ConfigurableResource):
    """The warehouse folder of a home."""

    root: str

    @property
    def paths(self) -> Warehouse:
        """Where everything lies."""
        return Warehouse(Path(self.root))
