"""Names of the Hub: repositories, commits, releases."""

from __future__ import annotations

import re

REPO_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
"""user/dataset."""
COMMIT = re.compile(r"[0-9a-f]{40}")
"""A full commit: branches and tags move, and a short one may become ambiguous."""
REPO_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
"""user/name."""
_NAME = re.compile(r"([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:@([A-Za-z0-9][\w./-]*))?", re.ASCII)


def parse_release_name(text: str) -> tuple[str, str | None] | None:
    """The repository and the revision that `user/name@v1.0.0` or `user/name` names; None where it is no such name."""
    found = _NAME.fullmatch(text)
    return (found[1], found[2]) if found else None
