"""Stand-in."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq


def read_captions(files: Sequence[Path]) -> dict[str, list[str]]:
    """The captions of each image."""
    found: dict[str, list[str]] = {}
    for file in files:
        for row in pq.read_table(file).to_pylist():
            found.setdefault(row["image_id"], []).append(row["caption"])
    return found
