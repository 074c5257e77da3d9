"""What was deleted, cut or changed behind our back is found, and a build makes it again."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from latentlens_dag.dag.building.integrity import check_project
from latentlens_dag.dag.building.staleness import StaleTarget
from latentlens_dag.index.lance_files import open_table
from tests.dag.conftest import build, opened

Copy = Callable[[Path], Path]
# One file of every kind that a build writes.
KINDS = [
    "corpus/text/sentences.parquet",
    "corpus/text/shard_01.parquet",
    "index/words/candidates/shard_00.parquet",
    "index/words/selection.parquet",
    "index/words/occurrences/shard_01.parquet",
    "index/words/fragments/layer_01/shard_00.json",
    "index/words/layer_01.lance/data/*",
    "index/words/layer_02.lance/_versions/*",
    "images/pictures/batch_00.parquet",
    "images/pictures/regions_00.parquet",
    "images/pictures/shape.json",
    "study/tiny/visual/layer_01/batch_00.lance/data/*",
    "study/tiny/visual_tokens/batch_00.parquet",
    "study/tiny/patch_truth/batch_01.parquet",
    "study/tiny/chance_patches/batch_01.parquet",
    "study/tiny/latentlens/layer_01/batch_00.parquet",
    "study/tiny/judgements/layer_00/batch_00.parquet",
    "study/tiny/interpretability.parquet",
    "study/tiny/model_checks.json",
    "study/tiny/catalog.duckdb",
    "study/tiny/shape.json",
]


def _flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def _cut(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def _tables(warehouse: Path) -> dict[str, object]:
    """The content of every table that is there: Parquet byte for byte, Lance row for row."""
    parquet = {p: p.read_bytes() for p in warehouse.rglob("*.parquet") if "earlier" not in p.parts}
    lance = {p: open_table(p).to_table().to_pydict() for p in warehouse.rglob("*.lance") if p.is_dir()}
    return {path.relative_to(warehouse).as_posix(): content for path, content in {**parquet, **lance}.items()}


@pytest.mark.parametrize("first", [0, pytest.param(1, marks=pytest.mark.soak), pytest.param(2, marks=pytest.mark.soak)])
def test_files_of_every_kind_that_were_deleted_cut_or_changed_are_found_and_made_again(
    built_project: Path, copy_of: Copy, first: int
) -> None:
    """Each kind is damaged in one way here, and in the other ways in the long runs."""
    project = copy_of(built_project)
    warehouse = project / ".latentlens" / "warehouse"
    before = _tables(warehouse)
    ways = [Path.unlink, _cut, _flip]
    paths = [sorted(warehouse.glob(kind))[0] for kind in KINDS]
    for number, path in enumerate(paths):
        ways[(number + first) % 3](path)
    names = [path.relative_to(warehouse).as_posix() for path in paths]
    seen = {name for number, name in enumerate(names) if ways[(number + first) % 3] is not _flip}
    with opened(project) as one:
        assert _told(names, check_project(one, one.select()).damaged) == seen
        assert _told(names, check_project(one, one.select(), deep=True).damaged) == set(names)
    build(project)
    assert _tables(warehouse) == before
    with opened(project) as one:
        assert one.plan(one.select()) == []
        assert check_project(one, one.select(), deep=True).damaged == []


def _told(names: list[str], damaged: list[StaleTarget]) -> set[str]:
    return {name for name in names if any(name in need.reason for need in damaged)}


def test_one_damaged_answer_file_costs_one_step(built_project: Path, copy_of: Copy) -> None:
    project = copy_of(built_project)
    (project / ".latentlens/warehouse/study/tiny/logitlens/layer_01/batch_00.parquet").unlink()
    assert build(project) == ["study/tiny/logitlens/V01[00]"]


def test_damaged_states_are_not_taken_for_what_is_encoded_again(built_project: Path, copy_of: Copy) -> None:
    project = copy_of(built_project)
    warehouse = project / ".latentlens" / "warehouse"
    before = _tables(warehouse)
    for file in sorted(warehouse.glob("index/words/layer_01.lance/data/*")):
        content = bytearray(file.read_bytes())
        middle = len(content) // 4
        content[middle : middle + 64] = bytes(64)
        file.write_bytes(content)
    with opened(project) as one:
        assert len(check_project(one, one.select(), deep=True).damaged) >= 3  # both shards, and their table
    build(project)
    assert _tables(warehouse) == before


def test_what_is_damaged_and_out_of_date_at_once_is_made_from_nothing_that_is_damaged(
    built_project: Path, copy_of: Copy
) -> None:
    project = copy_of(built_project)
    _flip(sorted((project / ".latentlens/warehouse").glob("study/tiny/visual/layer_01/batch_00.lance/data/*"))[0])
    with opened(project) as one:
        check_project(one, one.select(), deep=True)
    file = project / "assets" / "tiny" / "defs.yaml"
    file.write_text(file.read_text().replace("top_k: 3", "top_k: 3\n  prompt: What is this?"))
    with opened(project) as one:
        needs = {str(need): need.damaged for need in one.plan(one.select())}
        told = {need.reason for need in check_project(one, one.select()).damaged}
    [stale] = [name for name in needs if name.startswith("study/tiny/visual/V01[00]: prompt: ")]
    assert needs[stale]
    assert not any(damaged for name, damaged in needs.items() if name != stale)
    assert any("prompt: " in reason for reason in told)


def test_a_warehouse_that_was_deleted_is_built_again_though_the_history_is_there(
    built_project: Path, copy_of: Copy
) -> None:
    project = copy_of(built_project)
    warehouse = project / ".latentlens" / "warehouse"
    before = _tables(warehouse)
    shutil.rmtree(warehouse)
    build(project)
    assert _tables(warehouse) == before


def test_a_change_in_the_yaml_is_told_in_its_words(built_project: Path, copy_of: Copy) -> None:
    project = copy_of(built_project)
    file = project / "assets" / "tiny" / "defs.yaml"
    file.write_text(file.read_text().replace("top_k: 3", "top_k: 2"))
    with opened(project) as one:
        reasons = {str(need) for need in one.plan(one.select())}
    assert "study/tiny/latentlens/V00[00]: top_k: 3 -> 2" in reasons


def test_what_an_artifact_was_made_from_is_recorded(built_project: Path) -> None:
    with opened(built_project) as one:
        manifest = one.store
        record = manifest.read("study/tiny/latentlens/V01", "00")
    assert record is not None
    tables = {f"index/words/table/L{layer:02d}" for layer in (1, 2)}
    assert set(record.inputs) == {"study/tiny/visual/V01[00]", *tables}
    assert record.inputs["study/tiny/visual/V01[00]"] == manifest.read("study/tiny/visual/V01", "00").data_version
    assert record.rows == pq.read_metadata(manifest.warehouse / record.files[0].path).num_rows
    sources = manifest.read("study/tiny/model_checks", None).inputs
    assert set(sources) == {"study/tiny/vlm", "index/words/language_model"}
