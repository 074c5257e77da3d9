"""A hundred kills of a small build, at moments that a seed chooses."""

from pathlib import Path

import pytest

from tests.dag.kills import check_kills

pytestmark = pytest.mark.soak


def test_a_hundred_kills_lose_nothing_repeat_nothing_and_leave_nothing(tmp_path: Path) -> None:
    check_kills(tmp_path, kills=100, seed=1)
