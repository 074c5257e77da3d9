"""No code without consent: nothing below assets/ runs when definitions load, whoever loads them."""

import base64
import contextlib
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from dagster.components.core.component_tree import ComponentTree

from latentlens_dag.dag.components.studies import Corpus
from latentlens_dag.dag.loading import load_definitions
from latentlens_dag.dag.yaml_tree import YamlTree, component_types
from latentlens_dag.errors import UserError
from latentlens_dag.storage.home import Home

REPOSITORY = Path(__file__).parents[2]
CORPUS = "type: latentlens_dag.dag.components.Corpus\nattributes: {name: NAME, source: {lines: sentences.txt}}\n"
STRAY_FILES = (
    "run.py",
    "__init__.py",
    "text/helper.py",  # beside a defs.yaml
    "text/__init__.py",
    "text/model/modeling_m.py",  # below one
    "models/m/modeling_m.py",
    "models/m/configuration_m.py",
    "models/llava-1.5 7b/modeling.py",  # in a folder whose name is no identifier
    "models/package/__init__.py",
    "models/package/deep/er/__init__.py",
    "models/package/deep/er/module.py",
    "models/keywords/definitions.py",  # names that Dagster's own loader knows
    "models/keywords/component.py",
    "models/keywords/defs.py",
    "linked/module.py",  # in a folder that is a link
)


def _project(folder: Path) -> Path:
    """A project of two corpora, one of them in a deeper folder."""
    (folder / "workspace.yaml").write_text((REPOSITORY / "workspace.yaml").read_text())
    (folder / "pyproject.toml").write_text((REPOSITORY / "pyproject.toml").read_text())
    for name, place in (("text", "text"), ("more", "some/where/deeper")):
        below = folder / "assets" / place
        below.mkdir(parents=True)
        (below / "sentences.txt").write_text("One.\n")
        (below / "defs.yaml").write_text(CORPUS.replace("NAME", name))
    (folder / "elsewhere").mkdir()
    (folder / "assets" / "linked").symlink_to(folder / "elsewhere")
    return folder


def _add_stray(project: Path, name: str) -> None:
    """A Python file that writes its name into the file `ran` when it is run."""
    file = project / "assets" / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"with open({str(project / 'ran')!r}, 'a') as ran:\n    ran.write({name + chr(10)!r})\n")


def _ran(project: Path) -> list[str]:
    return (project / "ran").read_text().split() if (project / "ran").exists() else []


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return _project(tmp_path)


@pytest.fixture(scope="module")
def project_of_strays(tmp_path_factory: pytest.TempPathFactory) -> Path:
    project = _project(tmp_path_factory.mktemp("strays"))
    for name in STRAY_FILES:
        _add_stray(project, name)
    return project


def _keys(project: Path) -> set[str]:
    definitions = load_definitions(project, Home(project / "home"))
    return {key.to_user_string() for key in definitions.resolve_asset_graph().get_all_asset_keys()}


@pytest.mark.parametrize("name", STRAY_FILES)
def test_a_python_file_below_assets_is_not_run_and_changes_no_definition(
    project: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(project))  # as `dagster dev` does
    without = _keys(project)
    _add_stray(project, name)
    assert _keys(project) == without
    assert {"corpus/text/sentences", "corpus/more/sentences"} <= without
    assert _ran(project) == []


COMMANDS = {
    "latentlens-dag plan": ("-c", "from latentlens_dag.cli.main import main; main()", "plan"),
    "dagster definitions validate": ("-m", "dagster", "definitions", "validate", "-w", "workspace.yaml"),
    "dg check yaml": ("-m", "dagster_dg_cli.cli", "check", "yaml"),
    "dg check defs": ("-m", "dagster_dg_cli.cli", "check", "defs"),
    "dg list defs": ("-m", "dagster_dg_cli.cli", "list", "defs"),
}


