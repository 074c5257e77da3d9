"""Counting the files that Python opens in this process; libraries in other languages open theirs unseen."""

import os
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_counters: list[Counter[str]] = []


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if event in ("open", "os.scandir") and _counters and isinstance(arguments[0], str | bytes | os.PathLike):
        for counter in _counters:
            counter[os.path.realpath(os.fsdecode(arguments[0]))] += 1


@contextmanager
def opened_files() -> Iterator[Counter[str]]:
    """How often each file was opened, and each folder listed, in the block."""
    if not hasattr(_hook, "added"):
        sys.addaudithook(_hook)  # it stays until the process ends
        _hook.added = True  # type: ignore[attr-defined]
    counter: Counter[str] = Counter()
    _counters.append(counter)
    try:
        yield counter
    finally:
        _counters.remove(counter)
