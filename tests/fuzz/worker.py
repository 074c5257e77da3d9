"""The process that feeds a reader with changed inputs: `python -m tests.fuzz.worker PART SEED SECONDS FOLDER`.

Its memory is limited by the system. It writes each input before it is read, so that `tests.fuzz` has the one that ends
or stops it, and each fault, with the smallest input that hypothesis finds.
"""

from __future__ import annotations

import shutil
import sys
import time
import traceback
import warnings
from contextlib import suppress
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from latentlens_dag.errors import UserError
from latentlens_dag.storage.parquet_child import limit_memory
from tests.fuzz.mutations import EDITS, mutated
from tests.fuzz.readers import CHANGED, READERS

MEMORY_BYTES = 2 << 30
_EXAMPLES = 100


class _FaultError(Exception):
    """A reader ended with neither an answer nor a UserError."""

    def __init__(self, place: str, trace: str) -> None:
        super().__init__(place)
        self.place, self.trace = place, trace


def main(part: str, first_seed: int, seconds: float, folder: Path) -> None:
    """Feed one reader until the time is over."""
    warnings.simplefilter("ignore")
    reader, sound, current = READERS[part], folder / "sound", folder / "current"
    if not sound.exists():
        sound.mkdir(parents=True)
        reader.write(sound)
    files = sorted(path.relative_to(sound) for path in sound.glob(CHANGED.get(part, "**/*")) if path.is_file())
    reader.start()
    with suppress(UserError):
        _read(part, sound, sound / files[0], folder / "work")  # loads what reading needs
    limit_memory(MEMORY_BYTES)
    known: set[str] = {line for path in folder.glob("fault_*.place") for line in path.read_text().splitlines()}
    end, runs = time.monotonic() + seconds, [0]

    def try_one(name: Path, edits: tuple[str, list[object]]) -> None:
        if time.monotonic() > end:
            return
        runs[0] += 1
        shutil.rmtree(current, ignore_errors=True)
        shutil.copytree(sound, current)
        content = mutated((sound / name).read_bytes(), edits)
        (current / name).write_bytes(content)
        (folder / "last").write_text(str(name))
        (folder / "runs").write_text(str(runs[0]))
        fault = _fault(part, current, current / name, folder / "work")
        if fault is not None and fault.place not in known:
            (folder / "smallest").write_bytes(content)
            raise fault

    rounds = first_seed
    while time.monotonic() < end:
        rounds += 1
        phases = (Phase.generate, Phase.shrink)
        strategy = given(st.sampled_from(files), EDITS)(try_one)
        run = settings(
            max_examples=_EXAMPLES,
            deadline=None,
            database=None,
            report_multiple_bugs=False,
            phases=phases,
            suppress_health_check=list(HealthCheck),
        )(seed(rounds)(strategy))
        try:
            run()
        except _FaultError as fault:
            known.add(fault.place)
            number = len(known)
            shutil.copy(folder / "smallest", folder / f"fault_{number}.input")
            (folder / f"fault_{number}.place").write_text(fault.place)
            (folder / f"fault_{number}.trace").write_text(f"{(folder / 'last').read_text()}\n{fault.trace}")


def _read(part: str, folder: Path, file: Path, work: Path) -> None:
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    READERS[part].read(folder, file, work)


def _fault(part: str, folder: Path, file: Path, work: Path) -> _FaultError | None:
    try:
        _read(part, folder, file, work)
    except UserError:
        return None
    except BaseException as error:  # a panic of Rust is no Exception
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "latentlens_dag" in frame.filename]
        last = frames[-1] if frames else traceback.extract_tb(error.__traceback__)[-1]
        place = f"{type(error).__name__} at {Path(last.filename).name}:{last.lineno}"
        return _FaultError(place, traceback.format_exc())
    return None


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), Path(sys.argv[4]))
