"""A pull to which something happens at every one of its requests in turn: no wrong file is ever accepted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.helpers.pull_faults import check_faults

pytestmark = pytest.mark.soak

KINDS = [500, 503, 403, "reset", "lost", "truncated", "flipped"]


@pytest.mark.parametrize("times", [1, 12], ids=["once", "lasting"])
@pytest.mark.parametrize("kind", KINDS)
def test_no_request_of_a_pull_can_fail_so_that_a_wrong_file_is_taken(tmp_path: Path, kind: Any, times: int) -> None:
    told = check_faults(tmp_path, kind, times)

    assert told or times == 1


@pytest.mark.parametrize("times", [1, 12], ids=["once", "lasting"])
def test_a_pull_that_is_told_to_wait_comes_to_its_end(tmp_path: Path, times: int) -> None:
    told = check_faults(tmp_path, 429, times, **{"Retry-After": "1"})

    assert all("status 429" in one for one in told)
