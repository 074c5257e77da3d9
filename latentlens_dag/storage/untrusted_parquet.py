"""Reading Parquet files that others made, in a process of its own with limited memory.

Pyarrow may end its process on a damaged footer, and a file of a kilobyte may hold a dictionary that fills any memory.
Both then happen to a process that is started again for the next file (`parquet_child.py`, which has the limits). It
waits for more files, so that a build pays for one start: a seventh of a second. What this package wrote itself is read
directly.
"""

from __future__ import annotations

import atexit
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from latentlens_dag.storage import parquet_child

_ANSWER_S = 120.0  # for a message; a file that takes longer is taken for one that never ends
_MOST_WAITING = 2  # processes


class ParquetReadError(Exception):
    """A file is missing, no Parquet, damaged, or takes more than it may; the message says which, without the path."""


class Footer(NamedTuple):
    """What a file says of itself."""

    schema: pa.Schema
    rows: int
    group_rows: list[int]
    """Of each row group."""
    group_sizes: list[list[int]]
    """The bytes in memory that each column of each row group claims."""


def read_footer(path: Path) -> Footer:
    """The footer of a file.

    Raises:
        ParquetReadError: where there is none that can be read.
    """
    (_, facts), (_, schema) = _answers(path, None, None)
    return Footer(pa.ipc.open_stream(schema).schema, **json.loads(facts))


def read_batches(path: Path, columns: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
    """Stream columns of a file, in the order of the file, at most `rows` rows at a time.

    A batch has about PIECE_BYTES (`parquet_child.py`) at most, or one row.

    Raises:
        ParquetReadError: where the file cannot be read to its end, when the rows before the fault were given.
    """
    for _, content in _answers(path, columns, rows):
        yield from pa.ipc.open_stream(content)


class _Reader:
    """A process that reads."""

    def __init__(self) -> None:
        self.owner = os.getpid()
        self._process = subprocess.Popen(
            [sys.executable, "-I", parquet_child.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # what C++ says before it ends the process
            bufsize=0,
            env={**os.environ, "ARROW_DEFAULT_MEMORY_POOL": "system"},  # its own takes a gigabyte at once, to hold it
            start_new_session=True,  # Ctrl-C is this process's; the other one ends when its standard input does
        )

    def request(self, facts: dict[str, object]) -> None:
        """Send a request; if the process has ended, `answer` finds out."""
        assert self._process.stdin is not None
        with suppress(OSError):
            self._process.stdin.write(json.dumps(facts).encode() + b"\n")

    def answer(self) -> tuple[bytes, bytes]:
        """The next message, its kind and content."""
        deadline = time.monotonic() + _ANSWER_S
        head = self._read(9, deadline)
        return head[:1], self._read(int.from_bytes(head[1:], "big"), deadline)

    def _read(self, size: int, deadline: float) -> bytes:
        assert self._process.stdout is not None
        found, done = memoryview(bytearray(size)), 0
        while done < size:
            if not select.select([self._process.stdout], [], [], max(0, deadline - time.monotonic()))[0]:
                raise ParquetReadError(f"to read it takes more than {_ANSWER_S:g} s")
            part = self._process.stdout.readinto(found[done:])  # type: ignore[attr-defined]
            if not part:
                raise ParquetReadError(self._end())
            done += part
        return bytes(found)

    def _end(self) -> str:
        code = self._process.wait()
        how = signal.Signals(-code).name if -code in {*signal.Signals} else f"exit code {code}"
        return f"the process that read it ended ({how})"

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()


_waiting: list[_Reader] = []
"""Processes without work; appending and popping are atomic, so that threads share them."""


def _answers(path: Path, columns: Sequence[str] | None, rows: int | None) -> Iterator[tuple[bytes, bytes]]:
    """The messages about a file up to its end."""
    reader, finished = _take(), False
    try:
        reader.request({"path": str(path.absolute()), "columns": columns and [*columns], "rows": rows})
        while (message := reader.answer())[0] not in (parquet_child.END, parquet_child.WRONG):
            yield message
        finished = True
        if message[0] == parquet_child.WRONG:
            raise ParquetReadError(message[1].decode())
    finally:  # half an answer cannot be taken back
        if finished and len(_waiting) < _MOST_WAITING:
            _waiting.append(reader)
        else:
            reader.close()


def _take() -> _Reader:
    while True:
        try:
            reader = _waiting.pop()
        except IndexError:
            return _Reader()
        if reader.owner == os.getpid():  # else this process is a copy of its owner
            return reader


@atexit.register
def _close_all() -> None:
    while _waiting:
        _waiting.pop().close()
