"""Tags of published releases: permanent names of commits of main.

Note: the client's `exist_ok` silently keeps a tag of another commit. Here a tag is read before and after, and never
moved.
"""

from __future__ import annotations

import re
import time
from functools import partial

from latentlens_dag.errors import UserError
from latentlens_dag.hub.client import TRIES, HubError, call_hub
from latentlens_dag.publish.plan import MAIN, REPO_TYPE

_TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_COMMIT = re.compile(r"[0-9a-f]{7,40}")


def require_tag_name(tag: str) -> None:
    """Refuse a name that no tag can have, or that reads as a branch or a commit.

    Raises:
        UserError: for such a name.
    """
    if not _TAG.fullmatch(tag) or tag == MAIN or _COMMIT.fullmatch(tag):
        raise UserError(f"`--tag {tag!a}` cannot be a tag: take letters, digits, `.`, `_` and `-`, such as v1.0.0.")


def require_free_tag(tag: str, repo_id: str, commit: str | None) -> bool:
    """Whether a tag does not exist yet.

    Args:
        tag: its name.
        repo_id: user/name.
        commit: the one it shall name; None for a commit that is not made yet.

    Raises:
        UserError: where it exists and names another commit.
        HubError: where the Hub fails.
    """
    from huggingface_hub import HfApi

    refs = call_hub(partial(HfApi().list_repo_refs, repo_id, repo_type=REPO_TYPE), f"Reading the tags of {repo_id}")
    there = next((one.target_commit for one in refs.tags if one.name == tag), None)
    if there is not None and there != commit:
        raise UserError(
            f"{repo_id} of the Hub has a tag {tag}, which names another commit ({there}). A tag is never moved: take "
            "a new one."
        )
    return there is None


def set_tag(repo_id: str, tag: str, commit: str) -> None:
    """Set a tag, and read it again whatever the answer was. Errors as of `require_free_tag`."""
    from huggingface_hub import HfApi

    call = partial(HfApi().create_tag, repo_id, tag=tag, revision=commit, repo_type=REPO_TYPE)
    for _ in range(TRIES):
        if not require_free_tag(tag, repo_id, commit):
            return
        try:
            call_hub(call, f"Setting the tag {tag} of {repo_id}", tries=1)
        except HubError as failure:
            if not (failure.transient or failure.status == 409):
                raise
            failed = failure
            time.sleep(2 if failure.wait is None else failure.wait)
    raise failed
