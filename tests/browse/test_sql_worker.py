"""SQL of people: what it may not do is told, and what takes too long or too much is ended without hurting others."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from threading import Thread

import pytest

from latentlens_dag.browse.browser_data import BrowserData, open_browser_data
from latentlens_dag.browse.sql_worker import SqlWorker
from latentlens_dag.errors import UserError
from tests.helpers.small_dataset import AWKWARD, image_id, write_warehouse

ENDLESS = "WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT 1 - n FROM r) SELECT count(*) FROM r"
LARGE = {
    "a value of one function": "SELECT len(repeat('x', 1500000000))",
    "a list of one function": "SELECT len(range(1000000000))",
    "a hash table": "SELECT count(DISTINCT hash(range)) FROM range(1000000000)",
    "a sort": "SELECT max(n) FROM (SELECT row_number() OVER (ORDER BY hash(range)) AS n FROM range(1000000000))",
    "a list of all rows": "SELECT len(list(range)) FROM range(1000000000)",
    "a recursion that grows": "WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r, range(2)) "
    "SELECT count(*) FROM r",
}


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrowserData]:
    root = tmp_path_factory.mktemp("home")
    write_warehouse(root / "warehouse")
    library = open_browser_data(root)
    yield library
    library.close()


@pytest.fixture(scope="module")
def confined() -> Iterator[SqlWorker]:
    confined = SqlWorker()
    yield confined
    confined.close()


def _peak(process: subprocess.Popen[bytes]) -> float:
    """The most that a process ever had in memory, in MB; 0 once it has ended."""
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return max((int(line.split()[1]) / 1e3 for line in lines if line.startswith("VmHWM")), default=0.0)


def _watch(process: subprocess.Popen[bytes], most: list[float]) -> None:
    """Note the most that a process ever had in memory, in MB, until it has ended."""
    while process.poll() is None:
        with suppress(OSError):  # it has ended just now
            most[0] = max(most[0], _peak(process))
        time.sleep(0.005)


def test_a_query_finds_what_it_finds_elsewhere(confined: SqlWorker, library: BrowserData) -> None:
    for text, params in (
        ("studies", {}),
        ("where_word", {"word": "dog", "layer": "8"}),
        ("FROM images ORDER BY image_id", {}),
        ("SELECT sum(rank) AS sum, list(DISTINCT word ORDER BY word) AS words, NULL AS nothing FROM neighbors", {}),
    ):
        assert confined.collect(library, text, 20, 1000, **params).equals(
            library.full_dataset.collect(text, **params)
        ), text
    assert confined.collect(library, "FROM range(1000)", 20, 7).height == 7
    assert confined.collect(library, "SELECT $n + 1 AS n", 20, 7, n=1)["n"].to_list() == [2]


def test_what_is_wrong_is_told_as_elsewhere(confined: SqlWorker, library: BrowserData) -> None:
    for text, told in {
        "CREATE TABLE x AS SELECT 1": "read-only",
        "FROM nothing": "does not exist",
        "SELECT 'a'::INTEGER": "Could not convert",
        "where_word": "needs word",
        "SELECT 1; SELECT 2": "one statement",
    }.items():
        with pytest.raises(UserError, match=told):
            confined.collect(library, text, 20, 10)


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="only Linux can limit a process's memory")
@pytest.mark.parametrize("kind", LARGE)
def test_a_query_that_needs_too_much_memory_is_stopped_and_the_next_one_runs(
    confined: SqlWorker, library: BrowserData, kind: str
) -> None:
    confined.collect(library, "SELECT 1", 20, 10)
    process = confined._process
    assert process is not None
    most = [_peak(process)]  # now, as a query may be stopped before the thread looks for the first time
    watch = Thread(target=_watch, args=[process, most])
    watch.start()
    with pytest.raises(UserError, match="more memory than the 250 MB"):
        confined.collect(library, LARGE[kind], 60, 10)
    watch.join()
    assert 0 < most[0] < 750
    assert confined.collect(library, "studies", 20, 10)["study"].to_list() == [AWKWARD, "one"]


def test_an_answer_too_large_to_show_is_told(confined: SqlWorker, library: BrowserData) -> None:
    with pytest.raises(UserError, match="Select fewer columns or rows"):
        confined.collect(library, "SELECT repeat('x', 600000) FROM range(100)", 20, 100)


def _running_away(confined: SqlWorker, library: BrowserData, seconds: float) -> tuple[Thread, list[str]]:
    """A query without an end that began a moment ago, and what will be said of it."""
    told: list[str] = []

    def run_away() -> None:
        with pytest.raises(UserError) as caught:
            confined.collect(library, ENDLESS, seconds, 10)
        told.append(str(caught.value))

    confined.collect(library, "SELECT 1", 20, 10)  # it is started
    thread = Thread(target=run_away)
    thread.start()
    time.sleep(0.3)
    return thread, told


def test_a_query_that_runs_too_long_is_stopped_and_whoever_waited_has_an_answer(
    confined: SqlWorker, library: BrowserData
) -> None:
    thread, told = _running_away(confined, library, 1)
    begun = time.monotonic()
    asked = {"image_id": image_id("dog"), "layer": 8, "study": "one"}
    assert library.full_dataset.collect("patches", **asked).height == 5  # a click of somebody else's
    assert time.monotonic() - begun < 0.7 and not told
    assert confined.collect(library, "SELECT 1 AS n", 20, 10)["n"].to_list() == [1]
    thread.join(timeout=20)
    assert "stopped after 1 s" in told[0]


def test_one_who_waits_too_long_for_another_query_is_told(confined: SqlWorker, library: BrowserData) -> None:
    thread, _ = _running_away(confined, library, 2)
    with pytest.raises(UserError, match=r"Another query has been running for 0.2 s"):
        confined.collect(library, "SELECT 1", 0.2, 10)
    thread.join(timeout=20)


def test_another_library_is_another_process_and_none_outlives_its_server(library: BrowserData, tmp_path: Path) -> None:
    write_warehouse(tmp_path / "warehouse")
    confined, other = SqlWorker(), open_browser_data(tmp_path)
    confined.collect(library, "SELECT 1", 20, 10)
    first = confined._process
    confined.collect(other, "SELECT 1", 20, 10)
    second = confined._process
    assert first is not None and second is not None and first.poll() is not None and second.poll() is None
    assert second.stdin is not None
    os.write(second.stdin.fileno(), b'{"text": "' + ENDLESS.encode() + b'", "rows": 1, "params": {}}\n')
    second.stdin.close()  # as when the server is killed, while a query runs
    assert second.wait(timeout=20) == 0
    confined.close()
