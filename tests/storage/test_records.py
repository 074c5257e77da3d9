"""The records of what steps wrote."""

from pathlib import Path

import pytest

from latentlens_dag.storage.records import ArtifactRecord, ArtifactStore, FileFacts, FirstBuild, changed_settings
from tests.helpers.opened_files import opened_files
from tests.helpers.records import artifact_record


@pytest.fixture
def manifest(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "warehouse")


def _record(manifest: ArtifactStore, content: bytes = b"content", **fields: object) -> ArtifactRecord:
    file = manifest.warehouse / "study" / "demo" / "table.parquet"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.unlink(missing_ok=True)
    file.write_bytes(content)
    facts = manifest.file_facts([file])
    given = {"settings": {"top_k": 5}, "inputs": {"a/b[00]": "x"}, "rows": 3, "partition": "00", **fields}
    return artifact_record("study/demo/table", data_version=facts[0].digest, files=facts, **given)


OLD_HOME = Path(__file__).parent / "data" / "home_0_1"


def test_records_of_version_0_1_are_read_and_written_with_the_same_bytes(tmp_path: Path) -> None:
    old, new = ArtifactStore(OLD_HOME), ArtifactStore(tmp_path)
    files = sorted(old.root.rglob("*.json"))
    records = list(old.records())
    assert [old.path(record.asset, record.partition) for record in records] == files and len(files) == 4
    for record in records:
        new.write(record)
        assert (
            new.path(record.asset, record.partition).read_bytes()
            == old.path(record.asset, record.partition).read_bytes()
        )


def test_every_field_of_a_record_of_version_0_1_is_read() -> None:
    record = ArtifactStore(OLD_HOME).read("study/demo/latentlens/V04", "00")
    assert record is not None
    file = "study/demo/latentlens/layer_04/batch_00.parquet"
    assert record.files == [FileFacts(file, 208667, "a0b1c2d3e4f50617")]
    assert (record.created_at, record.first_built.build) == ("2026-11-30T03:20:04+00:00", "1e04dcd1")
    (before,) = record.superseded
    assert before.files == [FileFacts(file, 308667, "f138612546885b76")]
    assert before.first_built == FirstBuild("9d04dcd1", "2026-11-30T02:20:04+00:00")
    assert (before.settings["top_k"], record.settings["top_k"]) == (5, 3)
    assert record.damaged == f"the content of {file} was changed"


def test_a_record_is_read_as_it_was_written(manifest: ArtifactStore) -> None:
    for partition in ("00", None):
        record = _record(manifest, partition=partition)
        manifest.write(record)
        assert manifest.read("study/demo/table", partition) == record
    assert [record.label for record in manifest.records()] == ["study/demo/table[00]", "study/demo/table"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 99}', '{"format": 1, "asset": "a"}', "null"])
def test_a_record_that_cannot_be_read_is_none(manifest: ArtifactStore, text: str) -> None:
    path = manifest.path("study/demo/table", None)
    path.parent.mkdir(parents=True)
    path.write_text(text)
    assert manifest.read("study/demo/table", None) is None
    assert list(manifest.records()) == []


def test_what_a_record_replaces_is_remembered_newest_first_unless_its_content_was_the_same(
    manifest: ArtifactStore,
) -> None:
    versions = []
    for content, run in [(b"one", "r1"), (b"two", "r2"), (b"two", "r3"), (b"three", "r4")]:
        record = _record(manifest, content, run=run, first_built=FirstBuild(f"build of {run}", "then"))
        manifest.write(record)
        versions.append(record.data_version)
    found = manifest.read("study/demo/table", "00")
    assert found is not None
    assert (found.run, found.data_version) == ("r4", versions[3])
    assert [(result.run, result.data_version) for result in found.superseded] == [
        ("r3", versions[1]),
        ("r1", versions[0]),
    ]


def test_a_kept_file_stays_as_it_was_when_another_replaces_it_and_takes_no_bytes_before(
    manifest: ArtifactStore,
) -> None:
    first = _record(manifest, b"one")
    manifest.write(first, keep=True)
    kept = manifest.kept_path(first.files[0])
    assert kept.samefile(manifest.warehouse / first.files[0].path)
    manifest.write(_record(manifest, b"two"), keep=True)
    assert kept.read_bytes() == b"one"


def test_files_that_are_missing_cut_or_changed_are_told_and_content_only_when_asked(manifest: ArtifactStore) -> None:
    record = _record(manifest, b"content")
    file = manifest.warehouse / record.files[0].path
    assert manifest.problems(record, deep=True) == []
    file.write_bytes(b"contenT")
    assert manifest.problems(record) == []
    assert [p.text for p in manifest.problems(record, deep=True)] == [
        "the content of study/demo/table.parquet was changed"
    ]
    assert manifest.problems(record, deep=True, only=[]) == []
    file.write_bytes(b"cont")
    assert "has 4 bytes where 7 were written" in manifest.problems(record)[0].text
    file.unlink()
    assert "is missing" in manifest.problems(record)[0].text


def test_facts_are_of_all_files_below_and_known_ones_are_not_read_again(
    manifest: ArtifactStore, tmp_path: Path
) -> None:
    folder = manifest.warehouse / "table.lance"
    (folder / "data").mkdir(parents=True)
    (folder / "data" / "one").write_bytes(b"1")
    (folder / "two").write_bytes(b"22")
    known = [FileFacts("table.lance/two", 2, "remembered"), FileFacts("table.lance/data/one", 5, "of another size")]
    found = {fact.path: fact.digest for fact in manifest.file_facts([folder], known)}
    assert found["table.lance/two"] == "remembered"
    assert (
        found["table.lance/data/one"] == manifest.file_facts([folder / "data" / "one"])[0].digest != "of another size"
    )


def test_a_mark_of_damage_is_gone_when_the_artifact_is_written_again(manifest: ArtifactStore) -> None:
    record = _record(manifest)
    manifest.write(record)
    manifest.mark_damaged(record, "bits flipped")
    assert manifest.read("study/demo/table", "00") == record.model_copy(update={"damaged": "bits flipped"})
    manifest.write(record)
    assert manifest.read("study/demo/table", "00") == record


def test_settings_that_changed_are_told_in_words() -> None:
    before = {"top_k": 5, "unique": "none", "lenses": ["a"], "gone": True}
    now = {"top_k": 3, "unique": "none", "lenses": ["a", "b"], "new": "x"}
    expected = ["gone: true -> none", 'lenses: ["a"] -> ["a", "b"]', "new: none -> x", "top_k: 5 -> 3"]
    assert changed_settings(before, now) == expected


def test_the_version_of_a_record_is_read_once_until_the_record_is_replaced(manifest: ArtifactStore) -> None:
    assert manifest.data_version("study/demo/table", "00") is None
    for content in (b"content", b"changed", b"content"):
        manifest.write(_record(manifest, content))
        path = manifest.path("study/demo/table", "00")
        read = manifest.read("study/demo/table", "00")
        with opened_files() as count:
            versions = {manifest.data_version("study/demo/table", "00") for _ in range(5)}
        assert read is not None and versions == {read.data_version}
        assert count[str(path)] == 1
    path.write_text("{")
    assert manifest.data_version("study/demo/table", "00") is None
