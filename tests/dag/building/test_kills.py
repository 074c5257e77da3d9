"""A build that is killed at any moment and then goes on ends as an undisturbed one; `make soak` kills a hundred."""

from pathlib import Path

from tests.dag.kills import check_kills


def test_five_kills_lose_nothing_repeat_nothing_and_leave_nothing(tmp_path: Path) -> None:
    check_kills(tmp_path, kills=5, seed=0)
