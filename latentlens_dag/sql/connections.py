"""DuckDB connections for work on tables larger than memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from latentlens_dag.sql.quoting import literal
from latentlens_dag.storage.files import scratch_folder

if TYPE_CHECKING:
    import duckdb


@contextmanager
def scratch_connection(beside: Path, memory: str, **settings: int | bool) -> Iterator[duckdb.DuckDBPyConnection]:
    """An in-memory database limited to `memory` (as "1GB"), which spills the rest into a folder beside a file."""
    import duckdb

    with scratch_folder(beside) as scratch, duckdb.connect() as connection:
        # A progress bar would be drawn over the build's own.
        every = {"temp_directory": str(scratch), "memory_limit": memory, "enable_progress_bar": False, **settings}
        for name, value in every.items():
            connection.execute(f"SET {name} = {literal(value) if isinstance(value, str) else value}")
        yield connection
