"""The lineage of an artifact: its inputs and theirs, with settings, times and package versions.

A record names the inputs that were used. The lineage marks those that have changed since: the artifact is out of date.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from latentlens_dag.storage.records import ArtifactRecord, ArtifactStore


class Ancestor(NamedTuple):
    """One artifact of a lineage."""

    label: str
    """As index/demo/table/L04 or study/demo/visual/V04[00]; a source, as corpus/demo_text/source, has no record."""
    depth: int
    """Steps from the artifact whose lineage it is."""
    version: str
    """The data version that was used."""
    record: ArtifactRecord | None
    """The current one."""
    listed_before: bool
    """Its own inputs are listed where it appears first."""

    @property
    def has_changed(self) -> bool:
        """Whether the current content differs from the one that was used."""
        return self.record is not None and self.record.data_version != self.version


def lineage(store: ArtifactStore, record: ArtifactRecord) -> Iterator[Ancestor]:
    """An artifact and all that it was made from, each followed by its own inputs, in their order."""
    seen: set[str] = set()

    def walk(label: str, version: str, depth: int) -> Iterator[Ancestor]:
        found = store.read(*split_label(label))
        yield Ancestor(label, depth, version, found, label in seen)
        if label not in seen and found is not None:
            seen.add(label)
            for name, used in found.inputs.items():
                yield from walk(name, used, depth + 1)

    return walk(record.label, record.data_version, 0)


def split_label(label: str) -> tuple[str, str | None]:
    """An artifact's key and partition: `study/demo/visual/V04[00]` is ("study/demo/visual/V04", "00")."""
    key, _, partition = label.partition("[")
    return key, partition.removesuffix("]") or None


def lineage_text(found: Iterator[Ancestor], source: Callable[[str], str | None] = lambda label: None) -> str:
    """A lineage as lines, indented by depth; `source` says where a source lies.

    Packages are named once, and again only where an artifact was made with others.
    """
    lines: list[str] = []
    packages = ""
    for one in found:
        lines += _lines(one, source)
        if one.record is not None and not one.listed_before and (of := _packages(one.record)) != packages:
            lines.append(f"{'  ' * one.depth}    with {of}")
            packages = of
    return "\n".join(lines)


def _packages(record: ArtifactRecord) -> str:
    return ", ".join(f"{name} {version}" for name, version in sorted(record.packages.items()))


def _lines(one: Ancestor, source: Callable[[str], str | None]) -> Iterator[str]:
    indent = "  " * one.depth
    changed = f", now {one.record.data_version}: it changed since" if one.has_changed and one.record else ""
    yield f"{indent}{one.label}  version {one.version}{changed}{'  (see above)' if one.listed_before else ''}"
    if one.record is not None and not one.listed_before:
        facts = sorted(one.record.settings.items())
        facts += [] if one.record.dtype is None else [("computed in", one.record.dtype)]
        settings = ", ".join(f"{name}: {value}" for name, value in facts)
        yield f"{indent}    made {one.record.created_at} by run {one.record.run.split('-')[0]}; {settings}"
    elif (where := source(one.label)) is not None:
        yield f"{indent}    {where}"
