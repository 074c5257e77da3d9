"""Feed readers of outside data with damaged inputs: `python -m tests.fuzz all`, or the names of parts.

Each part runs for FUZZ_SECONDS (600 by default), in a process with limited memory (`worker.py`). A fault is an
exception other than UserError, the end of the process, more memory than the limit, or an input that takes longer than
a minute. The small inputs stay in the folder that is printed: move those that matter to tests/cases/files.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.fuzz.readers import READERS

ROOT = Path(__file__).parents[2]
HANG_S = 60.0
_START_S = 300.0


def fuzz(part: str, seconds: float, folder: Path) -> list[str]:
    """Run a part and return its faults, a line each."""
    ended: list[str] = []
    end, seed = time.monotonic() + seconds, int(os.environ.get("FUZZ_SEED", "0"))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": "1"}
    while (left := end - time.monotonic()) > 0 and len(ended) < 20:
        command = [sys.executable, "-m", "tests.fuzz.worker", part, str(seed), f"{left:.0f}", str(folder)]
        with (folder / "log").open("ab") as log:
            process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
        hangs = _wait(process, folder / "runs")
        if process.returncode == 0:
            break
        seed += 1000
        how = f"takes more than {HANG_S:g} s" if hangs else _ending(process.returncode)
        ended.append(f"{part}: {how}: {_keep(folder, len(ended))}")
    traces = (path.with_suffix(".place").read_text() for path in sorted(folder.glob("fault_*.input")))
    return [*ended, *(f"{part}: {place}" for place in traces)]


def _wait(process: subprocess.Popen[bytes], runs: Path) -> bool:
    """Wait for a worker, and kill one that makes no progress."""
    started = time.time()
    runs.unlink(missing_ok=True)
    while process.poll() is None:
        time.sleep(0.5)
        since, most = (runs.stat().st_mtime, HANG_S) if runs.exists() else (started, _START_S)
        if time.time() - since > most:
            process.kill()
            process.wait()
            return True
    return False


def _ending(code: int) -> str:
    return f"ends with {signal.Signals(-code).name}" if code < 0 else f"ends with exit code {code} (see the log)"


def _keep(folder: Path, number: int) -> Path:
    """Keep the input that ended a worker."""
    kept = folder / f"ended_{number}.input"
    last = folder / "last"
    if last.is_file() and (found := folder / "current" / last.read_text()).is_file():
        kept.write_bytes(found.read_bytes())
    return kept


def main() -> None:
    """Run the parts that are named; exit with 1 if any has a fault."""
    parts = sys.argv[1:] or ["all"]
    parts = list(READERS) if parts == ["all"] else parts
    if unknown := [part for part in parts if part not in READERS]:
        sys.exit(f"There is no part {unknown[0]}: all, {', '.join(READERS)}.")
    seconds = float(os.environ.get("FUZZ_SECONDS", "600"))
    faults = []
    for part in parts:
        folder = Path(tempfile.mkdtemp(prefix=f"fuzz_{part}_"))
        found = fuzz(part, seconds, folder)
        runs = (folder / "runs").read_text() if (folder / "runs").is_file() else "no"
        report = "\n  ".join([f"{part}: {runs} inputs, {len(found)} faults ({folder})", *found])
        sys.stdout.write(f"{report}\n")
        sys.stdout.flush()
        faults += found
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
