"""Try every family of transformers, and write docs/families.md: `python -m tests.families`.

With names of families, only those are tried again; with `--table` none is, and the table is written from what is
stored. Each trial is a process with a limit of time and of memory, so that a crash is a result like any other.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from typing import Any

from tests.families.table import DOCUMENT, ROOT, TRIALS, classes, read_trials, render

SECONDS, GIBIBYTES = 300, 16


def run_trial(model_type: str) -> dict[str, Any]:
    """Try a family in a process of its own; if that ends early, the trial says so."""
    command = [sys.executable, "-m", "tests.families.trial", model_type]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": "1"}
    try:
        run = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=SECONDS, preexec_fn=_limit_memory
        )
    except subprocess.TimeoutExpired:
        return _ended_early(f"took more than {SECONDS} seconds")
    if run.returncode != 0:
        return _ended_early(f"ended with code {run.returncode}: {run.stderr.strip()[-200:]}")
    return {name: value for name, value in json.loads(run.stdout.splitlines()[-1]).items() if value}


def _limit_memory() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (GIBIBYTES << 30, GIBIBYTES << 30))


def _ended_early(detail: str) -> dict[str, Any]:
    reason = f"its trial takes more than {SECONDS} s or {GIBIBYTES} GiB"
    return {"outcome": "not tried", "reason": reason, "detail": detail}


def main() -> None:
    """Try the families that are named, all by default, and write the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.families", description=__doc__)
    parser.add_argument("family", nargs="*", help="a model_type; by default all")
    parser.add_argument("--table", action="store_true", help="try none, only write the table")
    parser.add_argument("--jobs", type=int, default=1, help="trials at a time")
    options = parser.parse_args()
    stored = read_trials()["families"] if TRIALS.is_file() else {}
    wanted = [] if options.table else options.family or list(classes())
    with ThreadPoolExecutor(options.jobs) as pool:
        for model_type, trial in zip(wanted, pool.map(run_trial, wanted), strict=True):
            stored[model_type] = trial
            sys.stderr.write(f"{model_type}: {trial}\n")
    trials = {name: stored[name] for name in classes() if name in stored}
    content = {"transformers": version("transformers"), "families": trials}
    TRIALS.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    DOCUMENT.write_text(render(content), encoding="utf-8")


if __name__ == "__main__":
    main()
