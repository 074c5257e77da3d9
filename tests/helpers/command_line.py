"""The command line inside of the process of the tests, where a process of its own is not what a test is about.

It takes the seconds that a new process spends on importing Dagster and torch. Signals, locks, what is imported and
what is left behind by a kill are tested with real processes.
"""

import contextlib
import gc
import io
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from unittest.mock import patch


def run_command(
    folder: Path, *arguments: str, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `latentlens-dag` in a folder, by the function that its console script calls."""
    from latentlens_dag.cli.main import main

    out, err, collections = io.StringIO(), io.StringIO(), gc.get_threshold()
    with (
        contextlib.chdir(folder),
        patch.object(sys, "argv", ["latentlens-dag", *arguments]),
        patch.dict("os.environ", environment or {}),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            main()
            code: object = 0
        except SystemExit as left:
            code = left.code
        finally:
            gc.set_threshold(*collections)  # of the process of a command, which ends
    assert code is None or isinstance(code, int)
    return subprocess.CompletedProcess(arguments, code or 0, out.getvalue(), err.getvalue())
