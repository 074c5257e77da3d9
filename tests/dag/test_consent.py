"""No code without consent: nothing below assets/ runs when definitions load, whoever loads them."""

import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from dagster.components.core.component_tree import ComponentTree

from latentlens_dag.dag.components import Corpus
from latentlens_dag.dag.loading import load_definitions
from latentlens_dag.dag.yaml_tree import YamlTree, component_types
from latentlens_dag.errors import UserError
from latentlens_dag.home import Home

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
    "latentlens-dag plan": ("-c", "from latentlens_dag.cli import main; main()", "plan"),
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
    (assets / "text" / "below").mkdir()
    (assets / "text" / "below" / "defs.yaml").write_text(CORPUS)  # below another one: left out by both
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
