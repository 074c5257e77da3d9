"""What the names after `build` and `plan` mean, and what a plan says of states that are stored."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from latentlens_dag.errors import UserError
from tests.dag.conftest import build, opened
from tests.dag.test_odd_paths import RELEASES
from tests.helpers.command_line import run_command

OTHER = """\
type: latentlens_dag.dag.components.Corpus
attributes: {name: more, source: {lines: ../../tiny/corpus.txt}}
---
type: latentlens_dag.dag.components.TextSet
attributes: {name: lines, source: {lines: ../../tiny/corpus.txt}}
"""


@pytest.fixture
def project(fresh_project: Path, tmp_path: Path) -> Path:
    """Two folders: `tiny` with a study, its index and two releases, and `paper/other` with a corpus and a text set."""
    folder = Path(shutil.copytree(fresh_project, tmp_path / "copy"))
    yaml = folder / "assets" / "tiny" / "defs.yaml"
    yaml.write_text(yaml.read_text() + RELEASES.replace("name: words", "name: only_words"))
    (folder / "assets" / "paper" / "other").mkdir(parents=True)
    (folder / "assets" / "paper" / "other" / "defs.yaml").write_text(OTHER)
    return folder


def test_a_name_is_a_study_a_release_an_index_a_set_or_a_folder(project: Path) -> None:
    with opened(project) as one:

        def requested(*names: str) -> set[str]:
            return {"/".join(key.path[:2]) for key, _ in one.select(names).requested}

        assert requested("tiny") == {"study/tiny"}  # which a folder is called, too
        assert requested("answers") == {"release/answers"}
        assert requested("words") == {"index/words"}
        assert requested("pictures") == {"images/pictures"}
        assert requested("other") == requested("paper/other") == requested("assets/paper/other")
        assert requested("other") == {"corpus/more", "texts/lines"}
        assert requested("answers", "other") == {"release/answers", "corpus/more", "texts/lines"}
        with pytest.raises(UserError, match=r"no study 'ansers', nor a release.* Near to it: answers"):
            one.select(["ansers"])
        with pytest.raises(UserError, match=r"There are: study tiny; release answers, only_words; index words\."):
            one.select(["zzz"])


def test_a_release_is_built_with_what_it_is_made_from_and_nothing_else(project: Path) -> None:
    answer = run_command(project, "build", "only_words", "--json")
    built = {part["asset"] for ran in json.loads(answer.stdout)["runs"] for part in ran["built"]}
    assert {name.split("/")[0] for name in built} == {"release", "index", "corpus"}
    assert "release/only_words/dataset" in built and "corpus/more/sentences" not in built


def test_a_plan_says_which_parts_have_states_that_are_used_again(
    built_project: Path, copy_of: Callable[[Path], Path]
) -> None:
    project = copy_of(built_project)
    pictures = project / "assets" / "tiny" / "pictures"
    Image.new("RGB", (60, 60), (200, 30, 90)).save(pictures / "new.png")
    answer = run_command(project, "plan", "tiny")
    assert "study/tiny/visual, 8 parts: follows images/pictures/pictures; 6 of 8 parts reuse states" in answer.stdout
    with opened(project) as one:
        one.observe(one.select())
        targets = one.plan(one.select())
        assert one.reused(targets) == {"study/tiny/visual": 6}
        assert one.reused(one.plan(one.select(), force=True)) == {}
    build(project)
    assert 1 <= sum(_forwarded(project)) < 5, "of five pictures, only what is new in its batch was shown to the model"
    config = project / "assets" / "tiny" / "model" / "config.json"
    config.write_text(config.read_text() + "\n")
    with opened(project) as one:
        one.observe(one.select())
        planned = one.plan(one.select())
        assert any(target.key.path[2] == "visual" for target in planned) and one.reused(planned) == {}


def _forwarded(project: Path) -> list[int]:
    """How many pictures each batch of the last build showed to the model."""
    import dagster as dg

    from latentlens_dag.dag.building.dagster_history import latest_by_partition

    with opened(project) as one:
        found = latest_by_partition(one.instance, dg.AssetKey(["study", "tiny", "visual", "V00"]))
        return [record.asset_materialization.metadata["forwarded"].value for record in found.values()]