def _run(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A command that could import what is below assets/, since the project's folder is on the path."""
    path = os.pathsep.join([str(project), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path, "LATENTLENS_HOME": str(project / "home")}
    return subprocess.run(
        [sys.executable, *arguments], cwd=project, env=environment, capture_output=True, text=True, timeout=300
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_runs_a_python_file_below_assets(project_of_strays: Path, command: str) -> None:
    run = _run(project_of_strays, *COMMANDS[command])
    assert run.returncode == 0, run.stdout + run.stderr
    assert _ran(project_of_strays) == []


@pytest.mark.parametrize("command", [("list", "component-tree"), ("list", "defs", "--path", "text")], ids=" ".join)
def test_a_command_of_dg_that_walks_the_folder_itself_fails_before_it_runs_anything(
    project_of_strays: Path, command: tuple[str, ...]
) -> None:
    run = _run(project_of_strays, "-m", "dagster_dg_cli.cli", *command)
    assert run.returncode != 0 and re.search(r"[`']assets/[`']", run.stdout + run.stderr)
    assert _ran(project_of_strays) == []


@pytest.mark.parametrize(
    "kind",
    [".helper.Thing", "assets.text.helper.Thing", "helper.Thing", "os.path", "dagster.DefinitionsComponent"],
)
def test_a_type_that_is_not_this_packages_is_refused_before_it_is_imported(
    project: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(project))
    monkeypatch.syspath_prepend(str(project / "assets" / "text"))
    _add_stray(project, "text/helper.py")
    file = project / "assets" / "text" / "defs.yaml"
    file.write_text(f"{file.read_text()}---\ntype: {kind}\nattributes: {{path: helper.py}}\n")
    with pytest.raises(UserError) as refused:
        load_definitions(project, Home(project / "home"))
    assert str(refused.value).startswith(f"`type: {kind}` in {file} is no component. There are: ")
    assert str(refused.value).endswith(f"{', '.join(component_types())}.")
    assert _ran(project) == []


@pytest.mark.parametrize("module", [".helper", "helper", "assets.text.helper"])
def test_a_module_of_template_variables_is_refused_before_it_is_imported(
    project: Path, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(project))
    monkeypatch.syspath_prepend(str(project / "assets" / "text"))
    _add_stray(project, "text/helper.py")
    file = project / "assets" / "text" / "defs.yaml"
    file.write_text(f"{file.read_text()}template_vars_module: {module}\n")
    with pytest.raises(UserError, match=r"names Python code, and no code is run .* remove the line") as refused:
        load_definitions(project, Home(project / "home"))
    assert f"`template_vars_module: {module}` in {file}" in str(refused.value)
    assert _ran(project) == []


def _template(project: Path) -> str:
    """A template that leaves a mark when Dagster evaluates it."""
    return f"{{{{ env.__call__.__globals__.os.popen('echo template >> {project}/ran; echo q').read().strip() }}}}"


_HEAD = "type: latentlens_dag.dag.components.Corpus\n"
_BODY = "attributes: {name: text, source: {lines: sentences.txt}}\n"
TEMPLATES = {  # the text of a defs.yaml, and the field that is named
    "a name": (f'{_HEAD}attributes: {{name: "T", source: {{lines: sentences.txt}}}}\n', "attributes.name"),
    "a nested value": (f'{_HEAD}attributes: {{name: text, source: {{lines: "T"}}}}\n', "attributes.source.lines"),
    "a list": (f'{_HEAD}attributes: {{name: text, source: {{lines: [a, [b, "T"]]}}}}\n', "attributes.source.lines.1.1"),
    "a set": (f'{_HEAD}attributes: {{name: text, source: {{lines: !!set {{"T"}}}}}}\n', "attributes.source.lines.0.0"),
    "a key": (f'{_HEAD}attributes: {{name: text, "T": 1}}\n', "attributes.T"),
    "a block": (f"{_HEAD}attributes:\n  source: {{lines: s}}\n  name: |\n    a\n    T\n", "attributes.name"),
    "a folded block": (f"{_HEAD}attributes:\n  source: {{lines: s}}\n  name: >-\n    T\n", "attributes.name"),
    "escapes": (f'{_HEAD}attributes: {{source: {{lines: s}}, name: "\\x7b%T%}}"}}\n', "attributes.name"),
    "an alias": (f'{_HEAD}requirements: {{env: [&t "T"]}}\nattributes: {{name: *t}}\n', "requirements.env.0"),
    "requirements": (f'{_HEAD}{_BODY}requirements: {{env: ["T"]}}\n', "requirements.env.0"),
    "post_processing": (
        f'{_HEAD}{_BODY}post_processing: {{assets: [{{target: "*", attributes: {{group_name: "T"}}}}]}}\n',
        "post_processing.assets.0.attributes.group_name",
    ),
    "a later document": (f'{_HEAD}{_BODY}---\n{_HEAD}attributes: {{name: "T"}}\n', "attributes.name"),
    "after a variable": (f'{_HEAD}attributes: {{name: "{{{{ env.HOME }}}}T"}}\n', "attributes.name"),
    "no component": ('- "T"\n', "0"),
}


@pytest.mark.parametrize("place", TEMPLATES)
def test_a_template_is_refused_before_it_is_evaluated_wherever_it_stands(project: Path, place: str) -> None:
    text, field = TEMPLATES[place]
    template, file = _template(project), project / "assets" / "text" / "defs.yaml"
    file.write_text(text.replace("T", template))
    with pytest.raises(UserError, match="would be run as code") as refused:
        load_definitions(project, Home(project / "home"))
    told = str(refused.value)
    assert f" in {file}: `" in told and "Write the value itself" in told and "`{{ env.NAME }}`" in told
    assert told.startswith(f"`{field}" if "T" not in field else "`attributes.{{ env.__call__.")
    assert _ran(project) == []


@pytest.mark.parametrize(
    "text",
    [
        "{{ 1 }}",
        "{% set a = 1 %}",
        "{# nothing #}",
        "{{ env.HOME.__class__ }}",
        "{{ env('HOME') }}",
        "{{ env.__class__ }}",
        "{{ env.HOME | upper }}",
        "{{- env.HOME -}}",
        "{{{ env.HOME }}}",
        "{{ env.HOME }}{{",
        "{{ env.H\u00d6ME }}",
    ],
)
def test_only_variables_of_the_environment_are_no_code(project: Path, text: str) -> None:
    file = project / "assets" / "text" / "defs.yaml"
    file.write_text(yaml.safe_dump({"type": _HEAD.split()[1], "attributes": {"name": text}}))
    with pytest.raises(UserError, match="would be run as code") as refused:
        load_definitions(project, Home(project / "home"))
    assert f"`attributes.name` in {file}: `{text}` is a template" in str(refused.value)


def test_a_long_template_is_named_by_its_first_80_characters(project: Path) -> None:
    file = project / "assets" / "text" / "defs.yaml"
    file.write_text(f"{_HEAD}attributes: {{name: '{{{{ {'1' * 500} }}}}'}}\n")
    with pytest.raises(UserError) as refused:
        load_definitions(project, Home(project / "home"))
    assert f"`{{{{ {'1' * 74}...` is a template" in str(refused.value)


@pytest.mark.parametrize("place", ["a nested value", "post_processing"])
def test_the_command_line_refuses_a_template_with_exit_code_2(project: Path, place: str) -> None:
    file = project / "assets" / "text" / "defs.yaml"
    file.write_text(TEMPLATES[place][0].replace("T", _template(project)))
    run = _run(project, *COMMANDS["latentlens-dag plan"])
    assert run.returncode == 2 and "Traceback" not in run.stderr
    assert "would be run as code" in " ".join(run.stderr.split())
    assert _ran(project) == []


@pytest.mark.parametrize("kind", ["helper.Thing", "assets.text.helper.Thing"])
def test_binary_data_is_refused_since_it_would_become_text_unchecked(
    project: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(project))
    monkeypatch.syspath_prepend(str(project / "assets" / "text"))
    _add_stray(project, "text/helper.py")
    file = project / "assets" / "text" / "defs.yaml"
    binary = base64.b64encode(_template(project).encode()).decode()
    for field, text in (
        ("type", f"type: !!binary {base64.b64encode(kind.encode()).decode()}\n{_BODY}"),
        ("attributes.name", f"{_HEAD}attributes: {{name: !!binary {binary}, source: {{lines: sentences.txt}}}}\n"),
    ):
        file.write_text(text)
        with pytest.raises(UserError, match="binary data") as refused:
            load_definitions(project, Home(project / "home"))
        assert str(refused.value).startswith(f"`{field}` in {file} ")
        assert _ran(project) == []


def test_variables_of_the_environment_stand_for_their_values(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LATENTLENS_TEST_A", "from")
    monkeypatch.setenv("LATENTLENS_TEST_B2", "{{ env.LATENTLENS_TEST_A }}")  # a value is no template
    file = project / "assets" / "text" / "defs.yaml"
    name = "{{ env.LATENTLENS_TEST_A }}_the_{{ env.LATENTLENS_TEST_A }}"
    file.write_text(f"{_HEAD}attributes: {{name: '{name}', source: {{lines: 'sentences.txt'}}}}\n")
    assert "corpus/from_the_from/sentences" in _keys(project)
    file.write_text(_HEAD + "attributes: {name: text, source: {lines: '{{ env.LATENTLENS_TEST_B2 }}.txt'}}\n")
    with pytest.raises(UserError) as refused:
        load_definitions(project, Home(project / "home"))
    assert "{{ env.LATENTLENS_TEST_A }}.txt does not exist" in str(refused.value)


@pytest.mark.parametrize("field", ["name", "lines", "group_name", "description", "metadata", "tags", "key", "target"])
def test_what_dagster_makes_of_a_text_is_not_evaluated_again(
    project: Path, field: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dagster reads a text in quotes of Python as what these hold, and puts in what a variable holds."""
    monkeypatch.setenv("LATENTLENS_TEST_A", _template(project))
    quoted = f'"{_template(project)}"'.replace("{{", r"\x7b{").replace("}}", r"\x7d}")
    for text in (quoted, "{{ env.LATENTLENS_TEST_A }}"):
        document = yaml.safe_load(_HEAD + _BODY)
        below = {"name": document["attributes"], "lines": document["attributes"]["source"]}
        post = {"target": "*", "attributes": {}}
        where = below.get(field, post if field == "target" else post["attributes"])
        where[field] = {"a": text} if field in ("metadata", "tags") else text
        document["post_processing"] = {"assets": [post]}
        (project / "assets" / "text" / "defs.yaml").write_text(yaml.safe_dump(document))
        with contextlib.suppress(Exception):  # most fields cannot be such a text
            _keys(project)
        assert _ran(project) == []


def test_a_variable_that_is_not_set_is_an_error_and_not_the_text_none(project: Path) -> None:
    file = project / "assets" / "text" / "defs.yaml"
    file.write_text(_HEAD + "attributes: {name: 'a_{{ env.LATENTLENS_UNSET }}', source: {lines: sentences.txt}}\n")
    with pytest.raises(UserError, match="the environment has no variable LATENTLENS_UNSET") as refused:
        load_definitions(project, Home(project / "home"))
    assert str(refused.value).startswith(f"`attributes.name` in {file}: ")


@pytest.mark.parametrize(("length", "refused"), [(200, False), (201, True), (5000, True)])
def test_a_name_longer_than_files_are_named_by_is_refused(project: Path, length: int, refused: bool) -> None:
    file = project / "assets" / "text" / "defs.yaml"
    file.write_text(f"{_HEAD}attributes: {{name: {'t' * length}, source: {{lines: sentences.txt}}}}\n")
    with pytest.raises(UserError, match="200 letters at most") if refused else contextlib.nullcontext():
        assert _keys(project)


@pytest.mark.parametrize("value", [b"a\xff", b"\xed\xa0\x80", b"caf\xe9"])
def test_a_variable_that_is_no_text_is_refused_with_its_bytes(
    project: Path, monkeypatch: pytest.MonkeyPatch, value: bytes
) -> None:
    monkeypatch.setenv("LATENTLENS_TEST_A", os.fsdecode(value))
    file = project / "assets" / "text" / "defs.yaml"
    file.write_text(_HEAD + "attributes: {name: text, source: {lines: '{{ env.LATENTLENS_TEST_A }}.txt'}}\n")
    with pytest.raises(UserError, match=r"`attributes\.source\.lines` in .*LATENTLENS_TEST_A .* not UTF-8") as refused:
        load_definitions(project, Home(project / "home"))
    assert repr(value) in str(refused.value)


UNREADABLE = {
    "empty": (b"", "declares nothing. Write a component"),
    "comments alone": (b"# nothing\n# yet\n", "declares nothing. Write a component"),
    "an empty document": (b"---\n", "declares nothing. Write a component"),
    "not UTF-8": (b"# one\n# caf\xe9\n", ", line 2: byte 0xe9 is not UTF-8. Save the file as UTF-8."),
    "NUL bytes": (b"type: a\x00b\n", "is not valid YAML: "),
    "an unknown alias": (b"type: *nothing\n", "is not valid YAML: "),
    "a variable without quotes": (b"type: {{ env.HOME }}\n", "is not valid YAML: .* a brace needs quotes"),
    "a tag that Dagster cannot read": (b"type: !!omap [a: b]\n", "is not valid YAML: "),
    "a value that its tag does not fit": (b"type: !!int a\n", "is not valid YAML: "),
    "a boolean that is none": (b"type: !!bool abc\n", "is not valid YAML: a value is not what its tag says"),
    "a time that is none": (b"type: !!timestamp abc\n", "is not valid YAML: a value is not what its tag says"),
    "lists too deep": (b"type: " + b"[" * 9999, "is not valid YAML: "),
    "a folder": (None, "is no file, .* Rename it"),
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_a_defs_yaml_that_cannot_be_read_is_named(project: Path, case: str) -> None:
    content, message = UNREADABLE[case]
    file = project / "assets" / "text" / "defs.yaml"
    file.unlink()
    if content is None:
        file.mkdir()
    else:
        file.write_bytes(content)
    with pytest.raises(UserError, match=message) as refused:
        load_definitions(project, Home(project / "home"))
    assert str(refused.value).startswith(str(file))


def _tree(kind: type[ComponentTree], project: Path) -> ComponentTree:
    module = ModuleType("assets_of_a_test")
    module.__file__, module.__path__ = None, [str(project / "assets")]
    return kind(defs_module=module, project_root=project)


def test_without_python_files_the_tree_is_dagsters_own(project: Path) -> None:
    assets = project / "assets"
    for below in (".hidden", "__pycache__", "empty/below", "some/.cache/deep"):
        (assets / below).mkdir(parents=True)
        (assets / below / "data.json").write_text("{}")
    for below in (".hidden", "__pycache__", "some/.cache/deep"):  # left out by both
        (assets / below / "defs.yaml").write_text(CORPUS)
    several = "---\n".join(CORPUS.replace("NAME", name) for name in ("one", "two"))
    for place, file in (("yml", "defs.yml"), ("old", "component.yaml"), ("linked", "defs.yaml")):
        (assets / place).mkdir(exist_ok=True)
        (assets / place / file).write_text(several.replace("name: ", f"name: {place}_"))
    mine, dagsters = _tree(YamlTree, project), _tree(ComponentTree, project)
    assert mine.to_string_representation() == dagsters.to_string_representation()
    found = [[corpus.name for corpus in tree.get_all_components(of_type=Corpus)] for tree in (mine, dagsters)]
    assert (
        found[0] == found[1] == ["linked_one", "linked_two", "old_one", "old_two", "more", "text", "yml_one", "yml_two"]
    )


def test_links_that_lead_in_circles_are_walked_once(project: Path) -> None:
    (project / "assets" / "round").mkdir()
    (project / "assets" / "round" / "up").symlink_to(project / "assets")
    (project / "assets" / "round" / "itself").symlink_to(project / "assets" / "round")
    names = [corpus.name for corpus in _tree(YamlTree, project).get_all_components(of_type=Corpus)]
    assert names == ["more", "text"]


def test_a_folder_that_declares_nothing_has_only_what_every_project_has(project: Path) -> None:
    for file in (project / "assets").rglob("defs.yaml"):
        file.unlink()
    assert _keys(project) == set()
