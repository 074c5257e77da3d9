"""The tree of a project's components, made of its defs.yaml files alone.

Dagster's own tree imports every .py file of a folder that has no defs.yaml, and the modules that a `type` or a
`template_vars_module` names. Below `assets/` are models with code of their own, which must not run without
`trust_remote_code: true`. So this tree finds the components itself, and refuses names of other code and the templates
that Dagster would evaluate as code; components are still loaded, located in error messages and linked to their files by
Dagster. What Dagster or YAML would leave out without a word is refused too: a key that comes twice, a file below
another one, the quotes of a text. What the values mean is held against the components in `yaml_values.py`.

Note: Dagster's modules below are private API. pyproject.toml allows 1.13 only; tests/dag/test_consent.py loads
definitions in every way beside files that leave a mark when they run.
"""

import dataclasses
import os
import re
from collections.abc import Hashable, Iterator, Mapping, Set
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from dagster.components.core.component_tree import ComponentTree
from dagster.components.core.context import ComponentDeclLoadContext
from dagster.components.core.decl import (
    ComponentDecl,
    ComponentRootDecl,
    DefsFolderDecl,
    YamlDecl,
    build_component_decl_from_yaml_file,
)
from dagster.components.core.defs_module import ComponentPath, ComponentRootLoc
from dagster.components.resolved.context import ResolutionContext
from dagster_shared.yaml_utils import parse_yamls_with_source_position
from dagster_shared.yaml_utils.source_position import ValueAndSourcePositionTree

from latentlens_dag.dag.components.wrong_values import shortened
from latentlens_dag.dag.yaml_values import check_values, refuse_other_bases, without_nulls
from latentlens_dag.errors import UserError

if TYPE_CHECKING:
    from latentlens_dag.dag.components import NamedComponent

FILE_NAMES = ("defs.yaml", "defs.yml", "component.yaml")
"""The files that Dagster reads, of which it takes the first in a folder."""
_DEEPEST = 50  # lists and fields in one another; ours have five
_NOT_OF_ITS_TAG = "a value is not what its tag says (as in `!!int a`), or a number is too long"
_MOST_VALUES = 100_000  # with all that aliases stand for; PyYAML and Dagster take a second for so many


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
            context = self.decl_load_context.for_component_loc(root)
            context = dataclasses.replace(context, resolution_context=_as_written(context.resolution_context))
            declared = _declared(context, above=())
            self.state_tracker.set_cache_data(root, component_decl=declared)
        return ComponentRootDecl(context=self.decl_load_context, loc=ComponentRootLoc(), decls=[declared])


class _AsWritten(ResolutionContext):
    """Texts as they are written, but for variables of the environment.

    Dagster renders every text as a template and then reads it as a value of Python: the prompt `'None'` would be none
    at all, and a title in quotes would lose them.
    """

    def _resolve_inner_value(self, val: Any) -> Any:
        if isinstance(val, str) and not re.search(_VARIABLE, val):
            return val.removesuffix("\n")  # as Jinja does: what was built keeps its prompts
        return super()._resolve_inner_value(val)


def _as_written(context: ResolutionContext) -> ResolutionContext:
    fields = ("scope", "path", "source_position_tree", "stash")
    return _AsWritten(**{field: getattr(context, field) for field in fields})


@cache
def component_types() -> Mapping[str, type["NamedComponent"]]:
    """The values of `type` in a defs.yaml, and the components that they name."""
    from latentlens_dag.dag import components  # late, since its modules load with the first definitions only

    return {f"{components.__name__}.{kind.__name__}": kind for kind in components.KINDS}


def _declared(context: ComponentDeclLoadContext, above: tuple[Path, ...]) -> ComponentDecl:
    """The declarations of a folder: of its own defs.yaml or, without one, of the folders in it."""
    file = _file_of(context.path)
    if file is not None:
        _refuse_files_below(file)
        _check_code(file)
        try:
            return _without_nulls(build_component_decl_from_yaml_file(context, file))
        except (AttributeError, TypeError) as error:  # Dagster's, where it looks for the place of an unknown field
            raise UserError(
                f"{file} has fields beside `type` and `attributes` that do not fit ({error}). Remove them."
            ) from error
    return DefsFolderDecl(
        context=context,
        loc=ComponentPath.from_path(context.path),
        children=_children(context, above),
        source_tree=None,
        component_file_model=None,
    )


