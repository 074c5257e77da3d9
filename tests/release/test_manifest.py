"""A release's manifest: deterministic, read back as it was written, and refused where it cannot be right."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from latentlens_dag.errors import UserError
from latentlens_dag.release.manifest import (
    MAX_FILE_BYTES,
    MAX_FILES,
    MAX_MANIFEST_BYTES,
    SCHEMA_VERSION,
    ReleaseFile,
    ReleaseTable,
    build_manifest,
    manifest_text,
    read_manifest,
)
from latentlens_dag.schema import SENTENCES
from latentlens_dag.storage.parquet import write_parquet

FIRST, SECOND = "sentences/00.parquet", "sentences/01.parquet"
Change = Callable[[dict[str, Any]], None]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A release of two files of sentences and a card."""
    for path, texts in ((FIRST, ["A dog.", "A cat."]), (SECOND, ["An owl é."])):
        table = pa.table({"sentence_id": [str(len(text)) for text in texts], "text": texts})
        write_parquet(table, tmp_path / "release" / path, SENTENCES)
    (tmp_path / "release" / "README.md").write_text("# Animals\n", encoding="utf-8")
    return tmp_path / "release"


def _manifest(folder: Path) -> str:
    return manifest_text(
        build_manifest(folder, "tables", "animals", {"demo": {"kind": "images", "lenses": []}}, "0.1.0")
    )


def _refused(folder: Path, change: Change) -> str:
    """Why a manifest is refused after a change of its facts."""
    facts = json.loads(_manifest(folder))
    change(facts)
    with pytest.raises(UserError) as caught:
        read_manifest(json.dumps(facts).encode())
    return str(caught.value)


def test_a_manifest_names_every_file_with_size_hash_and_rows(folder: Path) -> None:
    (folder / "manifest.json").write_text("old", encoding="utf-8")

    manifest = read_manifest(_manifest(folder).encode())

    card = (folder / "README.md").read_bytes()
    assert [file.path for file in manifest.files] == ["README.md", FIRST, SECOND]
    assert manifest.files[0] == ReleaseFile("README.md", len(card), hashlib.sha256(card).hexdigest())
    assert [(file.rows, file.table) for file in manifest.of(["sentences"])] == [(2, "sentences"), (1, "sentences")]
    assert manifest.tables == {"sentences": ReleaseTable(3, ("sentence_id", "text"))}
    assert (manifest.kind, manifest.name, manifest.schema_version) == ("tables", "animals", SCHEMA_VERSION)


def test_equal_folders_have_equal_manifests_with_a_line_per_file(folder: Path, tmp_path: Path) -> None:
    text = _manifest(folder)

    copied = folder.rename(tmp_path / "elsewhere")

    assert _manifest(copied) == text
    assert manifest_text(read_manifest(text.encode())) == text
    lines = [line for line in text.splitlines() if line.startswith(('"README', '"sentences/'))]
    assert len(lines) == 3
    assert list(json.loads(text)) == sorted(json.loads(text))


def test_a_manifest_of_version_0_1_is_read_and_written_with_the_same_bytes() -> None:
    content = (Path(__file__).parent / "data" / "manifest_0_1.json").read_bytes()
    manifest = read_manifest(content)
    assert manifest_text(manifest).encode() == content
    assert (manifest.kind, manifest.name, manifest.package_version) == ("tables", "demo_release", "0.1.0")
    assert manifest.files[0] == ReleaseFile(
        "README.md", 16289, "e42192c65d956d6da2d9957074a8c128d1752b5725eb93ed442dcc466a47c7f7"
    )


def test_a_folder_with_a_link_is_refused(folder: Path) -> None:
    (folder / "secret.txt").symlink_to("/etc/hostname")

    with pytest.raises(UserError, match="no ordinary file"):
        _manifest(folder)


def test_a_folder_whose_files_of_a_table_differ_in_columns_is_refused(folder: Path) -> None:
    write_parquet(pa.table({"sentence_id": ["9"]}), folder / "sentences" / "02.parquet")

    with pytest.raises(UserError, match="other columns"):
        _manifest(folder)


@pytest.mark.parametrize(
    "path",
    ["../x", "/etc/passwd", "a/../b", "a//b", "", ".", "./a", "a/.git/x", "a\\b", "C:x", "a\0b", "é", "a/", "a b"],
)
def test_a_path_that_could_lead_out_is_refused(folder: Path, path: str) -> None:
    assert re.search(r"refused: path is .*: paths are relative", _refused(folder, _listing(path)))


@pytest.mark.parametrize("path", ["x" * 201, "a/" * 300 + "b", "\u202egpj", "manifest.json"])
def test_a_path_that_no_release_has_is_refused(folder: Path, path: str) -> None:
    assert re.search("paths are relative|it lists itself", _refused(folder, _listing(path)))


def _listing(path: str) -> Change:
    def change(facts: dict[str, Any]) -> None:
        facts["files"][path] = facts["files"]["README.md"]

    return change


