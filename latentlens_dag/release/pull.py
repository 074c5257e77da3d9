"""Downloading a release from the Hugging Face Hub, and taking nothing that is not what its manifest says.

A release lies in the standard cache of the Hub's client, one commit of it; `verified_files.py` keeps what of it was
verified. What a newcomer gets wrong: the client checks sizes, not content, and takes what lies in its cache as it is.
So every file's hash is compared here, and one that is wrong is thrown out of the cache.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from latentlens_dag.errors import UserError
from latentlens_dag.hub.client import git_blob_id
from latentlens_dag.hub.errors import download_errors
from latentlens_dag.hub.names import COMMIT
from latentlens_dag.release.manifest import (
    MANIFEST,
    MAX_FILES,
    MAX_MANIFEST_BYTES,
    ReleaseFile,
    ReleaseManifest,
    file_sha256,
    read_manifest,
)
from latentlens_dag.release.reader import ReleaseTables, check_files, check_tables, is_release, read_release
from latentlens_dag.release.verified_files import (
    VerifiedRelease,
    record_verified,
    remember_commit,
    remembered_commit,
    verified_release,
)
from latentlens_dag.storage.files import atomic_path

if TYPE_CHECKING:
    from huggingface_hub import RepoFile

_AT_ONCE = 8
_TRIES = 2  # of a file that arrives damaged
_MOST_ENTRIES = 10 * MAX_FILES  # of a repository's listing, with its folders and old files

ByteProgress = Callable[[int, int], object]
"""Called with the bytes that are here and the bytes that are wanted."""


@dataclass(frozen=True)
class LocalRelease:
    """A release, or some tables of it, on this machine: verified."""

    repo: str
    commit: str
    folder: Path
    """In the client's cache; it is not to be written to."""
    manifest: ReleaseManifest
    files: tuple[ReleaseFile, ...]
    """Those that were asked for."""
    fetched: tuple[ReleaseFile, ...]
    """Those of them that were not here before."""


def pull_release(
    repo: str,
    revision: str | None = None,
    tables: Sequence[str] | None = None,
    tell: ByteProgress = lambda done, total: None,
) -> LocalRelease:
    """Download a release into the standard cache; what of it is there already, and right, is not asked for again.

    Args:
        repo: user/name of a dataset repository.
        revision: a commit, branch or tag; `main` by default. A commit that is all here is opened without any request,
            a branch or tag that was pulled before without a network.
        tables: only the files of these tables; by default every file of the release.
        tell: told of the progress.

    Raises:
        UserError: where the Hub refuses or cannot be reached, the release is refused, a file is not what the manifest
            says, there is no such table, or no room.
    """
    revision = revision or "main"
    with download_errors(repo, revision, "release"):
        commit = _commit(repo, revision)
        known = verified_release(repo, commit)
        pulled = (known and _here(repo, commit, known, tables)) or _fetched(repo, commit, tables, known, tell)
        remember_commit(repo, revision, commit)
    return pulled


def pull_tables(repo: str, revision: str | None) -> ReleaseTables:
    """The tables of a release of the Hub, ready to be read.

    Where a pull came to its end before, what it brought is opened, if only some tables; otherwise all is pulled now.

    Raises:
        UserError: as `pull_release`, and where it is an index.
    """
    name = f"{repo}@{revision}" if revision else repo
    asked = revision or "main"
    with download_errors(repo, asked, "release"):
        commit = _commit(repo, asked)
        known = verified_release(repo, commit)
    pulled = pull_release(repo, commit, _pulled_before(known) if known and known.complete else None)
    remember_commit(repo, asked, commit)
    return read_release(pulled.folder, name, {file.path for file in pulled.files})


def _pulled_before(known: VerifiedRelease) -> list[str] | None:
    """The tables that a pull was asked for; None where it was asked for everything."""
    files = [file for file in known.manifest.files if file.path in known.marked]
    tables = {file.table for file in files if file.table}
    return None if any(file.table is None for file in files) else sorted(tables)


