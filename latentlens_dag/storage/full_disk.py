"""What the machine lacks, told with the way out: room on a disk, memory of a device.

These are no mistakes of the user's, so they are no `UserError`; but a person can do something about them. What a
newcomer gets wrong: a failed step of Dagster's comes as text only, so the text must do to know the error by.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path

_NO_ROOM = ("No space left on device", "database or disk is full", "Disk quota exceeded", "os error 28")
_NO_MEMORY = ("OutOfMemoryError", "out of memory")


def remedy(error: BaseException, home: Path) -> str | None:
    """What to do about an error that says that the machine lacks something; None for other errors.

    Args:
        error: of this process, or one that quotes an error of a step.
        home: where results go.
    """
    text = f"{type(error).__name__}: {error}"
    if any(sign in text for sign in _NO_ROOM):
        return _room(text, home)
    if any(sign in text for sign in _NO_MEMORY):
        return (
            "The memory of the device does not hold it. Free memory there, take a smaller model, fewer layers or a "
            "dtype of 16 bits, or leave the GPU aside with CUDA_VISIBLE_DEVICES= (empty). What was finished stays."
        )
    return None


def _room(text: str, home: Path) -> str:
    """Where there is how much room: where the error says, at home, and in the folder for what is temporary."""
    named = [Path(path) for path in re.findall(r"'(/[^']+)'", text)]
    places = {_existing(path) for path in (*named, home, Path(tempfile.gettempdir()))}
    free = ", ".join(f"{place}: {shutil.disk_usage(place).free / 1e6:,.0f} MB" for place in sorted(places))
    return (
        f"A disk is full. Free are now {free}. States and layer tables take the most: make room, or put results "
        "elsewhere (--home, LATENTLENS_HOME), what is temporary (TMPDIR) or models (HF_HOME); fewer layers and fewer "
        "`contexts_per_token` need less. What was finished stays: run the same command again to go on."
    )


def _existing(path: Path) -> Path:
    """The path, or the nearest folder above it that exists."""
    return next((one for one in (path, *path.parents) if one.is_dir()), Path("/"))
