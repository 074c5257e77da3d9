"""What `latentlens-dag build` takes where nothing is to do, and how much of it is starting up.

`python -m tests.benchmarks.nothing_to_do [STUDY] [--runs 5]`, in a project that is built; each run is a process of its
own. Starting up is the interpreter, imports and the definitions, which every command pays; the rest is looking at
sources, files and Dagster's history. Wall time says what the machine does besides; the processor's time does not.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time

_TIMED = """
import sys, time
from latentlens_dag.dag import loading
real, marks = loading.load_definitions, []

def timed(*arguments, **named):
    found = real(*arguments, **named)
    marks.append((time.process_time(), time.time()))
    return found

loading.load_definitions = timed
from latentlens_dag.cli.main import cli
cli(["build", *sys.argv[2:]], standalone_mode=False)
[(processor, wall)] = marks
print(processor, wall - float(sys.argv[1]), time.process_time() - processor, time.time() - wall)
"""


def main() -> None:
    """Run it and print a line per run, in seconds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", nargs="*", default=["demo"])
    parser.add_argument("--runs", type=int, default=5)
    asked = parser.parse_args()
    sys.stdout.write("start-up: processor  wall    the rest: processor  wall\n")
    for _ in range(asked.runs):
        command = [sys.executable, "-c", _TIMED, str(time.time()), *asked.study]
        out = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
        if out[0] != "Everything is up to date.":
            sys.exit(f"There was something to do: {out[0]}. Build first.")
        sys.stdout.write("          {:9.2f} {:5.2f}             {:9.2f} {:5.2f}\n".format(*map(float, out[1].split())))


if __name__ == "__main__":
    main()
