"""Loading a project's definitions: every defs.yaml in its folder `assets/`.

Note: `assets/` is data, not a Python package. Dagster needs a module, and gets an empty one that nothing can be
imported from; only the defs.yaml files are read (`yaml_tree.py`).
"""

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import dagster as dg
from pydantic import ValidationError

from latentlens_dag.dag.components.base import C
from latentlens_dag.dag.components.wrong_values import wrong_values
from latentlens_dag.dag.resources import HomeResource, ModelResource, WarehouseResource
from latentlens_dag.dag.yaml_tree import YamlTree
from latentlens_dag.device import configure_threads
from latentlens_dag.errors import UserError
from latentlens_dag.storage.home import Home, find_home, find_project

if TYPE_CHECKING:
    from latentlens_dag.dag.components.release import Release
    from latentlens_dag.dag.components.studies import Study


def load_definitions(project: Path | None = None, home: Home | None = None) -> dg.Definitions:
    """The components of a project, with the warehouse of a home.

    Args:
        project: the folder with workspace.yaml and assets/; found from the current folder by default.
        home: the home in force by default.

    Raises:
        UserError: where there is no project, its `assets/` is missing, or a defs.yaml is wrong.
    """
    configure_threads()  # here too, for runs that Dagster's own commands start
    home = home or find_home()
    warehouse, home_resource = WarehouseResource(root=str(home.warehouse.root)), HomeResource(root=str(home.root))
    # The steps of a run share a process: one of their own each would load torch, and the model, each time.
    resources = {"warehouse": warehouse, "home": home_resource, "models": ModelResource()}
    common = dg.Definitions(resources=resources, executor=dg.in_process_executor)
    tree = _tree(project)
    with _user_errors(tree):
        return dg.Definitions.merge(tree.build_defs(), common)


def find_study(name: str, project: Path | None = None) -> "Study":
    """A study as its defs.yaml declares it, without its assets; Dagster's history is not opened.

    Raises:
        UserError: where no study has the name, and as `load_definitions`.
    """
    from latentlens_dag.dag.components.studies import Study

    return _find(Study, name, project)


def find_release(name: str, project: Path | None = None) -> "Release":
    """A release as its defs.yaml declares it, as `find_study`."""
    from latentlens_dag.dag.components.release import Release

    return _find(Release, name, project)


def _find(kind: type[C], name: str, project: Path | None) -> C:
    """The component of a type that has the name."""
    tree = _tree(project)
    with _user_errors(tree):
        known = {component.name: component for component in tree.get_all_components(of_type=kind)}
    if name not in known:
        what = kind.__name__.lower()
        raise UserError(f"There is no {what} {name!r}. There are: {', '.join(sorted(known)) or 'none'}.")
    return known[name]


def _tree(project: Path | None) -> YamlTree:
    folder = project or find_project()
    if folder is None:
        raise UserError("No workspace.yaml here or above: run this inside a LatentLens project, such as a clone of it.")
    if not (folder / "assets").is_dir():
        raise UserError(f"{folder} has no folder `assets/`, where studies are declared (assets/NAME/defs.yaml).")
    return YamlTree(defs_module=_as_module(folder / "assets"), project_root=folder)


@contextmanager
def _user_errors(tree: YamlTree) -> Iterator[None]:
    """Turn Dagster's exceptions for a wrong defs.yaml into a UserError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", dg.BetaWarning)  # of Dagster's own code references
            yield
    except Exception as error:
        found = _as_user_error(error, Path(tree.defs_module.__path__[0]))
        if found is None:
            raise
        raise found from (None if found is error else error)


def _as_user_error(error: BaseException, folder: Path) -> UserError | None:
    """The user's mistake among the causes of Dagster's exception; None where there is none."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, UserError):
            return cause
        if isinstance(cause, ValidationError):
            return UserError(wrong_values(cause, f"a component {cause.title} below {folder}"))
        if type(cause).__name__ in _YAML_ERRORS:
            return UserError(re.sub(r"\x1b\[[0-9;]*m", "", str(cause)).strip())  # no colors of a terminal
        cause = cause.__cause__ or cause.__context__
    return None


# Dagster's exceptions for a defs.yaml that does not fit its component, or is not YAML.
_YAML_ERRORS = {"ValidationError", "ComponentsError", "ParserError", "ScannerError", "DagsterInvalidDefinitionError"}


def _as_module(folder: Path) -> ModuleType:
    """A module for a folder that is in no list of modules, so that nothing in the folder can be imported."""
    module = ModuleType("latentlens_assets")
    module.__file__ = None
    module.__path__ = [str(folder)]
    return module
