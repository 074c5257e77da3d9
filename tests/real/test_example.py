"""The example study of a real language model, within what it may take."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.soak


def test_the_example_study_of_smollm2_stays_within_150_cpu_seconds_and_its_memory(
    smollm2_folder: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "tests.benchmarks.smollm2", str(tmp_path / "project")]
    found = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    assert found.returncode == 0, found.stdout + found.stderr
    assert "water jug at the mountain [spring]" in found.stdout
