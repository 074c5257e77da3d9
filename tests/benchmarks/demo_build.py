"""The build of the demo from nothing by two checkouts, side by side, alone and beside a process that never waits.

    python -m tests.benchmarks.demo_build BEFORE [AFTER] [--rounds 3]

BEFORE and AFTER (this checkout by default) are folders of checkouts, and both run with this Python. They take turns,
each in a new home in a temporary folder, and the median counts: ratios of one run of this script can be compared, times
of different runs cannot. The load of the machine is printed with every build. Exits with 1 where the two give different
neighbors.
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from statistics import median
from typing import NamedTuple

from latentlens_dag.storage.hashing import hash_file

_BUILD = "from latentlens_dag.cli.main import main; main()"
_STEP = re.compile(r"^\s*\d+/\d+\s+(\S+?)(?:\[\w+\])?\s+([\d.]+) s\b", re.MULTILINE)
_STEPS_SHOWN = 12


class Build(NamedTuple):
    """What one build took, in seconds, and gave."""

    wall_s: float
    cpu_s: float
    steps: dict[str, float]
    """By step, over its partitions, as the build reports them."""
    neighbors: dict[str, str]
    """Hashes of the files."""


def main() -> None:
    """Build in turn; print a line per build, then ratios and steps."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path, nargs="?", default=Path(__file__).parents[2])
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    builds: dict[tuple[str, str], list[Build]] = defaultdict(list)
    for _ in range(given.rounds):
        for beside in ("alone", "busy"):
            for which in ("before", "after"):
                builds[which, beside].append(_built(getattr(given, which).resolve(), which, beside))
    _report(builds)
    if len({tuple(sorted(build.neighbors.items())) for found in builds.values() for build in found}) > 1:
        sys.exit("The two checkouts gave different neighbors.")


def _built(checkout: Path, which: str, beside: str) -> Build:
    load = os.getloadavg()[0]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "LATENTLENS_"))}
    with tempfile.TemporaryDirectory() as home, _busy_process() if beside == "busy" else nullcontext():
        environment |= {"PYTHONPATH": str(checkout), "LATENTLENS_HOME": home}
        before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        command = [sys.executable, "-c", _BUILD, "build", "demo"]
        done = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True, check=False)
        wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
        if done.returncode:
            raise SystemExit(f"The build of {checkout} failed:\n{done.stdout}{done.stderr}")
        steps: dict[str, float] = defaultdict(float)
        for step, seconds in _STEP.findall(done.stdout + done.stderr):
            steps[step] += float(seconds)
        study = Path(home) / "warehouse" / "study" / "demo"
        neighbors = {str(file.relative_to(study)): hash_file(file) for file in study.glob("*lens/*/*.parquet")}
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    sys.stdout.write(f"{which:7} {beside:6} {wall:7.1f} s wall {cpu:7.1f} s CPU   load before {load:.1f}\n")
    sys.stdout.flush()
    return Build(wall, cpu, steps, neighbors)


@contextmanager
def _busy_process() -> Iterator[None]:
    """A process that takes one processor until the end."""
    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        busy.kill()
        busy.wait()


def _report(builds: dict[tuple[str, str], list[Build]]) -> None:
    wall = {case: median(build.wall_s for build in found) for case, found in builds.items()}
    cpu = {case: median(build.cpu_s for build in found) for case, found in builds.items()}
    for beside in ("alone", "busy"):
        sys.stdout.write(
            f"{beside:6} before / after: {wall['before', beside] / wall['after', beside]:.2f} wall, "
            f"{cpu['before', beside] / cpu['after', beside]:.2f} CPU\n"
        )
    for which in ("before", "after"):
        sys.stdout.write(f"{which:6} busy / alone: {wall[which, 'busy'] / wall[which, 'alone']:.2f} wall\n")
    names = {step for found in builds.values() for build in found for step in build.steps}
    steps = {
        case: {step: median(build.steps.get(step, 0.0) for build in found) for step in names}
        for case, found in builds.items()
    }
    slowest = sorted(names, key=lambda step: -steps["before", "alone"][step])[:_STEPS_SHOWN]
    sys.stdout.write(f"{'step, seconds':44} before  after   (busy) before  after\n")
    for step in slowest:
        of_cases = [steps[which, beside][step] for beside in ("alone", "busy") for which in ("before", "after")]
        columns = [f"{seconds:6.1f}" for seconds in of_cases]
        sys.stdout.write(f"{step:44} {columns[0]} {columns[1]}          {columns[2]} {columns[3]}\n")


if __name__ == "__main__":
    main()
