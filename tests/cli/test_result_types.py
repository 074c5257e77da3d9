"""Results of SQL of any type, in every format, in any terminal."""

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from latentlens_dag.cli.main import cli
from latentlens_dag.schema import IMAGES
from tests.helpers.small_dataset import write_warehouse

HUGE = "170141183460469231731687303715884105727"
TYPES: dict[str, tuple[str, Any]] = {  # SQL, and its value in JSON
    "bytes": (r"'\xFF'::BLOB", "/w=="),
    "bytes in a list": ("['a'::BLOB]", ["YQ=="]),
    "a struct": ("{'a': 1, 'b': [1, 2]}", {"a": 1, "b": [1, 2]}),
    "bytes in a struct in lists": ("[[{'k': 'z'::BLOB}]]", [[{"k": "eg=="}]]),
    "a map": ("MAP {'a': 1}", {"a": 1}),
    "a map of numbers": ("MAP {1: [2.5]}", {"1": ["2.5"]}),
    "a map of truth": ("MAP {true: 1}", {"true": 1}),
    "a map of structs": ("MAP {{'a': 1}: 'x'}", {"{'a': 1}": "x"}),
    "a moment in nanoseconds without end": ("'infinity'::TIMESTAMP_NS", "infinity"),
    "nanoseconds in a list": ("[TIMESTAMP_NS '2020-01-01 00:00:00.000000001']", ["2020-01-01 00:00:00.000000001"]),
    "maps in maps": ("MAP {'a': MAP {'b': INTERVAL 1 DAY}}", {"a": {"b": "1 day"}}),
    "an interval": ("INTERVAL 3 MONTH + INTERVAL 1 SECOND", "3 months 00:00:01"),
    "infinity": ("'inf'::DOUBLE", "Infinity"),
    "below all numbers": ("'-inf'::FLOAT", "-Infinity"),
    "no number": ("'nan'::DOUBLE", "NaN"),
    "infinity in an array": ("[1.5::FLOAT, 'inf']::FLOAT[2]", [1.5, "Infinity"]),
    "a sum": ("(SELECT sum(x) FROM range(3) t(x))", "3"),
    "a huge number": (f"{HUGE}::HUGEINT", HUGE),
    "huge numbers in a list": (f"[-{HUGE}]", [f"-{HUGE}"]),
    "a huge number without sign": ("340282366920938463463374607431768211455::UHUGEINT", str(2**128 - 1)),
    "a number of any length": (f"'{HUGE * 3}'::BIGNUM", HUGE * 3),
    "a decimal": ("1.10::DECIMAL(38, 10)", "1.1000000000"),
    "a time with a zone": ("'01:02:03+05:30'::TIMETZ", "01:02:03+05:30"),
    "the largest time": ("TIME '24:00:00'", "24:00:00"),
    "a moment in a zone": ("TIMESTAMPTZ '2020-01-01 00:00:00+05'", "2019-12-31T19:00:00+00:00"),
    "a date": ("DATE '2020-01-01'", "2020-01-01"),
    "a date without end": ("'infinity'::DATE", "infinity"),
    "a moment before all": ("'-infinity'::TIMESTAMP", "-infinity"),
    "a date of antiquity": ("'0044-03-15 (BC)'::DATE", "0044-03-15 (BC)"),
    "a date of the far future": ("'290000-01-01'::DATE", "290000-01-01"),
    "far dates in a list": ("[DATE '290000-01-01', NULL]", ["290000-01-01", None]),
    "a union": ("union_value(num := 2)", "2"),
    "unions": ("[union_value(num := 2)::UNION(num INT, s VARCHAR), 'a']", ["2", "a"]),
    "bits": ("'10101'::BIT", "10101"),
    "an enum": ("'a'::ENUM('a', 'b')", "a"),
    "a uuid": ("'89148a74-b8ae-48da-8de1-fa3065562ccf'::UUID", "89148a74-b8ae-48da-8de1-fa3065562ccf"),
    "null": ("NULL", None),
    "no values": ("[]::STRUCT(a INTERVAL)[]", []),
    "what drives a terminal": ("chr(27) || '[2J' || chr(0)", "\x1b[2J\x00"),
    "other scripts": ("'\U0001f600é日本'", "\U0001f600é日本"),
    "JSON": ("""'{"a":1}'::JSON""", '{"a":1}'),
    "a variant": ("42::VARIANT", "42"),
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    write_warehouse(folder / "warehouse")
    return folder


def _query(home: Path, sql: str, form: str, *more: str) -> str:
    answer = CliRunner().invoke(cli, ["query", sql, "--format", form, "--home", str(home), *more])
    assert answer.exit_code == 0, answer.output
    return answer.stdout


@pytest.mark.parametrize("case", TYPES)
def test_a_value_of_any_type_is_whole_in_json_and_in_every_other_format(home: Path, tmp_path: Path, case: str) -> None:
    sql, expected = TYPES[case]
    sql = f"SELECT v FROM (SELECT {sql} AS v, 0 AS place UNION ALL SELECT NULL, 1) ORDER BY place"
    rows = json.loads(_query(home, sql, "json"))
    assert rows == [{"v": expected}, {"v": None}]
    assert len(list(csv.reader(io.StringIO(_query(home, sql, "csv"))))) == 3
    table = _query(home, sql, "table").splitlines()
    assert table[0].strip() == "v" and table[-1].startswith("2 rows") and "\x1b" not in "".join(table)
    _query(home, sql, "parquet", "--output", str(tmp_path / "out.parquet"))
    assert len(pl.read_parquet(tmp_path / "out.parquet")) == 2


def test_all_types_side_by_side_are_printed_at_any_width(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from latentlens_dag.cli import query

    sql = f"SELECT {', '.join(f'{sql} AS c{number}' for number, (sql, _) in enumerate(TYPES.values()))}"
    for width in (None, 1, 7, 80, 10_000):
        monkeypatch.setattr(query, "terminal_width", lambda width=width: width)
        table = _query(home, sql, "table")
        assert all(f"c{number}" in table for number in range(len(TYPES)))
    (row,) = json.loads(_query(home, sql, "json"))
    assert list(row.values()) == [value for _, value in TYPES.values()]


def test_columns_of_equal_or_odd_names_are_all_there(home: Path) -> None:
    sql = """SELECT 1 AS a, INTERVAL 1 DAY AS a, INTERVAL 2 DAY AS "x ""y", 4 AS "a.b" """
    (row,) = json.loads(_query(home, sql, "json"))
    assert sorted(map(str, row.values())) == ["1", "1 day", "2 days", "4"] and {"a", 'x "y', "a.b"} <= row.keys()


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp437", "utf-8"])
@pytest.mark.parametrize("form", ["table", "csv", "json"])
def test_a_terminal_of_any_encoding_gets_all_rows(home: Path, encoding: str, form: str) -> None:
    command = [sys.executable, "-c", "from latentlens_dag.cli.main import main; main()", "query"]
    command += ["SELECT 'é日\U0001f600' AS v UNION ALL SELECT 'last'", "--format", form]
    environment = {**os.environ, "LATENTLENS_HOME": str(home), "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    run = subprocess.run(command, capture_output=True, env=environment, check=False)
    assert run.returncode == 0, run.stderr
    assert b"last" in run.stdout
    if form == "json":
        assert json.loads(run.stdout.decode(encoding))[0] == {"v": "é日\U0001f600"}


def test_thumbnails_can_be_queried_as_json(tmp_path: Path) -> None:
    file = tmp_path / "warehouse/images/x/batch_00.parquet"
    file.parent.mkdir(parents=True)
    row = {"image_id": "0" * 16, "file_name": "a.png", "width": 1, "height": 1, "thumbnail": b"\xff"}
    pq.write_table(pa.Table.from_pylist([row], schema=IMAGES), file)
    (image,) = json.loads(_query(tmp_path, "FROM images", "json"))
    assert (image["file_name"], image["thumbnail"]) == ("a.png", "/w==")
