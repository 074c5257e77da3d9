"""Releases that were made to do harm: nothing is written, run or left hanging, and the reason is told."""

from __future__ import annotations

import io
import json
import os
import random
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from latentlens_dag.cli.main import cli
from latentlens_dag.dataset.dataset import open_dataset
from latentlens_dag.errors import UserError
from latentlens_dag.release.manifest import MANIFEST, SCHEMA_VERSION, file_sha256
from latentlens_dag.schema import SENTENCES
from tests.helpers.small_release import Tables, release_tables, write_manifest, write_release

SCRIPT = "\x07\x1b[2J<script>fetch('//evil')</script><img src=x onerror=> '; DROP TABLE neighbors; -- \x1b]0;title\x07"
ONE = "diversity.parquet"


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_release(tmp_path_factory.mktemp("releases") / "small")


@pytest.fixture
def evil(release: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(release, tmp_path / "evil"))


def _claim(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change what the manifest says."""
    facts = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    change(facts)
    (folder / MANIFEST).write_text(json.dumps(facts), encoding="utf-8")


def _claim_file(folder: Path, path: str, **facts: object) -> None:
    """Say of a file what its author would: its size and hash, and what else is given."""
    right = {"size": (folder / path).stat().st_size, "sha256": file_sha256(folder / path)}
    _claim(folder, lambda manifest: manifest["files"][path].update({**right, **facts}))


def _refused(folder: Path) -> str:
    with pytest.raises(UserError) as caught:
        open_dataset(folder)
    return str(caught.value)


@pytest.mark.parametrize("path", ["../outside.parquet", "/etc/passwd", "neighbors/../../outside.parquet", "a\\..\\b"])
def test_a_path_out_of_the_release_is_refused(evil: Path, path: str) -> None:
    shutil.copy(evil / ONE, evil.parent / "outside.parquet")
    _claim(evil, lambda manifest: manifest["files"].update({path: manifest["files"].pop(ONE)}))

    assert "could lead out of the release" in _refused(evil)


def test_a_link_out_of_the_release_is_refused(evil: Path) -> None:
    shutil.move(evil / ONE, evil.parent / "outside.parquet")
    (evil / ONE).symlink_to(evil.parent / "outside.parquet")

    assert "is a link out of the release" in _refused(evil)


def test_a_folder_that_is_a_link_out_of_the_release_is_refused(evil: Path) -> None:
    shutil.move(evil / "neighbors", evil.parent / "outside")
    (evil / "neighbors").symlink_to(evil.parent / "outside")

    assert "is a link out of the release" in _refused(evil)


def test_a_pipe_in_place_of_a_file_keeps_nobody_waiting(evil: Path) -> None:
    (evil / ONE).unlink()
    os.mkfifo(evil / ONE)

    with open_dataset(evil) as opened, pytest.raises(UserError, match="Table diversity was not pulled"):
        opened.sql("FROM diversity")


def test_few_bytes_that_would_become_very_many_are_refused_unread(evil: Path) -> None:
    path = next((evil / "sentences").glob("*.parquet")).relative_to(evil).as_posix()
    bomb = pa.table({"sentence_id": ["0" * 16], "text": ["a" * 100_000_000]}, SENTENCES)
    pq.write_table(bomb, evil / path, compression="zstd")
    assert (evil / path).stat().st_size < 20_000
    _claim_file(evil, path)

    assert "bytes would become 100,0" in _refused(evil)


def test_few_bytes_that_would_become_very_many_rows_are_refused_unread(evil: Path) -> None:
    path = next((evil / "sentences").glob("*.parquet")).relative_to(evil).as_posix()
    constant = "SELECT repeat('a', 16) AS sentence_id, repeat('b', 16) AS text FROM range(2_000_000)"
    duckdb.sql(f"COPY ({constant}) TO '{evil / path}' (COMPRESSION zstd, ROW_GROUP_SIZE 2_000_000)")
    assert (evil / path).stat().st_size < 1000
    _claim_file(evil, path, rows=2_000_000)
    _claim(evil, lambda manifest: manifest["tables"]["sentences"].update(rows=2_000_005))

    assert "bytes would become 2,000,000 rows" in _refused(evil)


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        (10**9, "less than or equal to 999999999"),
        (10**9 - 1, "has 12 rows (12 in its groups), and the manifest says 999,999,999"),
        (10**8, "has 12 rows (12 in its groups), and the manifest says 100,000,000"),
    ],
)
def test_rows_that_are_only_claimed_are_refused(evil: Path, rows: int, reason: str) -> None:
    _claim_file(evil, ONE, rows=rows)
    _claim(evil, lambda manifest: manifest["tables"]["diversity"].update(rows=rows))

    assert reason in _refused(evil)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda table: table.drop("share"), "it lacks the columns share"),
        (lambda table: table.append_column("more", table["share"]), "its columns are not study"),
        (lambda table: table.select(list(reversed(table.column_names))), "its columns are not study"),
    ],
)
def test_columns_that_are_not_the_schemas_are_refused(tmp_path: Path, change: Any, reason: str) -> None:
    def changed(tables: Tables) -> None:
        tables["layer_alignment"] = change(tables["layer_alignment"])

    assert reason in _refused(write_release(tmp_path / "evil", changed))


def test_columns_that_only_the_manifest_has_are_refused(tmp_path: Path, release: Path) -> None:
    def changed(tables: Tables) -> None:
        tables["layer_alignment"] = tables["layer_alignment"].drop("share")

    evil = write_release(tmp_path / "evil", changed)
    columns = json.loads((release / MANIFEST).read_text(encoding="utf-8"))["tables"]["layer_alignment"]["columns"]
    _claim(evil, lambda manifest: manifest["tables"]["layer_alignment"].update(columns=columns))

    assert "layer_alignment.parquet: it lacks the columns share" in _refused(evil)


def test_columns_of_another_type_are_refused(evil: Path) -> None:
    table = pq.read_table(evil / ONE)
    numbers = table["visual_layer"].cast(pa.int64())
    pq.write_table(table.set_column(table.column_names.index("visual_layer"), "visual_layer", numbers), evil / ONE)
    write_manifest(evil)

    assert "its column visual_layer is int64, not int32" in _refused(evil)


@pytest.mark.parametrize("content", [b"", b"PAR1", b"<html>" * 100, b"PAR1" + b"\xff" * 100 + b"\xff\xff\xff\x7fPAR1"])
def test_what_is_no_parquet_is_refused(evil: Path, content: bytes) -> None:
    (evil / ONE).write_bytes(content)
    _claim_file(evil, ONE)

    assert f"{ONE}: it is no Parquet" in _refused(evil)


def test_a_file_of_another_size_is_refused(evil: Path) -> None:
    with (evil / ONE).open("ab") as file:
        file.write(b"more")

    assert "bytes, and the manifest says" in _refused(evil)


def test_damaged_bytes_are_refused_or_read_but_never_end_the_process(evil: Path) -> None:
    chance, content = random.Random(0), (evil / ONE).read_bytes()
    outcomes = set()
    for _ in range(60):
        damaged = bytearray(content)
        for _ in range(chance.randint(1, 4)):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        (evil / ONE).write_bytes(damaged)
        try:
            with open_dataset(evil) as opened:
                opened.collect("FROM diversity")
            outcomes.add("read")
        except UserError:
            outcomes.add("refused")
    assert outcomes == {"read", "refused"}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"[" * 10**7, "no JSON that can be read (RecursionError)"),
        (b'{"files":' * 10**6, "no JSON that can be read (RecursionError)"),
        (b'{"format": "latentlens-release", "schema_version": 99}', "made by a newer version of this package"),
        (b'{"format": "latentlens-release", "schema_version": 1, "files": []}', "it lacks kind"),
        (b"root:x:0:0", "no JSON that can be read (JSONDecodeError)"),
    ],
)
def test_a_manifest_that_was_made_to_harm_is_refused(evil: Path, content: bytes, reason: str) -> None:
    (evil / MANIFEST).write_bytes(content)

    assert reason in _refused(evil)


def test_what_a_newer_version_made_says_to_upgrade(evil: Path) -> None:
    _claim(evil, lambda manifest: manifest.update(schema_version=SCHEMA_VERSION + 1, package_version="9.1\x1b[2J"))

    told = _refused(evil)
    assert f"newer version of this package ('9.1\\x1b[2J'), with schema version {SCHEMA_VERSION + 1}" in told
    assert "pip install -U latentlens-dag" in told and "\x1b" not in told


def test_a_zip_bomb_in_a_release_is_never_unpacked(release: Path, tmp_path: Path) -> None:
    evil = Path(shutil.copytree(release, tmp_path / "evil"))
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("../../../outside.txt", b"0" * 50_000_000)
    (evil / "examples").mkdir()
    (evil / "examples" / "more.zip").write_bytes(packed.getvalue())
    write_manifest(evil)
    before = sorted(tmp_path.rglob("*"))

    with open_dataset(evil) as opened:
        assert opened.collect("studies").height
    assert sorted(tmp_path.rglob("*")) == before


def test_script_in_a_sentence_comes_out_as_the_same_text_and_drives_no_terminal(tmp_path: Path) -> None:
    tables = release_tables()
    path = next(path for path in tables if path.startswith("sentences/"))
    ids = tables[path]["sentence_id"].to_pylist()
    tables[path] = pa.table({"sentence_id": ids, "text": [SCRIPT]}, SENTENCES)
    evil = write_release(tmp_path / "evil", tables=tables)

    with open_dataset(evil) as opened:
        found = opened.collect("SELECT text FROM sentences WHERE sentence_id = $one", one=ids[0])
        assert found["text"].to_list() == [SCRIPT]
        assert SCRIPT in opened.scan("sentences").collect()["text"].to_list()
    asked = ["query", "SELECT text FROM sentences", "--data", str(evil)]
    shown = CliRunner().invoke(cli, asked, color=True).output
    assert "<script>" in shown and not {"\x07", "\x1b"} & {*shown}
    shown = CliRunner().invoke(cli, [*asked, "--format", "json"]).output
    assert {"text": SCRIPT} in json.loads(shown)
