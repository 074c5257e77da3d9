"""What is cached: the last used results, as many as are to be kept; tables up to so many bytes."""

import sys
import threading

import polars as pl
import pytest

from latentlens_dag.browse.browser_data import BrowserData
from latentlens_dag.browse.method_cache import MethodCache, cached


class _Numbers(MethodCache):
    def __init__(self, results: int) -> None:
        super().__init__(results)
        self.computed: list[tuple[str, int]] = []

    @cached
    def double(self, number: int) -> int:
        self.computed.append(("double", number))
        return 2 * number

    @cached
    def inverse(self, number: int) -> float:
        self.computed.append(("inverse", number))
        return 1 / number


def test_a_result_is_computed_again_only_after_others_were_used_since() -> None:
    numbers = _Numbers(3)
    assert [numbers.double(number) for number in (1, 2, 3, 1, 4)] == [2, 4, 6, 2, 8]
    assert [number for _, number in numbers.computed] == [1, 2, 3, 4]
    assert [numbers.double(number) for number in (1, 3, 4, 2)] == [2, 6, 8, 4]
    assert [number for _, number in numbers.computed] == [1, 2, 3, 4, 2]


def test_results_of_other_methods_and_objects_are_others_and_an_error_is_not_cached() -> None:
    numbers, others = _Numbers(9), _Numbers(9)
    assert (numbers.double(2), numbers.inverse(2), others.double(2)) == (4, 0.5, 4)
    assert numbers.computed == [("double", 2), ("inverse", 2)] and others.computed == [("double", 2)]
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            numbers.inverse(0)
    assert numbers.computed[2:] == [("inverse", 0)] * 2


def test_many_threads_get_their_results_from_a_cache_that_is_always_full(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers, wrong, failed = _Numbers(2), list[int](), list[object]()
    monkeypatch.setattr(threading, "excepthook", failed.append)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # so that threads meet in the middle of a change

    def ask(first: int) -> None:
        wrong.extend(number for number in range(first, first + 2_000) if numbers.double(number % 7) != 2 * (number % 7))

    threads = [threading.Thread(target=ask, args=(first,)) for first in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sys.setswitchinterval(interval)
    assert not wrong and not failed and len(numbers.cache) == 2


class _Kilobytes:
    """A dataset whose every answer has so many kilobytes."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def collect(self, text: str, /, *, size: int, **params: object) -> pl.DataFrame:
        self.asked.append(size)
        return pl.DataFrame({"n": [0] * 125 * size})


def test_tables_are_cached_up_to_so_many_bytes_and_one_that_is_larger_is_given_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("latentlens_dag.browse.browser_data._CACHED_BYTES", 6_000)
    dataset = _Kilobytes()
    data = BrowserData("source", dataset, {})  # type: ignore[arg-type]
    assert [data.collect("one", "q", size=size).height for size in (1, 2, 3, 1, 4, 9)] == [
        125,
        250,
        375,
        125,
        500,
        1125,
    ]
    assert dataset.asked == [1, 2, 3, 4, 9]
    assert data.frames.currsize <= 6_000
    for size in (1, 4, 2, 9):
        data.collect("one", "q", size=size)
    assert dataset.asked == [1, 2, 3, 4, 9, 2, 9]
