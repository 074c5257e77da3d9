"""The partitions of assets that a user names on the command line, with all that they are made from.

A name is an asset's key (`study/demo/judgements/V04`), the beginning of several (`study/demo/judgements`), or parts of
keys that follow one another (`judgements/V04`, `visual`, `L02`); `[02]` after it selects one partition. Note: of the
ancestors of a partition only the same partition is selected, except where a step reads all of them.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import dagster as dg

from latentlens_dag.dag.building.steps import AssetPartition, Lineage, Step
from latentlens_dag.errors import UserError

_NAME = re.compile(r"/?(?P<path>[^\[\]/]+(/[^\[\]/]+)*)/?(\[(?P<partition>[^\[\]]+)\])?")
_FORM = "Write a key or a part of one, with or without a partition: study/demo/judgements, judgements/V04[02], V04."


@dataclass(frozen=True)
class Selection:
    """Partitions of assets, and their ancestors."""

    requested: frozenset[AssetPartition]
    """Those that the user named."""
    targets: frozenset[AssetPartition]
    """Those and everything that they are made from, sources included."""

    def among(self, targets: Sequence[AssetPartition]) -> list[AssetPartition]:
        """The selected ones of these targets, in their order."""
        return [target for target in targets if target in self.targets]

    def keys(self) -> list[dg.AssetKey]:
        """The assets, sources included, in order of their names."""
        return sorted({key for key, _ in self.targets})


def find_studies(steps: Sequence[Step]) -> list[str]:
    """The names of the studies that are switched on."""
    return sorted({key.path[1] for step in steps for key in step.keys if key.path[0] == "study"})


def select(lineage: Lineage, steps: Sequence[Step], studies: Sequence[str], names: Sequence[str]) -> Selection:
    """What the user named, and what that is made from.

    Args:
        lineage: of the assets.
        steps: their steps.
        studies: names of studies, releases, indexes, sets or corpora, or of folders of assets/ for all that is declared
            in them; everything where there are none. Of one name, the first of these that has it is taken.
        names: what to take of those and of what they are made from, as this module's docstring says; all of the
            studies where there are none.

    Raises:
        UserError: where nothing has a name, with those that are near to it.
    """
    every = {target for step in steps for target in step.targets()}
    requested = {target for name in studies for target in _declared(lineage, name, every)}
    if names:
        among = lineage.with_ancestors(requested) & every if studies else every
        requested = set().union(*(_named(name, among) for name in names))
    elif not studies:
        requested = every
    return Selection(frozenset(requested), frozenset(lineage.with_ancestors(requested)))


_KINDS = ("study", "release", "connector", "index", "features", "images", "texts", "corpus")  # first parts of keys


def _declared(lineage: Lineage, name: str, every: set[AssetPartition]) -> set[AssetPartition]:
    """What is declared under a name or, where nothing has it, in a folder of that name."""
    names = {(key.path[0], key.path[1]) for key, _ in every}
    kind = next((kind for kind in _KINDS if (kind, name) in names), None)
    if kind is not None:
        return {(key, partition) for key, partition in every if key.path[:2] == [kind, name]}
    folders = {key: _folder(lineage, key) for key, _ in every}
    wanted = Path(name).parts
    found = {(key, partition) for key, partition in every if wanted and folders[key].parts[-len(wanted) :] == wanted}
    if not found:
        raise UserError(
            f"There is no study {name!r}, nor a release, an index or a folder of assets/ of that name. "
            f"{_names_help(name, names, folders.values())}"
        )
    return found


def _names_help(name: str, names: set[tuple[str, str]], folders: Iterable[Path]) -> str:
    """The names similar to a wrong one or, where none is, all studies, releases and indexes."""
    if hint := _similar(name, sorted({known for _, known in names} | {folder.name for folder in folders})):
        return hint
    there = {kind: sorted(known for of, known in names if of == kind) for kind in _KINDS[:4]}
    lists = "; ".join(f"{kind} {', '.join(known)}" for kind, known in there.items() if known)
    return f"There are: {lists or 'none'}."


def _folder(lineage: Lineage, key: dg.AssetKey) -> Path:
    """The folder of the defs.yaml that declares an asset, as Dagster links it; an empty path where it does not."""
    links = lineage.graph.get(key).metadata.get("dagster/code_references")
    files = [Path(link.file_path) for link in getattr(links, "code_references", []) if hasattr(link, "file_path")]
    return next((file.parent for file in files if file.name == "defs.yaml"), Path())


def _named(name: str, among: set[AssetPartition]) -> set[AssetPartition]:
    parsed = _NAME.fullmatch(name.strip())
    if parsed is None:
        raise UserError(f"--select {name!r} cannot be read. {_FORM}")
    keys = _matching(parsed["path"].split("/"), {key for key, _ in among})
    if not keys:
        raise UserError(f"--select {name!r}: no asset is called so, begins so or has such a part. {_help(name, among)}")
    targets = {target for target in among if target[0] in keys}
    return targets if parsed["partition"] is None else _partition(name, parsed["partition"], targets)


def _matching(parts: list[str], keys: set[dg.AssetKey]) -> set[dg.AssetKey]:
    """The keys that begin with these parts or, where none does, have them anywhere, one after another."""
    size = len(parts)
    begin = {key for key in keys if list(key.path[:size]) == parts}
    return begin or {key for key in keys if any(list(key.path[at : at + size]) == parts for at in range(len(key.path)))}


def _partition(name: str, partition: str, targets: set[AssetPartition]) -> set[AssetPartition]:
    """The targets of one partition; 2 is 02."""
    wanted = f"{int(partition):02d}" if partition.isdecimal() else partition
    chosen = {target for target in targets if target[1] == wanted}
    if not chosen:
        existing = sorted({partition for _, partition in targets if partition is not None})
        has = f"has the partitions {existing[0]} to {existing[-1]}" if existing else "has no partitions"
        raise UserError(f"--select {name!r}: what is called so {has}, not {partition!r}.")
    return chosen


def _help(name: str, among: set[AssetPartition]) -> str:
    """The names similar to a wrong one or, where none is, all steps."""
    path = name.split("[")[0].strip("/ ")
    keys = {tuple(key.path) for key, _ in among}
    inner = {"/".join(path[at:end]) for path in keys for at in range(len(path)) for end in range(at + 1, len(path) + 1)}
    steps = sorted({"/".join(path[:3]) for path in keys})
    return _similar(path, sorted(inner)) or f"There are: {', '.join(steps)}."


def _similar(name: str, known: Sequence[str]) -> str:
    near = get_close_matches(name, known, n=4, cutoff=0.6)
    return f"Near to it: {', '.join(near)}." if near else ""
