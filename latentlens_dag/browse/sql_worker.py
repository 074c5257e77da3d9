"""SQL of people who did not write this program, in a process of its own: ended where it takes too long or too much.

The limits of DuckDB do not hold for a value that one function makes: under 400 MB and 5 s, `repeat('x', 1500000000)`
took 3 GB and half a minute, since no interrupt is heard before it is done. A process can be limited by the system, and
killed. It gives way to the pages, too: it has one thread, of low priority.

What a newcomer gets wrong: this keeps SQL from taking the machine; what it can read is decided in `sql/sandbox.py`.
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
from latentlens_dag.errors import UserError
from latentlens_dag.sql.sandbox import Limits, first_line

if TYPE_CHECKING:
    import polars as pl

    from latentlens_dag.browse.browser_data import BrowserData

QUERY_MB = 250
"""What DuckDB may hold for a query, of 10^6 bytes; nothing is spilled to disk."""
_MOST_MB = 500  # that the process may take for a query, with what DuckDB does not count
_ANSWER_MB = 50
_STARTING_S = 60.0
_NARROW = "Narrow it down: one image, one layer, one lens, or a condition on a join."
_READY, _TABLE, _WRONG, _FULL = b"R", b"T", b"W", b"F"


class SqlWorker:
    """Runs queries one at a time in a process that is started when it is needed, and anew after it was ended."""

    def __init__(self) -> None:
        """Nothing is started yet."""
        self._turn = Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._library: BrowserData | None = None

    def collect(
        self, library: BrowserData, text: str, seconds: float, rows: int, /, **params: ParameterValue
    ) -> pl.DataFrame:
        """What a query finds.

        Args:
            library: what it is asked of, as `Dataset.collect` of the whole would be.
            text: a named query or SQL.
            seconds: after how long it is stopped; so long it waits for another one, too.
            rows: the most rows to give; one more is read than is shown by who wants to say that there are more.
            params: what is bound.

        Raises:
            UserError: as `Dataset.collect`, and where it was stopped, or another one runs.
        """
        if not self._turn.acquire(timeout=seconds):
            raise UserError(f"Another query has been running for {seconds:g} s. Run yours again when it is done.")
        try:
            return self._answer(self._started(library), {"text": text, "rows": rows, "params": params}, seconds)
        finally:
            self._turn.release()

    def _started(self, library: BrowserData) -> subprocess.Popen[bytes]:
        """The process; another one where it was ended, or had opened another library."""
        if self._process is not None and self._process.poll() is None and self._library is library:
            return self._process
        self.close()
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, library.place],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is the server's; this one ends when its standard input does
        )
        self._library = library
        kind, said = _received(self._process, _STARTING_S)
        if kind != _READY:
            raise UserError(said.decode() or "The process for queries could not be started; run it again.")
        return self._process

    def _answer(self, process: subprocess.Popen[bytes], asked: dict[str, object], seconds: float) -> pl.DataFrame:
        import polars as pl

        assert process.stdin is not None
        with suppress(OSError):  # it has ended, which is told below
            process.stdin.write(json.dumps(asked).encode() + b"\n")
            process.stdin.flush()
        kind, said = _received(process, seconds)
        if kind == _WRONG:
            raise UserError(said.decode())
        if kind == _TABLE:
            return pl.read_ipc_stream(said)
        self.close()  # also where memory was not enough: what it has taken is never given back, and the next lacks it
        stopped = f"The query was stopped after {seconds:g} s. {_NARROW}"
        raise UserError({_STOPPED: stopped, _FULL: _TOO_MUCH}.get(kind, _ENDED))

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                assert pipe is not None
                with suppress(OSError):  # what is left in it can no longer be sent
                    pipe.close()
        self._process = self._library = None


_TOO_MUCH = f"The query was stopped: it takes more memory than the {QUERY_MB} MB that a query may take. {_NARROW}"
_ENDED = f"The process of the query ended without an answer, most likely for want of memory. {_NARROW}"
_STOPPED = b"S"


def _received(process: subprocess.Popen[bytes], seconds: float) -> tuple[bytes, bytes]:
    """A message of the process: its kind and content. _STOPPED where none came in time, no kind where it ended."""
    stopped: list[bool] = []

    def stop() -> None:
        stopped.append(True)
        process.kill()

    timer = Timer(seconds, stop)
    timer.start()
    try:
        assert process.stdout is not None
        head = process.stdout.read(9)
        said = process.stdout.read(int.from_bytes(head[1:], "big")) if len(head) == 9 else b""
    finally:
        timer.cancel()
    return (head[:1] if len(head) == 9 else b"", said) if not stopped else (_STOPPED, b"")


def main() -> None:
    """Answer queries about the source that is named, one a line, until the standard input ends."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints must not be taken for an answer
    if hasattr(os, "nice"):
        os.nice(10)
    try:
        dataset = open_dataset(sys.argv[1], Limits(QUERY_MB, threads=1, spill=False))
    except UserError as error:
        _send(answers, _WRONG, str(error).encode())
        return
    _answered(dataset, "SHOW TABLES", 1, {})  # takes what every query takes: libraries, threads
    _limit_memory()
    _send(answers, _READY, b"")
    asked: SimpleQueue[str] = SimpleQueue()
    Thread(target=_read, args=[asked], daemon=True).start()
    while True:
        _send(answers, *_answered(dataset, **json.loads(asked.get())))


def _read(asked: SimpleQueue[str]) -> None:
    """Take in what is asked; when nobody can ask any more, nobody waits for what runs."""
    for line in sys.stdin:
        asked.put(line)
    os._exit(0)


def _answered(dataset: Dataset, text: str, rows: int, params: dict[str, ParameterValue]) -> tuple[bytes, bytes]:
    import duckdb
    import pyarrow as pa

    try:
        found = dataset.query(text, **params).limit(rows).to_arrow_table()
        if found.nbytes > 1e6 * _ANSWER_MB:
            raise UserError(f"What it finds has {found.nbytes / 1e6:,.0f} MB. Select fewer columns or rows.")
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, found.schema) as stream:
            stream.write_table(found)
        return _TABLE, sink.getvalue().to_pybytes()
    except (duckdb.OutOfMemoryException, MemoryError, pa.ArrowMemoryError):
        return _FULL, b""
    except UserError as error:
        return _WRONG, str(error).encode()
    except duckdb.Error as error:
        return _WRONG, f"{first_line(error)} (in: {' '.join(text.split())[:200]})".encode()


def _send(answers: IO[bytes], kind: bytes, said: bytes) -> None:
    answers.write(kind + len(said).to_bytes(8, "big") + said)
    answers.flush()


def _limit_memory() -> None:
    """Let the system refuse what is more than _MOST_MB above what the process holds now; Linux only."""
    status = Path("/proc/self/status")
    if not status.is_file():
        return
    import resource

    facts = dict(line.split(":", 1) for line in status.read_text().splitlines())
    most = 1024 * int(facts["VmData"].split()[0]) + int(1e6 * _MOST_MB)
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))


if __name__ == "__main__":
    main()