WRONG: list[tuple[str, Change, str]] = [
    ("no object", lambda f: f.update(files=[]), "files is []: it must be an object"),
    ("another format", lambda f: f.update(format="model"), "no release of this package"),
    ("a missing field", lambda f: f.pop("studies"), "it lacks studies"),
    ("an unknown field", lambda f: f.update(extra=1), "nothing is known of its field extra"),
    ("an unknown kind", lambda f: f.update(kind=["tables"]), "kind is ['tables']: Input should be 'tables' or 'index'"),
    ("a name with blanks", lambda f: f.update(name="a b"), "name is 'a b': names have letters, digits"),
    (
        "a study out of the folder",
        lambda f: f["studies"].update({"../a": {}}),
        "../a of studies is '../a': names have letters",
    ),
    (
        "a study that is a text",
        lambda f: f["studies"].update(demo="x"),
        "demo of studies is 'x': Input should be a valid dictionary",
    ),
    (
        "a newer version",
        lambda f: f.update(schema_version=SCHEMA_VERSION + 1),
        "Upgrade: `pip install -U latentlens-dag`",
    ),
    ("a version before the first", lambda f: f.update(schema_version=0), "never was a schema version 0"),
    ("a version in words", lambda f: f.update(schema_version="1"), "schema_version is '1', no number"),
    (
        "a truth for a number",
        lambda f: f["files"][FIRST].update(size=True),
        f"size of {FIRST} is True: Input should be a valid integer",
    ),
    (
        "a negative size",
        lambda f: f["files"][FIRST].update(size=-1),
        f"size of {FIRST} is -1: Input should be greater than or equal to 0",
    ),
    (
        "an absurd size",
        lambda f: f["files"][FIRST].update(size=MAX_FILE_BYTES + 1),
        "is 53687091201: Input should be less than",
    ),
    (
        "a fraction of a row",
        lambda f: f["files"][FIRST].update(rows=1.5),
        f"rows of {FIRST} is 1.5: Input should be a valid integer",
    ),
    (
        "10^9 rows",
        lambda f: f["files"][FIRST].update(rows=10**9),
        "is 1000000000: Input should be less than or equal to 999999999",
    ),
    (
        "rows of no table",
        lambda f: f["files"]["README.md"].update(rows=1),
        "README.md: it has a table without rows, or rows without a table",
    ),
    ("an unknown table", lambda f: f["files"][FIRST].update(table="cats"), "a table 'cats' that the release"),
    (
        "a table that is no name",
        lambda f: f["files"][FIRST].update(table=[]),
        f"table of {FIRST} is []: Input should be a valid string",
    ),
    ("a file without a hash", lambda f: f["files"][FIRST].pop("sha256"), f"it lacks sha256 of {FIRST}"),
    ("a file that is a number", lambda f: f["files"].update({FIRST: 7}), f"{FIRST} is 7: Input should be a dict"),
    (
        "no hash",
        lambda f: f["files"][FIRST].update(sha256="../x"),
        "sha256 of sentences/00.parquet is '../x': String should match pattern",
    ),
    ("a card as a table", lambda f: f["files"]["README.md"].update(rows=1, table="sentences"), "is no .parquet"),
    ("rows that do not add up", lambda f: f["tables"]["sentences"].update(rows=7), "has 7 rows, but its files have 3"),
    (
        "columns that are a text",
        lambda f: f["tables"]["sentences"].update(columns="text"),
        "columns of sentences of tables is 'text': Input should be a valid tuple",
    ),
    ("a column twice", lambda f: f["tables"]["sentences"].update(columns=["a", "a"]), "two columns have one name"),
    ("other capitals", lambda f: f["files"].update({"readme.md": f["files"]["README.md"]}), "with other capitals"),
    ("a file as a folder", lambda f: f["files"].update({"README.md/a": f["files"]["README.md"]}), "and as a folder"),
]


@pytest.mark.parametrize(("change", "reason"), [wrong[1:] for wrong in WRONG], ids=[wrong[0] for wrong in WRONG])
def test_a_manifest_that_cannot_be_right_is_refused_with_the_reason(folder: Path, change: Change, reason: str) -> None:
    told = _refused(folder, change)

    assert reason in told
    assert "fetch or stage it again" in told


def test_too_many_files_are_refused(folder: Path) -> None:
    def change(facts: dict[str, Any]) -> None:
        facts["files"] = {str(number): 0 for number in range(MAX_FILES + 1)}

    assert "100,000 are the most" in _refused(folder, change)


@pytest.mark.parametrize(
    "content",
    [b"", b"<html>", b"[" * 10**6, b'{"a":' * 10**6, b'{"a": NaN}', b"\xff", b'"\\ud800"', b"1" * 5000, b"[]", b"null"],
)
def test_what_is_no_json_is_refused(content: bytes) -> None:
    with pytest.raises(UserError, match=r"refused: (it is no JSON|it holds|the manifest is|it does not say)"):
        read_manifest(content)


def test_a_file_that_is_named_twice_is_refused() -> None:
    with pytest.raises(UserError, match="'a' twice"):
        read_manifest(b'{"files": {"a": 1, "a": 2}}')


def test_a_manifest_that_is_too_large_is_refused_unread(tmp_path: Path) -> None:
    with (tmp_path / "manifest.json").open("wb") as file:
        file.truncate(MAX_MANIFEST_BYTES + 1)

    with pytest.raises(UserError, match="67,108,865 bytes"):
        read_manifest(tmp_path / "manifest.json")
