"""What is remembered: the last used answers, up to so many bytes."""

import polars as pl
import pytest

from latentlens_dag.browse.frame_cache import FrameCache


def _kilobyte(number: int) -> pl.DataFrame:
    return pl.DataFrame({"n": [number] * 125})


def test_what_was_used_last_is_remembered_up_to_so_many_bytes_and_made_again_after_that() -> None:
    remembered, made = FrameCache(3_000), list[int]()

    def ask(number: int) -> int:
        def make() -> pl.DataFrame:
            made.append(number)
            return _kilobyte(number)

        return int(remembered.get(number, make)["n"][0])

    assert [ask(number) for number in (1, 2, 3, 1, 4)] == [1, 2, 3, 1, 4]
    assert made == [1, 2, 3, 4]
    assert [ask(number) for number in (1, 3, 4, 2)] == [1, 3, 4, 2]
    assert made == [1, 2, 3, 4, 2]


def test_an_answer_larger_than_all_is_given_and_an_error_is_not_remembered() -> None:
    remembered = FrameCache(10)
    assert remembered.get("large", lambda: _kilobyte(1)).height == 125
    with pytest.raises(ZeroDivisionError):
        remembered.get("wrong", lambda: pl.DataFrame({"n": [1 // 0]}))
    assert remembered.get("wrong", lambda: _kilobyte(2))["n"][0] == 2
