"""Every field of a defs.yaml, tried with what YAML 1.1 makes of a slip: generated from the fields of the components."""

import re
import types
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import dagster as dg
import pytest
import yaml
from pydantic import BaseModel

from latentlens_dag.dag.components import KINDS, Study
from latentlens_dag.dag.components.base import LONGEST_NAME
from latentlens_dag.dag.loading import load_definitions
from latentlens_dag.dag.yaml_tree import YamlTree
from latentlens_dag.dag.yaml_values import without_nulls
from latentlens_dag.errors import UserError
from latentlens_dag.storage.home import Home
from tests.dag.fields import BASES

Path_ = tuple[str, ...]
HERE = "attributes"


def _inner(annotation: Any) -> list[Any]:
    """The types that a field takes."""
    if get_origin(annotation) is Annotated:
        return _inner(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return [one for part in get_args(annotation) for one in _inner(part)]
    return [annotation]


def _fields(model: type[BaseModel], above: Path_ = ()) -> Iterator[tuple[Path_, list[Any]]]:
    """All fields of a component, and those inside of them."""
    for name, field in model.model_fields.items():
        kinds = _inner(field.annotation)
        yield (*above, name), kinds
        for kind in kinds:
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from _fields(kind, (*above, name))


FIELDS = [(kind, path, kinds) for kind in KINDS for path, kinds in _fields(kind)]
IDS = [f"{kind.__name__}.{'.'.join(path)}" for kind, path, _ in FIELDS]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    (folder / "workspace.yaml").write_text("load_from: []\n")
    (folder / "assets" / "one").mkdir(parents=True)
    (folder / "assets" / "one" / "lines.txt").write_text("One.\n")
    return folder


def _file(project: Path) -> Path:
    return project / "assets" / "one" / "defs.yaml"


def _declare(project: Path, kind: str, attributes: dict[str, Any], raw: str = "") -> None:
    """Write one component; RAW among its values becomes this text."""
    document = {"type": f"latentlens_dag.dag.components.{kind}", HERE: attributes}
    _file(project).write_text(yaml.safe_dump(document).replace("RAW", raw))


def _with(path: Path_, value: Any) -> dict[str, Any]:
    found = value
    for name in reversed(path):
        found = {name: found}
    assert isinstance(found, dict)
    return found


def _refused(project: Path) -> str | None:
    """The refusal of the file as it is read, before any component is made; None where there is none."""
    from latentlens_dag.dag.loading import _tree

    tree = _tree(project)
    assert isinstance(tree, YamlTree)
    try:
        tree.find_root_decl()
    except UserError as error:
        return str(error)
    return None


def _takes(kinds: list[Any], *wanted: type) -> bool:
    return any(kind in wanted for kind in kinds)


def _items(kinds: list[Any]) -> list[Any]:
    """The types of the elements, where a field takes a list."""
    lists = [k for k in kinds if isinstance(get_origin(k), type) and issubclass(get_origin(k), Sequence)]
    return _inner(get_args(lists[0])[0]) if lists else []


@pytest.mark.parametrize(("kind", "path", "kinds"), FIELDS, ids=IDS)
def test_a_boolean_is_taken_by_boolean_fields_alone_and_these_take_no_number(
    project: Path, kind: type[BaseModel], path: Path_, kinds: list[Any]
) -> None:
    for raw, refused in (
        *((raw, not _takes(kinds, bool)) for raw in ("true", "yes", "off")),
        *((raw, not _takes(kinds, int, float)) for raw in ("1", "0", "-7")),
        *((raw, not _takes(kinds, float)) for raw in ("3.0", "1.0e+1", ".inf")),
    ):
        _declare(project, kind.__name__, _with(path, "RAW"), raw)
        told = _refused(project)
        assert (told is not None) == refused, (raw, told)
        if told is not None:
            assert re.match(rf"`{re.escape('.'.join(path))}: \S+` of {re.escape(str(_file(project)))}:\d+: ", told)


@pytest.mark.parametrize(("kind", "path", "kinds"), [one for one in FIELDS if _items(one[2])])
def test_an_element_of_a_list_is_held_against_its_type_too(
    project: Path, kind: type[BaseModel], path: Path_, kinds: list[Any]
) -> None:
    _declare(project, kind.__name__, _with(path, ["RAW"]), "no")
    assert (_refused(project) is not None) == (bool not in _items(kinds))
    _declare(project, kind.__name__, _with(path, ["RAW"]), "null")
    assert "has an empty element" in str(_refused(project))


@pytest.mark.parametrize("raw", ["010", "-017", "+00", "1:30", "-1:30:00", "1:30.5", "190:20:30"])
@pytest.mark.parametrize(("kind", "path", "kinds"), FIELDS[::7], ids=IDS[::7])
def test_a_number_that_yaml_reads_in_another_base_is_refused_wherever_it_stands(
    project: Path, kind: type[BaseModel], path: Path_, kinds: list[Any], raw: str
) -> None:
    for value in ("RAW", ["RAW"]):
        _declare(project, kind.__name__, _with(path, value), raw)
        read = yaml.safe_load(raw)
        assert re.search(
            rf", line \d+: YAML reads `{re.escape(raw)}` in base \d+, as {read}\. ", str(_refused(project))
        )


def test_a_tag_does_not_lead_around_the_rule_of_bases(project: Path) -> None:
    _declare(project, "Study", _with(("top_k",), "RAW"), "!!int '010'")
    assert re.search(r", line \d+: YAML reads `010` in base 8, as 8\. ", str(_refused(project)))


@pytest.mark.parametrize("raw", ["10", "0", "-3", "0x1F", "1_000", "'010'", "'1:30'", "2.50", "08", "0o10", "a:b"])
def test_a_number_in_base_ten_a_quoted_text_and_what_yaml_takes_for_text_pass(project: Path, raw: str) -> None:
    _file(project).write_text(f"type: latentlens_dag.dag.components.Corpus\nattributes: {{unknown: {raw}}}\n")
    assert "is no field of Corpus" in str(_refused(project))


@pytest.mark.parametrize(("kind", "path", "kinds"), FIELDS, ids=IDS)
def test_a_field_with_a_letter_too_much_is_refused_at_any_level_with_the_right_one(
    project: Path, kind: type[BaseModel], path: Path_, kinds: list[Any]
) -> None:
    _declare(project, kind.__name__, _with((*path[:-1], f"{path[-1]}x"), 1))
    told = str(_refused(project))
    assert f"`{'.'.join(path)}x` in {_file(project)}:" in told and told.endswith(f"Did you mean `{path[-1]}`?")


@pytest.mark.parametrize("name", ["atributes", "requirements", "attribute", "yes", "7", "template_vars"])
def test_a_field_of_the_file_that_does_nothing_is_refused(project: Path, name: str) -> None:
    _declare(project, "Corpus", {"name": "text", "source": {"lines": "lines.txt"}})
    _file(project).write_text(f"{_file(project).read_text()}{name}: {{}}\n")
    assert "is no field of a document of a defs.yaml. There are: type, attributes, post_processing." in str(
        _refused(project)
    )


@pytest.fixture
def _types_are_not_described(monkeypatch: pytest.MonkeyPatch) -> None:
    from dagster.components.core import load_defs

    monkeypatch.setattr(load_defs, "get_library_json_enriched_defs", lambda tree: dg.Definitions(component_tree=tree))


def _owners(kind: type[BaseModel]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for base, owners in BASES.items():
        for owner, fields in owners.items():
            if owner.split()[0] == kind.__name__:
                yield base, owner, fields


def _has(fields: dict[str, Any], path: Path_) -> bool:
    inside: Any = fields
    for name in path:
        if not isinstance(inside, dict) or name not in inside:
            return False
        inside = inside[name]
    return True


def _without(fields: dict[str, Any], path: Path_) -> dict[str, Any]:
    head, *rest = path
    if not rest:
        return {name: value for name, value in fields.items() if name != head}
    return {**fields, head: _without(fields[head], tuple(rest))} if head in fields else fields


def _put(fields: dict[str, Any], path: Path_, value: Any) -> dict[str, Any]:
    head, *rest = path
    return {**fields, head: _put(fields[head], tuple(rest), value) if rest else value}


@pytest.mark.usefixtures("_types_are_not_described")
@pytest.mark.parametrize("null", ["null", "~", ""])
@pytest.mark.parametrize(("kind", "path", "kinds"), FIELDS, ids=IDS)
def test_a_field_that_is_null_is_a_field_that_is_left_out(
    project: Path, kind: type[BaseModel], path: Path_, kinds: list[Any], null: str
) -> None:
    """Of a component that has what is above the field: the same refusal, or none, as without the field."""
    from latentlens_dag.dag.loading import _tree

    told = []
    owner = next((found for found in _owners(kind) if len(path) == 1 or _has(found[2], path[:-1])), None)
    fields = {"name": "one", **(owner[2] if owner else {})}
    fields = fields if len(path) == 1 or owner else {**fields, path[0]: {}}
    for declared in (_put(fields, path, "RAW"), _without(fields, path)):
        _declare(project, kind.__name__, declared, null)
        try:
            tree = _tree(project)
            found = [tree.get_all_components(of_type=kind)]  # type: ignore[arg-type]
            told.append(str(found))
        except Exception as error:  # Dagster's own, with UserErrors and Pydantic's inside, which have the lines
            told.append(re.sub(r":\d+|line \d+|\d+ \|.*|0x\w+", "", f"{type(error).__name__} {error}"))
    assert told[0] == told[1] or ("required" in told[0].lower() and "required" in told[1].lower())


def test_nulls_are_left_out_at_every_level_and_nothing_else_is() -> None:
    value = {"a": None, "b": {"c": None, "d": [0, "", False, {"e": None}]}, "f": {}}
    assert without_nulls(value) == {"b": {"d": [0, "", False, {}]}, "f": {}}


@pytest.mark.parametrize("address", ["s3:/bucket/x", "s3://bucket/x", "file:///etc/x", "file:/etc/x", "hf://a/b"])
@pytest.mark.parametrize("field", ["source.lines", "source.csv"])
def test_an_address_in_place_of_a_path_is_refused_as_it_is_written(project: Path, address: str, field: str) -> None:
    _declare(project, "Corpus", _with(tuple(field.split(".")), address))
    assert str(_refused(project)).startswith(f"`{field}: {address}`: addresses are not supported here.")


@pytest.mark.parametrize("path", ["a" * 5000, "a" * 256, "é" * 128, "ab/" * 2000, "", " "])
def test_a_path_that_no_file_can_have_is_refused_at_once(project: Path, path: str) -> None:
    _declare(project, "ImageSet", {"name": "seen", "source": {"folder": path}})
    told = str(_refused(project))
    assert told.startswith("`source.folder") and len(told) < 300 and ("a file system takes" in told or "empty" in told)


@pytest.mark.usefixtures("_types_are_not_described")
@pytest.mark.parametrize("kind", ["Corpus", "TextSet"])
@pytest.mark.parametrize(
    "name",
    [
        "a" * (LONGEST_NAME + 1),
        "a" * 5000,
        "../a",
        "a/b",
        "a b",
        "ä",
        "a.b",
        "a%b",
        "-a",
        "A",
        "",
        "1a",
        "\u202ea",
        "a\n",
    ],
)
def test_a_name_that_cannot_name_files_is_refused_before_anything_is_built(project: Path, kind: str, name: str) -> None:
    _declare(project, kind, {"name": name, "source": {"lines": "lines.txt"}})
    if name == "a\n":
        load_definitions(project, Home(project / "home"))  # whose end of line is no part of a text, as of all texts
        return
    with pytest.raises(UserError, match=rf"^`name: .*` of {kind} in .*(is no name|letters at most)") as refused:
        load_definitions(project, Home(project / "home"))
    assert len(str(refused.value)) < 600


def test_the_literal_choices_of_a_field_are_named_where_a_boolean_stands(project: Path) -> None:
    _declare(project, "Study", {"judge": "RAW"}, "no")
    assert "takes 'none' or fields of its own (regions)." in str(_refused(project))
    assert Literal["none"] in _inner(Study.model_fields["judge"].annotation)


@pytest.mark.parametrize("text", ["xyzzy", "''", "2020-01-01", "none"])
def test_a_text_where_only_fields_are_taken_is_refused_even_where_there_are_none(project: Path, text: str) -> None:
    _declare(project, "Study", {"judge": {"regions": "RAW"}}, text)
    assert str(_refused(project)).endswith(": this field takes `{}`.")
    _declare(project, "Corpus", {"source": "RAW"}, text)
    assert "this field takes fields of its own (hub, config," in str(_refused(project))


@pytest.mark.usefixtures("_types_are_not_described")
@pytest.mark.parametrize("field", ["image_license", "text_license"])
def test_empty_terms_are_no_terms_under_which_anything_goes_out(project: Path, field: str) -> None:
    fields = {"name": "out", "studies": ["one"], "repo_id": "user/out", "license": "mit", field: " "}
    _declare(project, "Release", fields)
    with pytest.raises(UserError, match=f"`{field}` of Release out in .* is empty"):
        load_definitions(project, Home(project / "home"))


@pytest.mark.usefixtures("_types_are_not_described")
@pytest.mark.parametrize("field", ["contexts_per_token", "min_position"])
def test_a_number_too_large_for_any_column_is_refused_before_a_step_runs(project: Path, field: str) -> None:
    fields = {"name": "words", "language_model": {"path": "."}, "corpus": "text", field: 10**22}
    _declare(project, "Index", fields)
    with pytest.raises(UserError, match=f"`{field}: 1000.*` of Index words in .* must be at most 2147483647"):
        load_definitions(project, Home(project / "home"))
