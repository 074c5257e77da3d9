"""Results of every type that DuckDB itself lists, plain and in one another, in every format of the command line."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stdout, suppress
from pathlib import Path

import duckdb
import polars as pl
import pyarrow as pa
import pytest

from latentlens_dag.cli.query import _write_frame
from latentlens_dag.cli.result_text import json_text
from latentlens_dag.dataset.dataset import open_dataset
from latentlens_dag.dataset.result_types import result_frame, result_table
from latentlens_dag.errors import UserError
from latentlens_dag.sql.quoting import literal
from tests.helpers.small_dataset import write_warehouse

WRITTEN = {  # what stands in SQL for types that have others in them, or limits
    "ARRAY": "INTEGER[2]",
    "DECIMAL": "DECIMAL(38, 2)",
    "ENUM": "ENUM('a', 'é日')",
    "LIST": "INTEGER[]",
    "MAP": "MAP(VARCHAR, INTEGER)",
    "NULL": '"NULL"',
    "STRUCT": "STRUCT(a INTEGER)",
    "UNION": "UNION(n INTEGER, s VARCHAR)",
}
NO_COLUMN = {"TUPLE", "TYPE"}  # a struct without names, which `row` makes, and what no table can have
VALUES = (
    *("1", "-1", "a", "true", "infinity", "-infinity", "nan", "1.5", "24:00:00", "10101", "\\xFF", "255", "-128"),
    *("1970-01-01", "2020-01-01 01:02:03.123456789+05", "290000-01-01", "0044-03-15 (BC)", "5881580-07-10"),
    *("01:02:03.000000001", "12:00:00+15:59:59", "3 months 2 days 1 second", "2262-04-11 23:47:16.854775806"),
    *("-99999 years", "POINT(1 2)", "89148a74-b8ae-48da-8de1-fa3065562ccf", "1e308", "é日\U0001f600", "[1, NULL]"),
    *(str(2**64 - 1), str(2**127 - 1), str(-(2**127)), str(2**128 - 1), "9" * 38, "[1, 2]", "{'a': 1}", "{a=1}", "[]"),
)
"""Texts that some type takes for a value, most of them at the end of what it holds."""
KEY = "CASE WHEN x IS NOT NULL THEN MAP {x: 1} END"
INSIDE = {  # x is the value
    "itself": "x",
    "a list": "[x, NULL]",
    "lists": "[[x], NULL]",
    "an array": "array_value(x, NULL)",
    "a struct": "{'a \"b': x, 'size': 1}",
    "a row": "row(x, 1)",
    "a value of a map": "MAP {'k': x}",
    "a key": KEY,
    "a struct as key": "MAP {{'size': x}: 1}",
    "a list as key": "MAP {[x]: x}",
    "an array as key": "MAP {array_value(x, x): 1}",
    "a map as key": "MAP {MAP {1: x}: 1}",
    "a union": "union_value(u := x)",
    "unions as keys": "MAP {union_value(u := x): 1}",
    "a variant": "x::VARIANT",
    "structs, maps and lists": "[{'a': MAP {'k': [x]}}]",
}


def _types() -> list[str]:
    with duckdb.connect() as connection:
        rows = connection.sql("SELECT DISTINCT logical_type FROM duckdb_types() WHERE internal ORDER BY ALL").fetchall()
    return [name for (name,) in rows if name not in NO_COLUMN]


def _table_of_values(kind: str, connection: duckdb.DuckDBPyConnection) -> int:
    """Make the table `v` of the values that a type has of VALUES, and a null, and return their number."""
    connection.execute(f"CREATE TABLE v (x {kind})")
    for text in VALUES:
        with suppress(duckdb.Error, UnicodeDecodeError):
            connection.execute(f"INSERT INTO v SELECT CAST({literal(text)} AS {kind})")
    connection.execute("INSERT INTO v VALUES (NULL)")
    return connection.sql("SELECT count(*) FROM v").fetchall()[0][0]


def _write(frame: pl.DataFrame, form: str, output: Path | None = None, vertical: bool = False) -> str:
    with redirect_stdout(io.StringIO()) as text:
        _write_frame(frame, form, output, vertical)
    return text.getvalue()


@pytest.mark.parametrize("name", _types())
def test_values_of_every_type_in_all_that_may_hold_them_are_written_in_every_format(name: str, tmp_path: Path) -> None:
    query = f"SELECT {', '.join(f'{sql} AS {json.dumps(place)}' for place, sql in INSIDE.items())} FROM v"
    with duckdb.connect() as connection:
        rows = _table_of_values(WRITTEN.get(name, name), connection)
        assert rows > 1 or name == "NULL"
        frame = result_frame(connection.sql(query))
        assert frame.shape == (rows, len(INSIDE))
        assert _sent(result_table(connection.sql(query))).shape == frame.shape
    assert len(json.loads(_write(frame, "json"))) == rows
    assert _write(frame, "csv") and _write(frame, "table") and _write(frame, "table", vertical=True)
    _write(frame, "parquet", tmp_path / "a.parquet")
    assert pl.read_parquet(tmp_path / "a.parquet").shape == frame.shape


def _sent(table: pa.Table) -> pl.DataFrame:
    """The table as the process for queries sends it to the browser."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return pl.read_ipc_stream(sink.getvalue().to_pybytes())


