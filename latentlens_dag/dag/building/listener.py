"""The events of a build. No Dagster here, so that the command line can import it at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import dagster as dg

    from latentlens_dag.dag.building.staleness import StaleTarget
    from latentlens_dag.dag.building.steps import AssetPartition


class BuildListener:
    """Receives the events of a build; this one ignores them."""

    def planned(self, targets: Sequence[StaleTarget]) -> None:
        """The build begins; at most this will be run."""

    def started(self, step: str) -> None:
        """A step begins: study/demo/visual[00]."""

    def built(self, key: dg.AssetKey, partition: str | None) -> None:
        """A partition of an asset is built."""

    def finished(self, step: str, wall_s: float) -> None:
        """A step has ended, after so many seconds."""

    def up_to_date(self, targets: Sequence[AssetPartition]) -> None:
        """Nothing is left to do for these: they are built, or turned out to be fresh."""
