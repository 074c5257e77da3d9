"""Download a release from the Hugging Face Hub and verify every file against its manifest.

A release lies in the standard cache of the Hub's client, at one commit; `verified_files.py` records which files were
verified. Note: the client checks sizes, not content, and trusts its cache. Every file's hash is therefore compared
here, and a wrong file is removed from the cache.
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
"""Called with the number of bytes that are here and of all that are wanted."""


@dataclass(frozen=True)
class LocalRelease:
    """A release, or some tables of it, verified on this machine."""

    repo: str
    commit: str
    folder: Path
    """In the client's cache; read-only."""
    manifest: ReleaseManifest
    files: tuple[ReleaseFile, ...]
    """The requested ones."""
    fetched: tuple[ReleaseFile, ...]
    """Those of them that were downloaded now."""


def pull_release(
    repo: str,
    revision: str | None = None,
    tables: Sequence[str] | None = None,
    tell: ByteProgress = lambda done, total: None,
) -> LocalRelease:
    """Download a release into the standard cache; files that are there and verified are not requested again.

    Args:
        repo: user/name of a dataset repository.
        revision: a commit, branch or tag; `main` by default. A commit whose files are all here is opened without a
            request, a branch or tag that was pulled before also without a network.
        tables: only the files of these tables; by default every file of the release.
        tell: called with the progress.

    Raises:
        UserError: where the Hub refuses or cannot be reached, the release is refused, a file is not what the manifest
            says, there is no such table, or no room.
    """
    revision = revision or "main"
    with download_errors(repo, revision, "release"):
        commit = _commit(repo, revision)
        known = verified_release(repo, commit)
        pulled = (known and _from_cache(repo, commit, known, tables)) or _download(repo, commit, tables, known, tell)
        remember_commit(repo, revision, commit)
    return pulled


def pull_tables(repo: str, revision: str | None) -> ReleaseTables:
    """Open the tables of a release on the Hub.

    Where a pull finished before, its tables are opened, even if they are only some; otherwise all are pulled now.

    Raises:
        UserError: as `pull_release`, and where it is an index.
    """
    name = f"{repo}@{revision}" if revision else repo
    revision = revision or "main"
    with download_errors(repo, revision, "release"):
        commit = _commit(repo, revision)
        known = verified_release(repo, commit)
    pulled = pull_release(repo, commit, _requested_before(known) if known and known.complete else None)
    remember_commit(repo, revision, commit)
    return read_release(pulled.folder, name, {file.path for file in pulled.files})


def _requested_before(known: VerifiedRelease) -> list[str] | None:
    """The tables that the last pull requested; None for all files."""
    files = [file for file in known.manifest.files if file.path in known.marked]
    tables = {file.table for file in files if file.table}
    return None if any(file.table is None for file in files) else sorted(tables)


