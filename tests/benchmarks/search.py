"""Search: ours from the layer table on disk, against the reference library and faiss from memory, and the limit.

    python -m tests.benchmarks.search FOLDER [--threads 1] [--cases real synthetic]

Every engine runs in a process of its own, on as many cores as threads, in turn, three rounds; the best time counts.
Their cosines must agree within 1e-5. *Share of the limit* is the product's own time, measured beside it in the same
arithmetic and blocks, divided by ours. *Memory* is the peak above what the process held once it had searched two blocks
(with ours; libraries and their threads are there then) or loaded the vectors (with the others).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

_K, _ROUNDS = 5, 3


class Case(NamedTuple):
    """A table, its queries and what they are called."""

    name: str
    table: Path
    queries: Path


def main() -> None:
    """Make the tables, run the engines in turn, print one line per case and engine, and write results.json."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--cases", nargs="*", default=["real", "many", "loud", "synthetic"])
    parser.add_argument("--engines", nargs="*", default=["ours", "reference", "faiss", "limit"])
    given = parser.parse_args()
    results = {}
    for case in _cases(given.folder, given.cases):
        best: dict[str, dict[str, Any]] = {}
        for _ in range(_ROUNDS):
            for engine in given.engines:
                found = _run(engine, case, given.threads)
                if engine not in best or found["seconds"] < best[engine]["seconds"]:
                    best[engine] = found
        _check_agreement(case, [engine for engine in given.engines if engine != "limit"])
        results[case.name] = best
        _tell(case.name, best)
    (given.folder / "search.json").write_text(json.dumps(results, indent=1))


def _cases(folder: Path, wanted: list[str]) -> list[Case]:
    from tests.benchmarks.states import loud_table, noisy, real_table, synthetic_table

    def case(name: str, made: Callable[[], tuple[Path, np.ndarray]]) -> Case:
        table, queries = made()
        path = folder / f"{name}_queries.npy"
        np.save(path, queries.astype(np.float32))
        return Case(name, table, path)

    def from_real(count: int, loud: float = 1.0) -> tuple[Path, np.ndarray]:
        table, held_out = real_table(folder) if loud == 1 else loud_table(folder, loud)
        return table, noisy(held_out, count)

    makers = {
        "real": lambda: from_real(576),
        "many": lambda: from_real(5760),
        "loud": lambda: from_real(576, 40.0),
        "synthetic": lambda: synthetic_table(folder, 100_000, 4096),
    }
    return [case(name, makers[name]) for name in wanted]


def _run(engine: str, case: Case, threads: int) -> dict[str, Any]:
    settings = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "LANCE_CPU_THREADS")}
    command = [sys.executable, "-m", "tests.benchmarks.search_engines", engine, case.table, case.queries, str(_K)]
    cores = sorted(os.sched_getaffinity(0))[:threads]
    found = subprocess.run(
        [str(part) for part in command],
        env={**os.environ, **settings},
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
        capture_output=True,
        text=True,
        check=False,
    )
    if found.returncode:
        raise SystemExit(f"{engine} failed on {case.name}:\n{found.stderr}")
    return dict(json.loads(found.stdout.splitlines()[-1]))


def _check_agreement(case: Case, engines: list[str]) -> None:
    cosines = {engine: np.load(case.queries.with_suffix(f".{engine}.npy")) for engine in engines}
    for engine in engines:
        apart = float(np.abs(cosines[engine] - cosines["ours"]).max())
        if apart > 1e-5:
            raise SystemExit(f"{case.name}: the cosines of ours and {engine} differ by {apart}.")


def _tell(case: str, best: dict[str, dict[str, Any]]) -> None:
    ours = best["ours"]["seconds"]
    for engine, facts in best.items():
        ratio = facts["seconds"] / ours
        sys.stdout.write(
            f"{case:10} {engine:10} {facts['seconds']:8.3f} s  {ratio:5.2f} of ours  {facts['memory_mb']:7.0f} MB  "
            f"{facts.get('note', '')}\n"
        )
    sys.stdout.flush()


def measured(work: Callable[[], Any], repeats: int = 2) -> tuple[float, float, Any]:
    """The best time of some runs in seconds, the peak memory above now in MB, and what the last run gave."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak is what is resident now
    before = _status_mb("VmRSS")
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        found = work()
        best = min(best, time.perf_counter() - start)
    return best, _status_mb("VmHWM") - before, found


def _status_mb(name: str) -> float:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return float(next(line.split()[1] for line in status.splitlines() if line.startswith(name))) / 1024


if __name__ == "__main__":
    main()
