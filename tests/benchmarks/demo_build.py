"""The build of the demo from nothing by two checkouts, side by side, alone and beside a process that never waits.

    python -m tests.benchmarks.demo_build BEFORE [AFTER] [--rounds 3] [--only steps]

BEFORE and AFTER (this checkout by default) are folders of checkouts, and both run with this Python. There are two
figures, of

- the same *steps*: both checkouts build the definitions of BEFORE, and of their assets those that both have and that
  need no asset which BEFORE lacks. (Such a need is found by the plan of AFTER for each asset. AFTER may have cut a step
  into several.) Their neighbors must be the same, else the script exits with 1;
- the *whole* demo: each checkout builds its own definitions, with all that they had or have by now.

The builds take turns, each in a new home in a temporary folder, and the median counts: ratios of one run of this script
can be compared, times of different runs cannot. The load of the machine is printed with every build.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from statistics import median
from typing import NamedTuple

from latentlens_dag.storage.hashing import hash_file

_BUILD = "from latentlens_dag.cli.main import main; main()"
_STEP = re.compile(r"^\s*\d+/\d+\s+(\S+?)(?:\[\w+\])?\s+([\d.]+) s\b", re.MULTILINE)
_STEPS_SHOWN = 12
_EXTENTS = ("steps", "whole")
_PARTS_OF_OTHERS = {"images/demo_scenes/names", "study/demo/patch_truth", "study/demo/chance_patches"}
"""Assets that do what other steps did before they existed."""


class Build(NamedTuple):
    """What one build took, in seconds, and gave."""

    wall_s: float
    cpu_s: float
    steps: dict[str, float]
    """By step, over its partitions, as the build reports them."""
    neighbors: dict[str, str]
    """Hashes of the files."""


class Case(NamedTuple):
    """What is built, by whom, beside what."""

    extent: str
    which: str
    beside: str


def main() -> None:
    """Build in turn; print a line per build, then ratios and steps."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path, nargs="?", default=Path(__file__).parents[2])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=_EXTENTS, help="one of the two figures")
    given = parser.parse_args()
    checkouts = {"before": given.before.resolve(), "after": given.after.resolve()}
    names = [] if given.only == "whole" else _shared_assets(checkouts["before"], checkouts["after"])
    builds: dict[Case, list[Build]] = defaultdict(list)
    for _ in range(given.rounds):
        for extent in [given.only] if given.only else _EXTENTS:
            for beside in ("alone", "busy"):
                for which, checkout in checkouts.items():
                    declared = checkouts["before"] if extent == "steps" else checkout
                    case = Case(extent, which, beside)
                    builds[case].append(_built(checkout, declared, names if extent == "steps" else [], case))
    for extent in dict.fromkeys(case.extent for case in builds):
        _report({case: found for case, found in builds.items() if case.extent == extent}, extent)
    same = [build.neighbors for case, found in builds.items() if case.extent == "steps" for build in found]
    if any(neighbors != same[0] for neighbors in same):
        sys.exit("The two checkouts gave different neighbors.")


def _shared_assets(before: Path, after: Path) -> list[str]:
    """The assets of the definitions of `before` that both checkouts have, without those that need a new one."""
    known, now = _planned(before, before), _planned(after, before)
    new = now - known - _PARTS_OF_OTHERS
    steps = {name.rsplit("/", 1)[0] if name.count("/") > 2 else name for name in known & now}
    shared = sorted(step for step in steps if not _planned(after, before, [step]) & new)
    sys.stdout.write(f"Left out, as they need {', '.join(sorted(new))}: {', '.join(sorted(steps - {*shared}))}\n")
    return shared


def _planned(checkout: Path, declared: Path, names: Iterable[str] = ()) -> set[str]:
    """The assets that a build of the demo from nothing makes."""
    with tempfile.TemporaryDirectory() as home:
        done = _run(checkout, declared, home, "plan", "demo", "--json", *_selected(names))
    return {part["asset"] for part in json.loads(done.stdout)["parts"]}


def _selected(names: Iterable[str]) -> list[str]:
    return [word for name in names for word in ("--select", name)]


def _run(checkout: Path, declared: Path, home: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command line of a checkout on the definitions of a checkout, in a project without code of its own."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "LATENTLENS_"))}
    environment |= {"PYTHONPATH": str(checkout), "LATENTLENS_HOME": home}
    with tempfile.TemporaryDirectory() as project:
        for name in ("assets", "workspace.yaml"):
            (Path(project) / name).symlink_to(declared / name)
        command = [sys.executable, "-c", _BUILD, *arguments]
        done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"`{' '.join(arguments)}` of {checkout} failed:\n{done.stdout}{done.stderr}")
    return done


def _built(checkout: Path, declared: Path, names: Iterable[str], case: Case) -> Build:
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as home, _busy_process() if case.beside == "busy" else nullcontext():
        before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        done = _run(checkout, declared, home, "build", "demo", *_selected(names))
        wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
        steps: dict[str, float] = defaultdict(float)
        for step, seconds in _STEP.findall(done.stdout + done.stderr):
            steps[step] += float(seconds)
        study = Path(home) / "warehouse" / "study" / "demo"
        neighbors = {str(file.relative_to(study)): hash_file(file) for file in study.glob("*lens/*/*.parquet")}
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    sys.stdout.write(
        f"{case.extent:6} {case.which:7} {case.beside:6} {wall:7.1f} s wall {cpu:7.1f} s CPU   load before {load:.1f}\n"
    )
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


def _report(builds: dict[Case, list[Build]], extent: str) -> None:
    wall = {case: median(build.wall_s for build in found) for case, found in builds.items()}
    cpu = {case: median(build.cpu_s for build in found) for case, found in builds.items()}
    for beside in ("alone", "busy"):
        before, after = (Case(extent, which, beside) for which in ("before", "after"))
        sys.stdout.write(
            f"{extent:6} {beside:6} before / after: {wall[before] / wall[after]:.2f} wall, "
            f"{cpu[before] / cpu[after]:.2f} CPU\n"
        )
    for which in ("before", "after"):
        ratio = wall[Case(extent, which, "busy")] / wall[Case(extent, which, "alone")]
        sys.stdout.write(f"{extent:6} {which:6} busy / alone: {ratio:.2f} wall\n")
    names = {step for found in builds.values() for build in found for step in build.steps}
    steps = {
        case: {step: median(build.steps.get(step, 0.0) for build in found) for step in names}
        for case, found in builds.items()
    }
    slowest = sorted(names, key=lambda step: -steps[Case(extent, "before", "alone")][step])[:_STEPS_SHOWN]
    sys.stdout.write(f"{'step, seconds':44} before  after   (busy) before  after\n")
    for step in slowest:
        cases = [Case(extent, which, beside) for beside in ("alone", "busy") for which in ("before", "after")]
        columns = [f"{steps[case][step]:6.1f}" for case in cases]
        sys.stdout.write(f"{step:44} {columns[0]} {columns[1]}          {columns[2]} {columns[3]}\n")


if __name__ == "__main__":
    main()