def copy_release(pulled: LocalRelease, output: Path) -> None:
    """Copy what was pulled into a folder of its own, whole or not at all; a release that lies there is replaced.

    Raises:
        UserError: where something else lies there.
        OSError: where it cannot be written.
    """
    if output.exists() and not (output.is_dir() and (is_release(output) or not any(output.iterdir()))):
        raise UserError(f"{output} is neither a release nor an empty folder, so it is not replaced. Name another one.")
    with atomic_path(output) as temporary:
        for path in (MANIFEST, *(file.path for file in pulled.files)):
            (temporary / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(pulled.folder / path, temporary / path)


def _commit(repo: str, revision: str) -> str:
    """The commit that a revision is; where there is no network, the one that it was when the Hub was last asked."""
    import httpx2
    from huggingface_hub import HfApi

    if COMMIT.fullmatch(revision):
        return revision
    try:
        with _understood(repo):
            commit = HfApi().dataset_info(repo, revision=revision).sha
            if commit is None or not COMMIT.fullmatch(commit):
                raise ValueError(commit)
    except (httpx2.TransportError, ConnectionError):
        if before := remembered_commit(repo, revision):
            return before
        raise
    return commit


def _here(repo: str, commit: str, known: VerifiedRelease, tables: Sequence[str] | None) -> LocalRelease | None:
    """What is asked for, where all of it was verified before."""
    wanted = _wanted(known.manifest, tables)
    if not known.verified.issuperset(file.path for file in wanted):
        return None
    if not known.complete:
        record_verified(repo, commit, known.folder, known.verified, complete=True)
    return LocalRelease(repo, commit, known.folder, known.manifest, (*wanted,), ())


def _fetched(
    repo: str, commit: str, tables: Sequence[str] | None, known: VerifiedRelease | None, tell: ByteProgress
) -> LocalRelease:
    verified = known.verified if known else frozenset[str]()
    listing = _listing(repo, commit)
    path, manifest = _manifest(repo, commit, listing)
    folder, wanted = path.parent, _wanted(manifest, tables)
    missing = [file for file in wanted if file.path not in verified]
    _require_sizes(repo, listing, missing)
    _require_room(repo, folder, missing)
    done = {MANIFEST, *verified}
    try:
        _fetch_all(repo, commit, manifest, missing, done, tell)
    finally:
        record_verified(repo, commit, folder, done, complete=done.issuperset(file.path for file in wanted))
    return LocalRelease(repo, commit, folder, manifest, (*wanted,), (*missing,))


def _listing(repo: str, commit: str) -> dict[str, RepoFile]:
    """The files of a repository at a commit, by their paths."""
    from huggingface_hub import HfApi, RepoFile

    with _understood(repo):
        tree = HfApi().list_repo_tree(repo, recursive=True, revision=commit, repo_type="dataset")
        entries = list(islice(tree, _MOST_ENTRIES + 1))
    if len(entries) > _MOST_ENTRIES:
        raise UserError(f"{repo} of the Hub has more than {_MOST_ENTRIES:,} files and folders, so it is no release.")
    return {entry.path: entry for entry in entries if isinstance(entry, RepoFile)}


def _manifest(repo: str, commit: str, listing: Mapping[str, RepoFile]) -> tuple[Path, ReleaseManifest]:
    """The manifest: it names the hashes of all other files, and the Hub's listing names its own."""
    entry = listing.get(MANIFEST)
    if entry is None:
        raise UserError(
            f"{repo} of the Hub is no release at {commit}: it has no {MANIFEST}. `import-index` reads indexes of the "
            "reference library."
        )
    if entry.size > MAX_MANIFEST_BYTES:
        raise UserError(
            f"{repo} of the Hub is refused: its {MANIFEST} has {entry.size:,} bytes, more than any release needs."
        )
    path = _file(repo, commit, MANIFEST, lambda path: _is_entry(path, entry))
    manifest = read_manifest(path)
    if manifest.kind == "tables":
        check_tables(manifest)
    return path, manifest


def _is_entry(path: Path, entry: RepoFile) -> bool:
    """Whether a file is the one that a listing names."""
    if entry.lfs is not None:
        return file_sha256(path) == entry.lfs.sha256
    return git_blob_id(path.read_bytes()) == entry.blob_id


def _wanted(manifest: ReleaseManifest, tables: Sequence[str] | None) -> list[ReleaseFile]:
    if tables is None:
        return list(manifest.files)
    if unknown := [table for table in tables if table not in manifest.tables]:
        has = ", ".join(sorted(manifest.tables)) or "none"
        raise UserError(f"Release {manifest.name} has no table {unknown[0]!r}; its tables: {has}.")
    return manifest.of(tables)


def _require_sizes(repo: str, listing: Mapping[str, RepoFile], files: Iterable[ReleaseFile]) -> None:
    """Refuse, before anything is fetched, what is not as large as the manifest says."""
    for file in files:
        entry = listing.get(file.path)
        if entry is None or entry.size != file.size:
            found = "is not there" if entry is None else f"has {entry.size:,} bytes there"
            raise UserError(
                f"{repo} of the Hub is refused: {file.path} {found}, and its {MANIFEST} says {file.size:,} bytes. "
                "Nothing was taken; tell its author, or pull another revision."
            )


def _require_room(repo: str, folder: Path, files: Iterable[ReleaseFile]) -> None:
    need, free = sum(file.size for file in files), shutil.disk_usage(folder).free
    if need > free:
        raise UserError(
            f"{repo} of the Hub needs {need:,} bytes more, and the disk of the cache ({folder}) has {free:,} free. "
            "Pull fewer `--tables`, make room, or name another place by HF_HOME."
        )


def _fetch_all(
    repo: str, commit: str, manifest: ReleaseManifest, files: Sequence[ReleaseFile], done: set[str], tell: ByteProgress
) -> None:
    """Fetch and verify files, some at once; `done` gets the path of every one that is right."""
    total, here = sum(file.size for file in files), 0
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        running = {pool.submit(_fetch, repo, commit, manifest, file): file for file in files}
        try:
            for future in as_completed(running):
                future.result()
                done.add(running[future].path)
                here += running[future].size
                tell(here, total)
        finally:
            pool.shutdown(cancel_futures=True)


def _fetch(repo: str, commit: str, manifest: ReleaseManifest, file: ReleaseFile) -> None:
    path = _file(repo, commit, file.path, lambda path: _is_whole(path, file))
    folder = path.parents[file.path.count("/")]
    if manifest.kind == "tables":
        check_files(folder, manifest, [file])


def _is_whole(path: Path, file: ReleaseFile) -> bool:
    return path.stat().st_size == file.size and file_sha256(path) == file.sha256


def _file(repo: str, commit: str, name: str, is_right: Callable[[Path], bool]) -> Path:
    """A file in the client's cache; where it is damaged there, or on its way, it is fetched once more."""
    from huggingface_hub import hf_hub_download

    for _ in range(_TRIES):
        with _understood(repo):
            path = Path(hf_hub_download(repo, name, repo_type="dataset", revision=commit))
        if is_right(path):
            return path
        _forget(path)
    raise UserError(
        f"{repo} of the Hub: {name} arrived damaged, or is not what its release says. It was thrown away; pull again, "
        "and if it stays so, tell its author."
    )


def _forget(path: Path) -> None:
    """Remove a file from the client's cache, with what it is a link to."""
    while path.is_symlink():
        target = path.parent / path.readlink()
        path.unlink()
        path = target
    path.unlink(missing_ok=True)


@contextmanager
def _understood(repo: str) -> Iterator[None]:
    """Tell of answers that the client cannot read: a damaged one may break it anywhere."""
    from huggingface_hub.errors import HFValidationError

    try:
        yield
    except (HFValidationError, UnicodeEncodeError):  # told by `download_errors`
        raise
    except (ValueError, LookupError, TypeError, AttributeError, RuntimeError) as error:
        raise UserError(
            f"{repo} of the Hub cannot be downloaded: its answers cannot be understood ({type(error).__name__}). Try "
            "again; is HF_ENDPOINT right where it is set?"
        ) from None
