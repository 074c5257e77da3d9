"""Projects and homes as people have them that were not foreseen: each works, or is refused by name.

Strict expected failures as in `test_inputs`.
"""

from pathlib import Path

import dagster as dg
import pytest

from latentlens_dag.dag.loading import load_definitions
from latentlens_dag.errors import UserError
from latentlens_dag.storage.home import Home


def _not_yet(name: str) -> object:
    return pytest.param(
        name, marks=pytest.mark.xfail(strict=True, reason="the path is put into the address of a database as it is")
    )


@pytest.mark.parametrize("name", ["plain", "a b", *map(_not_yet, ("a%20b", "per%cent", "what?x"))])
def test_the_history_of_a_home_lies_in_the_home_whatever_its_path_is(tmp_path: Path, name: str) -> None:
    home = Home(tmp_path / name)
    home.prepare()
    with dg.DagsterInstance.from_config(str(home.dagster)) as instance:
        instance.report_runless_asset_event(dg.AssetObservation("x"))
        assert instance.get_runs_count() == 0
    assert [path.name for path in tmp_path.iterdir()] == [name]


COMPONENT = "type: latentlens_dag.dag.components.{}\nattributes: {{name: {}, source: {{lines: sentences.txt}}}}\n"


def _project(folder: Path, yaml: str) -> Path:
    (folder / "workspace.yaml").write_text("load_from: []\n")
    (folder / "assets/a").mkdir(parents=True)
    (folder / "assets/a/sentences.txt").write_text("one\n")
    (folder / "assets/a/defs.yaml").write_text(yaml)
    return folder


def test_a_key_that_was_overwritten_by_an_alias_is_refused_with_its_place(tmp_path: Path) -> None:
    project = _project(tmp_path, COMPONENT.format("Corpus", "x").replace("attributes:", "attribu<<: *ates:"))
    with pytest.raises(UserError, match=r"defs\.yaml is not valid YAML: (?s:.*), line 2, "):
        load_definitions(project, Home(tmp_path / "home"))
