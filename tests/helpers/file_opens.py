"""Counts how often files are opened, by any process and any library, as the kernel reports it (inotify, Linux only).

Note: the kernel drops an event that equals the one before it in the queue, so that two opens of a file in a row would
count as one. A file is therefore watched twice, by itself and in its folder: each open makes two events that differ,
and no two equal ones follow each other, unless two threads open the same file at the same instant. Nothing depends on
how soon the events are read.
"""

import ctypes
import os
import struct
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import pytest

OPENS_OF_A_LOAD = 2
"""safetensors opens a file once for its header and once for torch's storage."""
_OPENED, _OVERFLOW, _IS_FOLDER = 0x20, 0x4000, 0x40000000
_HEADER = struct.Struct("iIII")  # watch, mask, cookie, length of the name


class Counts(Protocol):
    def __call__(self) -> dict[Path, int]:
        """How often each file was opened since it was last asked; 0 where it was not."""


@contextmanager
def counted_opens(files: Iterable[Path]) -> Iterator[Counts]:
    """Count the opens of some files, which must exist and must not be replaced meanwhile."""
    if sys.platform != "linux":
        pytest.skip("only Linux reports opens by inotify")
    counted = [*files]
    libc = ctypes.CDLL(None, use_errno=True)
    queue = _checked(libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
    try:
        by_file = {_watch(libc, queue, file): file for file in counted}
        folders = {_watch(libc, queue, folder): folder for folder in {file.parent for file in counted}}
        yield lambda: _opens(queue, by_file, folders, counted)
    finally:
        os.close(queue)


def _watch(libc: ctypes.CDLL, queue: int, path: Path) -> int:
    return _checked(libc.inotify_add_watch(queue, os.fsencode(path.resolve()), _OPENED))


def _opens(
    queue: int, by_file: Mapping[int, Path], folders: Mapping[int, Path], counted: Iterable[Path]
) -> dict[Path, int]:
    own, of_folder = Counter[Path](), Counter[Path]()
    for watch, name in _events(queue):
        if watch in by_file:
            own[by_file[watch]] += 1
        else:
            of_folder[folders[watch] / name] += 1
    return {file: max(own[file], of_folder[file]) for file in counted}


def _events(queue: int) -> Iterator[tuple[int, str]]:
    """The watch and the name of every file that was opened; the name is empty where the file itself is watched."""
    while read := _read(queue):
        place = 0
        while place < len(read):
            watch, mask, _, length = _HEADER.unpack_from(read, place)
            place += _HEADER.size
            name = os.fsdecode(read[place : place + length].rstrip(b"\0"))
            place += length
            assert not mask & _OVERFLOW, "More files were opened than the kernel's queue holds: ask more often."
            if mask & _OPENED and not mask & _IS_FOLDER:
                yield watch, name


def _read(queue: int) -> bytes:
    try:
        return os.read(queue, 1 << 20)
    except BlockingIOError:
        return b""


def _checked(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result
