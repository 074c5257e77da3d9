"""A repository of our own Hub: its commits, what its refs name, and the large files that were sent to it.

What a newcomer gets wrong: a commit is never changed. `Repo.commit_files` makes a new one and moves a ref; what an
older commit, or a tag at it, holds stays.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Literal

COMMIT = "0123456789abcdef0123456789abcdef01234567"
Kind = Literal["dataset", "model"]
CREATED = {".gitattributes": b"*.parquet filter=lfs diff=lfs merge=lfs -text\n"}
"""What a repository holds that was just created."""


@dataclass(frozen=True)
class Commit:
    """All files at one moment."""

    files: Mapping[str, bytes]
    large: frozenset[str] = frozenset()
    """The files that are stored by their sha256, as LFS does."""
    parent: str | None = None
    title: str = "initial commit"

    def entries(self, folder: str, recursive: bool) -> list[dict[str, object]]:
        """Files and folders below a folder, as the Hub lists them."""
        below = [path for path in sorted(self.files) if path.startswith(f"{folder}/" if folder else "")]
        parents = {str(parent) for path in below for parent in Path(path).parents} - {".", folder}
        deep = [self.entry(path) for path in sorted({*below, *parents} - set(Path(folder).parents))]
        depth = len(Path(folder).parts) + 1
        return [one for one in deep if recursive or len(Path(str(one["path"])).parts) == depth]

    def entry(self, path: str) -> dict[str, object]:
        """A file or folder, as the Hub lists it."""
        if path not in self.files:
            return {"type": "directory", "path": path, "size": 0, "oid": blob_id(path.encode())}
        content = self.files[path]
        facts = {"type": "file", "path": path, "size": len(content)}
        if path not in self.large:
            return {**facts, "oid": blob_id(content)}
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256(content)}\nsize {len(content)}\n"
        lfs = {"oid": sha256(content), "size": len(content), "pointerSize": len(pointer)}
        return {**facts, "oid": blob_id(pointer.encode()), "lfs": lfs}

    def etag(self, path: str) -> str:
        """What names the content of a file: sha256 of a large one, else what git calls it."""
        return sha256(self.files[path]) if path in self.large else blob_id(self.files[path])

    def ignores(self, path: str) -> bool:
        """Whether the repository's .gitignore names the path."""
        rules = self.files.get(".gitignore", b"").decode().split()
        return any(fnmatch(path, rule) or fnmatch(Path(path).name, rule) for rule in rules)


@dataclass
class Repo:
    """A repository, made with some files at one commit, which its refs name."""

    name: str
    files: Mapping[str, bytes]
    """At the first commit."""
    kind: Kind = "dataset"
    commit: str = COMMIT
    """The first one."""
    gated: bool = False
    refs: tuple[str, ...] = ("main",)
    """The branches at the first commit."""
    private: bool = False
    least_large: int = 10_000_000
    """Files of this many bytes or more are large."""
    history: dict[str, Commit] = field(init=False)
    branches: dict[str, str] = field(init=False)
    tags: dict[str, str] = field(default_factory=dict)
    pulls: dict[str, str] = field(default_factory=dict)
    """`refs/pr/1` -> its commit."""
    objects: dict[str, bytes] = field(default_factory=dict)
    """The large files that were sent, by sha256, whether or not a commit has them."""

    def __post_init__(self) -> None:
        large = frozenset(path for path, content in self.files.items() if self.is_large(content))
        self.history = {self.commit: Commit(dict(self.files), large)}
        self.branches = dict.fromkeys(self.refs, self.commit)
        self.objects |= {sha256(self.files[path]): self.files[path] for path in large}

    def is_large(self, content: bytes) -> bool:
        return len(content) >= self.least_large

    def resolved(self, revision: str) -> str | None:
        """The commit that a branch, tag, pull request or commit names."""
        known = {**{commit: commit for commit in self.history}, **self.pulls, **self.tags, **self.branches}
        return known.get(revision)

    @property
    def head(self) -> str:
        """The newest commit of main."""
        return self.branches["main"]

    @property
    def main(self) -> Commit:
        """What main holds."""
        return self.history[self.head]

    def commit_files(self, changes: Mapping[str, bytes | None], title: str = "a commit") -> str:
        """Put files (None: delete) on main; the new commit."""
        large = frozenset(path for path, content in changes.items() if content and self.is_large(content))
        self.branches["main"] = self.make_commit(self.head, changes, large, title)
        return self.head

    def make_commit(self, parent: str, changes: Mapping[str, bytes | None], large: frozenset[str], title: str) -> str:
        """A new commit that no ref names yet."""
        before = self.history[parent]
        files = {p: c for p, c in {**before.files, **changes}.items() if c is not None}
        kept = (before.large - set(changes)) | large
        made = Commit(files, kept & set(files), parent, title)
        name = hashlib.sha1(f"{len(self.history)} {parent} {title} {sorted(files)}".encode()).hexdigest()
        self.history[name] = made
        return name


def blob_id(content: bytes) -> str:
    """What git calls the content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def sha256(content: bytes) -> str:
    """What LFS calls the content."""
    return hashlib.sha256(content).hexdigest()
