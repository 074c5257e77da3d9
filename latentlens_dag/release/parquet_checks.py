"""Checks of a release's Parquet file by its footer, before anything reads the data.

Note: an equal hash only proves that a file is the one its author published. A malicious file has the right hash too.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from latentlens_dag.release.manifest import ReleaseFile
from latentlens_dag.storage.untrusted_parquet import Footer, ParquetReadError, read_footer

MAX_FOOTER_BYTES = 64 << 20
MAX_EXPANSION = 1000
"""Bytes in memory per byte on disk; sorted tables of equal grids get near a hundred."""
FREE_EXPANSION = 64 << 20
"""Bytes in memory that any file may have."""
MAX_ROWS_PER_BYTE = 1000
"""Of a file with a million rows or more: even grids of boxes, all alike, do not get there."""
FREE_ROWS = 1_000_000
MAX_GROUP_BYTES = 4 << 30
"""Bytes in memory of a row group; a reader may hold several at once."""
_MAGIC = b"PAR1"


def parquet_problem(path: Path, file: ReleaseFile, schema: pa.Schema) -> str | None:
    """The reason why a file must not be read; None if it may.

    Args:
        path: of the file.
        file: its entry in the manifest.
        schema: its required columns, in this order.
    """
    size = path.stat().st_size
    if size != file.size:
        return f"it has {size:,} bytes, and the manifest says {file.size:,}"
    if problem := _tail_problem(path, size):
        return problem
    try:
        footer = read_footer(path)
    except ParquetReadError as error:
        return f"its footer cannot be read ({error})"
    return (
        _rows_problem(footer, file, size)
        or columns_problem(footer.schema, schema)
        or _expansion_problem(footer.group_sizes, size)
    )


def columns_problem(columns: pa.Schema, schema: pa.Schema) -> str | None:
    """The first difference of columns from a schema; None if they are equal."""
    if problem := names_problem(columns.names, schema):
        return problem
    if wrong := [name for name in schema.names if columns.field(name).type != schema.field(name).type]:
        return f"its column {wrong[0]} is {columns.field(wrong[0]).type}, not {schema.field(wrong[0]).type}"
    return None


def names_problem(names: list[str] | tuple[str, ...], schema: pa.Schema) -> str | None:
    """The first difference of names from the columns of a schema; None if they are equal."""
    if missing := [name for name in schema.names if name not in names]:
        return f"it lacks the columns {', '.join(missing)}"
    if list(names) != schema.names:
        return f"its columns are not {', '.join(schema.names)} in this order"
    return None


def _tail_problem(path: Path, size: int) -> str | None:
    """Check the last bytes, which hold the length of the footer."""
    if size < 12:
        return "it is no Parquet"
    with path.open("rb") as opened:
        opened.seek(-8, 2)
        tail = opened.read(8)
    length = int.from_bytes(tail[:4], "little")
    if tail[4:] != _MAGIC or length > size - 12:
        return "it is no Parquet"
    return f"its footer has {length:,} bytes" if length > MAX_FOOTER_BYTES else None


def _rows_problem(footer: Footer, file: ReleaseFile, size: int) -> str | None:
    groups = sum(footer.group_rows)
    if not groups == footer.rows == file.rows:
        return f"it has {footer.rows:,} rows ({groups:,} in its groups), and the manifest says {file.rows:,}"
    if footer.rows > FREE_ROWS + MAX_ROWS_PER_BYTE * size:
        return f"its {size:,} bytes would become {footer.rows:,} rows"
    return None


def _expansion_problem(group_sizes: list[list[int]], size: int) -> str | None:
    """Check for a decompression bomb: few bytes that become very many."""
    if any(chunk < 0 for group in group_sizes for chunk in group):
        return "it claims columns of less than no bytes"
    if (largest := max(map(sum, group_sizes), default=0)) > MAX_GROUP_BYTES:
        return f"a group of its rows becomes {largest:,} bytes, and {MAX_GROUP_BYTES:,} are the most"
    total = sum(map(sum, group_sizes))
    if total > FREE_EXPANSION + MAX_EXPANSION * size:
        return f"its {size:,} bytes would become {total:,}"
    return None
