"""The base of all components: a unique name, errors that say where they come from, and simple checks of values.

Note: a component finds others by name when its assets are made, not earlier: only then have all files been read.
"""

# `from __future__ import annotations` is left out: Dagster resolves these annotations itself.
import re
from pathlib import Path
from typing import Self, TypeVar

import dagster as dg
from dagster.components.resolved.errors import ResolutionException
from pydantic import BaseModel, ValidationError

from latentlens_dag.dag.components.wrong_values import shortened, wrong_values
from latentlens_dag.dag.keys import MOST_PARTITIONS
from latentlens_dag.errors import UserError

_LARGEST = 2**31 - 1
_NAME = re.compile(r"[a-z][a-z0-9_]*")
LONGEST_NAME = 200
"""In letters. The names of files that begin with a component's have up to 50 more, and file systems take 255."""
C = TypeVar("C", bound="NamedComponent")


class NamedComponent(dg.Component, dg.Model, dg.Resolvable):
    """A component with a unique name, and errors that say where they come from."""

    name: str

    @classmethod
    def load(cls, attributes: BaseModel | None, context: dg.ComponentLoadContext) -> Self:
        """Make the component of its YAML.

        Raises:
            UserError: where a value does not fit its field, with the field, the component and its file.
        """
        name = getattr(attributes, "name", None)
        place = f"{cls.__name__} {name or 'without a name'} in {folder_of(context) / 'defs.yaml'}"
        try:
            return super().load(attributes, context)
        except ValidationError as error:
            raise UserError(wrong_values(error, place)) from error
        except ResolutionException as error:
            raise _unresolved(error, attributes, place) from error

    def place(self, context: dg.ComponentLoadContext) -> str:
        """The component and its file, for messages."""
        return f"{type(self).__name__} {self.name} in {folder_of(context) / 'defs.yaml'}"

    def check_name(self, context: dg.ComponentLoadContext) -> None:
        """Refuse malformed and duplicate names."""
        place = f"`name: {shortened(self.name)}` of {type(self).__name__} in {folder_of(context) / 'defs.yaml'}"
        if not _NAME.fullmatch(self.name):
            raise UserError(
                f"{place} is no name: use lower-case letters, digits and underscores, beginning with a letter."
            )
        if len(self.name) > LONGEST_NAME:
            raise UserError(
                f"{place} has {len(self.name)} letters, and files are named after it: {LONGEST_NAME} letters at most. "
                "Write a shorter one."
            )
        same = [c for c in context.component_tree.get_all_components(of_type=type(self)) if c.name == self.name]
        if len(same) > 1:
            raise UserError(
                f"{len(same)} {type(self).__name__} components are named {self.name!r}. Rename all but one."
            )

    def find(
        self, context: dg.ComponentLoadContext, kind: type[C], name: str, field: str, kind_name: str | None = None
    ) -> C:
        """The component that a field names; `kind_name` is what people call the kind, by default its class's name."""
        components = {c.name: c for c in context.component_tree.get_all_components(of_type=kind)}
        if name not in components:
            raise UserError(
                f"`{field}: {name}` of {self.place(context)} names no {kind_name or kind.__name__}. There are: "
                f"{', '.join(sorted(components)) or 'none'}."
            )
        return components[name]


_UNRESOLVED = re.compile(r"Exception occurred in Resolver for field '(\w+)'")


def _unresolved(error: ResolutionException, attributes: BaseModel | None, place: str) -> UserError:
    """The error for a text where fields belong, for which Dagster looks no further; it tells it as a traceback."""
    fields = _UNRESOLVED.findall(str(error))
    value: object = attributes
    for field in fields:
        value = getattr(value, field, None)
    return UserError(
        f"`{'.'.join(fields) or 'attributes'}: {shortened(str(value))}` of {place} does not fit this field: it has "
        "fields of its own. Write them below it, or leave it out."
    )


def folder_of(context: dg.ComponentLoadContext) -> Path:
    """The folder of a component's defs.yaml."""
    return context.path if context.path.is_dir() else context.path.parent


def check_count(count: int, field: str, place: str) -> None:
    """Refuse a number of partitions for which Dagster ignores data versions."""
    if not 1 <= count <= MOST_PARTITIONS:
        raise UserError(f"`{field}: {count}` of {place} must be from 1 to {MOST_PARTITIONS}.")


def check_at_least(value: int, least: int, field: str, place: str) -> None:
    """Refuse a number that is too small, or too large for a column."""
    if value < least:
        raise UserError(f"`{field}: {value}` of {place} must be at least {least}.")
    if value > _LARGEST:
        raise UserError(f"`{field}: {value}` of {place} must be at most {_LARGEST}.")
