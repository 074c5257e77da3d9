"""The named queries: the files of `queries/`, each with a title, a description and its parameters."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ParameterValue = str | int | float | bool | None | list[str] | list[int]
"""A value to bind to a parameter; numbers may come as text (from a command line), since queries cast them."""


@dataclass(frozen=True)
class QueryParameter:
    """A parameter of a named query; `default` None means null, which the queries read as "any"."""

    name: str
    description: str
    required: bool
    default: str | None


@dataclass(frozen=True)
class NamedQuery:
    """A query that comes with the package."""

    name: str
    title: str
    description: str
    parameters: tuple[QueryParameter, ...]
    sql: str
    pivot: tuple[str, ...] | None
    """The column whose values become columns, the one that fills them, and any that fill further columns beside these,
    named as `8_null_share`; None for a query without a pivot."""


@cache
def named_queries() -> dict[str, NamedQuery]:
    """The queries that come with the package, by name, sorted."""
    files = sorted((Path(__file__).parent / "queries").glob("*.sql"))
    return {file.stem: _parsed(file.stem, file.read_text(encoding="utf-8")) for file in files}


def _parsed(name: str, text: str) -> NamedQuery:
    """Read the leading comment: `-- title: ...`, `-- param lens = null: ...` (no `=`: required), `-- pivot: a b c`."""
    facts = dict(re.findall(r"^-- (title|description|pivot): (.*)$", text, re.MULTILINE))
    declared = re.findall(r"^-- param (\w+)(?: = (\S+))?: (.*)$", text, re.MULTILINE)
    parameters = tuple(
        QueryParameter(param, what, required=not default, default=None if default in ("", "null") else default)
        for param, default, what in declared
    )
    pivot = facts["pivot"].split() if "pivot" in facts else None
    shape = tuple(pivot) if pivot else None
    return NamedQuery(name, facts["title"], facts["description"], parameters, text.strip().rstrip(";"), shape)
