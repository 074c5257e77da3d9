"""Results of SQL as Polars and Python can hold them: what they have no type for becomes text.

Polars refuses intervals and panics at dates beyond its own; a UHUGEINT or a time with a zone reaches it as another
value, and Python cuts nanoseconds off. DuckDB itself writes all of them as text. Types are replaced inside of lists,
structs and maps too, so that a result keeps its form; the keys of a map become text where they have values in them,
which a `dict` of Python cannot have as keys.
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
    *("timestamp", "timestamp_s", "timestamp_ms", "timestamp with time zone"),
}
"""Of types without others in them; all others become text. HUGEINT is what sums of integers are."""
_FAR = {"date", "time", "timestamp", "timestamp_s", "timestamp_ms", "timestamp with time zone"}
"""Types with values beyond those of Python."""
_NESTED = ("list", "array", "struct", "map")
_ALIKE = ("union", "variant")
"""Types of which two values may have one text, and so could not be two keys of a map: a number, and its digits."""
_DEEPEST = 32  # types in one another; Arrow has 64
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
    far = {place for place, column in enumerate(table.columns) if any(map(_is_far, _all_leaves(column)))}
    table = _with_texts_of_huge_numbers(table)
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


def _is_plain(kind: Any, depth: int = 0) -> bool:
    """Whether Polars has the type, and all types in it."""
    inside = depth > 0
    if depth > _DEEPEST or (kind.id == "map" and kind.children[0][1].id in _NESTED):
        return False
    if kind.id in _NESTED:
        return all(_is_plain(inner, depth + 1) for inner in _types_in(kind))
    return kind.id in _PLAIN and not (inside and kind.id == "enum")  # in an array, its nulls are codes that are none


def _types_in(kind: Any) -> list[Any]:
    """The types of what a list, array, struct or map has in it; an array's second child is its size."""
    return [inner for _, inner in (kind.children[:1] if kind.id == "array" else kind.children)]


def _plain_type(kind: Any, kept: set[str], depth: int = 0) -> str:
    """The type with VARCHAR in place of the types in it that are not kept."""
    inside = depth > 0
    if depth > _DEEPEST or (kind.id == "map" and _may_be_alike(kind.children[0][1])):
        return "VARCHAR"
    if kind.id not in _NESTED:
        as_it_is = kind.id in kept and kind.id != "null" and not (inside and kind.id == "enum")
        return str(kind) if as_it_is else "VARCHAR"
    types = [_plain_type(inner, kept, depth + 1) for inner in _types_in(kind)]
    if kind.id == "map":
        return f"MAP({'VARCHAR' if kind.children[0][1].id in _NESTED else types[0]}, {types[1]})"
    if kind.id == "struct":
        fields = (f"{identifier(name)} {of}" for (name, _), of in zip(kind.children, types, strict=True))
        return f"STRUCT({', '.join(fields)})"
    return f"{types[0]}[{kind.children[1][1] if kind.id == 'array' else ''}]"


def _may_be_alike(kind: Any) -> bool:
    """Whether two values of a type may have one text."""
    return any(map(_may_be_alike, _types_in(kind))) if kind.id in _NESTED else kind.id in _ALIKE


def _with_texts_of_huge_numbers(table: pa.Table) -> pa.Table:
    """The table with texts in place of decimals where a HUGEINT of 39 digits is one, which came as a decimal of 38.

    DuckDB itself cannot write the smallest of them.
    """
    for place, (field, column) in enumerate(zip(table.schema, table.columns, strict=True)):
        if any(map(_is_huge, _all_leaves(column))):
            kind = _without_decimals(field.type)
            table = table.set_column(place, field.with_type(kind), column.cast(kind))
    return table


def _without_decimals(kind: pa.DataType) -> pa.DataType:
    """The type with texts in place of the decimals in it."""
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_without_decimals(field.type)) for field in kind])
    if pa.types.is_map(kind):
        return pa.map_(_without_decimals(kind.key_type), _without_decimals(kind.item_type))
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(_without_decimals(kind.value_type), kind.list_size)
    if pa.types.is_list(kind):
        return pa.list_(_without_decimals(kind.value_type))
    return pa.string() if pa.types.is_decimal(kind) else kind


def _all_leaves(column: pa.ChunkedArray) -> Iterator[pa.Array]:
    return (leaf for chunk in column.chunks for leaf in _leaves(chunk))


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


def _is_huge(array: pa.Array) -> bool:
    """Whether an array has a whole number of 39 digits."""
    if not pa.types.is_decimal(array.type) or array.type.scale:
        return False
    ends = pc.min_max(array).as_py()
    return ends["min"] is not None and max(map(abs, ends.values())) >= 10**38


def _is_far(array: pa.Array) -> bool:
    """Whether an array has a date or time beyond those of Python."""
    if pa.types.is_time(array.type):  # SQL has the time 24:00:00
        latest = pc.max(array.cast(pa.int32() if array.type.bit_width == 32 else pa.int64())).as_py()
        return latest is not None and latest >= 86_400 * _PER_SECOND[array.type.unit]
    if not (pa.types.is_date(array.type) or pa.types.is_timestamp(array.type)):
        return False
    unit = 86_400 * _PER_SECOND[array.type.unit] if pa.types.is_timestamp(array.type) else 1
    ends = pc.min_max(array.cast(pa.int32() if array.type == pa.date32() else pa.int64())).as_py()
    return ends["min"] is not None and not (_FIRST_DAY * unit <= ends["min"] and ends["max"] < (_LAST_DAY + 1) * unit)
