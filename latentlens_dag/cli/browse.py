"""The command browse: checks the sources, starts Streamlit on loopback and waits for it.

Streamlit is a program of its own that reads our pages, so it is started, not imported. Errors in the sources are
reported here, before any page is shown. While this process waits, it builds the catalog of a release that has none yet.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import webbrowser
from contextlib import ExitStack
from pathlib import Path

import click

from latentlens_dag.cli.output import home_option
from latentlens_dag.dag.building.signals import catch_signals
from latentlens_dag.errors import UserError
from latentlens_dag.storage.home import find_home
from latentlens_dag.storage.paths import refuse_too_long

HOST = "127.0.0.1"
_PORT = 8501
_START_TIMEOUT_S = 60


@click.command()
@click.argument("source", required=False, metavar="[PATH | USER/NAME@TAG]")
@click.option("--with", "other", metavar="PATH | USER/NAME@TAG", help="Another source, to compare with.")
@click.option("--port", type=click.IntRange(1, 65535), help=f"Port of the server; by default {_PORT} or the next free.")
@click.option("--no-open", is_flag=True, help="Print the address, and open no browser.")
@click.option(
    "--trust-remote-code",
    "trusted",
    is_flag=True,
    help="Let Ask run the code that comes with a study's model, with all your rights, where the study was built so.",
)
@home_option
def browse(
    source: str | None, other: str | None, port: int | None, no_open: bool, trusted: bool, home: Path | None
) -> None:
    """Look at a study or a release in the browser: a home, a warehouse, a catalog.duckdb or a dataset."""
    from latentlens_dag.browse.browser_data import open_browser_data
    from latentlens_dag.dataset.release_catalog import build_in_background

    opened = source or str(find_home(home).root)
    if source is None and not Path(opened).is_dir():
        raise UserError(f"There is nothing at {opened} yet. Build a study first (`make demo`), or name what to open.")
    sources = [_absolute(name) for name in (opened, other) if name]
    if len(set(sources)) < len(sources):
        raise UserError(f"`--with {other}` names what is opened already: name another home or release.")
    libraries = [open_browser_data(name) for name in sources]
    for library in libraries:
        library.close()
    chosen = port or _free_port()
    if not _is_free(chosen):
        raise UserError(f"Port {chosen} of {HOST} is taken: name another one with --port, or none.")
    settings = dict(zip(("LATENTLENS_BROWSE", "LATENTLENS_BROWSE_WITH"), [*sources, ""], strict=False))
    settings["LATENTLENS_BROWSE_TRUST"] = "1" if trusted else ""  # not inherited: consent is given here
    # Streamlit's greeting is not for our users; its errors come on stderr.
    server = subprocess.Popen(_command(chosen), env={**os.environ, **settings}, stdout=subprocess.DEVNULL)
    with catch_signals((signal.SIGINT,)), ExitStack() as builds:  # here Ctrl-C is the end, and no interruption
        for library in libraries:
            builds.enter_context(build_in_background(library.full_dataset.release_tables))
        _wait(server, chosen, no_open)


def pages_folder() -> Path:
    """The folder of the browser's pages: in the installed package, or beside it in the source tree.

    Raises:
        UserError: if it is in neither place.
    """
    package = Path(__file__).parents[1]
    folders = (package / "dashboards", package.parent / "dashboards")
    folder = next((folder for folder in folders if (folder / "app.py").is_file()), None)
    if folder is None:
        raise UserError(f"The pages of the browser are missing from {package}: install latentlens-dag again.")
    return folder


def _command(port: int) -> list[str]:
    options = {
        "server.port": port,
        "server.address": HOST,
        "server.headless": "true",
        "server.fileWatcherType": "none",
        "browser.gatherUsageStats": "false",
    }
    app = str(pages_folder() / "app.py")
    serve = [sys.executable, "-m", "latentlens_dag.cli.streamlit_server", "run", app]
    return [*serve, *(f"--{name}={value}" for name, value in options.items())]


def _absolute(source: str) -> str:
    refuse_too_long(source, "browse")
    return str(Path(source).resolve()) if Path(source).exists() else source


def _free_port() -> int:
    return next((port for port in range(_PORT, _PORT + 100) if _is_free(port)), 0) or _any_port()


def _any_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def _wait(server: subprocess.Popen[bytes], port: int, no_open: bool) -> None:
    """Print the address, open it, and end the server with this command."""
    earlier = signal.signal(signal.SIGTERM, lambda *_: server.terminate())
    address = f"http://{HOST}:{port}"
    try:
        if _has_started(server, port):
            click.echo(f"{address}   (Ctrl-C ends it)")
            if not no_open:
                webbrowser.open(address)
        code = server.wait()
    except KeyboardInterrupt:
        code = 0
    finally:
        signal.signal(signal.SIGTERM, earlier)
        if server.poll() is None:
            server.terminate()
            server.wait()
    if code > 0:
        raise RuntimeError(f"Streamlit ended with code {code}; what it printed above says why.")


def _has_started(server: subprocess.Popen[bytes], port: int) -> bool:
    """Wait until the server takes connections, or has ended."""
    end = time.monotonic() + _START_TIMEOUT_S
    while server.poll() is None and time.monotonic() < end:
        with socket.socket() as probe:
            if probe.connect_ex((HOST, port)) == 0:
                return True
        time.sleep(0.1)
    return False
