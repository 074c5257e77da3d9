"""What steps are given besides their inputs: the warehouse of the home in force, and the home itself.

What a newcomer gets wrong: a step takes `warehouse`, which waits for a build that is running; what only looks, or
builds by itself, takes `home`.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import dagster as dg

from latentlens_dag.dag.home_lock import step_lock
from latentlens_dag.dag.run_tags import is_of_a_build
from latentlens_dag.storage.home import Home
from latentlens_dag.storage.warehouse import Warehouse


class HomeResource(dg.ConfigurableResource):
    """A home, for those who only look, and for those who take its lock themselves."""

    root: str

    @property
    def home(self) -> Home:
        """Its places."""
        return Home(Path(self.root))


class WarehouseResource(dg.ConfigurableResource):
    """The warehouse folder of a home, for the steps that write to it.

    Steps of several runs write side by side, but never while a build is running: it would take what they wrote for
    its own, or replace it while they read. They wait for its end.
    """

    root: str

    @property
    def paths(self) -> Warehouse:
        """Where everything lies."""
        return Warehouse(Path(self.root))

    @contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Iterator["WarehouseResource"]:
        """The warehouse, held against builds until the run ends."""
        run, log = context.run, context.log
        held_already = run is None or is_of_a_build(run)
        home = Home(Path(self.root).parent)
        with nullcontext() if held_already else step_lock(home, log.info if log else lambda text: None):
            yield self
