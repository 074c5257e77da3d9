"""Half-written files of processes that are gone."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

_TEMPORARY = re.compile(r"\..+\.(\d+)\.[0-9a-f]{8}\.(?:tmp|old)")


class Garbage(NamedTuple):
    """A file or folder that nothing needs."""

    path: Path
    size_bytes: int
    """Freed by removing all garbage; a file of several links counts with the last, and not where another stays."""
    why: str
    """interrupted, replaced, not declared."""


def interrupted_writes(warehouse: Path) -> list[Path]:
    """The temporary files and folders of processes that are gone."""
    return [
        path
        for path in sorted(warehouse.rglob(".*"))
        if (found := _TEMPORARY.fullmatch(path.name)) and not _is_running(int(found[1]))
    ]


def as_garbage(reasons: Iterable[tuple[Path, str]]) -> list[Garbage]:
    """Files and folders that nothing needs, and why, with what removing all of them frees.

    Models of one connector share the files of the frozen weights, and replaced results have a second link.
    """
    links, garbage = Counter[tuple[int, int]](), list[Garbage]()
    for path, why in reasons:
        size = 0
        for file in (one for one in (path, *path.rglob("*")) if one.is_file()):
            facts = file.stat()
            links[facts.st_dev, facts.st_ino] += 1
            if links[facts.st_dev, facts.st_ino] == facts.st_nlink:
                size += facts.st_size
        garbage.append(Garbage(path, size, why))
    return garbage


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True  # of another user
    return True
