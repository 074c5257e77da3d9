"""Ctrl-C at any moment: one line and exit code 130, in processes of their own and by real signals."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from latentlens_dag.cli import main as command_line
from latentlens_dag.errors import RESUME_HINT, UserError
from tests.helpers.command_line import run_command

CORPUS = """\
type: latentlens_dag.dag.components.Corpus
attributes: {name: text, source: {lines: lines.txt}, shards: 3}
"""
START = "import latentlens_dag.cli.start as start; print(flush=True); start.main()"
MOMENTS = 4


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "assets" / "one"
    folder.mkdir(parents=True)
    (tmp_path / "workspace.yaml").write_text("load_from: []\n")
    (folder / "defs.yaml").write_text(CORPUS)
    (folder / "lines.txt").write_text("".join(f"Sentence {number}.\n" for number in range(50)))
    return tmp_path


def _process(project: Path, *arguments: str) -> "subprocess.Popen[str]":
    """The command, once its first module is imported."""
    process = subprocess.Popen(
        [sys.executable, "-c", START, *arguments],
        cwd=project,
        env={**os.environ, "PYTHONPATH": str(Path.cwd())},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stdout.readline() == "\n"
    return process


def _interrupted(project: Path, delay_s: float, end: int, *arguments: str) -> bool:
    """Interrupt a command whose exit code otherwise is `end`; say whether it had not ended before."""
    process = _process(project, *arguments)
    time.sleep(delay_s)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=240)
    assert process.returncode in (end, 130), (delay_s, err)
    assert "Traceback" not in err and err.count(RESUME_HINT) <= 1, (delay_s, err)
    if process.returncode == 130:
        assert re.fullmatch(rf"Interrupted( in \S+, after \d+ of \d+ parts)?\.( {RESUME_HINT})?", err.splitlines()[-1])
    return process.returncode == 130


def _sweep(project: Path, moments: int, *arguments: str) -> None:
    start = time.monotonic()
    whole_process = _process(project, *arguments, "--home", str(project / "other"))
    whole_process.communicate(timeout=240)
    whole = time.monotonic() - start
    delays = [0.02 + whole * number / moments for number in range(moments)]
    found = [_interrupted(project, delay, whole_process.returncode, *arguments) for delay in delays]
    assert any(found)


def test_a_signal_at_any_moment_of_a_build_is_an_interruption(project: Path) -> None:
    _sweep(project, MOMENTS, "build")
    assert run_command(project, "build").returncode == 0


@pytest.mark.soak
@pytest.mark.parametrize("arguments", [("build",), ("plan",), ("query", "SELECT 1"), ("--help",)], ids=" ".join)
def test_a_signal_at_sixty_moments_of_a_command_is_an_interruption(project: Path, arguments: tuple[str, ...]) -> None:
    _sweep(project, 60, *arguments)


@pytest.mark.parametrize("error", [RuntimeError("half imported"), UserError("no file"), BaseException("of Dagster")])
def test_whatever_a_library_makes_of_a_signal_is_an_interruption(
    project: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def fails(*_: object, **__: object) -> None:
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)
        except KeyboardInterrupt:
            raise error from None

    monkeypatch.setattr(command_line.cli, "main", fails)
    answer = run_command(project, "plan")
    assert (answer.returncode, answer.stderr) == (130, f"Interrupted. {RESUME_HINT}\n")


def test_a_signal_that_a_library_swallows_is_an_interruption(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def swallows(*_: object, **__: object) -> None:
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)
        except KeyboardInterrupt:
            pass

    monkeypatch.setattr(command_line.cli, "main", swallows)
    assert run_command(project, "plan").returncode == 130


def test_an_interrupt_between_a_runs_start_and_its_first_step_is_one_line(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from latentlens_dag.dag.building.runs import BuildError, Runner

    def run(*_: object) -> None:
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)
        except KeyboardInterrupt:
            raise BuildError("A run failed before its first step; Dagster's UI says more.") from None

    monkeypatch.setattr(Runner, "run", run)
    answer = run_command(project, "build")
    assert (answer.returncode, answer.stderr.splitlines()[-1]) == (130, f"Interrupted. {RESUME_HINT}")
