"""The record of every artifact: its files with sizes and hashes, its inputs, settings and run.

Records are small JSON files, one per partition of an asset, in the folder `manifest/` of the warehouse. They show which
files were deleted, cut short or changed from outside, and tell old results from new ones.

Note: an artifact without a record counts as not built, whatever Dagster's history says. A record is written after the
files that it lists, so the step runs again if it is killed in between.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from latentlens_dag.storage.files import write_text
from latentlens_dag.storage.hashing import hash_file

_LISTED_PROBLEMS = 3
_DEFAULTS = {"dtype": "auto", "padding": "counted"}  # of settings that came after homes were built without them
WHOLE = "all"  # the file name of an artifact without partitions


class FileFacts(NamedTuple):
    """One file that a step wrote."""

    path: str
    """Relative to the warehouse, with slashes."""
    size_bytes: int
    digest: str


class FirstBuild(NamedTuple):
    """The build that first gave a content."""

    build: str
    created_at: str


class SupersededResult(NamedTuple):
    """A result that a later one replaced."""

    data_version: str
    code_version: str
    settings: dict[str, Any]
    files: list[FileFacts]
    """Empty once `clean` has removed them."""
    run: str
    first_built: FirstBuild


def _stored_as(key: str) -> Any:
    """A field that is stored under another key."""
    return Field(validation_alias=key, serialization_alias=key)


class ArtifactRecord(BaseModel):
    """One partition of one asset, as it was last built."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", validate_by_name=True)

    format: Literal[1] = 1
    """Of a record; raised where older versions of this package would misread it."""
    asset: str
    """The key, with slashes: study/demo/visual/V04."""
    partition: str | None
    data_version: str
    """Hash of the content: equal content, equal version."""
    code_version: str
    settings: dict[str, Any]
    """The algorithm's number and the fields of the YAML that the step read."""
    inputs: dict[str, str]
    """Data version of each input, by artifact: `index/demo/table/L04` or `study/demo/visual/V04[00]`."""
    files: list[FileFacts]
    rows: int | None
    dtype: str | None = None
    """In which a model computed it; None for what no model computes, and in records of version 0.1."""
    run: str
    """Id of the Dagster run."""
    build: str
    """Id of what started it: a build, a backfill, or the run itself."""
    created_at: Annotated[str, _stored_as("made")]
    """UTC, ISO 8601."""
    first_built: Annotated[FirstBuild, _stored_as("since")]
    """Later runs may have written the same content again."""
    packages: dict[str, str]
    """Versions of the packages that decide bytes."""
    damaged: str | None = None
    """What is wrong with its files, until it is built again."""
    superseded: Annotated[list[SupersededResult], _stored_as("earlier")] = []
    """Newest first."""

    @property
    def label(self) -> str:
        """The artifact as people write it."""
        return label(self.asset, self.partition)

    def with_history(self, before: ArtifactRecord) -> ArtifactRecord:
        """This record as the successor of another; an equal content keeps the date of its first build."""
        if before.data_version == self.data_version:
            return self.model_copy(update={"first_built": before.first_built, "superseded": before.superseded})
        replaced = SupersededResult(*(getattr(before, name) for name in SupersededResult._fields))
        return self.model_copy(update={"superseded": [replaced, *before.superseded]})


class FileProblem(NamedTuple):
    """One file that differs from its record."""

    path: str
    text: str


