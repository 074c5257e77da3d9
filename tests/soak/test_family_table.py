"""Every class of docs/families.md, tried again: `make soak PART=table`."""

import pytest

from tests.families.__main__ import run_trial
from tests.families.table import classes, read_trials

pytestmark = pytest.mark.soak
COMPARED = ("outcome", "reason", "made", "tokens")
PACKAGES = ("torchvision", "timm")


@pytest.mark.parametrize("family", classes())
def test_a_trial_finds_what_is_stored(family: str) -> None:
    stored = read_trials()["families"][family]
    for package in PACKAGES:
        if package in stored.get("reason", ""):
            pytest.importorskip(package, reason=f"{family} is tried only with {package}")
            pytest.skip(f"{family} was tried without {package}, which is installed here")
    found = run_trial(family)
    assert {name: found.get(name) for name in COMPARED} == {name: stored.get(name) for name in COMPARED}, found