NOT_READ_BACK = {"BLOB", "ARRAY", "LIST", "MAP", "STRUCT", "UNION", "VARIANT"}  # bytes are base64; JSON has the others


@pytest.mark.parametrize("name", sorted({*_types()} - NOT_READ_BACK))
@pytest.mark.parametrize("place", ["x", "[x]", KEY])
def test_a_value_of_json_is_the_value_that_was_queried(name: str, place: str) -> None:
    """Also its nanoseconds, and infinity, inside of a list or as the key of a map."""
    kind = WRITTEN.get(name, name)
    with duckdb.connect() as connection:
        _table_of_values(kind, connection)
        for number in range(2):  # far values make all others texts
            where = "" if number else "WHERE CAST(x AS VARCHAR) SIMILAR TO '[-0-9:. ]{1,32}'"
            rows = connection.sql(f"SELECT CAST(x AS VARCHAR) AS text, {place} AS v FROM v {where} ORDER BY rowid")
            for row in json.loads(json_text(result_frame(rows))):
                (found,) = row["v"] if isinstance(row["v"], list | dict) else [row["v"]]
                text = (
                    "NULL" if found is None else literal(str(found).lower() if found in (True, False) else str(found))
                )
                written = "NULL" if row["text"] is None else literal(row["text"])
                same = f"CAST({text} AS {kind}) IS NOT DISTINCT FROM CAST({written} AS {kind})"
                assert connection.sql(f"SELECT {same}").fetchall() == [(True,)], (row, found)


def test_keys_that_have_one_text_are_all_there() -> None:
    with duckdb.connect() as connection:
        for keys in ("1::VARIANT, '1'::VARIANT", "[1::VARIANT], ['1'::VARIANT]"):
            frame = result_frame(connection.sql(f"SELECT MAP([{keys}], [7, 8]) AS v"))
            assert "7" in frame["v"][0] and "8" in frame["v"][0]


def test_what_is_deeper_in_lists_than_arrow_has_them_is_text() -> None:
    with duckdb.connect() as connection:
        for depth in (30, 60, 200):
            frame = result_frame(connection.sql(f"SELECT {'[' * depth}1{']' * depth} AS v"))
            assert _write(frame, "json").count("[") == depth + 1 and _write(frame, "csv").count("]") == depth
            assert _write(frame, "table")


@pytest.mark.parametrize("query", ["SELECT CAST('é日\U0001f600' AS BIT)", "SELECT '\ud800'", "FROM \udcff"])
def test_half_a_character_in_a_query_or_its_message_is_a_mistake_of_the_query(tmp_path: Path, query: str) -> None:
    write_warehouse(tmp_path / "warehouse")
    with open_dataset(tmp_path) as dataset, pytest.raises(UserError, match=r"bit conversion|a character that is none"):
        dataset.collect(query)
