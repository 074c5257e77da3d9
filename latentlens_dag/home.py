"""Where a project and its home are: the only module that reads LATENTLENS_HOME.

The project is the folder with `workspace.yaml` at or above the current one; the home is
LATENTLENS_HOME, or `.latentlens/` in the project, or in the current folder where there is no project.
What a newcomer gets wrong: the home holds results and history, never sources. It can be deleted, and
`build` makes it again.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from latentlens_dag.errors import UserError
from latentlens_dag.warehouse import Warehouse

_DAGSTER_YAML = """\
# The Dagster instance of this home; written once, yours to change.
telemetry:
  enabled: false
nux:
  enabled: false
concurrency:
  pools:
    default_limit: 1
    granularity: op
"""


@dataclass(frozen=True)
class Home:
    """A folder with the warehouse and the Dagster instance."""

    root: Path

    @property
    def warehouse(self) -> Warehouse:
        """The results."""
        return Warehouse(self.root / "warehouse")

    @property
    def dagster(self) -> Path:
        """The folder to name as DAGSTER_HOME."""
        return self.root / "dagster"

    def prepare(self) -> None:
        """Make the folders and the Dagster instance's settings where they are missing."""
        try:
            self.dagster.mkdir(parents=True, exist_ok=True)
            self.warehouse.root.mkdir(parents=True, exist_ok=True)
            settings = self.dagster / "dagster.yaml"
            if not settings.exists():
                settings.write_text(_DAGSTER_YAML, encoding="utf-8")
        except OSError as error:
            raise UserError(
                f"The home {self.root} cannot be written ({error.strerror}). "
                "Name another one with --home or LATENTLENS_HOME."
            ) from error


def find_project(start: Path | None = None) -> Path | None:
    """The nearest folder with a workspace.yaml, at `start` (the current folder) or above it."""
    here = (start or Path.cwd()).resolve()
    return next((folder for folder in (here, *here.parents) if (folder / "workspace.yaml").is_file()), None)


def find_home(given: str | Path | None = None) -> Home:
    """The home in force: the given one, else LATENTLENS_HOME, else `.latentlens/` in the project."""
    chosen = given or os.environ.get("LATENTLENS_HOME")
    return Home(Path(chosen).resolve() if chosen else (find_project() or Path.cwd()) / ".latentlens")
