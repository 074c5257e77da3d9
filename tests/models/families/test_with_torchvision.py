"""Families whose image processor needs torchvision are proved where it is not installed, too, with a stand-in."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from latentlens_dag.models.families.registry import NEED_TORCHVISION

TESTS = Path(__file__).resolve().parents[2]


@pytest.mark.skipif(find_spec("torchvision") is not None, reason="test_families.py runs them with torchvision itself")
def test_what_is_true_of_every_family_is_true_of_those_that_need_torchvision() -> None:
    """In a process of its own, because transformers takes other image processors where it finds torchvision."""
    path = os.pathsep.join([str(TESTS / "helpers" / "stand_in"), str(TESTS.parent)])
    families = sorted((TESTS / "models" / "families").glob("test_*.py"))
    processors = TESTS / "models" / "test_processors.py"
    selected = ["-k", " or ".join([*sorted(NEED_TORCHVISION), "whole_processor", "cuts_alike"])]
    run = subprocess.run(
        [sys.executable, "-m", "pytest", *map(str, [*families, processors]), *selected, "-q", "-p", "no:cacheprovider"],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert run.returncode == 0, run.stdout[-4000:]
    assert "passed" in run.stdout
    assert "skipped" not in run.stdout