def _without_nulls(declared: ComponentDecl) -> ComponentDecl:
    """The same declarations without fields that are null, which Dagster's types of several kinds would refuse."""
    for one in declared.iterate_child_component_decls():
        if isinstance(one, YamlDecl) and one.component_file_model is not None:
            one.component_file_model.attributes = without_nulls(one.component_file_model.attributes)
    return declared


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


def _file_of(folder: Path) -> Path | None:
    """The file of a folder that declares components, if it has one.

    Raises:
        UserError: where it has several, or one whose name differs from those that are read in its case alone.
    """
    files = [file for file in folder.iterdir() if file.name.lower() in FILE_NAMES]
    if len(files) > 1:
        names = " and ".join(sorted(file.name for file in files))
        raise UserError(f"{folder} has {names}, of which only one would be read. Move all components into defs.yaml.")
    for file in files:
        if file.name not in FILE_NAMES:
            raise UserError(f"{file} would not be read: its name must be {file.name.lower()}. Rename it.")
    return files[0] if files else None


def _refuse_files_below(file: Path) -> None:
    """Refuse a file below another one, which Dagster does not look for."""
    for folder, folders, names in os.walk(file.parent):
        folders[:] = [name for name in folders if not name.startswith(".") and name != "__pycache__"]
        found = next((name for name in FILE_NAMES if name in names), None)
        if found is not None and Path(folder) != file.parent:
            raise UserError(
                f"{Path(folder) / found} would not be read, since {file} lies above it. Move its components into that "
                "file, with a line `---` between them, or its folder to where no folder above has one."
            )


def _check_code(file: Path) -> None:
    """Refuse a defs.yaml for which Dagster would run code that is not this package's, or leave something out."""
    for tree in _documents(file):
        document = tree.value
        _check_texts(document, (), file)
        if not isinstance(document, Mapping):
            what = "nothing between two lines `---`" if document is None else f"`{shortened(str(document))}`"
            raise UserError(
                f"{file} has {what} where a component belongs (`type:` and `attributes:`). Write it, or remove this."
            )
        kind = _kind(document, file)
        check_values(document, kind, file, tree.source_position_tree)


def _documents(file: Path) -> list[ValueAndSourcePositionTree]:
    """The documents of a defs.yaml, parsed as Dagster will parse them."""
    if not file.is_file():
        raise UserError(f"{file} is no file, and a file of this name is where components are declared. Rename it.")
    try:
        text = file.read_text(encoding="utf-8")
        _check_nodes(text, file)
        documents = list(parse_yamls_with_source_position(text, str(file)))
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{file}, line {line}: byte 0x{error.object[error.start]:02x} is not UTF-8. Save the file as UTF-8."
        ) from error
    except OSError as error:
        raise UserError(f"{file} cannot be read ({error.strerror or error}). Correct its permissions.") from error
    except yaml.YAMLError as error:
        raise UserError(
            f"{file} is not valid YAML: {error}. Correct it there; a text that begins with a brace needs quotes."
        ) from error
    except (ValueError, TypeError, AttributeError, LookupError, RecursionError) as error:  # of keys, numbers and tags
        why = "it is nested too deeply" if isinstance(error, RecursionError) else _NOT_OF_ITS_TAG
        raise UserError(
            f"{file} is not valid YAML: {why}. Correct it there; a text that begins with a brace needs quotes."
        ) from error
    if all(document.value is None for document in documents):
        raise UserError(f"{file} declares nothing. Write a component (`type:` and `attributes:`), or remove the file.")
    return documents


def _check_nodes(text: str, file: Path) -> None:
    """Refuse keys that come twice and documents whose aliases stand for too much, before any value is made."""
    loader = yaml.SafeLoader(text)
    loader.name = str(file)  # in its messages
    try:
        while loader.check_node():
            document = loader.get_node()
            assert document is not None  # there is one, as it says
            _refuse_too_much(document, file)
            for node in _nodes(document):
                refuse_other_bases(node, loader, file)
                if isinstance(node, yaml.MappingNode):
                    _refuse_repeated_keys(loader, node, file)
    finally:
        loader.dispose()


def _inside(node: yaml.Node) -> Iterator[yaml.Node]:
    """The nodes directly inside another one."""
    if isinstance(node, yaml.MappingNode):
        yield from (part for pair in node.value for part in pair)
    elif isinstance(node, yaml.SequenceNode):
        yield from node.value


