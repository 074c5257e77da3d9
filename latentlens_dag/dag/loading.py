"""Loading a project's definitions: every defs.yaml in its folder `assets/`.

What a newcomer gets wrong: `assets/` is data, not a Python package. It is given to Dagster as a module
made on the spot, so that it can lie anywhere and nothing of it is ever imported.
"""

import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import dagster as dg
from dagster.components.core.component_tree import ComponentTree

from latentlens_dag.dag.resources import WarehouseResource
from latentlens_dag.errors import UserError
from latentlens_dag.home import Home, find_home, find_project

if TYPE_CHECKING:
    from latentlens_dag.dag.components import Study


def load_definitions(project: Path | None = None, home: Home | None = None) -> dg.Definitions:
    """The components of a project, with the warehouse of a home.

    Args:
        project: the folder with workspace.yaml and assets/; found from the current folder by default.
        home: the home in force by default.

    Raises:
        UserError: where there is no project, its `assets/` is missing, or a defs.yaml is wrong.
    """
    warehouse = WarehouseResource(root=str((home or find_home()).warehouse.root))
    tree = _tree(project)
    with _told():
        return dg.Definitions.merge(tree.build_defs(), dg.Definitions(resources={"warehouse": warehouse}))


def find_study(name: str, project: Path | None = None) -> "Study":
    """What a defs.yaml says of a study, without its assets; Dagster's history is not opened.

    Raises:
        UserError: where no study has the name, and as `load_definitions`.
    """
    from latentlens_dag.dag.components import Study

    tree = _tree(project)
    with _told():
        studies = {study.name: study for study in tree.get_all_components(of_type=Study)}
    if name not in studies:
        raise UserError(f"There is no study {name!r}. There are: {', '.join(sorted(studies)) or 'none'}.")
    return studies[name]


def _tree(project: Path | None) -> ComponentTree:
    folder = project or find_project()
    if folder is None:
        raise UserError("No workspace.yaml here or above: run this inside a LatentLens project, such as a clone of it.")
    if not (folder / "assets").is_dir():
        raise UserError(f"{folder} has no folder `assets/`, where studies are declared (assets/NAME/defs.yaml).")
    return ComponentTree.from_module(_as_module(folder / "assets"), project_root=folder)


@contextmanager
def _told() -> Iterator[None]:
    """Turn what Dagster raises for a wrong defs.yaml into the user's error."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", dg.BetaWarning)  # of Dagster's own code references
            yield
    except Exception as error:
        raise _as_user_error(error) or error from error


def _as_user_error(error: BaseException) -> UserError | None:
    """What the user did wrong, found among the causes of what Dagster raised; None where it was not that."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, UserError):
            return cause
        if type(cause).__name__ in _YAML_ERRORS:
            return UserError(_plain(str(cause)))
        cause = cause.__cause__ or cause.__context__
    return None


# What Dagster raises for a defs.yaml that does not fit its component, or is no YAML at all.
_YAML_ERRORS = {"ValidationError", "ComponentsError", "ParserError", "ScannerError", "DagsterInvalidDefinitionError"}


def _plain(text: str) -> str:
    """A message without the colors of a terminal."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text).strip()


def _as_module(folder: Path) -> ModuleType:
    name = f"latentlens_assets_{abs(hash(str(folder))):x}"
    module = ModuleType(name)
    module.__file__ = None
    module.__path__ = [str(folder)]
    sys.modules[name] = module
    return module
