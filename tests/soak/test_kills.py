"""A hundred kills of a small build, at moments that seeds choose."""

from pathlib import Path

import pytest

from tests.dag.kills import check_kills

pytestmark = pytest.mark.soak


@pytest.mark.parametrize("seed", range(4))
def test_a_hundred_kills_lose_nothing_repeat_nothing_and_leave_nothing(tmp_path: Path, seed: int) -> None:
    check_kills(tmp_path, kills=25, seed=seed)
