"""Changing files in ways that no observation sees."""

import os
from pathlib import Path


def change_unseen(path: Path) -> None:
    """Change the last byte of a file, which no decoder of PNG needs, and keep the file's size and time."""
    facts, content = path.stat(), bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
