"""Projects to build. Each test that builds gets its own copy; the built one is made once and only read."""

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from latentlens_dag.storage.home import Home
from latentlens_dag.testing import tiny_project
from tests.helpers.shared_folders import made_once


@pytest.fixture(scope="session")
def fresh_project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project that was never built. Do not write to it: copy it."""
    return tiny_project(tmp_path_factory.mktemp("fresh_project"))


@contextmanager
def opened(project: Path, home: Path | None = None) -> Iterator[object]:
    """The project with its Dagster instance open, as the command line opens it from inside its folder."""
    from latentlens_dag.dag.building.opening import open_project

    before = Path.cwd()
    os.chdir(project)
    try:
        with open_project(Home(home or project / ".latentlens")) as one:
            yield one
    finally:
        os.chdir(before)


def build(project: Path, home: Path | None = None, names: Sequence[str] = (), **options: object) -> list[str]:
    """Build everything, or what is named; give what was run, as `asset[partition]`."""
    from latentlens_dag.dag.keys import label

    with opened(project, home) as one:
        selection = one.select(names=names)
        one.observe(selection)
        return [label(need.key, need.partition) for ran in one.build(selection, **options) for need in ran.targets]


@pytest.fixture(scope="session")
def built_project(fresh_project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project, built. Do not write to it: copy it."""

    def make(folder: Path) -> None:
        shutil.copytree(fresh_project, folder / "project")
        build(folder / "project")

    built = made_once(tmp_path_factory, "built_project", make) / "project"
    return Path(shutil.copytree(built, tmp_path_factory.mktemp("built_project") / "project"))


@pytest.fixture
def copy_of(tmp_path: Path) -> Callable[[Path], Path]:
    """A copy of a project that a test may change. File times are kept; results come along."""

    def copy(project: Path) -> Path:
        return Path(shutil.copytree(project, tmp_path / "copy"))

    return copy