def _nodes(document: yaml.Node) -> Iterator[yaml.Node]:
    """A node and all below it, each once however many aliases it has."""
    found, waiting = {id(document)}, [document]
    while waiting:
        node = waiting.pop()
        yield node
        for below in _inside(node):
            if id(below) not in found:
                found.add(id(below))
                waiting.append(below)


def _refuse_too_much(document: yaml.Node, file: Path) -> None:
    """Refuse a document that is too deep, or that aliases make too large: they multiply at each level."""
    measured: dict[int, tuple[int, int]] = {}

    def measure(node: yaml.Node, depth: int) -> tuple[int, int]:
        """Its values and its levels."""
        if id(node) not in measured:
            inside = [measure(below, depth + 1) for below in _inside(node)] if depth <= _DEEPEST else []
            levels = 1 + max((height for _, height in inside), default=0)
            measured[id(node)] = (1 + sum(values for values, _ in inside), levels)
        values, levels = measured[id(node)]
        if depth + levels > _DEEPEST or values > _MOST_VALUES:
            raise UserError(
                f"{file}, line {node.start_mark.line + 1}: with all that its aliases (`*NAME`) stand for, this has "
                f"more than {_MOST_VALUES:,} values, or more than {_DEEPEST} levels. Write fewer."
            )
        return values, levels

    measure(document, 0)


def _refuse_repeated_keys(loader: yaml.SafeLoader, node: yaml.MappingNode, file: Path) -> None:
    """Refuse fields of which one has the name of another one, since YAML would take the last without a word."""
    lines: dict[Hashable, int] = {}
    for key_node, _ in node.value:
        if not isinstance(key_node, yaml.ScalarNode):
            continue  # a list or fields as a key, which no reader takes
        merged = key_node.tag.endswith(":merge")  # `<<`, which is no value
        key = key_node.value if merged else loader.construct_object(key_node)
        line = key_node.start_mark.line + 1
        if key in lines:
            raise UserError(
                f"{file}, line {line}: `{shortened(str(key))}` comes twice, first in line {lines[key]}, and only the "
                "last would count. Remove one; between two components belongs a line `---`."
            )
        lines[key] = line


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
    place = f"`{shortened('.'.join(field))}` in {file}"
    if isinstance(value, bytes):  # which would become a text, and a template, only after this check
        raise UserError(f"{place} holds binary data (`!!binary`). Write it as text.")
    if not isinstance(value, str):
        return
    if re.search(r"[\x00\ud800-\udfff]", value):
        raise UserError(f"{place} holds a character that is none (NUL, or half of a pair). Write it without.")
    variables = re.findall(_VARIABLE, value)
    if not _NO_CODE.fullmatch(value) or (variables and not values):
        raise UserError(
            f"{place}: `{shortened(value)}` is a template, which would be run as code, and no code is run when a "
            "defs.yaml is read. Write the value itself; a variable of the environment, in a value alone, is "
            "`{{ env.NAME }}`."
        )
    for name in variables:
        if name not in os.environ:
            raise UserError(f"{place}: the environment has no variable {name}. Set it, or write the value itself.")
        if not _is_text(os.environ[name]):
            raise UserError(
                f"{place}: the variable {name} of the environment is {os.fsencode(os.environ[name])!r:.80}, which is "
                "not UTF-8. Set it anew, or write the value itself."
            )


def _is_text(value: str) -> bool:
    """Whether a variable's bytes were UTF-8; of others, Python makes halves of characters."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _kind(document: Mapping[str, Any], file: Path) -> type["NamedComponent"]:
    """The component of a document; names of modules and classes that are not this package's are refused."""
    if "template_vars_module" in document:
        raise UserError(
            f"`template_vars_module: {document['template_vars_module']}` in {file} names Python code, and no code is "
            "run when a defs.yaml is read. Write the values themselves and remove the line."
        )
    kind, known = document.get("type"), component_types()
    if isinstance(kind, str) and kind in known:
        return known[kind]
    wrong = (
        f"`type: {shortened(str(kind))}` in {file} is no component."
        if kind
        else f"A component in {file} has no `type`."
    )
    raise UserError(f"{wrong} There are: {', '.join(known)}.")
