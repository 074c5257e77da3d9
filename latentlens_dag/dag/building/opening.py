"""Opening a project: in the order in which a mistake is found soonest, and without Python's garbage collector.

Note: nothing is imported above that imports dagster, so that its import runs without the collector too.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from latentlens_dag.dag.building.collector import no_collector
from latentlens_dag.storage.home import Home, home_write_errors
from latentlens_dag.storage.paths import plain_path

if TYPE_CHECKING:
    from latentlens_dag.dag.building.project import Project


@contextmanager
def open_project_to_read(home: Home) -> Iterator[Project]:
    """As `open_project`; a home that does not exist is not made: the project is then on an empty, temporary one.

    Raises:
        UserError: as `open_project`.
    """
    with ExitStack() as opened:
        if not home.exists:
            home = Home(Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="latentlens-"))))
        yield opened.enter_context(open_project(home))


@contextmanager
def open_project(home: Home) -> Iterator[Project]:
    """The project of the current folder on a home.

    Raises:
        UserError: where there is no project, a defs.yaml is wrong, or the home cannot be written.
    """
    with ExitStack() as opened:
        with no_collector():
            from latentlens_dag.dag.loading import load_definitions

            home.prepare()
            definitions = load_definitions(home=home)
            # Not earlier: what reads Dagster's history imports SQLAlchemy, 0.3 s that a wrong defs.yaml need not wait.
            import dagster as dg

            from latentlens_dag.dag.building.dagster_history import quick_history
            from latentlens_dag.dag.building.project import Project

            opened.enter_context(home_write_errors(home))
            history = opened.enter_context(plain_path(home.dagster))
            instance = opened.enter_context(dg.DagsterInstance.from_config(str(history)))
            opened.enter_context(quick_history(home))
            project = Project(definitions, home, instance)
        yield project
