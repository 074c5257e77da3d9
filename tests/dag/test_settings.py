"""docs/settings.md has every field of a defs.yaml, with its default."""

import re
from collections.abc import Iterator
from inspect import isclass
from pathlib import Path

import dagster as dg

from latentlens_dag.dag.components import base, release, sources, studies, trained_model, training

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"
Fields = dict[str, dict[str, str]]
"""Per kind of component or source: field -> default."""


def _declared() -> Fields:
    found = {one for module in (studies, training, release, sources) for one in vars(module).values() if isclass(one)}
    kinds = {one for one in found if issubclass(one, dg.Model) and one.__module__.startswith("latentlens_dag")}
    kinds -= {base.NamedComponent, sources.HubFields, trained_model.TrainedModel}
    return {
        kind.__name__: {name: _text(field) for name, field in kind.model_fields.items()}
        for kind in kinds
        if kind.model_fields
    }


def _text(field: object) -> str:
    if field.is_required():  # type: ignore[attr-defined]
        return "required"
    default = field.default  # type: ignore[attr-defined]
    plain = {None: "none", True: "`true`", False: "`false`"}
    if default is None or isinstance(default, bool):
        return plain[default]
    if isinstance(default, tuple):
        return f"`[{', '.join(map(str, default))}]`"
    return f"`{default}`" if default != "" else "empty"


def _documented(page: str) -> Fields:
    parts = re.split(r"^## ", page, flags=re.MULTILINE)[1:]
    return {part.split()[0]: rows for part in parts if (rows := dict(_rows(part)))}


def _rows(part: str) -> Iterator[tuple[str, str]]:
    for line in part.splitlines():
        if row := re.fullmatch(r"\| `(\w+)` \| ([^|]+) \| .+ \|", line):
            yield row[1], row[2]


def test_the_page_has_every_field_in_its_order_with_its_default() -> None:
    declared, documented = _declared(), _documented(PAGE.read_text(encoding="utf-8"))
    assert documented.keys() == declared.keys()
    for kind, fields in declared.items():
        assert list(documented[kind].items()) == list(fields.items()), f"docs/settings.md, {kind}"
