"""Half-written files of processes that are gone."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple

_TEMPORARY = re.compile(r"\..+\.(\d+)\.[0-9a-f]{8}\.(?:tmp|old)")


class Garbage(NamedTuple):
    """A file or folder that nothing needs."""

    path: Path
    size_bytes: int
    """Freed by removing it: 0 where another link to the same file stays."""
    why: str
    """interrupted, replaced, not declared."""


def interrupted_writes(warehouse: Path) -> list[Garbage]:
    """The temporary files and folders of processes that are gone."""
    return [
        Garbage(path, _size_below(path), "interrupted")
        for path in sorted(warehouse.rglob(".*"))
        if (found := _TEMPORARY.fullmatch(path.name)) and not _is_running(int(found[1]))
    ]


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True  # of another user
    return True


def _size_below(path: Path) -> int:
    files = [one for one in path.rglob("*") if one.is_file()] if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files)
