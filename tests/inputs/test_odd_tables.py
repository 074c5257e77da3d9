"""Columns of types that Python lacks values of, rows that break off, and many lines of nothing."""

from __future__ import annotations

import gzip
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from latentlens_dag.errors import UserError
from latentlens_dag.hub import datasets as hub
from latentlens_dag.inputs.image_tables import ImageColumn, read_image_rows
from latentlens_dag.inputs.regions import read_regions, region_rows
from latentlens_dag.inputs.texts import TextFile, read_texts
from latentlens_dag.storage.arrow_values import OtherValue, python_values

FAR = 2**62  # of any unit, or Python has no such day


def _moments(kind: pa.DataType) -> pa.Array:
    return (
        pa.array([FAR if kind.bit_width == 64 else 2**31 - 1, None], pa.int64())
        .cast(pa.int64() if kind.bit_width == 64 else pa.int32())
        .view(kind)
    )


ODD: dict[str, Callable[[], pa.Array]] = {
    **{f"days of {unit}": lambda unit=unit: _moments(pa.timestamp(unit)) for unit in ("s", "ms", "us", "ns")},
    **{
        f"the zone {zone}": lambda zone=zone: pa.array([0, None], pa.timestamp("us", zone))
        for zone in ("Foo/Bar", "+99:99", "\0", "../etc/passwd", "Europe/Berlin", "é")
    },
    **{f"durations of {unit}": lambda unit=unit: _moments(pa.duration(unit)) for unit in ("s", "ms", "us", "ns")},
    "days": lambda: _moments(pa.date32()),
    "milliseconds of days": lambda: pa.array([86_400_000 * 10**8, None], pa.int64()).view(pa.date64()),
    "times": lambda: _moments(pa.time64("us")),
    "decimals": lambda: pa.array([None, 10**75], pa.decimal256(76, 0)),
    "decimals of nothing": lambda: pa.array([0, None], pa.decimal128(38, 38)),
    "half floats": lambda: pa.array([1.5, None], pa.float16()),
    "lists of days": lambda: pa.array([[1], None], pa.list_(pa.timestamp("us", "Foo/Bar"))),
    "structs of days": lambda: pa.array([{"a": 1}, None], pa.struct([("a", pa.timestamp("us", "Foo/Bar"))])),
    "structs of nothing": lambda: pa.array([{}, None], pa.struct([])),
    "maps": lambda: pa.array([[("a", 1)], None], pa.map_(pa.string(), pa.date32())),
    "bytes": lambda: pa.array([b"\xff", None]),
    "truth": lambda: pa.array([True, None]),
    "numbers": lambda: pa.array([2**64 - 1, None], pa.uint64()),
    "uuid": lambda: pa.array([b"0" * 16, None], pa.uuid()),
}


def _written(folder: Path, **columns: pa.Array) -> Path | None:
    """A file with the columns; None where Parquet itself has not the type."""
    try:
        pq.write_table(pa.table(columns), folder / "a.parquet")
    except (pa.ArrowException, OverflowError, ValueError):
        return None
    return folder / "a.parquet"


@pytest.mark.parametrize("name", ODD)
def test_a_column_of_any_type_in_place_of_texts_is_refused_with_its_row_and_type(tmp_path: Path, name: str) -> None:
    column = ODD[name]()
    if file := _written(tmp_path, text=column):
        row = 1 + column.is_valid().to_pylist().index(True)
        with pytest.raises(UserError, match=rf"a\.parquet, row {row}: text is .*, not text"):
            list(read_texts(TextFile("parquet", file, "text")))


@pytest.mark.parametrize("name", ODD)
def test_a_column_of_any_type_in_place_of_pictures_or_names_is_refused_or_read(tmp_path: Path, name: str) -> None:
    column, picture = ODD[name](), pa.array([b"x", b"y"])
    columns = {"image": (column, picture), "name": (picture, column)}
    for place, (image, called) in columns.items():
        if file := _written(tmp_path, image=image, name=called):
            try:
                rows = list(read_image_rows(ImageColumn(file, "image", "name")))
            except UserError as error:
                assert "a.parquet" in str(error) and len(str(error)) < 500
            else:
                assert place == "name" and name in ("truth", "numbers", "half floats") and rows[1].name is None


@pytest.mark.parametrize("name", ODD)
def test_fields_beside_the_bytes_of_a_picture_are_not_read(tmp_path: Path, name: str) -> None:
    column = ODD[name]()
    images = pa.StructArray.from_arrays([pa.array([b"x", b"y"]), column], ["bytes", "date"])
    if file := _written(tmp_path, image=images):
        assert [row.content for row in read_image_rows(ImageColumn(file, "image"))] == [b"x", b"y"]


@pytest.mark.parametrize("name", ["days of s", "the zone Foo/Bar", "lists of days", "decimals", "maps"])
@pytest.mark.parametrize("place", ["kind", "words", "x0", "mask"])
def test_regions_with_a_column_of_another_type_are_refused_by_name(tmp_path: Path, name: str, place: str) -> None:
    texts, edges = {"file_name": "a", "region_id": "b", "kind": "object", "name": "d"}, ("x0", "y0", "x1", "y1")
    columns = {text: pa.array([value] * 2) for text, value in texts.items()} | {"words": pa.array([["a"]] * 2)}
    columns |= {edge: pa.array([1.0, 2.0]) for edge in edges} | {place: ODD[name]()}
    if file := _written(tmp_path, **columns):
        with pytest.raises(UserError, match=r"a\.parquet") as error:
            read_regions(file, region_rows(file), {"a": ("0" * 16, 9, 9)})
        assert len(str(error.value)) < 1000


