"""Dagster's resources: the home, its warehouse, and the models that steps load.

Note: a step takes `warehouse`, which waits for a running build; code that only reads, or locks the home itself, takes
`home`.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg

from latentlens_dag.dag.home_lock import step_lock
from latentlens_dag.dag.run_tags import is_of_a_build
from latentlens_dag.storage.home import Home
from latentlens_dag.storage.warehouse import Warehouse

if TYPE_CHECKING:
    from latentlens_dag.models.model_cache import ModelCache


class HomeResource(dg.ConfigurableResource):
    """A home, without its lock."""

    root: str

    @property
    def home(self) -> Home:
        """The folders of the home."""
        return Home(Path(self.root))


class WarehouseResource(dg.ConfigurableResource):
    """The warehouse of a home, for the steps that write to it.

    Steps of several runs may write at the same time, but wait for the end of a running build: it would take their
    results for its own, or replace them while they read.
    """

    root: str

    @property
    def paths(self) -> Warehouse:
        """The files of the warehouse."""
        return Warehouse(Path(self.root))

    @contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Iterator["WarehouseResource"]:
        """The warehouse, locked against builds until the run ends."""
        run, log = context.run, context.log
        held_already = run is None or is_of_a_build(run)
        home = Home(Path(self.root).parent)
        with nullcontext() if held_already else step_lock(home, log.info if log else lambda text: None):
            yield self


class ModelResource(dg.ConfigurableResource):
    """The models of this process: the last one that a step loaded stays in memory.

    A build keeps it from run to run, and lets it go at its end; any other run lets it go when it ends.
    """

    @property
    def cache(self) -> "ModelCache":
        """The cache of the process."""
        from latentlens_dag.models.model_cache import MODELS

        return MODELS

    @contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Iterator["ModelResource"]:
        """The resource, until the run ends."""
        try:
            yield self
        finally:
            if context.run is None or not is_of_a_build(context.run):
                release_memory()


def release_memory() -> None:
    """Let go of what steps keep in memory for later ones: the last model, and the bytes of the last images."""
    if (models := sys.modules.get("latentlens_dag.models.model_cache")) is not None:
        models.MODELS.clear()
    if (images := sys.modules.get("latentlens_dag.inputs.images")) is not None:
        images.forget_files()
