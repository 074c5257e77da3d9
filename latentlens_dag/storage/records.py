"""What every step wrote: files with sizes and hashes, what they were made from, with which settings, by which run.

The manifest is a folder of small JSON files, one per partition of an asset, that lies in the warehouse beside the
data. By it, what was deleted, cut short or changed behind our back is found, and old results can be told from new ones.
What a newcomer gets wrong: an artifact without a record counts as not built, whatever Dagster's history says; and a
record is written after the files that it lists, so a kill in between means that the step runs again.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from latentlens_dag.storage.files import write_text
from latentlens_dag.storage.hashing import hash_file

FORMAT = 1
"""Of a record; raised where older versions of this package would misread it."""
_TOLD = 3
WHOLE = "all"  # the file name of an artifact without partitions


class FileFacts(NamedTuple):
    """One file that a step wrote."""

    path: str
    """Relative to the warehouse, with slashes."""
    size_bytes: int
    digest: str


class FirstBuild(NamedTuple):
    """What gave a content, and when."""

    build: str
    made: str


class Earlier(NamedTuple):
    """A result that was replaced by a later one."""

    data_version: str
    code_version: str
    settings: dict[str, Any]
    files: list[FileFacts]
    """None where `clean` removed them."""
    run: str
    since: FirstBuild


@dataclass(frozen=True)
class ArtifactRecord:
    """What one partition of one asset is."""

    asset: str
    """The key, with slashes: study/demo/visual/V04."""
    partition: str | None
    data_version: str
    """Hash of the content: equal content, equal version."""
    code_version: str
    settings: dict[str, Any]
    """The algorithm's number and the fields of the YAML that the step read."""
    inputs: dict[str, str]
    """Data versions of what it was made from, by artifact, as `index/demo/table/L04` or `study/demo/visual/V04[00]`."""
    files: list[FileFacts]
    rows: int | None
    run: str
    """Id of the Dagster run."""
    build: str
    """Id of what started it: a build, a backfill, or the run itself."""
    made: str
    """When, in UTC, as ISO 8601 says it."""
    since: FirstBuild
    """What first gave this content: later runs may have written the same again."""
    packages: dict[str, str]
    """Versions of the packages that decide bytes."""
    damaged: str | None = None
    """What was found wrong with its files, until it is built again."""
    earlier: list[Earlier] = field(default_factory=list)
    """Results that this one replaced, the newest first."""

    @property
    def label(self) -> str:
        """The artifact as people write it."""
        return label(self.asset, self.partition)


class FileProblem(NamedTuple):
    """One file that is not what its record says."""

    path: str
    text: str


