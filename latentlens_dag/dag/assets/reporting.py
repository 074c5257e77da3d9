"""The results that steps report to Dagster: data version, rows, columns, size, a preview.

Note: the data version is the hash of the content, so that a step that runs again and writes the same bytes leaves its
descendants fresh.
"""

from __future__ import annotations

import base64
import html
import logging
import time
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq

from latentlens_dag.dag.building.left_out import LEFT_OUT
from latentlens_dag.dag.building.time_left import Pace, StepProgress
from latentlens_dag.dag.recording import result
from latentlens_dag.storage.hashing import hash_file

PROGRESS_LOGGER = "latentlens_dag.progress"
"""Its messages are `StepProgress`, for the progress line of a build."""
_PREVIEW_ROWS = 8


def parquet_result(
    path: Path,
    key: dg.AssetKey | None = None,
    checks: Iterable[dg.AssetCheckResult] = (),
    beside: Iterable[Path] = (),
    **metadata: Any,
) -> dg.MaterializeResult:
    """The result of a step that wrote a Parquet file, with the hash of its bytes as data version.

    `beside` are other files that belong to it, or folders of them.
    """
    file = pq.ParquetFile(path)
    head = pa.Table.from_batches(islice(file.iter_batches(_PREVIEW_ROWS), 1), file.schema_arrow)
    facts = {
        "dagster/row_count": file.metadata.num_rows,
        "dagster/column_schema": column_schema(file.schema_arrow),
        "size_bytes": path.stat().st_size,
        "preview": dg.MetadataValue.md(markdown_table(head)),
    }
    return result(key, hash_file(path), {**facts, **metadata}, [path, *beside], checks)


def tell_left_out(context: dg.AssetExecutionContext, text: str) -> None:
    """Say in the step's log and metadata, and so by a build and by `status`, what of its input it left out and why.

    Args:
        context: of the step, whose asset is one of `building.left_out.TELLING`.
        text: in sentences; empty where nothing was left out.
    """
    if text:
        context.log.warning(text)
        context.add_output_metadata({LEFT_OUT: text})


def column_schema(schema: pa.Schema) -> dg.TableSchema:
    """An Arrow schema for Dagster's UI."""
    return dg.TableSchema(columns=[dg.TableColumn(field.name, str(field.type)) for field in schema])


def markdown_table(table: pa.Table) -> str:
    """Rows as a Markdown table; text from data is escaped, images are embedded."""
    lines = ["| " + " | ".join(table.schema.names) + " |", "|" + "---|" * len(table.schema.names)]
    lines += ["| " + " | ".join(_cell(value) for value in row.values()) + " |" for row in table.to_pylist()]
    return "\n".join(lines)


class ProgressLog:
    """Reports how far long work is, its pace and the time left: every few seconds, and at its end.

    The reports go to a log, such as that of a Dagster step, and as `StepProgress` to the logger PROGRESS_LOGGER.
    """

    def __init__(
        self,
        log: Callable[[str], None],
        unit: str,
        every_s: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start the clock; `unit` is a plural noun."""
        self._log, self._unit, self._every_s, self._clock = log, unit, every_s, clock
        self._pace, self._last = Pace(), clock()
        self._unended = False  # whether the last report was of work that goes on

    def __call__(self, done: int, total: int, note: str = "") -> None:
        """So much is done, of so much in all; `note` is said behind it."""
        now = self._clock()
        self._pace.report(now, done, total)
        due = now - self._last >= self._every_s or (self._unended and done >= total)
        if not done or not due:
            return
        self._last, self._unended = now, done < total
        left = self._pace.seconds_left(now)
        progress = StepProgress(done, max(done, total), self._unit, self._pace.per_second, left, note)
        self._log(str(progress))
        logging.getLogger(PROGRESS_LOGGER).info(progress)


def _cell(value: Any) -> str:
    if isinstance(value, bytes):
        return f'<img src="data:image/webp;base64,{base64.b64encode(value).decode()}" height="96"/>'
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        value = ", ".join(map(str, value[:12]))
    text = html.escape(str(value) if value is not None else "").replace("|", "\\|").replace("\n", " ")
    return text if len(text) <= 80 else text[:77] + "..."
