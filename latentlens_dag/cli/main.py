"""The command line: its list of commands, exit codes and error messages.

Exit codes: 0 done, 1 something failed while running, 2 a mistake of the user's, 3 something is to be built
(`plan --exit-code`), 130 interrupted (143 by SIGTERM). Note: `--help` must be quick, so torch, dagster, duckdb and rich
are imported inside the commands that need them (together over 8 s).
"""

from __future__ import annotations

import atexit
import gc
import io
import os
import signal
import sys
import traceback
from typing import NoReturn

import click

from latentlens_dag.cli import browse, build, dev, diff, maintenance, models, publish, pull, query
from latentlens_dag.dag.building.collector import collect_rarely
from latentlens_dag.dag.building.signals import catch_signals
from latentlens_dag.device import configure_threads
from latentlens_dag.errors import RESUME_HINT, StoppedBySignalError, UserError
from latentlens_dag.storage.full_disk import remedy
from latentlens_dag.storage.home import find_home
from latentlens_dag.text.display import printable


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="latentlens-dag")
@click.option("--debug", is_flag=True, help="Show the traceback of an error. May stand after the command too.")
def cli(debug: bool) -> None:
    """Say in plain language what every visual token of a vision-language model means at every layer."""


for command in (
    build.build,
    build.plan,
    build.status,
    maintenance.check,
    maintenance.clean,
    diff.diff,
    query.query,
    query.summary,
    query.search,
    pull.pull,
    browse.browse,
    dev.dev,
    models.import_index,
    models.inspect_model,
    publish.publish,
):
    cli.add_command(command)


def main() -> None:
    """Run the command line with this module's exit codes and messages."""
    debug = "--debug" in sys.argv[1:]
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # read when transformers is imported
    os.environ.setdefault("LANCE_LOG", "error")
    configure_threads()
    collect_rarely()
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal that lacks a character of the data gets its code
    atexit.register(gc.freeze)  # else Python looks for garbage a last time, among all models and modules: 0.5 s or more
    with catch_signals((signal.SIGINT,)) as signals:
        try:
            cli.main(arguments, prog_name="latentlens-dag", standalone_mode=False)
        except SystemExit:
            raise
        except BaseException as error:
            if signals.last() is not None and not isinstance(error, StoppedBySignalError):
                _leave(_INTERRUPTED, 130, debug)  # whatever a library made of it
            _report(error, debug)
        if signals.last() is not None:  # which a library has swallowed
            _leave(_INTERRUPTED, 130)


_INTERRUPTED = f"Interrupted. {RESUME_HINT}"


def _report(error: BaseException, debug: bool) -> NoReturn:
    """Print an error as far as it helps, and leave with its exit code."""
    if isinstance(error, click.exceptions.Abort | KeyboardInterrupt):
        _leave(_INTERRUPTED, 130)
    if isinstance(error, StoppedBySignalError):
        _leave(str(error), 128 + error.number, debug)
    if isinstance(error, click.ClickException):
        error.show()
        sys.exit(2)
    if isinstance(error, UserError):
        _leave(f"Error: {error}", 2, debug)
    if isinstance(error, BrokenPipeError):
        sys.exit(1)
    if not isinstance(error, Exception):
        raise error
    hint = _remedy(error)
    hint = f"\n{hint}" if hint else "" if debug else "\nRun again with --debug to see where."
    _leave(f"Error: {type(error).__name__}: {error}{hint}", 1, debug, getattr(error, "trace", ""))


def _remedy(error: Exception) -> str | None:
    """The way out of a full disk; None for other errors, and where LATENTLENS_HOME names no home."""
    try:
        return remedy(error, find_home().root)
    except UserError:
        return None


def _leave(message: str, code: int, debug: bool = False, trace: str = "") -> NoReturn:
    if debug:
        traceback.print_exc()
        click.echo(trace, err=True)
    click.echo("\n".join(map(printable, message.split("\n"))), err=True)  # it may quote data, which drives no terminal
    sys.exit(code)