class ArtifactStore:
    """The records of a warehouse."""

    def __init__(self, warehouse: Path) -> None:
        """Take the warehouse's folder, which need not exist."""
        self.warehouse = warehouse
        self.root = warehouse / "manifest"

    def path(self, asset: str, partition: str | None) -> Path:
        """The file of a record."""
        return self.root.joinpath(asset, f"{WHOLE if partition is None else partition}.json")

    def read(self, asset: str, partition: str | None) -> ArtifactRecord | None:
        """The record of an artifact; None if there is none, or none that this version can read."""
        return _read(self.path(asset, partition))

    def data_version(self, asset: str, partition: str | None) -> str | None:
        """The data version in the record that `read` gives; the same file is not read again.

        Every batch asks for that of the set's images, whose record lists up to 100,000 files.
        """
        path = self.path(asset, partition)
        try:
            facts = path.stat()
        except OSError:
            return None
        return _data_version(path, facts.st_ino, facts.st_size, facts.st_mtime_ns)

    def write(self, record: ArtifactRecord, keep: bool = False) -> None:
        """Write a record; the one that it replaces goes into `superseded` if its content differs.

        With `keep`, its files stay readable at `kept_path` when others replace them: they are linked, which costs no
        bytes.
        """
        before = self.read(record.asset, record.partition)
        if keep:
            for fact in record.files:
                self._keep(fact)
        self._write(record if before is None else record.with_history(before))

    def mark_damaged(self, record: ArtifactRecord, damage: str) -> None:
        """Record that an artifact's files are damaged, so that it is built again."""
        self._write(record.model_copy(update={"damaged": damage}))

    def forget_superseded_files(self, record: ArtifactRecord) -> None:
        """Drop the files of superseded results from a record; the caller removes them. The history stays."""
        if any(result.files for result in record.superseded):
            results = [result._replace(files=[]) for result in record.superseded]
            self._write(record.model_copy(update={"superseded": results}))

    def kept_path(self, fact: FileFacts) -> Path:
        """The link to a file that was kept; of a superseded result, until `clean`."""
        return self.warehouse / "earlier" / f"{fact.digest}{Path(fact.path).suffix}"

    def _write(self, record: ArtifactRecord) -> None:
        without = {"dtype"} if record.dtype is None else set()
        text = json.dumps(record.model_dump(mode="json", by_alias=True, exclude=without), indent=1, sort_keys=True)
        write_text(text + "\n", self.path(record.asset, record.partition))

    def _keep(self, fact: FileFacts) -> None:
        link = self.kept_path(fact)
        link.parent.mkdir(parents=True, exist_ok=True)
        # On a file system without links, there is nothing to compare with later.
        with suppress(OSError):
            link.hardlink_to(self.warehouse / fact.path)

    def records(self, below: str = "") -> Iterator[ArtifactRecord]:
        """All records, or those of assets below a key, in order of artifact."""
        for path in sorted((self.root / below).rglob("*.json")):
            record = _read(path)
            if record is not None:
                yield record

    def file_facts(self, files: Iterable[Path], known: Iterable[FileFacts] = ()) -> list[FileFacts]:
        """Sizes and hashes of files, and of all files in folders; a `known` file of the same size is not read again."""
        digests = {(fact.path, fact.size_bytes): fact.digest for fact in known}
        facts = []
        for file in sorted(_files_below(files)):
            path, size = file.relative_to(self.warehouse).as_posix(), file.stat().st_size
            facts.append(FileFacts(path, size, digests.get((path, size)) or hash_file(file)))
        return facts

    def problems(
        self,
        record: ArtifactRecord,
        deep: bool = False,
        only: Collection[str] | None = None,
        hash_of: Callable[[Path], str] = hash_file,
    ) -> list[FileProblem]:
        """The files of an artifact that are missing or of another size, or, with `deep`, of another content.

        With `only`, of the files at these paths. `hash_of` reads a file.
        """
        found = (
            self._problem(fact, hash_of if deep else None) for fact in record.files if only is None or fact.path in only
        )
        return [problem for problem in found if problem is not None]

    def _problem(self, fact: FileFacts, hash_of: Callable[[Path], str] | None) -> FileProblem | None:
        file = self.warehouse / fact.path
        try:
            size = file.stat().st_size
            if size != fact.size_bytes:
                return FileProblem(fact.path, f"{fact.path} has {size:,} bytes where {fact.size_bytes:,} were written")
            if hash_of is not None and hash_of(file) != fact.digest:
                return FileProblem(fact.path, f"the content of {fact.path} was changed")
        except OSError as error:
            reason = "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read ({error.strerror})"
            return FileProblem(fact.path, f"{fact.path} {reason}")
        return None


def label(asset: str, partition: str | None) -> str:
    """An artifact as people write it: study/demo/visual/V04[00]."""
    return asset + (f"[{partition}]" if partition is not None else "")


def problem_summary(problems: Sequence[FileProblem]) -> str | None:
    """The first problems in words and the number of the others; None for no problem."""
    texts = [problem.text for problem in problems[:_LISTED_PROBLEMS]]
    if len(problems) > _LISTED_PROBLEMS:
        texts.append(f"and {len(problems) - _LISTED_PROBLEMS} files more")
    return ", ".join(texts) or None


def changed_settings(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The differences between two settings in words: `top_k: 5 -> 3`."""
    names = [name for name in sorted({*before, *now}) if before.get(name) != now.get(name)]
    return [f"{name}: {_short(_value(before, name))} -> {_short(_value(now, name))}" for name in names]


def _value(settings: Mapping[str, Any], name: str) -> Any:
    """A setting; one that is left out where it has its default has that."""
    return settings.get(name, _DEFAULTS.get(name))


def _short(value: object) -> str:
    text = "none" if value is None else value if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= 60 else text[:57] + "..."


def _read(path: Path) -> ArtifactRecord | None:
    try:
        return ArtifactRecord.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None  # as if there were none: the artifact is built again


@lru_cache(4096)
def _data_version(path: Path, inode: int, size: int, time_ns: int) -> str | None:
    record = _read(path)
    return None if record is None else record.data_version


def _files_below(files: Iterable[Path]) -> Iterator[Path]:
    for file in files:
        yield from (path for path in file.rglob("*") if path.is_file()) if file.is_dir() else [file]
