"""The process that reads Parquet files of strangers: it answers `untrusted_parquet`, and may end at any time.

It runs as a script that imports nothing of this package, so that it starts in a seventh of a second. Pyarrow does not
survive every file: of its functions, those about row groups end the process on an error of C++. And no size in a file
can be believed before its pages are decoded, so that the memory of this process is limited by the system.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

MEMORY_BYTES = 1 << 30
"""The most memory that a file may take here, besides what the process holds before it opens the first."""
PIECE_BYTES = 32 << 20
"""Rows are sent in pieces of about so many bytes, or one by one."""
ROW_BYTES = 256 << 20
"""The most bytes of a row, in the columns that are read."""
FREE_BYTES, MOST_EXPANSION = 1 << 30, 1000
"""The bytes that any file may become in all, and those per byte of a larger one."""
FREE_ROWS, ROWS_PER_BYTE = 1_000_000, 1000
"""The rows that any file may have, and those per byte of a larger one."""
_BUFFER = 1 << 20  # a column is read page by page, not whole

FOOTER, BATCH, END, WRONG = b"F", b"B", b"E", b"W"


def main() -> None:
    """Answer requests, one JSON object per line, until the standard input ends."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not look like an answer
    pa.set_cpu_count(1)
    limit_memory(MEMORY_BYTES)
    for line in sys.stdin:
        try:
            for kind, content in _answers(json.loads(line)):
                send(answers, kind, content)
        except MemoryError as error:  # also of Arrow
            send(answers, WRONG, f"it takes more than {MEMORY_BYTES:,} bytes of memory ({error})".encode())
        except Exception as error:
            reason = " ".join(str(error).split())
            send(answers, WRONG, f"{type(error).__name__}: {reason:.300}".encode(errors="replace"))


def _answers(request: dict[str, Any]) -> Iterator[tuple[bytes, bytes]]:
    """The footer of a file or, where columns are named, their rows."""
    path = Path(request["path"])
    with pq.ParquetFile(path, buffer_size=_BUFFER, pre_buffer=False) as file:
        if request["rows"] is None:
            yield FOOTER, json.dumps(_groups(file.metadata)).encode()
            yield BATCH, _stream([], file.schema_arrow)
        else:
            yield from ((BATCH, _stream([piece], piece.schema)) for piece in _rows(file, path, request))
    yield END, b""


def _groups(footer: pq.FileMetaData) -> dict[str, Any]:
    groups = [footer.row_group(number) for number in range(footer.num_row_groups)]
    sizes = [[one.column(place).total_uncompressed_size for place in range(one.num_columns)] for one in groups]
    return {"rows": footer.num_rows, "group_rows": [one.num_rows for one in groups], "group_sizes": sizes}


def _rows(file: pq.ParquetFile, path: Path, request: dict[str, Any]) -> Iterator[pa.RecordBatch]:
    size, rows = path.stat().st_size, file.metadata.num_rows
    if rows > FREE_ROWS + ROWS_PER_BYTE * size:
        raise ValueError(f"its {size:,} bytes would become {rows:,} rows")
    sent = 0
    for batch in file.iter_batches(request["rows"], columns=request["columns"], use_threads=False):
        plain = pa.schema([field.with_type(_plain(field.type)) for field in batch.schema])
        for piece in _pieces(batch if plain.equals(batch.schema) else batch.cast(plain)):
            sent += piece.nbytes
            if sent > FREE_BYTES + MOST_EXPANSION * size:
                raise ValueError(f"its {size:,} bytes become more than {sent:,}")
            yield piece


def _plain(kind: pa.DataType) -> pa.DataType:
    """The type without dictionaries, whose size says nothing about that of the values."""
    if pa.types.is_dictionary(kind):
        return _plain(kind.value_type)
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_plain(field.type)) for field in kind])
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return (pa.list_ if pa.types.is_list(kind) else pa.large_list)(
            kind.value_field.with_type(_plain(kind.value_type))
        )
    return kind


def _pieces(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """A batch in parts of at most PIECE_BYTES, or of one row."""
    if batch.nbytes <= PIECE_BYTES:
        yield batch
    elif len(batch) == 1:
        if batch.nbytes > ROW_BYTES:
            raise ValueError(f"one of its rows has {batch.nbytes:,} bytes, and {ROW_BYTES:,} are the most")
        yield batch
    else:
        half = len(batch) // 2
        yield from _pieces(batch.slice(0, half))
        yield from _pieces(batch.slice(half))


def _stream(batches: list[pa.RecordBatch], schema: pa.Schema) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as stream:
        for batch in batches:
            stream.write_batch(batch)
    return sink.getvalue().to_pybytes()


def send(answers: IO[bytes], kind: bytes, content: bytes) -> None:
    """Write a message: its kind, the length of its content, the content."""
    answers.write(kind + len(content).to_bytes(8, "big") + content)
    answers.flush()


def limit_memory(size: int) -> None:
    """Limit this process to `size` bytes more than it holds now (Linux only), and let it leave no core file."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    status = Path("/proc/self/status")
    if status.is_file():
        facts = dict(line.split(":", 1) for line in status.read_text().splitlines())
        most = 1024 * int(facts["VmData"].split()[0]) + size
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))


if __name__ == "__main__":
    main()
