"""Quoting of names, strings and types for SQL."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

_SQL_TYPES = {
    pa.string(): "VARCHAR",
    pa.int32(): "INTEGER",
    pa.int64(): "BIGINT",
    pa.float32(): "FLOAT",
    pa.float64(): "DOUBLE",
    pa.binary(): "BLOB",
    pa.list_(pa.string()): "VARCHAR[]",
    pa.list_(pa.int32()): "INTEGER[]",
}


def empty_sql(schema: pa.Schema) -> str:
    """A SELECT with the columns of `schema` and no rows."""
    columns = ", ".join(f"NULL::{_SQL_TYPES[field.type]} AS {identifier(field.name)}" for field in schema)
    return f"SELECT {columns} WHERE false"


def sql_type(kind: pa.DataType) -> str:
    """The SQL name of a column type of the schema."""
    return _SQL_TYPES[kind]


def literal(text: str) -> str:
    """The text as an SQL string, for the few places (paths, file lists) where nothing can be bound."""
    return "'" + text.replace("'", "''") + "'"


def identifier(name: str) -> str:
    """The name as a quoted SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def create_views(tables: Mapping[str, str]) -> list[str]:
    """The statements that create a view for each table name and SELECT."""
    return [f"CREATE VIEW {identifier(name)} AS {select}" for name, select in tables.items()]
