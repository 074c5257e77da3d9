"""Dagster's UI by `latentlens-dag dev`: a real process, ended by a real signal with all that it started."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from latentlens_dag.cli import dev
from tests.helpers.command_line import run_command

START = "from latentlens_dag.cli.main import main; main()"


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _with_home(home: Path) -> list[int]:
    """The processes whose environment names the home."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if f"LATENTLENS_HOME={home}".encode() in (process / "environ").read_bytes().split(b"\0"):
                found.append(int(process.name))
        except OSError:
            continue
    return found


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds processes in /proc")
def test_dev_serves_a_home_with_an_odd_path_and_sigterm_ends_all_that_it_started(tmp_path: Path) -> None:
    project, home = tmp_path / "project", tmp_path / "home%41?x"
    (project / "assets").mkdir(parents=True)
    (project / "workspace.yaml").write_text(
        "load_from:\n  - python_module: {module_name: latentlens_dag.definitions, location_name: latentlens-dag}\n"
    )
    port = _free_port()
    log = tmp_path / "log"
    with log.open("w") as stream:
        process = subprocess.Popen(
            [sys.executable, "-c", START, "dev", "--port", str(port), "--home", str(home)],
            cwd=project,
            stdout=stream,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": str(Path.cwd())},
        )
    try:
        _wait_for(port, process)
        assert len(_with_home(home)) >= 3
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0, log.read_text()
    finally:
        process.kill()
    assert _with_home(home) == []
    assert "SupersessionWarning" not in log.read_text() and "Traceback" not in log.read_text()
    assert {path.name for path in tmp_path.iterdir()} == {"project", "home%41?x", "log"}


def _wait_for(port: int, process: "subprocess.Popen[bytes]") -> None:
    end = time.monotonic() + 240
    while time.monotonic() < end and process.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/server_info"):
                return
        except OSError:
            time.sleep(0.3)
    raise AssertionError("the server did not start")


IGNORE = "signal.signal(signal.SIGTERM, signal.SIG_IGN)"
STUBBORN = f"import signal, time; {IGNORE}; print(flush=True); time.sleep(600)"
PARENT = f"""
import signal, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", {STUBBORN!r}], stdout=subprocess.PIPE)
child.stdout.readline()
FIRST
print(child.pid, flush=True)
THEN
"""


@pytest.mark.parametrize(("first", "then"), [("", ""), ("", "time.sleep(600)"), (IGNORE, "time.sleep(600)")])
@pytest.mark.parametrize("interrupted", [False, True])
def test_what_does_not_end_by_itself_is_killed_after_its_time_with_all_of_its_session(
    first: str, then: str, interrupted: bool
) -> None:
    command = [sys.executable, "-c", PARENT.replace("FIRST", first).replace("THEN", then)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True)
    assert server.stdout is not None
    child = int(server.stdout.readline())
    start, earlier = time.monotonic(), signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.setitimer(signal.ITIMER_REAL, 0.3 if interrupted else 0)  # as a second Ctrl-C
    try:
        dev._end(server, 60.0 if interrupted else 1.0)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, earlier)
    while _is_alive(child):
        assert time.monotonic() - start < 20
        time.sleep(0.05)
    assert server.returncode is not None


def _is_alive(process: int) -> bool:
    """Whether it runs; one that has ended and waits for its parent does not."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{process}/status").read_text()
    except OSError:
        return False


def test_dev_outside_of_a_project_says_what_is_missing(tmp_path: Path) -> None:
    answer = run_command(tmp_path, "dev")
    assert answer.returncode == 2 and "No workspace.yaml here or above" in answer.stderr
