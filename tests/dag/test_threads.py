import os
import subprocess
import sys
from pathlib import Path

import pytest

from latentlens_dag.device import configure_threads

PROCESSORS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@pytest.fixture(autouse=True)
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OMP_WAIT_POLICY", "OMP_NUM_THREADS"):
        monkeypatch.setenv(name, "")  # so that it is restored afterwards
        monkeypatch.delenv(name)


@pytest.mark.parametrize(
    ("cpu_max", "threads"),
    [("50000 100000", "1"), ("max 100000", None), (f"{PROCESSORS}00000 100000", None), ("", None)],
)
def test_threads_are_no_more_than_the_share_of_a_container(tmp_path: Path, cpu_max: str, threads: str | None) -> None:
    if PROCESSORS == 1:
        pytest.skip("one processor is no more than any share")
    (tmp_path / "cpu.max").write_text(cpu_max)
    configure_threads(tmp_path)
    assert os.environ.get("OMP_NUM_THREADS") == threads
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"


@pytest.mark.parametrize("quota", [1, 2, 3, 8])
@pytest.mark.parametrize("allowed", [1, 2, 8])
def test_a_share_is_compared_with_the_processors_that_the_process_may_run_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quota: int, allowed: int
) -> None:
    """As of 64 processors of a computer, two of them for this job: without the variable, OpenMP takes those two."""
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {*range(allowed)}, raising=False)
    (tmp_path / "cpu.max").write_text(f"{quota}00000 100000")
    configure_threads(tmp_path)
    assert int(os.environ.get("OMP_NUM_THREADS", allowed)) == min(quota, allowed)


def test_what_the_user_set_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cpu.max").write_text("50000 100000")
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    configure_threads(tmp_path)
    assert (os.environ["OMP_NUM_THREADS"], os.environ["OMP_WAIT_POLICY"]) == ("7", "ACTIVE")


_DEFINITIONS = """
import os, sys
from latentlens_dag.definitions import defs
defs()
print(os.environ["OMP_WAIT_POLICY"], "torch" in sys.modules)
"""


def test_waiting_threads_sleep_in_runs_from_dagster_too() -> None:
    """In a process of its own, as those of `dagster dev`: the setting must come before the import of torch."""
    found = subprocess.run([sys.executable, "-c", _DEFINITIONS], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["PASSIVE", "False"]
