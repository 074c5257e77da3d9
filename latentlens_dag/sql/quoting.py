"""Quoting of names, strings and types for SQL."""

from __future__ import annotations

import glob
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

if TYPE_CHECKING:
    import duckdb

SQL_TYPES = {
    pa.string(): "VARCHAR",
    pa.int32(): "INTEGER",
    pa.int64(): "BIGINT",
    pa.float32(): "FLOAT",
    pa.float64(): "DOUBLE",
    pa.bool_(): "BOOLEAN",
    pa.binary(): "BLOB",
    pa.list_(pa.string()): "VARCHAR[]",
    pa.list_(pa.int32()): "INTEGER[]",
}
"""The SQL names of the schema's column types."""


def empty_sql(schema: pa.Schema) -> str:
    """A SELECT with the columns of `schema` and no rows."""
    columns = ", ".join(f"NULL::{SQL_TYPES[field.type]} AS {identifier(field.name)}" for field in schema)
    return f"SELECT {columns} WHERE false"


def literal(text: str) -> str:
    """The text as an SQL string, for the few places (paths, file lists) where nothing can be bound."""
    return "'" + text.replace("'", "''") + "'"


def file_literal(file: Path) -> str:
    """The path of a file as an SQL string, for functions that read patterns of files."""
    return literal(glob.escape(str(file)))


def identifier(name: str) -> str:
    """The name as a quoted SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def create_views(connection: duckdb.DuckDBPyConnection, tables: Mapping[str, str]) -> None:
    """Create a view for each table name and SELECT."""
    for name, select in tables.items():
        connection.execute(f"CREATE VIEW {identifier(name)} AS {select}")
