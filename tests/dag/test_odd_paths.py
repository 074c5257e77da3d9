"""A project and a home whose paths have characters that shells, patterns, addresses and SQL give a meaning."""

import json
from pathlib import Path

import pytest

from latentlens_dag.browse.browser_data import open_browser_data
from latentlens_dag.dataset.dataset import open_dataset
from latentlens_dag.errors import UserError
from latentlens_dag.storage.home import Home
from latentlens_dag.testing import tiny_project
from tests.dag.conftest import build, opened
from tests.helpers.command_line import run_command

ODD = "p%41?x#c [x]*{y}'q\"&+=;:~$@!ä日%s"
RELEASES = """\
---
type: latentlens_dag.dag.components.Release
attributes: {name: answers, repo_id: user/answers, license: mit, studies: [tiny]}
---
type: latentlens_dag.dag.components.Release
attributes: {name: words, repo_id: user/words, license: mit, index: words, sentences: cited}
"""
COUNT = "SELECT count(*) AS rows FROM neighbors"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home of a built project with two releases; no other file lies beside its folder."""
    folder = tmp_path_factory.mktemp("odd") / "only"
    project = tiny_project(folder / ODD, 1, 1)
    yaml = project / "assets" / "tiny" / "defs.yaml"
    yaml.write_text(yaml.read_text() + RELEASES)
    assert "release/words/dataset" in build(project, project / "home%?")
    return project / "home%?"


def test_a_build_lies_in_its_home_and_finds_itself_up_to_date(home: Path) -> None:
    project = home.parent
    assert [path.name for path in project.parent.iterdir()] == [ODD]
    assert {path.name for path in project.iterdir()} == {"assets", "workspace.yaml", home.name}
    assert {path.name for path in home.iterdir()} <= {"build.lock", "dagster", "warehouse"}
    assert build(project, home) == []
    with opened(project, home) as one:
        assert all(step["missing"] == step["stale"] == 0 for step in one.status(one.select()))


def test_the_home_its_catalog_and_its_releases_are_queried(home: Path) -> None:
    warehouse = Home(home).warehouse
    rows = []
    for source in (home, warehouse.root, warehouse.catalog("tiny"), warehouse.release("answers")):
        with open_dataset(source) as dataset:
            rows.append(dataset.collect(COUNT)["rows"].item())
            assert not dataset.named("studies").pl().is_empty()
    assert rows[0] > 0 and len(set(rows)) == 1
    answer = run_command(home.parent, "query", COUNT, "--format", "json", "--home", str(home))
    assert json.loads(answer.stdout) == [{"rows": rows[0]}], answer.stderr
    searched = run_command(home.parent, "search", "--study", "tiny", "--text", "dog", "--json", "--home", str(home))
    assert json.loads(searched.stdout), searched.stderr


def test_the_browser_reads_the_home(home: Path) -> None:
    data = open_browser_data(home)
    assert list(data.studies()) == ["tiny"] and list(data.catalogs) == ["tiny"]


def test_a_source_that_is_an_address_is_refused_with_its_field_and_place(tmp_path: Path) -> None:
    project = tiny_project(tmp_path / "project", 1, 1)
    yaml = project / "assets" / "tiny" / "defs.yaml"
    yaml.write_text(yaml.read_text().replace("lines: corpus.txt", "lines: s3://bucket/corpus.txt"))
    with pytest.raises(UserError, match=r"source\.lines: s3://bucket/corpus\.txt`: .* stands in .*defs\.yaml:\d+: "):
        build(project)
