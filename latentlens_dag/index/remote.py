"""An index that lies on the Hub, read from there: `ContextualIndex.open("hf://datasets/user/name@v1.0.0")`.

Occurrences and sentences are small: they are downloaded into the Hub's cache when they are first needed and compared
with the release's manifest. Lance reads layer tables in ranges: a search reads only its layers, and with their indexes
only a part of these. Note: a branch may move while it is read. The commit is looked up once, when the index is opened,
and everything is read at that commit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latentlens_dag.errors import UserError
from latentlens_dag.hub.client import HubError, call_hub
from latentlens_dag.hub.names import parse_release_name
from latentlens_dag.index.folder import read_shape
from latentlens_dag.release.manifest import MANIFEST, ReleaseManifest, file_sha256, read_manifest
from latentlens_dag.storage.shapes import IndexShape
from latentlens_dag.storage.warehouse import IndexPaths

if TYPE_CHECKING:
    import lance

_ADDRESS = "hf://datasets/"
_PATHS = IndexPaths(Path())  # relative to the repository


@dataclass(frozen=True)
class HubRepo:
    """A dataset repository at one commit."""

    name: str
    """user/name."""
    commit: str

    def download(self, path: str) -> Path:
        """A file of the repository, from the cache where it is there."""
        from huggingface_hub import hf_hub_download

        download = partial(hf_hub_download, self.name, path, repo_type="dataset", revision=self.commit)
        return Path(_call_hub(download, f"Reading {path} of {self.name}"))


@dataclass(frozen=True)
class RemoteTable:
    """A layer table on the Hub."""

    repo: HubRepo
    path: str
    """layer_08.lance."""
    facts: str | None
    """The path of its index's measurement; None where it has none."""

    @property
    def name(self) -> str:
        """Its name in messages."""
        return f"{self.repo.name}/{self.path}"

    @cached_property
    def dataset(self) -> lance.LanceDataset:
        """The table; it stays open, so that Lance caches what it read."""
        import lance
        from huggingface_hub import get_token

        token = get_token()
        options = {"revision": self.repo.commit, **({"token": token} if token else {})}
        return lance.dataset(f"hf://datasets/{self.repo.name}/{self.path}", storage_options=options)

    @cached_property
    def measurement_file(self) -> Path | None:
        """The measurement of its index, downloaded."""
        return None if self.facts is None else self.repo.download(self.facts)


@dataclass(frozen=True)
class RemoteIndex:
    """An index on the Hub, as a search reads it (`folder.IndexFolder`)."""

    path: str
    """Its address."""
    repo: HubRepo
    manifest: ReleaseManifest = field(repr=False)
    shape: IndexShape

    @property
    def language_model(self) -> str:
        """The name of its language model."""
        return self.shape.language_model

    @property
    def rows(self) -> int:
        """Occurrences."""
        return max((self.shape.rows or {}).values(), default=0)

    @cached_property
    def tables(self) -> Mapping[int, RemoteTable]:
        """Layer tables, by contextual layer."""
        known = {file.path for file in self.manifest.files}
        return {layer: self._table(_PATHS.layer_table(layer), known) for layer in self.shape.layers}

    @cached_property
    def occurrence_files(self) -> list[Path]:
        """Parquet (OCCURRENCES), all parts."""
        return [self._checked(_PATHS.occurrences(part).as_posix()) for part in range(self.shape.parts)]

    @cached_property
    def sentences(self) -> Path:
        """Parquet (SENTENCES)."""
        return self._checked(_PATHS.own_sentences.as_posix())

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Report that a table cannot be read; without the client's message, which may quote a token.

        Raises:
            UserError: where the Hub cannot be reached, refuses, or sends a damaged table.
        """
        try:
            yield
        except (OSError, ValueError, RuntimeError) as error:
            if not _is_of_lance(error):
                raise
            raise UserError(
                f"A layer table of {self.path} cannot be read ({type(error).__name__}). Is there a network, is the "
                "repository still there, and are HF_ENDPOINT and HF_TOKEN right where they are set? `latentlens-dag "
                f"pull {self.repo.name}` brings all of it here, every file checked."
            ) from None

    def _table(self, path: Path, known: set[str]) -> RemoteTable:
        facts = path.with_suffix(".approximate.json").as_posix()
        return RemoteTable(self.repo, path.as_posix(), facts if facts in known else None)

    def _checked(self, path: str) -> Path:
        return download_verified(self.repo, self.manifest, path)


def open_remote_index(address: str) -> RemoteIndex:
    """Find the parts of an index on the Hub: only its manifest and `shape.json` are read.

    Args:
        address: hf://datasets/user/name, and @revision (a tag, branch or commit) after it.

    Raises:
        UserError: where the address is none of a dataset, there is none or no such revision, it is no release of an
            index, one of a newer version, or the Hub cannot be reached.
    """
    name = address.removeprefix(_ADDRESS).removesuffix("/")
    release = parse_release_name(name) if address.startswith(_ADDRESS) else None
    if release is None:
        raise UserError(
            f"{address} is no address of an index: write hf://datasets/user/name, with @REVISION after it if you like."
        )
    repo = HubRepo(release[0], _commit(*release))
    manifest = read_manifest(repo.download(MANIFEST))
    if manifest.kind != "index":
        raise UserError(
            f"{address} is a release of results, not of an index: open it with `open_dataset({repo.name!r})`."
        )
    shape = read_shape(download_verified(repo, manifest, _PATHS.shape.as_posix()).parent)
    return RemoteIndex(address, repo, manifest, shape)


def download_verified(repo: HubRepo, manifest: ReleaseManifest, path: str) -> Path:
    """A file of a release, downloaded and compared with the manifest."""
    listed = next((file for file in manifest.files if file.path == path), None)
    if listed is None:
        raise UserError(f"The release {repo.name} lacks {path}, so it cannot be searched: was it published whole?")
    file = repo.download(path)
    if file.stat().st_size != listed.size or file_sha256(file) != listed.sha256:
        raise UserError(
            f"{path} of {repo.name} is not what its manifest says: it was damaged on its way, or changed. Remove "
            f"{file} and try again; if it stays so, do not use the release."
        )
    return file


def _commit(repo: str, revision: str | None) -> str:
    from huggingface_hub import HfApi

    look_up = partial(HfApi().repo_info, repo, repo_type="dataset", revision=revision)
    return str(_call_hub(look_up, f"Reading {repo}{f' at {revision}' if revision else ''}").sha)


def _call_hub(call: Callable[[], Any], what: str) -> Any:
    try:
        return call_hub(call, what)
    except HubError as failure:
        raise UserError(
            f"{failure} Is the name right, is there such a revision, is there a network, and are HF_ENDPOINT and "
            "HF_TOKEN right where they are set? Of a private dataset, log in with `hf auth login`."
        ) from None


def _is_of_lance(error: BaseException) -> bool:
    """Whether an error is Lance's, which raises errors of all kinds where it cannot read a table."""
    return not isinstance(error, UserError) and ("lance" in str(error).lower() or isinstance(error, OSError))
