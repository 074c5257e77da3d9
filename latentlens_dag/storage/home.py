"""The project and its home: the only module that reads LATENTLENS_HOME.

The project is the folder with `workspace.yaml` at or above the current one; the home is
LATENTLENS_HOME, or `.latentlens/` in the project, or in the current folder where there is no project.
The home holds results and history, never sources: `build` makes a deleted one again, except for human
judgements (`judging/`, see dataset/human_judgements.py).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from latentlens_dag.errors import UserError
from latentlens_dag.storage.paths import refuse_address, refuse_unusable
from latentlens_dag.storage.warehouse import Warehouse

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
  runs:
    tag_concurrency_limits:
      - {key: dagster/backfill, limit: 1}   # each run of a backfill loads its model: one at a time
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
        """The folder for DAGSTER_HOME."""
        return self.root / "dagster"

    @property
    def exists(self) -> bool:
        """Whether something was made there; an empty folder is no home yet."""
        return self.warehouse.root.is_dir() or self.dagster.is_dir()

    def prepare(self) -> None:
        """Create the folders and the Dagster instance's settings where they are missing."""
        try:
            self.dagster.mkdir(parents=True, exist_ok=True)
            self.warehouse.root.mkdir(parents=True, exist_ok=True)
            settings = self.dagster / "dagster.yaml"
            if not settings.exists():
                settings.write_text(_DAGSTER_YAML, encoding="utf-8")
        except OSError as error:
            raise home_write_error(self, str(error)) or _unwritable(self, str(error.strerror)) from error


def find_project(start: Path | None = None) -> Path | None:
    """The nearest folder with a workspace.yaml, at `start` (the current folder) or above it."""
    start = (start or Path.cwd()).resolve()
    return next((folder for folder in (start, *start.parents) if (folder / "workspace.yaml").is_file()), None)


def find_home(home: str | Path | None = None) -> Home:
    """The home in force: `home`, else LATENTLENS_HOME, else `.latentlens/` in the project.

    Raises:
        UserError: for an address such as s3://bucket, and a path that the libraries below cannot write.
    """
    chosen, name = home or os.environ.get("LATENTLENS_HOME"), "--home" if home else "LATENTLENS_HOME"
    if chosen:
        refuse_address(chosen, name, "A home lies on a disk of this machine: mount the bucket, or name a folder.")
    root = Path(chosen).resolve() if chosen else (find_project() or Path.cwd()) / ".latentlens"
    refuse_unusable(root, name if chosen else "home")
    return Home(root)


def find_warehouse(source: str | Path) -> Warehouse:
    """The warehouse of a home, which lies in its folder `warehouse/`; of any other folder, the folder itself."""
    path = Path(source)
    inside = path / "warehouse"
    return Warehouse(inside if inside.is_dir() else path)


_UNWRITABLE_DATABASE = re.compile(r"readonly database|unable to open database file")
_UNWRITABLE_FILE = re.compile(r"permission denied|read-only file system", re.IGNORECASE)


def home_write_error(home: Home, text: str) -> UserError | None:
    """The UserError for a message that says that the home cannot be written; None for other messages.

    Args:
        home: the one to be written.
        text: the message of an error of any library.
    """
    if database := _UNWRITABLE_DATABASE.search(text):
        return _unwritable(home, database[0])
    closed = _UNWRITABLE_FILE.search(text)
    return _unwritable(home, closed[0]) if closed and str(home.root) in text else None


@contextmanager
def home_write_errors(home: Home) -> Iterator[None]:
    """Translate errors of a home that cannot be written.

    Raises:
        UserError: with the folder and the remedy.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if user_error := home_write_error(home, str(error)):
            raise user_error from error
        raise


def _unwritable(home: Home, why: str) -> UserError:
    return UserError(
        f"The home {home.root} cannot be written ({why}). Name another one with --home or LATENTLENS_HOME, or make "
        "all its files yours to write."
    )
