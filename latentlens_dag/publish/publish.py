"""Publish a release on the Hugging Face Hub: upload the files, make one commit on main, read it again, tag it.

Note: a missing answer says nothing about the commit. After one, the files of main decide: a commit is atomic, so it
was made if they are those of the release.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from latentlens_dag.errors import UserError
from latentlens_dag.hub.client import HubError, call_hub
from latentlens_dag.hub.names import REPO_ID
from latentlens_dag.publish.plan import (
    MAIN,
    REPO_TYPE,
    ProgressLine,
    PublicationPlan,
    RepoTree,
    StagedRelease,
    plan_changes,
    read_staged_release,
    read_tree,
    replaceable_files,
)
from latentlens_dag.publish.tags import require_free_tag, require_tag_name, set_tag
from latentlens_dag.release.manifest import MANIFEST

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd

_TRIES = 3
_UPLOAD_BATCH = 64  # files between two lines of progress
_PULL_REQUESTS = 5  # the newest, among which ours may be
_UNKNOWN = "Nothing was sent. What would be changed depends on what the Hub holds, so a plan needs its answer too."
_UNCHANGED = "Nothing on main was changed; run again to go on."
_UNKNOWN = "A commit is made whole or not at all; run again to see whether it was, and to go on."


class PublicationError(Exception):
    """A publication failed without a mistake of the user; the message says what main holds and what to do."""


@dataclass(frozen=True)
class Publication:
    """The result of a publication."""

    plan: PublicationPlan
    commit: str
    """The commit with the release."""
    committed: bool
    """False where the repository, or a pull request, had the release before."""
    pull_request: str | None
    """`refs/pr/1`; None where the commit is on main."""
    tag: str | None


class _Commit(NamedTuple):
    """A commit with the release."""

    commit: str
    pull_request: str | None = None
    new: bool = True
    """False where an earlier publication made it."""


@dataclass(frozen=True)
class _Job:
    """The arguments that all steps of a publication share."""

    staged: StagedRelease
    repo_id: str
    ours: Set[str]
    """The files of main that may be replaced or deleted."""
    create_pr: bool
    tell: ProgressLine

    def remaining(self, tree: RepoTree) -> PublicationPlan:
        """The changes that are still to be made."""
        return plan_changes(self.staged, self.repo_id, tree, self.ours | self.staged.files.keys())


def plan_publication(
    folder: Path, repo_id: str, *, tag: str | None = None, private: bool = False, tell: ProgressLine = lambda _: None
) -> PublicationPlan:
    """The changes that `publish` would make; nothing is sent.

    Args:
        folder: the release.
        repo_id: user/name; it need not exist.
        tag: as of `publish`.
        private: as of `publish`.
        tell: takes lines of progress.

    Raises:
        UserError: as `publish`, as far as reading shows.
        PublicationError: where the Hub fails.
    """
    _require_names(repo_id, tag)
    staged = read_staged_release(folder, tell)
    with _hub_errors(repo_id, _UNKNOWN):
        return _plan(staged, repo_id, read_tree(repo_id), tag, private)[1]


def publish(
    folder: Path,
    repo_id: str,
    *,
    tag: str | None = None,
    create_pr: bool = False,
    private: bool = False,
    tell: ProgressLine = lambda _: None,
) -> Publication:
    """Put a release on the Hub by one commit, or do nothing where it is there; may be run again after any failure.

    Args:
        folder: the release; it is compared with its manifest before anything is sent.
        repo_id: user/name; it is created where it does not exist.
        tag: names the commit of main that holds the release, for ever.
        create_pr: propose the commit as a pull request, and leave main as it is.
        private: create the repository as a private one; one that exists must be private.
        tell: takes lines of progress.

    Raises:
        UserError: where the folder is damaged, the repository holds what is no release or another one, is public
            though `private` is asked for, the tag names another commit, the token is missing or may not write, or
            somebody else published meanwhile.
        PublicationError: where the Hub, or the way to it, fails.
    """
    _require_names(repo_id, tag)
    if tag and create_pr:
        raise UserError("A tag names what main holds: merge the pull request first, then publish again with --tag.")
    _require_token()
    staged = read_staged_release(folder, tell)
    with _hub_errors(repo_id, _UNCHANGED):
        ours, plan, tree = _plan_and_create(staged, repo_id, tag, private, tell)
    job = _Job(staged, repo_id, ours, create_pr, tell)
    tell(_plan_line(plan))
    if plan.empty:
        assert tree.commit is not None  # else everything would be added
        made = _Commit(tree.commit, new=False)
    else:
        made = _propose(job, tree, plan) if create_pr else _commit_to_main(job, tree, plan)
    if tag:
        with _hub_errors(repo_id, f"Main holds the release, without the tag {tag}; run again to set it."):
            set_tag(repo_id, tag, made.commit)
    return Publication(plan, made.commit, made.new, made.pull_request, tag)


def _require_names(repo_id: str, tag: str | None) -> None:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(repo_id)
    except HFValidationError:
        repo_id = ""
    if not REPO_ID.fullmatch(repo_id):
        raise UserError("The repository's name is none that the Hub takes: write it as user/name.")
    if tag is not None:
        require_tag_name(tag)


def _require_token() -> None:
    from huggingface_hub import get_token

    if get_token() is None:
        raise UserError(
            "Publishing needs a token of the Hub that may write: log in with `hf auth login`, or set HF_TOKEN."
        )


@contextmanager
def _hub_errors(repo_id: str, state: str) -> Iterator[None]:
    """Translate a failure of the Hub; `state` says what it left behind."""
    try:
        yield
    except HubError as error:
        failure = error
    else:
        return
    if failure.status == 401:
        raise UserError(
            f"The Hub does not take your token (status 401; {repo_id}): it is wrong or has expired. Log in again with "
            f"`hf auth login`, or set HF_TOKEN. {state}"
        )
    if failure.status == 403:
        raise UserError(
            f"Your token may not write to {repo_id} (status 403): take a name of your own or of an organization that "
            f"you may write to, and a token with the right to write. {state}"
        )
    raise PublicationError(f"{failure} {state}")


def _plan(
    staged: StagedRelease, repo_id: str, tree: RepoTree, tag: str | None, private: bool
) -> tuple[Set[str], PublicationPlan]:
    """The files that may be replaced, and the plan; errors come before anything is sent."""
    if private and tree.commit and not tree.private:
        raise UserError(
            f"{repo_id} of the Hub exists and is public: make it private in its settings first, or leave out --private."
        )
    ours = replaceable_files(staged, repo_id, tree)
    plan = plan_changes(staged, repo_id, tree, ours)
    if tag and tree.commit:
        require_free_tag(tag, repo_id, tree.commit if plan.empty else None)
    return ours, plan


def _plan_and_create(
    staged: StagedRelease, repo_id: str, tag: str | None, private: bool, tell: ProgressLine
) -> tuple[Set[str], PublicationPlan, RepoTree]:
    """As `_plan`, after creating the repository where there is none."""
    from huggingface_hub import HfApi

    tree = read_tree(repo_id)
    if tree.commit is None:
        tell(f"Creating {repo_id}")
        visible = True if private else None  # None: as the namespace has it
        make = partial(HfApi().create_repo, repo_id, repo_type=REPO_TYPE, private=visible, exist_ok=True)
        call_hub(make, f"Creating {repo_id}")
        tree = read_tree(repo_id)
        if tree.commit is None:
            raise HubError(f"Creating {repo_id}", None, "it is not there yet", transient=True)
    return (*_plan(staged, repo_id, tree, tag, private), tree)


def _plan_line(plan: PublicationPlan) -> str:
    if plan.empty:
        return f"{plan.repo_id} holds the release already"
    counts = f"{len(plan.adds):,} to add, {len(plan.replacements):,} to replace, {len(plan.deletions):,} to delete"
    return f"{plan.repo_id}: {counts}, {len(plan.unchanged):,} unchanged; {plan.upload_bytes:,} bytes to send"


def _commit_to_main(job: _Job, tree: RepoTree, plan: PublicationPlan) -> _Commit:
    state = _UNCHANGED
    for _ in range(_TRIES):
        with _hub_errors(job.repo_id, state):
            made = _make_commit(job, plan, _upload(job, plan))
        with _hub_errors(job.repo_id, _UNKNOWN):
            now = _read_again(job, made)
        left = job.remaining(now)
        if left.empty and now.commit is not None:
            return _Commit(now.commit)
        if made is not None:
            state = f"Main of {job.repo_id} is not what was sent; run again to put it right."
        elif now.commit != plan.parent:
            _require_same_release(job, tree, now)
        tree, plan = now, left
    raise PublicationError(f"{job.repo_id} took no commit in {_TRIES} tries. {state}")


def _propose(job: _Job, tree: RepoTree, plan: PublicationPlan) -> _Commit:
    """Put the release into a pull request, unless an earlier try did; a second one is never made."""
    for tried in range(_TRIES):
        with _hub_errors(job.repo_id, _UNCHANGED):
            if found := _find_pull_request(job):
                return found._replace(new=tried > 0)
            made = _make_commit(job, plan, _upload(job, plan))
            now = _read_again(job, made)
        left = job.remaining(now)
        if made is not None and not left.empty:
            problem = f"{made.pull_request} of {job.repo_id} is not what was sent: close it, then run again."
            raise PublicationError(f"{problem} {_UNCHANGED}")
        if made is not None or left.empty:
            return made or _Commit(now.commit or "")
        if now.commit != plan.parent:
            _require_same_release(job, tree, now)
        tree, plan = now, left
    raise PublicationError(f"{job.repo_id} took no commit in {_TRIES} tries. {_UNCHANGED}")


def _read_again(job: _Job, made: _Commit | None) -> RepoTree:
    job.tell(f"Reading again what {job.repo_id} holds")
    return read_tree(job.repo_id, made.commit if made else MAIN)


def _require_same_release(job: _Job, before: RepoTree, now: RepoTree) -> None:
    """Refuse to go on where somebody else published between our reading and our commit."""
    if before.files.get(MANIFEST) != now.files.get(MANIFEST):
        raise UserError(
            f"Somebody else published to {job.repo_id} meanwhile (main is at {now.commit}), and this release was not "
            "put over it. Look at what is there; run again if yours is to replace it."
        )


def _upload(job: _Job, plan: PublicationPlan) -> list[CommitOperationAdd]:
    """Upload the large ones among the files that change; contents that the Hub has are not sent."""
    from huggingface_hub import CommitOperationAdd, HfApi

    _require_good_card(job, plan)
    adds = [CommitOperationAdd(file.path, job.staged.folder / file.path) for file in plan.changed]
    waiting, done = iter(adds), 0
    while batch := list(islice(waiting, _UPLOAD_BATCH)):
        send = partial(
            HfApi().preupload_lfs_files,
            job.repo_id,
            batch,
            repo_type=REPO_TYPE,
            revision=MAIN,
            create_pr=job.create_pr,
            free_memory=False,
            gitignore_content="",  # or the repository's .gitignore would leave files out
        )
        call_hub(send, f"Sending files to {job.repo_id}", tries=1)
        done += len(batch)
        job.tell(f"Sent {done:,} of {len(adds):,} files")
    for add in adds:
        if add.upload_info.sha256.hex() != job.staged.files[add.path_in_repo].sha256:
            raise UserError(f"{add.path_in_repo} of {job.staged.folder} was changed while it was sent. {_UNCHANGED}")
    return adds


def _require_good_card(job: _Job, plan: PublicationPlan) -> None:
    """Let the Hub validate the card before anything is sent."""
    from huggingface_hub import DatasetCard
    from yaml import YAMLError

    if "README.md" not in {file.path for file in plan.changed}:
        return
    card = job.staged.folder / "README.md"
    wrong = f"The Hub does not take the card, {card}: its YAML, between the lines `---`, is wrong"
    try:
        check = partial(DatasetCard(card.read_text(encoding="utf-8")).validate, repo_type=REPO_TYPE)
        call_hub(check, "Checking the card")
    except (YAMLError, ValueError) as error:
        raise UserError(f"{wrong} ({' '.join(str(error).split())}). {_UNCHANGED}") from None
    except HubError as failure:
        if failure.status != 400:
            raise
        raise UserError(f"{wrong}. {_UNCHANGED}") from None


def _make_commit(job: _Job, plan: PublicationPlan, adds: Sequence[CommitOperationAdd]) -> _Commit | None:
    """Make the commit on the plan's parent; None where it failed or its answer was lost."""
    from huggingface_hub import CommitOperationDelete, HfApi

    manifest = job.staged.manifest
    operations: list[Any] = [*adds, *(CommitOperationDelete(path, is_folder=False) for path in plan.deletions)]
    job.tell(f"Making one commit of {len(operations):,} changes")
    call = partial(
        HfApi().create_commit,
        job.repo_id,
        operations,
        commit_message=f"Publish {manifest.name}",
        commit_description=f"By latentlens-dag {manifest.package_version}.",
        repo_type=REPO_TYPE,
        revision=MAIN,
        create_pr=job.create_pr,
        parent_commit=plan.parent,
    )
    try:
        made = call_hub(call, f"The commit to {job.repo_id}", tries=1)
    except HubError as failure:
        if not (failure.transient or failure.status == 412):
            raise
        job.tell(str(failure))
        time.sleep(2 if failure.wait is None else failure.wait)
        return None
    return _Commit(made.oid, made.pr_revision)


def _find_pull_request(job: _Job) -> _Commit | None:
    """The newest pull request with the release, made by an earlier try."""
    from huggingface_hub import HfApi

    call = partial(HfApi().list_repo_refs, job.repo_id, repo_type=REPO_TYPE, include_pull_requests=True)
    pulls = call_hub(call, f"Reading the pull requests of {job.repo_id}").pull_requests or []
    newest = sorted(pulls, key=lambda pull: int(pull.ref.rpartition("/")[2]), reverse=True)
    for pull in newest[:_PULL_REQUESTS]:
        tree = read_tree(job.repo_id, pull.target_commit)
        if tree.commit and MANIFEST in tree.files and job.remaining(tree).empty:
            return _Commit(tree.commit, pull.ref)
    return None
