"""The rows of a query on a terminal: a table where it can be read, else a line per column; parts of a result."""

import json
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from latentlens_dag.cli.layout import fits, rows_text
from latentlens_dag.cli.output import table_text
from latentlens_dag.cli.query import _frame_table
from tests.helpers.command_line import run_command
from tests.helpers.small_dataset import write_warehouse

CELLS = st.text(st.characters(codec="ascii", exclude_categories=("Cc",)), max_size=40)
NAMES = st.text("abcdefgh_", min_size=1, max_size=20)


@given(st.lists(NAMES, min_size=1, max_size=12, unique=True), st.data(), st.integers(20, 200))
def test_a_table_has_no_folded_header_and_a_row_that_is_too_wide_has_a_line_per_column(
    names: list[str], data: st.DataObject, width: int
) -> None:
    rows = data.draw(st.lists(st.tuples(*[CELLS] * len(names)), min_size=1, max_size=4))
    text, shown = rows_text(names, rows, width, names, vertical=False)
    lines = text.split("\n")
    assert shown == len(rows)
    if fits(names, rows, width):
        assert lines[0].split() == names
        assert all(len(line) <= width for line in lines)
    else:
        assert lines[: len(names) + 1] == [
            "row 1",
            *(f"  {name:{max(map(len, names))}}  {cell}" for name, cell in zip(names, rows[0], strict=True)),
        ]


def test_without_a_terminal_every_row_is_a_line_unless_a_line_per_column_is_wanted() -> None:
    names, rows = [f"column_{number}" for number in range(40)], [["value"] * 40] * 12
    assert rows_text(names, rows, None, names, vertical=False) == (table_text(names, rows, None, names), 12)
    text, shown = rows_text(names, rows, None, names, vertical=True)
    assert (shown, text.count("row ")) == (10, 10)


def test_a_wide_result_on_a_narrow_terminal_says_how_many_of_its_rows_are_shown() -> None:
    frame = pl.DataFrame({f"column_{number}": ["value"] * 25 for number in range(17)})
    text = _frame_table(frame, 100)
    assert text.startswith("row 1\n  column_0   value\n") and "\nrow 10\n" in text and "\nrow 11\n" not in text
    assert text.endswith("\n25 rows, 10 shown; --format csv gives all")
    assert _frame_table(frame.select("column_0").head(1), 100) == "column_0\nvalue\n1 row"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    write_warehouse(folder / "warehouse")
    return folder


def test_columns_and_limit_give_a_part_of_a_result_in_every_format(home: Path) -> None:
    asked = ("query", "FROM neighbors ORDER BY ALL", "--columns", "word, study", "--limit", "3", "--home", str(home))
    rows = json.loads(run_command(home, *asked, "--format", "json").stdout)
    assert len(rows) == 3 and all(list(row) == ["word", "study"] for row in rows)
    assert run_command(home, *asked, "--format", "csv").stdout.splitlines()[0] == "word,study"
    pages = run_command(home, *asked, "--vertical").stdout
    assert pages.startswith(f"row 1\n  word   {rows[0]['word']}\n  study  {rows[0]['study']}\n")
    run_command(home, *asked, "--format", "parquet", "--output", str(home / "x.parquet"))
    assert pq.read_table(home / "x.parquet").to_pylist() == rows


def test_a_column_that_the_result_lacks_is_named_with_those_that_it_has(home: Path) -> None:
    answer = run_command(home, "query", "SELECT 1 AS one", "--columns", "two", "--home", str(home))
    assert (answer.returncode, answer.stderr) == (
        2,
        "Error: `--columns two`: the result has no column 'two'; it has one.\n",
    )