def copy_release(pulled: LocalRelease, output: Path) -> None:
    """Copy a release into a folder of its own, atomically; a release that lies there is replaced.

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
    """The commit of a revision; without a network, its commit at the last request."""
    import httpx2
    from huggingface_hub import HfApi

    if COMMIT.fullmatch(revision):
        return revision
    try:
        with _answer_errors(repo):
            commit = HfApi().dataset_info(repo, revision=revision).sha
            if commit is None or not COMMIT.fullmatch(commit):
                raise ValueError(commit)
    except (httpx2.TransportError, ConnectionError):
        if before := remembered_commit(repo, revision):
            return before
        raise
    return commit


def _from_cache(repo: str, commit: str, known: VerifiedRelease, tables: Sequence[str] | None) -> LocalRelease | None:
    """The requested files, where all of them were verified before."""
    wanted = _select_files(known.manifest, tables)
    if not known.verified.issuperset(file.path for file in wanted):
        return None
    if not known.complete:
        record_verified(repo, commit, known.folder, known.verified, complete=True)
    return LocalRelease(repo, commit, known.folder, known.manifest, (*wanted,), ())


def _download(
    repo: str, commit: str, tables: Sequence[str] | None, known: VerifiedRelease | None, tell: ByteProgress
) -> LocalRelease:
    verified = known.verified if known else frozenset[str]()
    listing = _listing(repo, commit)
    path, manifest = _manifest(repo, commit, listing)
    folder, wanted = path.parent, _select_files(manifest, tables)
    missing = [file for file in wanted if file.path not in verified]
    _require_sizes(repo, listing, missing)
    _require_room(repo, folder, missing)
    done = {MANIFEST, *verified}
    try:
        _download_files(repo, commit, manifest, missing, done, tell)
    finally:
        record_verified(repo, commit, folder, done, complete=done.issuperset(file.path for file in wanted))
    return LocalRelease(repo, commit, folder, manifest, (*wanted,), (*missing,))


def _listing(repo: str, commit: str) -> dict[str, RepoFile]:
    """The files of a repository at a commit, by their paths."""
    from huggingface_hub import HfApi, RepoFile

    with _answer_errors(repo):
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
    path = _verified_file(repo, commit, MANIFEST, lambda path: _is_entry(path, entry))
    manifest = read_manifest(path)
    if manifest.kind == "tables":
        check_tables(manifest)
    return path, manifest


def _is_entry(path: Path, entry: RepoFile) -> bool:
    """Whether a file is the one that a listing names."""
    if entry.lfs is not None:
        return file_sha256(path) == entry.lfs.sha256
    return git_blob_id(path.read_bytes()) == entry.blob_id


def _select_files(manifest: ReleaseManifest, tables: Sequence[str] | None) -> list[ReleaseFile]:
    if tables is None:
        return list(manifest.files)
    if unknown := [table for table in tables if table not in manifest.tables]:
        has = ", ".join(sorted(manifest.tables)) or "none"
        raise UserError(f"Release {manifest.name} has no table {unknown[0]!r}; its tables: {has}.")
    return manifest.of(tables)


def _require_sizes(repo: str, listing: Mapping[str, RepoFile], files: Iterable[ReleaseFile]) -> None:
    """Refuse a listing with other sizes than the manifest, before anything is downloaded."""
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


def _download_files(
    repo: str, commit: str, manifest: ReleaseManifest, files: Sequence[ReleaseFile], done: set[str], tell: ByteProgress
) -> None:
    """Download and verify files in parallel; `done` gets the path of each that is right."""
    total, received = sum(file.size for file in files), 0
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        running = {pool.submit(_download_file, repo, commit, manifest, file): file for file in files}
        try:
            for future in as_completed(running):
                future.result()
                done.add(running[future].path)
                received += running[future].size
                tell(received, total)
        finally:
            pool.shutdown(cancel_futures=True)


def _download_file(repo: str, commit: str, manifest: ReleaseManifest, file: ReleaseFile) -> None:
    path = _verified_file(repo, commit, file.path, lambda path: _is_whole(path, file))
    folder = path.parents[file.path.count("/")]
    if manifest.kind == "tables":
        check_files(folder, manifest, [file])


def _is_whole(path: Path, file: ReleaseFile) -> bool:
    return path.stat().st_size == file.size and file_sha256(path) == file.sha256


def _verified_file(repo: str, commit: str, name: str, is_right: Callable[[Path], bool]) -> Path:
    """A file in the client's cache; a damaged one is downloaded once more."""
    from huggingface_hub import hf_hub_download

    for _ in range(_TRIES):
        with _answer_errors(repo):
            path = Path(hf_hub_download(repo, name, repo_type="dataset", revision=commit))
        if is_right(path):
            return path
        _remove_from_cache(path)
    raise UserError(
        f"{repo} of the Hub: {name} arrived damaged, or is not what its release says. It was thrown away; pull again, "
        "and if it stays so, tell its author."
    )


def _remove_from_cache(path: Path) -> None:
    """Remove a file from the client's cache, with the files that it links to."""
    while path.is_symlink():
        target = path.parent / path.readlink()
        path.unlink()
        path = target
    path.unlink(missing_ok=True)


@contextmanager
def _answer_errors(repo: str) -> Iterator[None]:
    """Translate what the client raises on answers that it cannot read: a damaged one may break it anywhere."""
    from huggingface_hub.errors import HFValidationError

    try:
        yield
    except (HFValidationError, UnicodeEncodeError):  # translated by `download_errors`
        raise
    except (ValueError, LookupError, TypeError, AttributeError, RuntimeError) as error:
        raise UserError(
            f"{repo} of the Hub cannot be downloaded: its answers cannot be understood ({type(error).__name__}). Try "
            "again; is HF_ENDPOINT right where it is set?"
        ) from None
