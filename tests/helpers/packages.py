"""Skipping, with the reason, what needs a package that only some environments have."""

import pytest

from latentlens_dag.models.families.registry import NEED_TORCHVISION


def need_torchvision(what: str) -> None:
    """Skip a test where torchvision is not installed, or was made for another torch."""
    pytest.importorskip("torchvision", reason=f"{what} needs torchvision", exc_type=(ImportError, RuntimeError))


def need_packages_of(family: str) -> None:
    """Skip a test of a family that cannot be shown an image here."""
    if family in NEED_TORCHVISION:
        need_torchvision(family)
