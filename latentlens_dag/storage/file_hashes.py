"""The files of a source with their hashes; a file is read again only where its size or time changed."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from latentlens_dag.errors import UserError
from latentlens_dag.storage.files import read_json_object, write_text
from latentlens_dag.storage.hashing import hash_file

FileHasher = Callable[[str, int, int], str]
"""The hash of the file at a path that has this size and time (ns)."""


def content_hash(path: str, size: int, time_ns: int) -> str:
    """A `FileHasher` that reads the file. Cached, it reads a file once for several sources that share it."""
    return hash_file(Path(path))


def file_states(path: Path, hidden: bool = False) -> dict[Path, list[int]]:
    """Size and time (ns) of a file, or of the files of a folder that count, in order; none where it is missing.

    Args:
        path: a file, or a folder, of which all files count but README.md: a model's card changes no result.
        hidden: whether files and folders whose names begin with a dot count too. No loader of models reads them:
            `.git/`, the `.cache/` of a download, `.DS_Store`. In a folder of images they are searched.
    """
    return {Path(file): state for file, state in _states(path, hidden).items()}


def file_hashes(path: Path, memory: Path, hidden: bool = False, hasher: FileHasher = content_hash) -> dict[str, str]:
    """The hash of each of the files of `file_states`, by path, in the same order.

    Args:
        path: a file or a folder.
        memory: JSON file that caches sizes, times and hashes between calls; what is damaged in it does not count.
        hidden: as of `file_states`.
        hasher: gives the hash of a file that is not in `memory` with its size and time.

    Raises:
        UserError: if a file cannot be read.
    """
    cached, now = read_json_object(memory), dict[str, list[Any]]()
    for file, state in _states(path, hidden).items():
        match cached.get(file):
            case [int(size), int(time_ns), str(known)] if [size, time_ns] == state:
                now[file] = [*state, known]
            case _:  # new, changed, or damaged in the memory
                now[file] = [*state, _hashed(file, state, hasher)]
    if now != cached:
        _write(now, memory)
    return {file: facts[2] for file, facts in now.items()}


def _hashed(file: str, state: Sequence[int], hasher: FileHasher) -> str:
    try:
        return hasher(file, *state)
    except OSError as error:  # some name no file: of a damaged disk, or of what is no file though it looks like one
        raise UserError(
            f"{file} cannot be read ({error.strerror or error}). Correct its permissions, or copy it again."
        ) from error


def forget_hash(file: Path, memory: Path) -> None:
    """Have `file_hashes` read a file again, even if its size and time are those in `memory`."""
    cached = read_json_object(memory)
    if cached.pop(str(file), None) is not None:
        _write(cached, memory)


def files_below(folder: Path, hidden: bool = False) -> Iterator[str]:
    """The path of everything below a folder that is no folder, in any order; each folder is listed once.

    Links to folders are neither followed nor given; a link to a missing file is given.

    Raises:
        OSError: where a folder cannot be listed for another reason than its permissions.
    """
    for parent, folders, names in os.walk(folder, onerror=_unless_forbidden):
        if not hidden:
            folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (os.path.join(parent, name) for name in names if hidden or not name.startswith("."))  # noqa: PTH118


def _write(facts: Mapping[str, list[Any]], memory: Path) -> None:
    write_text(json.dumps(facts, indent=1, sort_keys=True), memory)


def _states(path: Path, hidden: bool) -> dict[str, list[int]]:
    """As `file_states`, by text: making 100,000 paths and sorting them takes seconds."""
    if not path.is_dir():
        return {str(path): state} if (state := _state(str(path))) is not None else {}
    files = [file for file in files_below(path, hidden) if not file.endswith(f"{os.sep}README.md")]
    files.sort(key=lambda file: file.split(os.sep))  # noqa: PTH206 - as paths are sorted: folder by folder
    return {file: state for file in files if (state := _state(file)) is not None}


def _state(file: str) -> list[int] | None:
    """Size and time of a file; None where there is none."""
    try:
        facts = os.stat(file)  # noqa: PTH116 - as above
    except OSError:
        return None
    return [facts.st_size, facts.st_mtime_ns] if stat.S_ISREG(facts.st_mode) else None


def _unless_forbidden(error: OSError) -> None:
    if not isinstance(error, PermissionError):
        raise error
