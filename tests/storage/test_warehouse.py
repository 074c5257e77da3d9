"""A file of the warehouse is there whole or not at all, and nothing lies beside it."""

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from latentlens_dag.storage import parquet
from latentlens_dag.storage.files import atomic_path, read_json_object, remove, write_json
from latentlens_dag.storage.parquet import write_parquet


def _file(path: Path, text: str) -> None:
    path.write_text(text)


def _folder(path: Path, text: str) -> None:
    path.mkdir()
    (path / "part").write_text(text)


def _everything(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): p.read_text() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("write", [_file, _folder])
def test_what_was_written_replaces_what_was_there_and_leaves_nothing_beside_it(
    tmp_path: Path, write: Callable[[Path, str], None]
) -> None:
    for text in ("first", "second"):
        with atomic_path(tmp_path / "new" / "thing") as temporary:
            write(temporary, text)
        assert list(_everything(tmp_path).values()) == [text]
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["thing"]


@pytest.mark.parametrize("write", [_file, _folder])
def test_an_error_in_the_middle_leaves_what_was_there(tmp_path: Path, write: Callable[[Path, str], None]) -> None:
    with atomic_path(tmp_path / "thing") as temporary:
        write(temporary, "whole")
    before = _everything(tmp_path)
    with pytest.raises(RuntimeError), atomic_path(tmp_path / "thing") as temporary:
        write(temporary, "half")
        raise RuntimeError
    assert _everything(tmp_path) == before
    assert [p.name for p in tmp_path.iterdir()] == ["thing"]


def test_json_that_says_the_same_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "facts.json"
    write_json({"b": 1, "a": 2}, path)
    before = path.stat().st_ino
    write_json({"a": 2, "b": 1}, path)
    assert path.stat().st_ino == before
    write_json({"a": 2, "b": 3}, path)
    assert path.read_text() == '{\n "a": 2,\n "b": 3\n}\n'


@pytest.mark.parametrize("damage", [b"\xff\xfe\x00\x80{{", b"", b"null", b"[" * 100_000])
def test_json_that_is_damaged_is_read_as_empty_and_written_anew(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "facts.json"
    path.write_bytes(damage)
    assert read_json_object(path) == {}
    write_json({"a": 1}, path)
    assert read_json_object(path) == {"a": 1}


def test_removing_a_link_leaves_what_it_points_to(tmp_path: Path) -> None:
    _folder(tmp_path / "folder", "kept")
    (tmp_path / "link").symlink_to(tmp_path / "folder")
    remove(tmp_path / "link")
    remove(tmp_path / "nothing")
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]
    assert (tmp_path / "folder" / "part").read_text() == "kept"


def test_a_table_is_written_in_the_order_and_types_of_its_schema(tmp_path: Path) -> None:
    schema = pa.schema([("a", pa.int32()), ("b", pa.string())])
    write_parquet(pa.table({"more": [0], "b": ["x"], "a": pa.array([1], pa.int64())}), tmp_path / "t.parquet", schema)
    assert pq.read_table(tmp_path / "t.parquet").equals(pa.table({"a": [1], "b": ["x"]}, schema=schema))


def test_rows_that_come_in_pieces_give_the_bytes_of_rows_that_come_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "ROW_GROUP", 10)
    table = pa.table({"number": range(37), "text": [f"row {number}" for number in range(37)]})
    for name, size in (("whole", 37), ("ones", 1), ("sevens", 7), ("tens", 10)):
        with parquet.parquet_rows(tmp_path / name, table.schema) as rows:
            for start in range(0, 37, size):
                rows.write(table.slice(start, size))
        assert rows.written == 37
    contents = {path.read_bytes() for path in tmp_path.iterdir()}
    assert len(contents) == 1
    assert pq.read_table(tmp_path / "ones").equals(table)
