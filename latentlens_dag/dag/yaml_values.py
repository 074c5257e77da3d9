"""The values of a defs.yaml as they are written, held against the fields that the components declare.

YAML 1.1 has numbers and booleans where people see texts (`yes`, `010`, `1:30`), and Pydantic takes one for another
(`top_k: true` for 1). Both are refused here, before Dagster reads the file, and so are unknown fields and addresses at
any level. One rule holds for null: the field is left out.
"""

import re
import types
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

import yaml
from dagster_shared.yaml_utils.source_position import SourcePositionTree
from pydantic import BaseModel

from latentlens_dag.dag.components.wrong_values import QUOTES, shortened
from latentlens_dag.errors import UserError
from latentlens_dag.storage.paths import refuse_address, refuse_too_long

FILE_FIELDS = ("type", "attributes", "post_processing")
"""What a document of a defs.yaml may have. Dagster also reads `requirements`, by which nothing here is changed."""
_OTHER_BASE = re.compile(r"[-+]?0[0-7_]+|.*:.*")  # octal, and sexagesimal: 1:30 for 90
_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")


def refuse_other_bases(node: yaml.Node, loader: yaml.SafeLoader, file: Path) -> None:
    """Refuse a number that YAML reads in base 8 or 60, and nobody else does."""
    if not isinstance(node, yaml.ScalarNode) or node.tag not in _NUMBERS:  # a text in quotes has another tag
        return
    if _OTHER_BASE.fullmatch(node.value):
        base, number = 60 if ":" in node.value else 8, loader.construct_object(node)
        place = f"{file}, line {node.start_mark.line + 1}"
        raise UserError(
            f"{place}: YAML reads `{shortened(node.value)}` in base {base}, as {number}. "
            "Write the number without a leading zero and without a colon; a text needs quotes."
        )


def without_nulls(value: Any) -> Any:
    """A value whose fields that are null are left out, at every level."""
    if isinstance(value, Mapping):
        return {key: without_nulls(inner) for key, inner in value.items() if inner is not None}
    return [without_nulls(inner) for inner in value] if isinstance(value, list) else value


def check_values(document: Mapping[str, Any], kind: type[BaseModel], file: Path, positions: SourcePositionTree) -> None:
    """Refuse fields of a component that there are not, and values of another kind than its fields take.

    Texts are not held against the choices of a field, nor lists against single values: Pydantic says what is wrong.

    Args:
        document: of the file, without templates.
        kind: the component of its `type`.
        file: for messages, and for paths relative to it.
        positions: of the document's values.

    Raises:
        UserError: for the first of them, with its line.
    """
    _refuse_unknown(document, FILE_FIELDS, _Place((), file, positions), "a document of a defs.yaml")
    attributes = document.get("attributes")
    if isinstance(attributes, Mapping):
        _check_fields(attributes, kind, _Place(("attributes",), file, positions))


class _Place(NamedTuple):
    """Where a value stands."""

    path: tuple[str | int, ...]
    file: Path
    positions: SourcePositionTree

    def inside(self, name: str | int) -> "_Place":
        return self._replace(path=(*self.path, name))

    @property
    def field(self) -> str:
        """As layers or source.lines; that of an element is its list's."""
        return ".".join(part for part in self.path if isinstance(part, str)).removeprefix("attributes.")

    @property
    def where(self) -> str:
        """The file and the line."""
        position, _ = self.positions.lookup_closest_and_path(self.path, None)
        return f"{self.file}:{position.start.line}"


def _check_fields(values: Mapping[Any, Any], model: type[BaseModel], place: _Place) -> None:
    _refuse_unknown(values, model.model_fields, place, model.__name__)
    for name, value in values.items():
        _check_value(value, _kinds(model.model_fields[name].annotation), place.inside(name))


