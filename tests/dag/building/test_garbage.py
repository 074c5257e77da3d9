"""What `clean` removes, and what it leaves."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from latentlens_dag.dag.building.integrity import check_project
from latentlens_dag.dataset.comparison import compare_results
from latentlens_dag.errors import UserError
from latentlens_dag.index.lance_files import open_table
from latentlens_dag.storage.records import ArtifactStore
from latentlens_dag.storage.study_versions import study_versions, version_files
from tests.dag.building.test_integrity import _tables
from tests.dag.conftest import build, opened
from tests.helpers.command_line import run_command

Copy = Callable[[Path], Path]


def _clean(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run_command(project, "clean", *arguments)


def _edit(project: Path, old: str, new: str) -> None:
    file = project / "assets" / "tiny" / "defs.yaml"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def _all_files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_clean_removes_what_a_kill_has_left_and_nothing_of_what_was_built(built_project: Path, copy_of: Copy) -> None:
    project = copy_of(built_project)
    warehouse = project / ".latentlens" / "warehouse"
    before, tables = _all_files(warehouse), _tables(warehouse)
    left = [
        warehouse / "study/tiny/.catalog.duckdb.999999999.0123abcd.tmp",
        warehouse / "study/tiny/visual/layer_00/.batch_00.lance.999999999.0123abcd.old/data/part.lance",
        warehouse / "index/words/layer_01.lance/data/0101.lance",
        warehouse / "corpus/text/.shards.999999999.0123abcd.tmp/part_01.arrow",
    ]
    running = [
        warehouse / f"study/tiny/.catalog.duckdb.{os.getpid()}.0123abcd.tmp",
        warehouse / f"corpus/text/.shards.{os.getpid()}.0123abcd.tmp/part_01.arrow",
    ]
    judged = project / ".latentlens/judging/tiny/ab.jsonl"
    for path in [*left, *running, judged]:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"12345")
    dry = json.loads(_clean(project, "--dry-run", "--json").stdout)
    assert (dry["removed"], dry["files"], dry["size_bytes"]) == (False, 4, 20)
    assert all(path.exists() for path in left)
    assert _clean(project).returncode == 0
    assert _all_files(warehouse) == before | {path.relative_to(warehouse).as_posix() for path in running}
    assert _tables(warehouse) == tables
    assert judged.read_bytes() == b"12345"  # what people said can be made by no build
    assert build(project) == []
    assert "Nothing to remove." in _clean(project).stdout


def test_what_was_replaced_stays_until_clean_and_tagged_versions_of_tables_stay(
    built_project: Path, copy_of: Copy
) -> None:
    project = copy_of(built_project)
    warehouse = project / ".latentlens" / "warehouse"
    table, answers = warehouse / "index/words/layer_01.lance", "study/tiny/latentlens/V01"
    rows, manifest = open_table(table).to_table(), ArtifactStore(warehouse)
    open_table(table).tags.create("paper", open_table(table).version)
    old = manifest.read(answers, "00")
    corpus = project / "assets" / "tiny" / "corpus.txt"
    corpus.write_text("\n".join(corpus.read_text().splitlines()[:-2]) + "\n")
    build(project)
    found = manifest.read(answers, "00")
    assert [result.data_version for result in found.superseded] == [old.data_version]
    assert manifest.kept_path(old.files[0]).is_file()
    said = _clean(project).stdout
    assert "replaced" in said and "freed." in said
    assert not manifest.kept_path(old.files[0]).exists()
    assert [(version.number, version.complete) for version in study_versions(manifest, "tiny")] == [
        (1, False),
        (2, True),
    ]
    with pytest.raises(UserError, match=r"A file of tiny@1 is gone \(study/tiny/.*\): `clean` removed it"):
        version_files(manifest, "tiny", 1)
    differences = compare_results(version_files(manifest, "tiny"), version_files(manifest, "tiny"))
    assert differences and all(one.same == 1 for one in differences)  # what is there now can still be compared
    assert open_table(table, 1).to_table() == rows
    assert build(project) == []
    _edit(project, "top_k: 3", "top_k: 2")  # what a build replaces after a clean can be compared, too
    build(project)
    lost = compare_results(version_files(manifest, "tiny", 2), version_files(manifest, "tiny"))
    assert {one.same for one in lost if one.part == "logitlens"} == {0}


def test_a_study_that_is_switched_off_keeps_its_results_and_one_that_is_declared_no_more_is_asked_for(
    built_project: Path, copy_of: Copy
) -> None:
    project = copy_of(built_project)
    warehouse = project / ".latentlens" / "warehouse"
    before = _all_files(warehouse)
    _edit(project, "name: tiny", "name: tiny\n  enabled: false")
    assert _clean(project).returncode == 0
    assert _all_files(warehouse) == before
    file = project / "assets" / "tiny" / "defs.yaml"
    file.write_text(file.read_text().rsplit("---", 1)[0])
    refused = _clean(project)
    assert (refused.returncode, "study/tiny" in refused.stderr, "--yes" in refused.stderr) == (2, True, True)
    assert _all_files(warehouse) == before
    assert _clean(project, "--yes").returncode == 0
    assert not (warehouse / "study").exists()
    assert not (warehouse / "manifest" / "study").exists()
    assert (warehouse / "index/words/selection.parquet").is_file()


def test_a_layer_and_a_batch_that_are_declared_no_more_go_and_the_rest_stays_fresh(
    built_project: Path, copy_of: Copy
) -> None:
    project = copy_of(built_project)
    warehouse = project / ".latentlens" / "warehouse"
    _edit(project, "layers: [0, 1, 2]", "layers: [0, 1]")
    build(project)
    assert (warehouse / "study/tiny/latentlens/layer_02").is_dir()
    assert _clean(project).returncode == 0
    assert not list((warehouse / "study").rglob("layer_02"))
    with opened(project) as one:
        assert one.plan(one.select()) == []
        assert check_project(one, one.select(), deep=True).damaged == []


def test_the_command_check_tells_what_is_damaged_with_exit_code_1(built_project: Path, copy_of: Copy) -> None:
    project = copy_of(built_project)

    def check(*arguments: str) -> subprocess.CompletedProcess[str]:
        return run_command(project, "check", *arguments)

    well = check("--deep")
    assert (well.returncode, "All is well." in well.stdout) == (0, True)
    (project / ".latentlens/warehouse/study/tiny/diversity.parquet").unlink()
    found = check("tiny", "--json")
    facts = json.loads(found.stdout)
    assert found.returncode == 1
    assert [(one["asset"], "is missing" in one["problem"]) for one in facts["damaged"]] == [
        ("study/tiny/diversity", True)
    ]
    assert check("nothing").returncode == 2


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LANCE_LOG", "error")
