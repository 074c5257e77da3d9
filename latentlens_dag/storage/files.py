"""Atomic writes of files and folders, and JSON files."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def atomic_path(final: Path) -> Iterator[Path]:
    """A temporary path beside `final`, for a file or folder, which replaces `final` if the block ends without an error.

    Until the rename the old content stays whole: a reader, or a kill, never meets half a file.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(final, "tmp")
    try:
        yield temporary
        _replace(temporary, final)
    finally:
        remove(temporary)


@contextmanager
def scratch_folder(beside: Path) -> Iterator[Path]:
    """A temporary folder beside a file that is being written; on the home's disk, which has room for large files.

    A kill leaves it under a name by which `leftovers.py` finds it, as it does a path of `atomic_path`.
    """
    folder = _temporary(beside, "tmp")
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        remove(folder)


def process_path(beside: Path, digits: str) -> Path:
    """A temporary path that a process finds by 8 hexadecimal digits; for what a kill leaves, see `scratch_folder`."""
    return beside.parent / f".{beside.name}.{os.getpid()}.{digits}.tmp"


def _temporary(final: Path, kind: str) -> Path:
    """A name beside `final` with the process id, by which it is recognized as garbage when the process is gone."""
    return final.parent / f".{final.name}.{os.getpid()}.{uuid.uuid4().hex[:8]}.{kind}"


def write_text(text: str, path: Path) -> None:
    """Write a text file atomically, as UTF-8 with line feeds."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(facts: object, path: Path) -> None:
    """Write a JSON file atomically, keys in order; a file with this content already is left as it is."""
    text = json.dumps(facts, indent=1, sort_keys=True) + "\n"
    if not path.is_file() or path.read_bytes() != text.encode():  # what is there may be damaged
        write_text(text, path)


def read_json_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file; an empty one where the file is missing, damaged or holds something else."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def remove(path: Path) -> None:
    """Delete a file or a folder, if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _replace(temporary: Path, final: Path) -> None:
    if temporary.is_dir():
        # A folder cannot be renamed over another one: readers see the old, then a gap of one rename, then the new.
        old = _temporary(final, "old")
        if final.exists():
            final.rename(old)
        temporary.rename(final)
        remove(old)
    else:
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(final)
    descriptor = os.open(final.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
