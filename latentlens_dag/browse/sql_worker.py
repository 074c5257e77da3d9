"""A process of its own for the SQL that people type, killed if it takes too much time or memory.

The limits of DuckDB do not hold within a single function: under 400 MB and 5 s, `repeat('x', 1500000000)` took 3 GB and
half a minute, since it cannot be interrupted. A process can be limited by the system, and killed. It has one thread of
low priority, so that pages come first. Note: `sql/sandbox.py` decides what SQL can read.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from threading import Lock, Thread, Timer
from typing import IO, TYPE_CHECKING

from latentlens_dag.dataset.dataset import Dataset, open_dataset
from latentlens_dag.dataset.named_queries import ParameterValue
from latentlens_dag.dataset.result_types import result_table
from latentlens_dag.errors import UserError
from latentlens_dag.sql.sandbox import QUERY_ERRORS, Limits, first_line

if TYPE_CHECKING:
    import polars as pl

    from latentlens_dag.browse.browser_data import BrowserData

QUERY_MB = 250
"""Memory of DuckDB for a query, in 10^6 bytes; nothing is spilled to disk."""
_MOST_MB = 500  # of the process for a query, including what DuckDB does not count
_ANSWER_MB = 50
_STARTING_S = 60.0
_NARROW = "Narrow it down: one image, one layer, one lens, or a condition on a join."
_READY, _TABLE, _WRONG, _FULL = b"R", b"T", b"W", b"F"


class SqlWorker:
    """Runs queries one at a time, in a process that is started on demand and again after it was killed."""

    def __init__(self) -> None:
        """Start nothing yet."""
        self._turn = Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._data: BrowserData | None = None

    def collect(
        self, data: BrowserData, text: str, seconds: float, rows: int, /, **params: ParameterValue
    ) -> pl.DataFrame:
        """The rows of a query over the whole source.

        Args:
            data: the source.
            text: a named query or SQL.
            seconds: the query is stopped after this time; it waits as long for another one to end.
            rows: the most rows to return.
            params: values to bind.

        Raises:
            UserError: as `Dataset.collect`; if the query was stopped, or another one is running.
        """
        if not self._turn.acquire(timeout=seconds):
            raise UserError(f"Another query has been running for {seconds:g} s. Run yours again when it is done.")
        try:
            return self._answer(self._started(data), {"text": text, "rows": rows, "params": params}, seconds)
        finally:
            self._turn.release()

    def _started(self, data: BrowserData) -> subprocess.Popen[bytes]:
        """The process; a new one if it ended, or has opened another source."""
        if self._process is not None and self._process.poll() is None and self._data is data:
            return self._process
        self.close()
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, data.dataset_path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is the server's; this one ends when its standard input does
        )
        self._data = data
        kind, content = _received(self._process, _STARTING_S)
        if kind != _READY:
            raise UserError(content.decode() or "The process for queries could not be started; run it again.")
        return self._process

    def _answer(self, process: subprocess.Popen[bytes], request: dict[str, object], seconds: float) -> pl.DataFrame:
        import polars as pl

        assert process.stdin is not None
        with suppress(OSError):  # it has ended: see below
            process.stdin.write(json.dumps(request).encode() + b"\n")
            process.stdin.flush()
        kind, content = _received(process, seconds)
        if kind == _WRONG:
            raise UserError(content.decode())
        if kind == _TABLE:
            return pl.read_ipc_stream(content)
        self.close()  # also if memory was not enough: it never frees what it took, and the next query would lack it
        stopped = f"The query was stopped after {seconds:g} s. {_NARROW}"
        raise UserError({_STOPPED: stopped, _FULL: _TOO_MUCH}.get(kind, _ENDED))

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                assert pipe is not None
                with suppress(OSError):  # the rest can no longer be sent
                    pipe.close()
        self._process = self._data = None


_TOO_MUCH = f"The query was stopped: it takes more memory than the {QUERY_MB} MB that a query may take. {_NARROW}"
_ENDED = f"The process of the query ended without an answer, most likely for want of memory. {_NARROW}"
_STOPPED = b"S"


def _received(process: subprocess.Popen[bytes], seconds: float) -> tuple[bytes, bytes]:
    """A message of the process: its kind and content; _STOPPED if none came in time, no kind if it ended."""
    stopped: list[bool] = []

    def stop() -> None:
        stopped.append(True)
        process.kill()

    timer = Timer(seconds, stop)
    timer.start()
    try:
        assert process.stdout is not None
        head = process.stdout.read(9)
        content = process.stdout.read(int.from_bytes(head[1:], "big")) if len(head) == 9 else b""
    finally:
        timer.cancel()
    return (head[:1] if len(head) == 9 else b"", content) if not stopped else (_STOPPED, b"")


def main() -> None:
    """Answer queries about the source named as argument, one per line, until the standard input ends."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not look like an answer
    if hasattr(os, "nice"):
        os.nice(10)
    try:
        dataset = open_dataset(sys.argv[1], Limits(QUERY_MB, threads=1, spill=False))
    except UserError as error:
        _send(answers, _WRONG, str(error).encode())
        return
    _answer_to(dataset, "SHOW TABLES", 1, {})  # loads what every query needs: libraries, threads
    _limit_memory()
    _send(answers, _READY, b"")
    requests: SimpleQueue[str] = SimpleQueue()
    Thread(target=_read, args=[requests], daemon=True).start()
    while True:
        _send(answers, *_answer_to(dataset, **json.loads(requests.get())))


def _read(requests: SimpleQueue[str]) -> None:
    """Queue the requests; when no more can come, nobody waits for the running query."""
    for line in sys.stdin:
        requests.put(line)
    os._exit(0)


def _answer_to(dataset: Dataset, text: str, rows: int, params: dict[str, ParameterValue]) -> tuple[bytes, bytes]:
    import duckdb
    import pyarrow as pa

    try:
        found = result_table(dataset.query(text, **params).limit(rows))
        if found.nbytes > 1e6 * _ANSWER_MB:
            raise UserError(f"The result has {found.nbytes / 1e6:,.0f} MB. Select fewer columns or rows.")
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, found.schema) as stream:
            stream.write_table(found)
        return _TABLE, sink.getvalue().to_pybytes()
    except (duckdb.OutOfMemoryException, MemoryError, pa.ArrowMemoryError):
        return _FULL, b""
    except UserError as error:
        return _WRONG, str(error).encode(errors="replace")
    except QUERY_ERRORS as error:
        return _WRONG, f"{first_line(error)} (in: {' '.join(text.split())[:200]})".encode(errors="replace")


def _send(answers: IO[bytes], kind: bytes, content: bytes) -> None:
    answers.write(kind + len(content).to_bytes(8, "big") + content)
    answers.flush()


def _limit_memory() -> None:
    """Limit the process to _MOST_MB more memory than it holds now; Linux only."""
    status = Path("/proc/self/status")
    if not status.is_file():
        return
    import resource

    facts = dict(line.split(":", 1) for line in status.read_text().splitlines())
    most = 1024 * int(facts["VmData"].split()[0]) + int(1e6 * _MOST_MB)
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))


if __name__ == "__main__":
    main()
