"""A small release as it is staged, with files that travel in both ways."""

import random
from collections.abc import Mapping
from pathlib import Path

from latentlens_dag.release_manifest import MANIFEST, manifest_of, manifest_text

CARD = "---\nlicense: mit\n---\n# A release\n"
LEAST_LARGE = 1000
"""Bytes; files of so many or more travel ahead of the commit."""


def content(seed: int, size: int) -> bytes:
    return random.Random(seed).randbytes(size)


FILES = {
    "README.md": CARD.encode(),
    "queries/words.sql": b"SELECT 1",
    "parts/a.bin": content(1, 50_000),
    "parts/b.bin": content(2, 30_000),
    "parts/small.bin": content(3, 300),
}


def stage(folder: Path, files: Mapping[str, bytes] = FILES, name: str = "demo") -> Path:
    """Write the files of a release, and the manifest that fits; files of before go."""
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    for path, one in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(one)
    text = manifest_text(manifest_of(folder, "tables", name, {}, "0.1.0"))
    (folder / MANIFEST).write_text(text, encoding="utf-8")
    return folder


def held(folder: Path) -> dict[str, bytes]:
    """What a staged folder holds, by path."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