@pytest.mark.parametrize("name", ODD)
def test_a_column_of_the_hub_is_given_whatever_its_type_is(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    class Rows:
        def select_columns(self, _: object) -> Rows:
            return self

        with_format = select_columns

        def iter(self, _: int) -> list[pa.Table]:
            return [pa.table({"a": ODD[name]()})] * 2

    monkeypatch.setattr(hub, "_rows", lambda *_: Rows())
    values = list(hub.column_values(hub.HubColumn("user/a", None, "train", "a", "0" * 40)))
    assert len(values) == 4 and None in values


@given(st.recursive(st.none() | st.text() | st.integers(-9, 9), lambda one: st.dictionaries(st.text(), one)))
def test_what_python_has_is_converted_as_arrow_does(value: Any) -> None:
    column = pa.array([value, None, value])
    assert python_values(column) == column.to_pylist()
    assert python_values(pa.chunked_array([column, column[1:]])) == [*column.to_pylist(), *column[1:].to_pylist()]


def test_a_column_whose_name_is_also_a_field_of_another_one_is_read_itself(tmp_path: Path) -> None:
    for columns in ({"a.b": pa.array(["x"]), "a": pa.array([{"b": "y"}])}, {"a": [{"b": "y"}], "a.b": ["x"]}):
        pq.write_table(pa.table(columns), tmp_path / "a.parquet")
        assert list(read_texts(TextFile("parquet", tmp_path / "a.parquet", "a.b"))) == ["x"]


def test_a_value_that_python_lacks_is_named_by_its_type() -> None:
    assert python_values(ODD["the zone Foo/Bar"]())[0] == OtherValue("timestamp[us, tz=Foo/Bar]")
    assert repr(python_values(ODD["lists of days"]())[0]).startswith("a value of type list<")
    assert python_values(pa.array(["a", None, "a"]).dictionary_encode()) == ["a", None, "a"]


BROKEN = {  # rows after the header `id,text`, with the places that are named
    "an open quote": ('1,a\n2,"b\nc\nd\n', "lines 3 to 5: unexpected end of data"),
    "an open quote alone": ('1,a\n2,"b', "line 3: unexpected end of data"),
    "text after a quote": ('1,a\n\n2,"b"c\n3,d\n', "line 4: .* expected after"),
    "a break before text after a quote": ('1,"a\nb"\n2,"c\n"d\n', "lines 4 to 5: .* expected after"),
    "a field too many": ('1,a\n1,"a\n\nb"\n2,b,c\n', "line 6: the row has more fields"),
    "a field too few": ('\n\n1,"a\n"\n\n2\n', "line 7: the row has fewer fields"),
    "a carriage return": ('1,"a\nb"\n2,c\x0bd\n', "line 4: a carriage return outside of quotes"),
    "a long row too short": ('1,a\n"b\n\n\n"\n', "line 3: the row has fewer fields"),
}


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mistake", BROKEN)
def test_a_broken_row_of_csv_is_named_by_its_own_line(tmp_path: Path, mistake: str, end: str) -> None:
    rows, message = BROKEN[mistake]
    if "\x0b" in rows and end == "\r":
        return  # where it ends lines
    (tmp_path / "a.csv").write_bytes(f"id,text\n{rows}".replace("\n", end).replace("\x0b", "\r").encode())
    with pytest.raises(UserError, match=rf"a\.csv, {message}"):
        list(read_texts(TextFile("csv", tmp_path / "a.csv", "text")))


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters='\0\r\n,"'), max_size=9), max_size=30))
def test_a_file_has_the_same_texts_with_any_end_of_lines(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str]
) -> None:
    folder = tmp_path_factory.mktemp("ends")
    kinds: dict[Literal["lines", "csv"], str] = {"lines": "\n".join(["", *texts]), "csv": "text\n" + "\n".join(texts)}
    for kind, content in kinds.items():
        found = []
        for end in ("\n", "\r\n", "\r"):
            (folder / "a").write_bytes(content.replace("\n", end).encode())
            (folder / "a.gz").write_bytes(gzip.compress((folder / "a").read_bytes(), 1))
            found += [list(read_texts(TextFile(kind, folder / name, "text"))) for name in ("a", "a.gz")]
        assert found == [[text.strip() for text in texts if text.strip()]] * 6


@pytest.mark.parametrize(
    ("kind", "first", "line"),
    [
        ("lines", "a", "\n"),
        ("lines", "a", " \r\n"),
        ("lines", "a", "\r"),
        ("csv", "text", "\n"),
        ("csv", "text", "\r\n"),
        ("jsonl", '{"text": "a"}', "\n"),
    ],
)
def test_fifty_million_bytes_of_nothing_are_read_in_a_moment(
    tmp_path: Path, kind: Literal["lines", "csv", "jsonl"], first: str, line: str
) -> None:
    last = '{"text": 7}' if kind == "jsonl" else "a\ud800".encode("utf-8", "surrogatepass")
    count = 50_000_000 // len(line)
    with gzip.open(tmp_path / "a.gz", "wb", 1) as file:
        file.write(first.encode() + line.encode())
        for _ in range(100):
            file.write(line.encode() * (count // 100))
        file.write(last.encode() if isinstance(last, str) else last)
    before = time.process_time()
    with pytest.raises(UserError) as error:
        list(read_texts(TextFile(kind, tmp_path / "a.gz", "text")))
    assert time.process_time() - before < 5  # a second or less; one by one, they took a minute
    assert re.search(rf"a\.gz, line {count // 100 * 100 + 2}:", str(error.value))
