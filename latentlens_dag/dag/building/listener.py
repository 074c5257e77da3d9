"""The events of a build. No Dagster here, so that the command line can import it at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import dagster as dg

    from latentlens_dag.dag.building.staleness import StaleTarget
    from latentlens_dag.dag.building.steps import AssetPartition


def step_label(step: str, partition: str | None) -> str:
    """A step on a partition in messages: study/demo/visual[00]."""
    return f"{step}[{partition}]" if partition else step


class BuildListener:
    """Receives the events of a build; this one ignores them."""

    def planned(self, targets: Sequence[StaleTarget]) -> None:
        """The build begins; at most this will be run."""

    def started(self, step: str, partition: str | None) -> None:
        """A step begins on a partition."""

    def built(self, key: dg.AssetKey, partition: str | None) -> None:
        """A partition of an asset is built."""

    def left_out(self, part: str, text: str) -> None:
        """A part of an asset, as people write it, was built without some of its input; the text says what and why."""

    def finished(self, step: str, partition: str | None, wall_s: float) -> None:
        """A step has ended; `wall_s` is its time."""

    def up_to_date(self, targets: Sequence[AssetPartition]) -> None:
        """Nothing is left to do for these: they are built, or turned out to be fresh."""
