"""Releases as assets: staged by a build like everything else, and sent by nobody who does not say so."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import dagster as dg
import polars as pl
import pytest

from latentlens_dag.dag.building.garbage import clean_project, project_garbage
from latentlens_dag.dag.building.integrity import check_project
from latentlens_dag.dag.loading import find_release, load_definitions
from latentlens_dag.errors import UserError
from latentlens_dag.index.contextual_index import ContextualIndex
from latentlens_dag.release.manifest import MANIFEST, read_manifest
from latentlens_dag.storage.hashing import hash_file
from latentlens_dag.storage.home import Home
from latentlens_dag.storage.records import ArtifactStore
from tests.dag.conftest import build, opened

Copy = Callable[[Path], Path]
OUT = "{name: out, studies: [tiny], repo_id: user/out, license: mit}"
WORDS = "{name: words_out, index: words, repo_id: user/words, license: mit, vectors: true}"
PUBLISHED = dg.AssetKey(["release", "out", "published"])


def _declare(project: Path, *releases: str) -> Path:
    file = project / "assets" / "tiny" / "defs.yaml"
    documents = [f"---\ntype: latentlens_dag.dag.components.Release\nattributes: {one}\n" for one in releases]
    file.write_text(file.read_text() + "".join(documents))
    return project


@pytest.fixture
def released(built_project: Path, copy_of: Copy) -> Path:
    """The tiny project with a release, which is built."""
    project = _declare(copy_of(built_project), OUT)
    assert build(project) == ["release/out/dataset"]
    return project


def _release(project: Path, name: str = "out") -> Path:
    return project / ".latentlens" / "warehouse" / "release" / name


def test_a_release_is_built_once_and_again_where_it_was_damaged(released: Path) -> None:
    before = {path: path.read_bytes() for path in _release(released).rglob("*") if path.is_file()}
    assert build(released) == []
    record = ArtifactStore(_release(released).parents[1]).read("release/out/dataset", None)
    assert record is not None
    assert record.data_version == hash_file(_release(released) / MANIFEST)
    assert len(record.files) == len(before)
    (_release(released) / "README.md").unlink()
    with opened(released) as project:
        (damaged,) = check_project(project, project.select()).damaged
        assert "README.md is missing" in damaged.reason
    assert build(released) == ["release/out/dataset"]
    assert {path: path.read_bytes() for path in _release(released).rglob("*") if path.is_file()} == before


def test_a_release_says_where_its_study_comes_from(released: Path) -> None:
    facts = read_manifest(_release(released) / MANIFEST).studies["tiny"]
    assert facts["kind"] == "images"
    assert facts["images"] == {"name": "pictures", "source": "pictures", "count": 4}
    assert facts["model"]["name"] == "model"
    assert facts["visual_layers"] == [0, 1, 2]
    assert (facts["top_k"], facts["unique"], facts["judge"]) == (3, "none", "regions")
    index = facts["index"]
    assert (index["name"], index["corpus"], index["source"], index["sentences"]) == ("words", "text", "corpus.txt", 8)
    occurrences = _release(released).parents[1] / "index" / "words" / "occurrences" / "*.parquet"
    assert index["occurrences"] == pl.scan_parquet(occurrences).select(pl.len()).collect().item()
    observed = json.loads((_release(released).parents[1] / "observed" / "study.tiny.vlm.json").read_text())
    assert observed and len(facts["model"]["weights"]) == 16
    assert set(facts["versions"]) >= {"torch", "latentlens-dag"}
    assert str(released) not in (_release(released) / MANIFEST).read_text()


def test_a_release_follows_its_studies_and_nothing_else(released: Path) -> None:
    file = released / "assets" / "tiny" / "defs.yaml"
    file.write_text(file.read_text().replace("top_k: 3", "top_k: 2"))
    with opened(released) as project:
        assert "release/out/dataset" in {need.key.to_user_string() for need in project.plan(project.select())}
    file.write_text(
        file.read_text().replace("top_k: 2", "top_k: 3").replace("license: mit", "license: mit, sentences: none")
    )
    assert build(released) == ["release/out/dataset"]
    assert "sentences" not in read_manifest(_release(released) / MANIFEST).tables


def test_a_release_that_is_declared_no_more_is_cleaned(released: Path) -> None:
    file = released / "assets" / "tiny" / "defs.yaml"
    file.write_text(file.read_text().split("---\ntype: latentlens_dag.dag.components.Release")[0])
    with opened(released) as project:
        found, gone = project_garbage(project)
        assert [record.asset for record in gone] == ["release/out/dataset"]
        assert {one.why for one in found if one.path.is_relative_to(_release(released))} == {"not declared"}
        clean_project(project, found, gone)
    assert not _release(released).exists()


def test_a_release_of_a_study_that_is_switched_off_has_no_assets_and_stays(released: Path) -> None:
    file = released / "assets" / "tiny" / "defs.yaml"
    file.write_text(file.read_text().replace("name: tiny\n", "name: tiny\n  enabled: false\n"))
    with opened(released) as project:
        assert not any(key.path[0] == "release" for key in project.graph.get_all_asset_keys())
        found, gone = project_garbage(project)
        assert gone == []
        assert not any(one.path.is_relative_to(_release(released)) for one in found)


def test_no_build_and_no_plan_publishes(released: Path) -> None:
    with opened(released) as project:
        assert PUBLISHED in project.graph.get_all_asset_keys()
        assert not any(PUBLISHED in unit.keys for unit in project.steps)
        assert PUBLISHED not in {key for key, _ in project.select().targets}
        assert "release/out/published" not in {row["step"] for row in project.status(project.select())}
        assert project.graph.get(PUBLISHED).automation_condition is None
        with pytest.raises(UserError, match="no asset is called so"):
            project.select(names=["release/out/published"])


def _publish(project: Path, confirm: str | None) -> dg.ExecuteInProcessResult:
    home = Home(project / ".latentlens")
    job = load_definitions(project, home).resolve_implicit_global_asset_job_def()
    config = {} if confirm is None else {"ops": {"release__out__published": {"config": {"confirm": confirm}}}}
    with dg.DagsterInstance.from_config(str(home.dagster)) as instance:
        return job.get_subset(asset_selection={PUBLISHED}).execute_in_process(
            instance=instance, run_config=config, raise_on_error=False
        )


def test_publishing_in_the_ui_needs_the_name_of_the_repository(released: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[tuple[Path, str]] = []

    def publish(folder: Path, repo_id: str) -> object:
        sent.append((folder, repo_id))
        return SimpleNamespace(commit="c" * 40)

    monkeypatch.setitem(sys.modules, "latentlens_dag.publish.publish", SimpleNamespace(publish=publish))
    for wrong in (None, "user/other"):
        failed = _publish(released, wrong)
        assert not failed.success
        (event,) = [one for one in failed.all_node_events if one.is_step_failure]
        assert "nothing was sent" in str(event.step_failure_data.error)
        assert "confirm: user/out" in str(event.step_failure_data.error)
    assert sent == []
    assert _publish(released, "user/out").success
    assert sent == [(_release(released), "user/out")]
    assert build(released) == []


def test_an_index_is_released_whole(built_project: Path, copy_of: Copy) -> None:
    project = _declare(copy_of(built_project), WORDS)
    assert build(project) == ["release/words_out/dataset"]
    staged = ContextualIndex.open(_release(project, "words_out"))
    own = ContextualIndex.open(project / ".latentlens" / "warehouse" / "index" / "words")
    states = [[1.0] * own.width]
    assert staged.search(states).to_polars().equals(own.search(states).to_polars())
    made = read_manifest(_release(project, "words_out") / MANIFEST)
    assert made.kind == "index"
    assert made.studies["words"]["contextual_layers"] == [1, 2]
    assert (_release(project, "words_out") / "vectors" / "layer_01.parquet").is_file()
    assert build(project) == []


def test_a_release_is_found_by_its_name(fresh_project: Path, copy_of: Copy) -> None:
    project = _declare(copy_of(fresh_project), OUT)
    assert find_release("out", project).repo_id == "user/out"
    with pytest.raises(UserError, match=r"There is no release 'in'\. There are: out"):
        find_release("in", project)


MISTAKES = {
    "{name: out, repo_id: user/out, license: mit}": r"Release out in .* must say what goes out",
    "{name: out, studies: [], repo_id: user/out, license: mit}": "must say what goes out",
    "{name: out, studies: [tiny], index: words, repo_id: user/out, license: mit}": "and not both",
    "{name: out, studies: [tiny, tiny], repo_id: user/out, license: mit}": "each study once",
    "{name: out, studies: [tiney], repo_id: user/out, license: mit}": r"`studies: tiney` .* names no Study.*tiny",
    "{name: out, index: wordz, repo_id: user/out, license: mit}": r"`index: wordz` .* names no Index.*words",
    "{name: out, studies: [tiny], repo_id: out, license: mit}": r"`repo_id: out` of Release out .*user/name",
    "{name: out, studies: [tiny], repo_id: ../out, license: mit}": r"`repo_id: \.\./out`",
    "{name: out, studies: [tiny], repo_id: user/out, license: MIT License}": r"`license: MIT License` .*apache-2\.0",
    "{name: out, studies: [tiny], repo_id: user/out}": "license",
    "{name: out, studies: [tiny], repo_id: user/out, license: mit, images: thumbnails}": "`image_license: TEXT`",
    "{name: out, studies: [tiny], repo_id: user/out, license: mit, images: originals}": r"`images: originals`",
    "{name: out, studies: [tiny], repo_id: user/out, license: mit, vectors: true}": "`vectors` belongs to",
    "{name: out, index: words, repo_id: user/out, license: mit, image_license: mit}": "an index has no pictures",
    "{name: out, index: words, repo_id: user/out, license: mit, sentences: none}": "Say all or cited",
    "{name: Out, studies: [tiny], repo_id: user/out, license: mit}": "`name: Out` of Release in .* is no name",
}


@pytest.mark.parametrize("attributes", MISTAKES)
def test_a_mistake_in_a_release_is_told(fresh_project: Path, copy_of: Copy, attributes: str) -> None:
    project = _declare(copy_of(fresh_project), attributes)
    with pytest.raises(UserError, match=MISTAKES[attributes]):
        load_definitions(project, Home(project / ".latentlens"))
