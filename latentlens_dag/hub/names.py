"""Names on the Hub: repositories, commits, releases."""

from __future__ import annotations

import re

REPO_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
"""user/name of a model or a dataset."""
COMMIT = re.compile(r"[0-9a-f]{40}")
"""A full commit: branches and tags move, and a short one may become ambiguous."""
_RELEASE = re.compile(rf"({REPO_ID.pattern})(?:@([A-Za-z0-9][\w./-]*))?", re.ASCII)


def parse_release_name(text: str) -> tuple[str, str | None] | None:
    """Split `user/name@v1.0.0` or `user/name` into repository and revision; None where it is no such name."""
    found = _RELEASE.fullmatch(text)
    return (found[1], found[2]) if found else None
