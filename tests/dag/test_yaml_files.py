"""Files of YAML as people hand them in: nothing in them is lost without a word, and whatever is wrong is named."""

import re
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from latentlens_dag.dag.loading import find_study, load_definitions
from latentlens_dag.errors import UserError
from latentlens_dag.storage.home import Home

CORPUS = "type: latentlens_dag.dag.components.Corpus\nattributes: {name: NAME, source: {lines: sentences.txt}}\n"
STUDY = """
type: latentlens_dag.dag.components.Study
attributes: {name: seen, vlm: {path: .}, images: pictures, index: words, PROMPT}
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "workspace.yaml").write_text("load_from: []\n")
    (tmp_path / "assets" / "text").mkdir(parents=True)
    (tmp_path / "assets" / "text" / "sentences.txt").write_text("One.\n")
    (tmp_path / "assets" / "text" / "defs.yaml").write_text(CORPUS.replace("NAME", "text"))
    return tmp_path


def _file(project: Path) -> Path:
    return project / "assets" / "text" / "defs.yaml"


def _refused(project: Path, text: str | bytes | None = None) -> str:
    if text is not None:
        _file(project).write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(UserError) as refused:
        load_definitions(project, Home(project / "home"))
    return str(refused.value)


REPEATED = {
    "components without a line between them": (CORPUS + CORPUS.replace("Corpus", "TextSet"), "type", 3, 1),
    "a field": (CORPUS + "post_processing: {}\npost_processing: {}\n", "post_processing", 4, 3),
    "a field of a field": ("type: x\nattributes:\n  source:\n    lines: a\n    lines: b\n", "lines", 5, 4),
    "of another spelling": ("type: x\nattributes: {}\n'attributes': {}\n", "attributes", 3, 2),
    "in a list": ("type: x\na: [1, {b: 1,\n b: 1}]\n", "b", 3, 2),
    "in a second document": (CORPUS + "---\ntype: x\ntype: y\n", "type", 5, 4),
    "below an alias": ("a: &x {b: 1,\n b: 2}\nc: *x\n", "b", 2, 1),
    "numbers that are equal": ("a: {1: x,\n 1.0: y}\n", "1.0", 2, 1),
    "what is merged": ("a: &a {b: 1}\nc:\n  <<: *a\n  <<: *a\n", "<<", 4, 3),
}


@pytest.mark.parametrize("case", REPEATED)
def test_a_key_that_comes_twice_is_refused_with_both_lines(project: Path, case: str) -> None:
    text, key, line, first = REPEATED[case]
    message = f"{_file(project)}, line {line}: `{key}` comes twice, first in line {first}, "
    assert _refused(project, text).startswith(message)


def test_a_key_that_an_alias_overwrote_is_refused_with_its_place(project: Path) -> None:
    told = _refused(project, CORPUS.replace("attributes:", "attribu<<: *ates:"))
    assert re.search(r"defs\.yaml is not valid YAML: (?s:.*), line 2, ", told)


def _keys(project: Path) -> set[dg.AssetKey]:
    return set(load_definitions(project, Home(project / "home")).resolve_all_asset_keys())


def test_a_key_that_overrides_a_merged_one_is_no_repetition(project: Path) -> None:
    merged = CORPUS.replace("{name: NAME, ", "\n  <<: &a {name: text, shards: 2}\n  name: mine\n  ")
    _file(project).write_text(merged.replace("}}", "}").replace("  source: {", "  source: {"))
    assert {key.path[1] for key in _keys(project) if key.path[0] == "corpus"} == {"mine"}


keys = st.sampled_from(["a", "b", "c", "d"])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(written=st.lists(st.tuples(keys, st.lists(keys, max_size=3)), max_size=4))
def test_keys_are_refused_exactly_where_one_is_written_twice(
    project: Path, written: list[tuple[str, list[str]]]
) -> None:
    lines = [line for key, inner in written for line in (f"{key}:", *(f"  {name}: 1" for name in inner))]
    twice = any(len(set(some)) < len(some) for some in ([key for key, _ in written], *(some for _, some in written)))
    told = _refused(project, "\n".join(["type: none", *lines]))
    assert ("comes twice" in told) == twice


def test_a_file_below_another_one_is_refused_with_both(project: Path) -> None:
    for name in ("defs.yaml", "defs.yml", "component.yaml"):
        below = _file(project).parent / "some" / "where"
        below.mkdir(parents=True, exist_ok=True)
        (below / name).write_text(CORPUS)
        told = _refused(project)
        assert told.startswith(f"{below / name} would not be read, since {_file(project)} lies above it.")
        (below / name).unlink()
    for hidden in (".git", "__pycache__"):
        (_file(project).parent / hidden).mkdir()
        (_file(project).parent / hidden / "defs.yaml").write_text(CORPUS)
    load_definitions(project, Home(project / "home"))


def test_two_files_in_a_folder_are_refused_and_so_is_one_whose_name_has_another_case(project: Path) -> None:
    (_file(project).parent / "defs.yml").write_text(CORPUS)
    assert "has defs.yaml and defs.yml, of which only one would be read" in _refused(project)
    (_file(project).parent / "defs.yml").unlink()
    _file(project).rename(_file(project).with_name("Defs.yaml"))
    assert "its name must be defs.yaml" in _refused(project)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "latin-1", "cp1252", "shift-jis"])
def test_a_file_of_another_encoding_is_refused_by_name(project: Path, encoding: str) -> None:
    text = CORPUS + ("# \u00e9\n" if encoding in ("latin-1", "cp1252") else "# \u3042\n")
    assert str(_file(project)) in _refused(project, text.encode(encoding))


@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
def test_a_byte_order_mark_and_ends_of_lines_of_other_systems_change_nothing(project: Path, ends: str) -> None:
    text = CORPUS.replace("NAME", "text").replace("\n", ends)
    _file(project).write_bytes(b"\xef\xbb\xbf" + text.encode())
    found = _keys(project)
    _file(project).write_text(CORPUS.replace("NAME", "text"))
    assert found == _keys(project) and any(key.path[:2] == ["corpus", "text"] for key in found)


@pytest.mark.parametrize("document", ["", "text", "[a, b]", "7"])
def test_a_document_that_is_no_component_is_refused(project: Path, document: str) -> None:
    for text in (f"{CORPUS}---\n{document}\n", f"---\n{document}\n---\n{CORPUS}"):
        assert "where a component belongs" in _refused(project, text)


LAUGHS = "".join(f"  a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 9))


@pytest.mark.parametrize(
    "value",
    [
        pytest.param("\n  a0: &a0 [x]\n" + LAUGHS, id="aliases that multiply"),
        pytest.param("&a [*a]", id="a list in itself"),
        pytest.param("[" * 60 + "]" * 60, id="too deep"),
    ],
)
def test_a_file_that_stands_for_too_much_is_refused_at_once(project: Path, value: str) -> None:
    told = _refused(project, f"type: x\nattributes: {value}\n")
    assert str(_file(project)) in told and "Write fewer" in told


ODD: list[Any] = [
    None,
    [],
    {},
    [1, [2]],
    {"a": {"b": None}},
    "",
    " ",
    10**400,
    float("nan"),
    -1,
    True,
    "1",
    {1: 2},
    "~",
]
ODD += ["[a", "'q'", "None", "a\0b"]
FIELDS = ["name", "source", "source.lines", "source.csv", "source.column", "source.hub", "shards", "new"]
FILE_FIELDS = ["type", "attributes", "requirements", "post_processing", "template_vars_module", "new"]


def _with(text: str, path: str, value: Any) -> str:
    document = yaml.safe_load(text)
    *above, last = path.split(".")
    inside = document
    for field in above:
        inside = inside[field]
    inside[last] = value
    return yaml.safe_dump(document)


@pytest.mark.parametrize("path", [*(f"attributes.{field}" for field in FIELDS), *FILE_FIELDS])
def test_a_value_of_any_type_in_any_field_is_read_or_refused_with_the_file(project: Path, path: str) -> None:
    for value in ODD:
        _file(project).write_text(_with(CORPUS, path, value))
        try:
            load_definitions(project, Home(project / "home"))
        except UserError as error:
            assert str(_file(project)) in str(error), (path, value)
            assert len(str(error)) < 1000, (path, value)


def _prompt(project: Path, prompt: str) -> Any:
    _file(project).write_text(STUDY.replace("PROMPT", prompt))
    return find_study("seen", project)._prompt("Study seen")


@pytest.mark.parametrize("text", ["None", "'quoted'", '"quoted"', "1", "[1, 2]", "True", "0x10", "1_000", "('a')"])
def test_a_text_is_what_is_written_and_not_what_python_reads_in_it(project: Path, text: str) -> None:
    assert _prompt(project, f"prompt: {yaml.safe_dump(text, default_style=chr(34)).strip()}") == text


def test_null_is_a_field_that_is_left_out(project: Path) -> None:
    assert _prompt(project, "prompt: null, texts: ~, top_k: 3") == _prompt(project, "top_k: 3")


@pytest.mark.parametrize("prompt", ["''", "' '", '"\\n"'])
def test_an_empty_prompt_is_refused_with_what_it_may_mean(project: Path, prompt: str) -> None:
    with pytest.raises(UserError, match=r"of Study seen is empty\. Leave it out .* or write `prompt: \{after: ''\}`"):
        _prompt(project, f"prompt: {prompt}")


@pytest.mark.parametrize(
    "prompt", ["null", "{after: null}", "{after: Why not}", "Why not", "[a]", "7", "{before: [a]}", "{a: b}"]
)
def test_a_prompt_of_any_form_is_read_or_refused_with_its_file(project: Path, prompt: str) -> None:
    try:
        _prompt(project, f"prompt: {prompt}")
    except UserError as error:
        assert re.search(rf"`prompt\S*`? .*(of|in) {re.escape(str(_file(project)))}:\d+", str(error)), error
