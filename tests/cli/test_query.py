import polars as pl

from latentlens_dag.cli.query import _frame_table


def test_a_table_cuts_long_lists_and_names_the_size_of_bytes_wherever_they_are() -> None:
    frame = pl.DataFrame({"mask": [list(range(1000))], "picture": [{"name": "a", "bytes": b"x" * 2000}]})
    row = _frame_table(frame, None).splitlines()[1]
    assert "10, 11, … 1,000 in all]" in row and "12" not in row
    assert "{name: a, bytes: 2,000 bytes}" in row
