import subprocess
import sys
from pathlib import Path


def test_the_command_runs_in_a_checkout_though_it_is_not_installed() -> None:
    command = [sys.executable, "-m", "latentlens_dag.demo", "--help"]
    run = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True)
    assert all(name in run.stdout for name in ("atlas", "language", "vision", "connector", "measure", "card"))
