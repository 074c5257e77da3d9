"""What commands take where nothing is to do, in seconds of the processor, beside `import dagster` alone.

`python -m tests.benchmarks.nothing_to_do [STUDY] [--runs 3]`, in a project that is built: `build STUDY`, `plan STUDY`,
`status STUDY` and, with a mistake in a defs.yaml, `plan`. `--large FOLDER` adds the plan of 10 studies of 96 batches
and shards (40,591 partitions), which are written to the folder once, as if they were built: four minutes. `--other
CHECKOUT` runs the code of another checkout in turn with this one, and prints how many times as long it takes.

Each run is a process of its own. Wall time says what the machine does besides; the processor's time hardly does.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parents[2]
_CLI = "from latentlens_dag.cli.main import main; main()"
_UP_TO_DATE = "Everything is up to date."


class Task(NamedTuple):
    """A command, and the end of what it says."""

    name: str
    folder: Path
    arguments: list[str]
    says: str = ""


def main() -> None:
    """Run the commands in turn, and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", nargs="?", default="demo")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--large", type=Path, metavar="FOLDER")
    parser.add_argument("--other", type=Path, metavar="CHECKOUT")
    chosen = parser.parse_args()
    codes = [HERE, *([chosen.other.resolve()] if chosen.other else [])]
    with _wrong_copy(Path.cwd()) as wrong:
        tasks = _tasks(chosen.study, wrong) + (_large(chosen.large) if chosen.large else [])
        sys.stdout.write(f"import dagster: {_median([_import_dagster() for _ in range(chosen.runs)]):.2f} s\n")
        for task in tasks:
            seconds = [[_cpu_s(task, code) for code in codes] for _ in range(chosen.runs)]
            this, *other = map(_median, zip(*seconds, strict=True))
            text = "".join(f"   other {one:.2f} s, {one / this:.1f} times as long" for one in other)
            sys.stdout.write(f"{task.name}: {this:.2f} s{text}\n")
            sys.stdout.flush()


def _tasks(study: str, wrong: Path) -> list[Task]:
    here = Path.cwd()
    return [
        Task(f"build {study}", here, ["build", study], _UP_TO_DATE),
        Task(f"plan {study}", here, ["plan", study], _UP_TO_DATE),
        Task(f"status {study}", here, ["status", study]),
        Task("a mistake in a defs.yaml", wrong, ["plan"], "unable to parse string as an integer."),
    ]


def _large(folder: Path) -> list[Task]:
    from latentlens_dag.dag.building.opening import open_project
    from latentlens_dag.storage.home import Home
    from tests.helpers.simulated_history import large_project, simulate_build

    if not folder.exists():
        large_project(folder, 10, 96)
        with contextlib.chdir(folder), open_project(Home(folder.resolve() / ".latentlens")) as project:
            sys.stdout.write(f"{simulate_build(project):,} partitions in {folder}\n")
    return [Task("plan of 10 studies of 96 batches", folder, ["plan", "--home", ".latentlens"], _UP_TO_DATE)]


@contextlib.contextmanager
def _wrong_copy(project: Path) -> Iterator[Path]:
    """A copy of the project's declarations, with a word in place of the number `top_k`."""
    with tempfile.TemporaryDirectory() as name:
        copy = Path(name) / "project"
        shutil.copytree(project / "assets", copy / "assets", symlinks=True)
        shutil.copy(project / "workspace.yaml", copy)
        for file in (copy / "assets").rglob("defs.yaml"):
            file.write_text(file.read_text(encoding="utf-8").replace("top_k: 5", "top_k: five"), encoding="utf-8")
        yield copy


def _import_dagster() -> float:
    return _processor_s([sys.executable, "-P", "-c", "import dagster"], Path.cwd(), HERE)[0]


def _cpu_s(task: Task, code: Path) -> float:
    seconds, said = _processor_s([sys.executable, "-P", "-c", _CLI, *task.arguments], task.folder, code)
    if not said.strip().endswith(task.says):
        sys.exit(f"{task.name} says {said.strip()[-200:]!r}, where {task.says!r} is expected. Build first.")
    return seconds


def _processor_s(command: list[str], folder: Path, code: Path) -> tuple[float, str]:
    """The processor's time of a process, user's and system's, and what it writes."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {**os.environ, "PYTHONPATH": str(code)}
    run = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime, run.stdout + run.stderr


def _median(seconds: Iterable[float]) -> float:
    return statistics.median(seconds)


if __name__ == "__main__":
    main()