class ArtifactStore:
    """The records of a warehouse."""

    def __init__(self, warehouse: Path) -> None:
        """Of the warehouse in a folder, which need not exist."""
        self.warehouse = warehouse
        self.root = warehouse / "manifest"

    def path(self, asset: str, partition: str | None) -> Path:
        """Where a record lies."""
        return self.root / asset / f"{WHOLE if partition is None else partition}.json"

    def read(self, asset: str, partition: str | None) -> ArtifactRecord | None:
        """The record of an artifact; None where there is none, or none that this version can read."""
        return _read(self.path(asset, partition))

    def write(self, record: ArtifactRecord, keep: bool = False) -> None:
        """Write a record; what it replaces goes into its `earlier` if its content was another.

        With `keep`, its files stay readable (`kept`) when others replace them: they are linked, which costs no bytes.
        """
        before = self.read(record.asset, record.partition)
        if keep:
            for fact in record.files:
                self._keep(fact)
        self._write(record if before is None else _following(before, record))

    def mark(self, record: ArtifactRecord, damage: str) -> None:
        """Say of an artifact that its files are damaged, so that it is built again."""
        self._write(replace(record, damaged=damage))

    def forget_earlier(self, record: ArtifactRecord) -> None:
        """Forget the files of what a record replaced, the caller's to remove; that it was there stays told."""
        if any(one.files for one in record.earlier):
            self._write(replace(record, earlier=[one._replace(files=[]) for one in record.earlier]))

    def kept(self, fact: FileFacts) -> Path:
        """Where a file that was kept lies, whatever replaced it; of what was replaced, until `clean`."""
        return self.warehouse / "earlier" / f"{fact.digest}{Path(fact.path).suffix}"

    def _write(self, record: ArtifactRecord) -> None:
        text = json.dumps({"format": FORMAT, **asdict(record)}, indent=1, sort_keys=True)
        write_text(text + "\n", self.path(record.asset, record.partition))

    def _keep(self, fact: FileFacts) -> None:
        kept = self.kept(fact)
        kept.parent.mkdir(parents=True, exist_ok=True)
        # Where the file system knows no links, there is nothing to compare with later.
        with suppress(OSError):
            kept.hardlink_to(self.warehouse / fact.path)

    def records(self, below: str = "") -> Iterator[ArtifactRecord]:
        """All records, or those of assets below a key, in order of artifact."""
        for path in sorted((self.root / below).rglob("*.json")):
            record = _read(path)
            if record is not None:
                yield record

    def facts(self, files: Iterable[Path], known: Iterable[FileFacts] = ()) -> list[FileFacts]:
        """Sizes and hashes of files, and of all files in folders; what is `known` with its size is not read again."""
        digests = {(fact.path, fact.size_bytes): fact.digest for fact in known}
        found = []
        for file in sorted(_below(files)):
            path, size = file.relative_to(self.warehouse).as_posix(), file.stat().st_size
            found.append(FileFacts(path, size, digests.get((path, size)) or hash_file(file)))
        return found

    def problems(
        self, record: ArtifactRecord, deep: bool = False, only: Collection[str] | None = None
    ) -> list[FileProblem]:
        """What is wrong with an artifact's files: missing, of another size, and, `deep`, of other content.

        With `only`, of the files at these paths.
        """
        found = (self._problem(fact, deep) for fact in record.files if only is None or fact.path in only)
        return [problem for problem in found if problem is not None]

    def _problem(self, fact: FileFacts, deep: bool) -> FileProblem | None:
        file = self.warehouse / fact.path
        try:
            size = file.stat().st_size
            if size != fact.size_bytes:
                return FileProblem(fact.path, f"{fact.path} has {size:,} bytes where {fact.size_bytes:,} were written")
            if deep and hash_file(file) != fact.digest:
                return FileProblem(fact.path, f"the content of {fact.path} was changed")
        except OSError as error:
            what = "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read ({error.strerror})"
            return FileProblem(fact.path, f"{fact.path} {what}")
        return None


def label(asset: str, partition: str | None) -> str:
    """An artifact as people write it: study/demo/visual/V04[00]."""
    return asset + (f"[{partition}]" if partition is not None else "")


def problem_summary(problems: Sequence[FileProblem]) -> str | None:
    """The first problems in words, and how many more there are; None where there is none."""
    more = [f"and {len(problems) - _TOLD} files more"] if len(problems) > _TOLD else []
    return ", ".join([*(problem.text for problem in problems[:_TOLD]), *more]) or None


def changed_settings(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs between two settings, in words: `top_k: 5 -> 3`."""
    names = [name for name in sorted({*before, *now}) if before.get(name) != now.get(name)]
    return [f"{name}: {_short(before.get(name))} -> {_short(now.get(name))}" for name in names]


def _short(value: object) -> str:
    text = "none" if value is None else value if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= 60 else text[:57] + "..."


def _following(before: ArtifactRecord, record: ArtifactRecord) -> ArtifactRecord:
    """The new record, that remembers the one before; of the same content, since when it is so."""
    if before.data_version == record.data_version:
        return replace(record, since=before.since, earlier=before.earlier)
    mine = Earlier(*(getattr(before, name) for name in Earlier._fields))
    return replace(record, earlier=[mine, *before.earlier])


def _read(path: Path) -> ArtifactRecord | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if found.pop("format") != FORMAT:
            return None
        files = [FileFacts(*fact) for fact in found.pop("files")]
        earlier = [_earlier_of(one) for one in found.pop("earlier")]
        return ArtifactRecord(**{**found, "files": files, "earlier": earlier, "since": FirstBuild(*found["since"])})
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None  # as if there were none: the artifact is built again


def _earlier_of(facts: list[Any]) -> Earlier:
    found = Earlier(*facts)
    return found._replace(files=[FileFacts(*fact) for fact in found.files], since=FirstBuild(*found.since))


def _below(files: Iterable[Path]) -> Iterator[Path]:
    for file in files:
        yield from (one for one in file.rglob("*") if one.is_file()) if file.is_dir() else [file]
