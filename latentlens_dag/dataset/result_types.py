"""Results of SQL as Polars and Python can hold them: what they have no type for becomes text.

Polars refuses intervals and panics at dates beyond its own; a UHUGEINT or a time with a zone reaches it as another
value. DuckDB itself writes all of them as text. Types are replaced inside of lists, structs and maps too, so that a
result keeps its form.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from latentlens_dag.sql.quoting import identifier

if TYPE_CHECKING:
    import polars as pl

_PLAIN = {
    *("boolean", "tinyint", "smallint", "integer", "bigint", "utinyint", "usmallint", "uinteger", "ubigint"),
    *("hugeint", "null"),
    *("float", "double", "decimal", "varchar", "blob", "date", "time", "enum"),
    *("timestamp", "timestamp_s", "timestamp_ms", "timestamp_ns", "timestamp with time zone"),
}
"""Of types without others in them; all others become text. HUGEINT is what sums of integers are."""
_FAR = {"date", "timestamp", "timestamp_s", "timestamp_ms", "timestamp_ns", "timestamp with time zone"} | {
    "time",
    "decimal",
}
"""Types with values beyond those of Python; of decimals, those that are a HUGEINT."""
_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_FIRST_DAY, _LAST_DAY = -719_162, 2_932_896
"""Of Python's dates, the years 1 to 9999, counted from 1970."""


def result_frame(rows: duckdb.DuckDBPyRelation) -> pl.DataFrame:
    """The rows as a Polars frame; may raise what DuckDB raises where a query fails while it runs."""
    import polars as pl

    table = result_table(rows)
    frame = pl.from_arrow(table.rename_columns(_unique(table.column_names)))
    assert isinstance(frame, pl.DataFrame)
    return frame


def result_table(rows: duckdb.DuckDBPyRelation) -> pa.Table:
    """The rows as an Arrow table that Polars reads."""
    odd = {place for place, kind in enumerate(rows.types) if not _is_plain(kind)}
    table = _with_texts(rows, odd, _PLAIN).to_arrow_table()
    far = {place for place, column in enumerate(table.columns) if _has_far_values(column)}
    if not far:
        return table
    with duckdb.connect() as connection:
        return _with_texts(connection.from_arrow(table), far, _PLAIN - _FAR).to_arrow_table()


def _unique(names: list[str]) -> list[str]:
    """Names of which none comes twice: a, a_1, a_2, as DuckDB calls them."""
    unique: list[str] = []
    for name in names:
        others = (f"{name}_{number}" for number in count(1))
        unique.append(name if name not in unique else next(other for other in others if other not in unique))
    return unique


def _with_texts(rows: duckdb.DuckDBPyRelation, odd: set[int], kept: set[str]) -> duckdb.DuckDBPyRelation:
    """The rows with text in some columns, by their places, in place of all types but the kept ones."""
    if not odd:
        return rows
    columns = (
        f"{f'CAST(#{place} AS {_plain_type(kind, kept)})' if place - 1 in odd else f'#{place}'} AS {identifier(name)}"
        for place, (name, kind) in enumerate(zip(rows.columns, rows.types, strict=True), 1)
    )
    return rows.project(", ".join(columns))  # by place, since names may come twice


def _is_plain(kind: Any) -> bool:
    """Whether Polars has the type, and all types in it."""
    if kind.id in ("list", "array"):
        return _is_plain(kind.children[0][1])
    if kind.id in ("struct", "map"):
        return all(_is_plain(inner) for _, inner in kind.children)
    return kind.id in _PLAIN


def _plain_type(kind: Any, kept: set[str]) -> str:
    """The type with VARCHAR in place of the types in it that are not kept."""
    if kind.id in ("list", "array"):
        size = kind.children[1][1] if kind.id == "array" else ""
        return f"{_plain_type(kind.children[0][1], kept)}[{size}]"
    if kind.id == "struct":
        fields = (f"{identifier(name)} {_plain_type(inner, kept)}" for name, inner in kind.children)
        return f"STRUCT({', '.join(fields)})"
    if kind.id == "map":
        return f"MAP({', '.join(_plain_type(inner, kept) for _, inner in kind.children)})"
    return str(kind) if kind.id in kept - {"null"} else "VARCHAR"


def _has_far_values(column: pa.ChunkedArray) -> bool:
    """Whether a column has a number or date beyond those of Python, or an infinite date."""
    return any(_is_far(leaf) for chunk in column.chunks for leaf in _leaves(chunk))


def _leaves(array: pa.Array) -> Iterator[pa.Array]:
    """The arrays without others in them that an array consists of."""
    if pa.types.is_struct(array.type):
        for field in array.flatten():
            yield from _leaves(field)
    elif pa.types.is_map(array.type):
        yield from _leaves(array.keys)
        yield from _leaves(array.items)
    elif pa.types.is_list(array.type) or pa.types.is_large_list(array.type) or pa.types.is_fixed_size_list(array.type):
        yield from _leaves(array.flatten())
    else:
        yield array


def _is_far(array: pa.Array) -> bool:
    if pa.types.is_decimal(array.type):  # a HUGEINT of 39 digits comes as a decimal of 38
        ends = pc.min_max(array).as_py()
        return array.type.scale == 0 and ends["min"] is not None and max(map(abs, ends.values())) >= 10**38
    if pa.types.is_time(array.type):  # SQL has the time 24:00:00
        latest = pc.max(array.cast(pa.int32() if array.type.bit_width == 32 else pa.int64())).as_py()
        return latest is not None and latest >= 86_400 * _PER_SECOND[array.type.unit]
    if not (pa.types.is_date(array.type) or pa.types.is_timestamp(array.type)):
        return False
    unit = 86_400 * _PER_SECOND[array.type.unit] if pa.types.is_timestamp(array.type) else 1
    ends = pc.min_max(array.cast(pa.int32() if array.type == pa.date32() else pa.int64())).as_py()
    return ends["min"] is not None and not (_FIRST_DAY * unit <= ends["min"] and ends["max"] < (_LAST_DAY + 1) * unit)
