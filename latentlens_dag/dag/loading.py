"""Loading a project's definitions: every defs.yaml in its folder `assets/`.

Note: `assets/` is data, not a Python package. Dagster wants a module, and gets one made on the spot that cannot be
imported from; what is read there are the defs.yaml files alone (`yaml_tree.py`).
"""

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import dagster as dg
import yaml
from pydantic import ValidationError

from latentlens_dag.dag.components.base import C
from latentlens_dag.dag.resources import HomeResource, WarehouseResource
from latentlens_dag.dag.yaml_tree import YamlTree
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
    home = home or find_home()
    warehouse, place = WarehouseResource(root=str(home.warehouse.root)), HomeResource(root=str(home.root))
    # The steps of a run share a process: one of their own each would load torch, and the model, each time.
    common = dg.Definitions(resources={"warehouse": warehouse, "home": place}, executor=dg.in_process_executor)
    tree = _tree(project)
    with _told(tree):
        return dg.Definitions.merge(tree.build_defs(), common)


def find_study(name: str, project: Path | None = None) -> "Study":
    """What a defs.yaml says of a study, without its assets; Dagster's history is not opened.

    Raises:
        UserError: where no study has the name, and as `load_definitions`.
    """
    from latentlens_dag.dag.components.studies import Study

    return _found(Study, name, project)


def find_release(name: str, project: Path | None = None) -> "Release":
    """What a defs.yaml says of a release, as `find_study`: its `repo_id`; its folder is `Warehouse.release(name)`."""
    from latentlens_dag.dag.components.release import Release

    return _found(Release, name, project)


def _found(kind: type[C], name: str, project: Path | None) -> C:
    """The component of a kind that has the name."""
    tree = _tree(project)
    with _told(tree):
        known = {one.name: one for one in tree.get_all_components(of_type=kind)}
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
def _told(tree: YamlTree) -> Iterator[None]:
    """Turn what Dagster raises for a wrong defs.yaml into the user's error."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", dg.BetaWarning)  # of Dagster's own code references
            yield
    except Exception as error:
        raise _as_user_error(error, Path(tree.defs_module.__path__[0])) or error from error


_FIELD = re.compile(r"[a-z][a-z0-9_]*")
_NO_FIELDS = {"attributes", "str", "int", "float", "bool"}


def _wrong_values(error: ValidationError, folder: Path) -> str:
    """What values do not fit the fields of a component, and which components of which files have them."""
    told: dict[tuple[str, str], str] = {}
    for one in error.errors():
        path, _, place = ".".join(map(str, one["loc"])).partition(" at ")  # where Dagster knows it
        field = ".".join(part for part in path.split(".") if _FIELD.fullmatch(part) and part not in _NO_FIELDS)
        place = place or _holders(error.title, one, folder)
        told.setdefault((field, place), f"`{field}: {one['input']}` of {place}: {one['msg']}.{_unquoted(one)}")
    return " ".join(told.values())


def _unquoted(error: Any) -> str:
    """The remedy for a text that YAML takes for something else."""
    if error["type"] != "string_type" or not isinstance(error["input"], bool | int | float):
        return ""
    return " YAML reads yes, no, on and off as booleans and digits as numbers: put the text in quotes."


def _holders(component: str, error: Any, folder: Path) -> str:
    """The components of this type that have the value that is wrong; Dagster does not say where it found it."""
    found = []
    for file in sorted(folder.rglob("defs.yaml")):
        for document in yaml.safe_load_all(file.read_text(encoding="utf-8")):
            value = document.get("attributes", {}) if isinstance(document, dict) else {}
            name = value.get("name", "?") if isinstance(value, dict) else "?"
            for part in error["loc"]:
                value = value.get(part) if isinstance(value, dict) else None
            if str(document.get("type", "")).endswith(f".{component}") and value == error["input"]:
                found.append(f"{component} {name} in {file}")
    return " and of ".join(found) or f"a component {component} below {folder}"


def _as_user_error(error: BaseException, folder: Path) -> UserError | None:
    """What the user did wrong, found among the causes of what Dagster raised; None where it was not that."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, UserError):
            return cause
        if isinstance(cause, ValidationError):
            return UserError(_wrong_values(cause, folder))
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
    """A module that stands for a folder and is in no list of modules, so that nothing in the folder has a name."""
    module = ModuleType("latentlens_assets")
    module.__file__ = None
    module.__path__ = [str(folder)]
    return module
