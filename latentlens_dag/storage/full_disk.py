"""Remedies for a full disk and for too little memory of a device.

These errors are no mistakes of the user, so no `UserError`, but the user can do something about them. Dagster reports a
failed step as text only, so they are recognized by their text.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path

_DISK_FULL = ("No space left on device", "database or disk is full", "Disk quota exceeded", "os error 28")
_OUT_OF_MEMORY = ("OutOfMemoryError", "out of memory")


def remedy(error: BaseException, home: Path) -> str | None:
    """The remedy for an error of a full disk or of too little memory; None for other errors.

    Args:
        error: of this process, or one that quotes an error of a step.
        home: the folder of the results.
    """
    text = f"{type(error).__name__}: {error}"
    if any(sign in text for sign in _DISK_FULL):
        return _disk_remedy(text, home)
    if any(sign in text for sign in _OUT_OF_MEMORY):
        return (
            "The memory of the device does not hold it. Free memory there, take a smaller model, fewer layers or a "
            "dtype of 16 bits, or leave the GPU aside with CUDA_VISIBLE_DEVICES= (empty). What was finished stays."
        )
    return None


def _disk_remedy(text: str, home: Path) -> str:
    """List the free space of the disks of the error's paths, of the home and of temporary files."""
    named = [Path(path) for path in re.findall(r"'(/[^']+)'", text)]
    folders = {_existing(path) for path in (*named, home, Path(tempfile.gettempdir()))}
    free = ", ".join(f"{folder}: {shutil.disk_usage(folder).free / 1e6:,.0f} MB" for folder in sorted(folders))
    return (
        f"A disk is full. Free are now {free}. States and layer tables take the most: make room, or put results "
        "elsewhere (--home, LATENTLENS_HOME), what is temporary (TMPDIR) or models (HF_HOME); fewer layers and fewer "
        "`contexts_per_token` need less. What was finished stays: run the same command again to go on."
    )


def _existing(path: Path) -> Path:
    """The path, or the nearest folder above it that exists."""
    return next((folder for folder in (path, *path.parents) if folder.is_dir()), Path("/"))
