"""The opening of a project by the commands that build nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from latentlens_dag.dag.building.opening import open_project_to_read
from latentlens_dag.storage.home import Home

if TYPE_CHECKING:
    from latentlens_dag.dag.building.project import Project


@contextmanager
def open_to_read(home: Home) -> Iterator[Project]:
    """The project; people are told where there is no home, whose path may be misspelled, and none is made."""
    with open_project_to_read(home) as project:
        if not home.exists:
            click.echo(f"There is no home {home.root} yet, so nothing is built; `build` makes it.", err=True)
        yield project