def _refuse_unknown(
    values: Mapping[Any, Any], known: Sequence[str] | Mapping[str, Any], place: _Place, of: str
) -> None:
    for name in values:
        if name in known:
            continue
        near = get_close_matches(str(name), known, 1)
        hint = f" Did you mean `{near[0]}`?" if near else ""
        field, where = place.inside(str(name)).field, place.inside(name).where
        raise UserError(
            f"`{shortened(field)}` in {where} is no field of {of}. There are: {', '.join(known) or 'none'}.{hint}"
        )


def _check_value(value: Any, kinds: "_Kinds", place: _Place) -> None:
    """Refuse a value of another kind; a field may take several."""
    if isinstance(value, Mapping) and len(kinds.models) == 1:
        _check_fields(value, kinds.models[0], place)
    elif isinstance(value, list) and kinds.items is not None:
        for number, item in enumerate(value):
            if item is None:
                raise UserError(f"`{place.field}` in {place.inside(number).where} has an empty element. Remove it.")
            _check_value(item, kinds.items, place.inside(number))
    elif isinstance(value, bool | int | float) and not kinds.takes(value):
        written = str(value).lower() if isinstance(value, bool) else str(value)
        hint = f" {QUOTES}" if str in kinds.plain else ""
        raise UserError(f"`{place.field}: {written}` of {place.where}: this field takes {kinds}.{hint}")
    elif isinstance(value, str) and kinds.refuses_text(value):
        raise UserError(f"`{place.field}: {shortened(value)}` of {place.where}: this field takes {kinds}.")
    elif isinstance(value, str) and Path in kinds.plain:
        if not value.strip():
            raise UserError(f"`{place.field}` of {place.where} is empty. Name a path; the file's own folder is a dot.")
        refuse_too_long(value, f"{place.field}:")
        if not (place.file.parent / value).exists():
            refuse_address(
                value, f"{place.field}:", f"It stands in {place.where}: name a file or folder, or use `hub`."
            )


class _Kinds(NamedTuple):
    """What a field takes."""

    plain: frozenset[type]
    """Of bool, int, float, str, Path."""
    choices: tuple[str, ...]
    models: tuple[type[BaseModel], ...]
    """With fields of their own."""
    items: "_Kinds | None"
    """The elements of a list."""

    def takes(self, value: bool | float) -> bool:
        """Whether a number or boolean is one of them; a whole number is a number, and 3.0 is no whole one."""
        return type(value) in self.plain or (type(value) is int and float in self.plain)

    def refuses_text(self, value: str) -> bool:
        """Whether only fields are taken, which Dagster takes a text for where there are none; not a variable's name."""
        return bool(self.models) and not (self.plain or self.items or value in self.choices or "{{" in value)

    def __str__(self) -> str:
        """In words."""
        words = [word for one, word in _WORDS.items() if one in self.plain]
        words += [*map(repr, self.choices), *map(_fields_text, self.models)]
        return " or ".join([*words, *([f"a list of these: {self.items}"] if self.items else [])])


def _fields_text(model: type[BaseModel]) -> str:
    names = ", ".join(model.model_fields)
    return f"fields of its own ({names})" if names else "`{}`"


_WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", Path: "a path"}


def _kinds(annotation: Any) -> _Kinds:
    """What an annotation of a field stands for."""
    parts = [*_parts(annotation)]
    plain = frozenset(part for part in parts if part in _WORDS)
    choices = tuple(choice for part in parts if get_origin(part) is Literal for choice in get_args(part))
    models = tuple(part for part in parts if isinstance(part, type) and issubclass(part, BaseModel))
    lists = [part for part in parts if isinstance(get_origin(part), type) and issubclass(get_origin(part), Sequence)]
    return _Kinds(plain, choices, models, _kinds(get_args(lists[0])[0]) if lists else None)


def _parts(annotation: Any) -> Iterator[Any]:
    """The types of a union, without what is annotated to them."""
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from _parts(get_args(annotation)[0])
    elif origin in (Union, types.UnionType):
        for part in get_args(annotation):
            yield from _parts(part)
    else:
        yield annotation
