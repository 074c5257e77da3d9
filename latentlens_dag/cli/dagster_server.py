"""The process of Dagster's own server, `dagster dev`, without its advice to use another command.

Started as `python -m latentlens_dag.cli.dagster_server dev ...`. The other command, `dg dev`, does the same and asks
for a project of its own kind.
"""

from __future__ import annotations

import runpy
import warnings


def main() -> None:
    """Run `dagster` with the same arguments."""
    warnings.filterwarnings("ignore", message=".*is superseded.*")
    runpy.run_module("dagster", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
