"""Name, repository and license terms of a release."""

from __future__ import annotations

import re
from dataclasses import dataclass

from latentlens_dag.errors import UserError
from latentlens_dag.hub.names import REPO_ID


@dataclass(frozen=True)
class About:
    """Name, repository and license terms of a release; all of it is shown on its card."""

    name: str
    repo_id: str
    """user/name on the Hub."""
    title: str
    license: str
    """Of the tables, by the Hub's identifiers."""
    image_license: str | None = None
    """Of the images, in words."""
    text_license: str | None = None
    """Of the sentences and texts, in words."""
    description: str | None = None


def check_repo_id(repo_id: str, place: str) -> str:
    """Check a user/name of the Hub; `place` says where it stands, for the UserError."""
    if not REPO_ID.fullmatch(repo_id):
        raise UserError(
            f"`repo_id: {repo_id}` of {place} is no dataset of the Hub: write it as user/name, of letters, digits, "
            "`.`, `_` and `-`."
        )
    return repo_id


def check_license(license: str, place: str) -> str:
    """Check a license identifier of the Hub; `place` says where it stands, for the UserError."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9.+-]{0,63}", license):
        raise UserError(
            f"`license: {license}` of {place} is no licence as the Hub names them: apache-2.0, cc-by-4.0, other, ... "
            "What is to be said in words about pictures or texts goes into `image_license` and `text_license`."
        )
    return license
