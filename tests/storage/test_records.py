"""The records of what steps wrote."""

from dataclasses import replace
from pathlib import Path

import pytest

from latentlens_dag.storage.records import ArtifactRecord, ArtifactStore, FileFacts, FirstBuild, changed_settings


@pytest.fixture
def manifest(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "warehouse")


def _record(manifest: ArtifactStore, content: bytes = b"content", **fields: object) -> ArtifactRecord:
    file = manifest.warehouse / "study" / "demo" / "table.parquet"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.unlink(missing_ok=True)
    file.write_bytes(content)
    facts = manifest.facts([file])
    day = "2026-01-01T00:00:00+00:00"
    made = {"run": "r1", "build": "b1", "made": day, "since": FirstBuild("b1", day), "packages": {"torch": "2"}}
    whole = {"code_version": "1", "settings": {"top_k": 5}, "inputs": {"a/b[00]": "x"}, "rows": 3, "partition": "00"}
    return ArtifactRecord("study/demo/table", data_version=facts[0].digest, files=facts, **{**made, **whole, **fields})


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
        record = _record(manifest, content, run=run, since=FirstBuild(f"build of {run}", "then"))
        manifest.write(record)
        versions.append(record.data_version)
    found = manifest.read("study/demo/table", "00")
    assert found is not None
    assert (found.run, found.data_version) == ("r4", versions[3])
    assert [(earlier.run, earlier.data_version) for earlier in found.earlier] == [
        ("r3", versions[1]),
        ("r1", versions[0]),
    ]


def test_a_kept_file_stays_as_it_was_when_another_replaces_it_and_takes_no_bytes_before(
    manifest: ArtifactStore,
) -> None:
    first = _record(manifest, b"one")
    manifest.write(first, keep=True)
    kept = manifest.kept(first.files[0])
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
    found = {fact.path: fact.digest for fact in manifest.facts([folder], known)}
    assert found["table.lance/two"] == "remembered"
    assert found["table.lance/data/one"] == manifest.facts([folder / "data" / "one"])[0].digest != "of another size"


def test_a_mark_of_damage_is_gone_when_the_artifact_is_written_again(manifest: ArtifactStore) -> None:
    record = _record(manifest)
    manifest.write(record)
    manifest.mark(record, "bits flipped")
    assert manifest.read("study/demo/table", "00") == replace(record, damaged="bits flipped")
    manifest.write(record)
    assert manifest.read("study/demo/table", "00") == record


def test_settings_that_changed_are_told_in_words() -> None:
    before = {"top_k": 5, "unique": "none", "lenses": ["a"], "gone": True}
    now = {"top_k": 3, "unique": "none", "lenses": ["a", "b"], "new": "x"}
    expected = ["gone: true -> none", 'lenses: ["a"] -> ["a", "b"]', "new: none -> x", "top_k: 5 -> 3"]
    assert changed_settings(before, now) == expected
