"""The command dev: Dagster's UI on a project and its home, ended with all that it started.

`dagster dev` consists of a server, a daemon and servers of definitions. At SIGTERM it ends the first two, and the
others stay until they miss its heartbeat, up to 45 s later. Here they are one session, which ends as a whole.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import click

from latentlens_dag.cli.output import home_option
from latentlens_dag.dag.building.signals import catch_signals
from latentlens_dag.errors import UserError
from latentlens_dag.storage.home import find_home, find_project
from latentlens_dag.storage.paths import plain_path

_END_S = 10.0
"""How long Dagster may take to end what runs, at a signal; half as long after that, what is left is killed."""


@click.command()
@click.option("--port", type=click.IntRange(1, 65535), help="Port of the server; by default 3000 or the next free.")
@home_option
def dev(port: int | None, home: Path | None) -> None:
    """Show the graph, its history and previews in Dagster's UI, on this machine only; Ctrl-C ends it."""
    project, at = find_project(), find_home(home)
    if project is None:
        raise UserError("No workspace.yaml here or above: run this inside a LatentLens project, such as a clone of it.")
    at.prepare()
    command = [sys.executable, "-m", "latentlens_dag.cli.dagster_server", "dev", "-w", "workspace.yaml"]
    with plain_path(at.dagster) as history, catch_signals():  # which end it
        places = {"DAGSTER_HOME": str(history), "LATENTLENS_HOME": str(at.root)}
        server = subprocess.Popen(
            [*command, *(["--port", str(port)] if port else [])],
            cwd=project,
            env={**os.environ, **places},
            start_new_session=True,
        )
        try:
            code = server.wait()
        except KeyboardInterrupt:
            code = 0
        finally:
            _end(server)
    if code:
        raise RuntimeError(f"Dagster ended with code {code}; what it printed above says why.")


def _end(server: subprocess.Popen[bytes], patience_s: float = _END_S) -> None:
    """End the server, which ends runs and its services first, and then what is left of its session.

    Args:
        server: the first process of a session of its own.
        patience_s: how long the server may take, and half of it what is left; a second signal cuts it short.
    """
    try:
        if server.poll() is None:
            server.terminate()
        with suppress(subprocess.TimeoutExpired):
            server.wait(patience_s)
        _signal_session(server, signal.SIGTERM)
        end = time.monotonic() + patience_s / 2
        while time.monotonic() < end and _signal_session(server, 0):
            time.sleep(0.1)
    except KeyboardInterrupt:
        pass
    finally:
        _signal_session(server, signal.SIGKILL)
        server.wait()


def _signal_session(server: subprocess.Popen[bytes], number: int) -> bool:
    """Send a signal to all that is left of a session; False where nothing is."""
    server.poll()  # else it stays in its group as a process that has ended
    try:
        os.killpg(server.pid, number)
    except (ProcessLookupError, PermissionError):  # macOS refuses where all have ended
        return False
    return True
