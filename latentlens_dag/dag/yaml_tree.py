"""The tree of a project's components, made of its defs.yaml files alone.

Dagster's own tree imports every .py file of a folder that has no defs.yaml, and the modules that a `type` or a
`template_vars_module` names. Below `assets/` are models with code of their own, which must not run without
`trust_remote_code: true`. So this tree finds the components itself, and refuses names of other code and the templates
that Dagster would evaluate as code; components are still loaded, located in error messages and linked to their files by
Dagster.

Note: Dagster's modules below are private API. pyproject.toml allows 1.13 only; tests/dag/test_consent.py loads
definitions in every way beside files that leave a mark when they run.
"""

import os
import re
from collections.abc import Mapping, Set
from functools import cache
from pathlib import Path
from typing import Any

from dagster.components.core.component_tree import ComponentTree
from dagster.components.core.context import ComponentDeclLoadContext
from dagster.components.core.decl import (
    ComponentDecl,
    ComponentRootDecl,
    DefsFolderDecl,
    build_component_decl_from_yaml_file,
)
from dagster.components.core.defs_module import ComponentPath, ComponentRootLoc, find_defs_or_component_yaml
from dagster_shared.yaml_utils import parse_yamls_with_source_position
from yaml import YAMLError

from latentlens_dag.dag.yaml_limits import check_size
from latentlens_dag.errors import UserError


class YamlTree(ComponentTree):
    """Dagster's tree with only defs.yaml files as components, and without imports from the folder."""

    def find_root_decl(self) -> ComponentRootDecl:
        """All declarations below the folder, found once.

        Raises:
            UserError: where a defs.yaml names or holds code that is not this package's, or cannot be read.
        """
        root = ComponentPath.from_path(self.defs_module_path)
        declared = self.state_tracker.get_cache_data(root).component_decl
        if declared is None:
            declared = _declared(self.decl_load_context.for_component_loc(root), above=())
            self.state_tracker.set_cache_data(root, component_decl=declared)
        return ComponentRootDecl(context=self.decl_load_context, loc=ComponentRootLoc(), decls=[declared])


@cache
def component_types() -> tuple[str, ...]:
    """The values of `type` in a defs.yaml."""
    from latentlens_dag.dag import components  # late, since its modules load with the first definitions only

    return tuple(f"{components.__name__}.{kind.__name__}" for kind in components.KINDS)


def _declared(context: ComponentDeclLoadContext, above: tuple[Path, ...]) -> ComponentDecl:
    """The declarations of a folder: of its own defs.yaml or, without one, of the folders in it."""
    file = find_defs_or_component_yaml(context.path)
    if file is not None:
        _check_code(file)
        return build_component_decl_from_yaml_file(context, file)
    return DefsFolderDecl(
        context=context,
        loc=ComponentPath.from_path(context.path),
        children=_children(context, above),
        source_tree=None,
        component_file_model=None,
    )


def _children(context: ComponentDeclLoadContext, above: tuple[Path, ...]) -> Mapping[Path, ComponentDecl]:
    """The folders in a folder that declare something, in order of their names."""
    above = (*above, context.path.resolve())
    children: dict[Path, ComponentDecl] = {}
    for folder in sorted(context.path.iterdir()):
        hidden = folder.name.startswith(".") or folder.name == "__pycache__"  # as in Dagster
        if not folder.is_dir() or hidden or folder.resolve() in above:
            continue  # `above`: a link that leads back up, and would be followed forever
        declared = _declared(context.for_component_loc(ComponentPath.from_path(folder)), above)
        if any(declared.iterate_child_component_decls()):
            children[folder] = declared
    return children


def _check_code(file: Path) -> None:
    """Refuse a defs.yaml for which Dagster would run code that is not this package's."""
    for document in _documents(file):
        _check_texts(document, (), file)
        if isinstance(document, Mapping):  # anything else is refused where it is read
            _check_names(document, file)


def _documents(file: Path) -> list[Any]:
    """The documents of a defs.yaml, parsed as Dagster will parse them."""
    if not file.is_file():
        raise UserError(f"{file} is no file, and a file of this name is where components are declared. Rename it.")
    try:
        text = file.read_text(encoding="utf-8")
        check_size(text, file)
        documents = [tree.value for tree in parse_yamls_with_source_position(text, str(file))]
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{file}, line {line}: byte 0x{error.object[error.start]:02x} is not UTF-8. Save the file as UTF-8."
        ) from error
    except (YAMLError, ValueError, TypeError, AttributeError, RecursionError) as error:  # of keys, tags, and depth too
        raise UserError(
            f"{file} is not valid YAML: {error}. Correct it there; a text that begins with a brace needs quotes."
        ) from error
    if all(document is None for document in documents):
        raise UserError(f"{file} declares nothing. Write a component (`type:` and `attributes:`), or remove the file.")
    return documents


def _check_texts(value: Any, field: tuple[str, ...], file: Path) -> None:
    """Refuse templates anywhere in a document: Dagster evaluates them as Python, without a sandbox."""
    if isinstance(value, Mapping):
        for key, below in value.items():
            _check_text(key, (*field, str(key)), file, values=False)
            _check_texts(below, (*field, str(key)), file)
    elif isinstance(value, list | tuple | Set):
        for number, below in enumerate(value):
            _check_texts(below, (*field, str(number)), file)
    else:
        _check_text(value, field, file, values=True)


_VARIABLE = r"\{\{ env\.((?!__)[A-Za-z_][A-Za-z0-9_]*) \}\}"  # `__` begins the attributes that any object of Python has
_NO_CODE = re.compile(rf"(?:{_VARIABLE}|(?!\{{[{{%#]).)*", re.DOTALL)


def _check_text(value: Any, field: tuple[str, ...], file: Path, values: bool) -> None:
    """Refuse a text that is a template, except for environment variables in values (not in keys)."""
    place = f"`{_shortened('.'.join(field))}` in {file}"
    if isinstance(value, bytes):  # which would become a text, and a template, only after this check
        raise UserError(f"{place} holds binary data (`!!binary`). Write it as text.")
    if not isinstance(value, str):
        return
    variables = re.findall(_VARIABLE, value)
    if not _NO_CODE.fullmatch(value) or (variables and not values):
        raise UserError(
            f"{place}: `{_shortened(value)}` is a template, which would be run as code, and no code is run when a "
            "defs.yaml is read. Write the value itself; a variable of the environment, in a value alone, is "
            "`{{ env.NAME }}`."
        )
    for name in variables:
        if name not in os.environ:
            raise UserError(f"{place}: the environment has no variable {name}. Set it, or write the value itself.")


def _shortened(text: str) -> str:
    """A text on one line of at most 80 characters."""
    text = " ".join(text.split())
    return text if len(text) <= 80 else f"{text[:77]}..."


def _check_names(document: Mapping[str, Any], file: Path) -> None:
    """Refuse names of modules and classes that are not this package's."""
    if "template_vars_module" in document:
        raise UserError(
            f"`template_vars_module: {document['template_vars_module']}` in {file} names Python code, and no code is "
            "run when a defs.yaml is read. Write the values themselves and remove the line."
        )
    kind = document.get("type")
    if isinstance(kind, str) and kind not in component_types():
        raise UserError(f"`type: {kind}` in {file} is no component. There are: {', '.join(component_types())}.")
