"""What a user names on the command line, as partitions of assets, with all that they are made from.

A name is an asset's key (`study/demo/judgements/V04`), the beginning of several (`study/demo/judgements`),
or parts of keys that follow one another (`judgements/V04`, `visual`, `L02`); `[02]` after it takes one
partition. What a newcomer gets wrong: of what a selected partition is made from only the same partition is
looked at, except where a step reads all of them.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches

import dagster as dg
from dagster._core.definitions.assets.graph.asset_graph import AssetGraph

from latentlens_dag.dag.building.steps import AssetPartition, Step, each_partition, reads_all
from latentlens_dag.errors import UserError

_NAME = re.compile(r"/?(?P<path>[^\[\]/]+(/[^\[\]/]+)*)/?(\[(?P<partition>[^\[\]]+)\])?")
_FORM = "Write a key or a part of one, with or without a partition: study/demo/judgements, judgements/V04[02], V04."


@dataclass(frozen=True)
class Selection:
    """Partitions of assets, and all that they are made from."""

    requested: frozenset[AssetPartition]
    """What the user named."""
    targets: frozenset[AssetPartition]
    """That, and everything that it is made from, sources included."""

    def among(self, targets: Sequence[AssetPartition]) -> list[AssetPartition]:
        """Those of the targets that are selected, in their order."""
        return [target for target in targets if target in self.targets]

    def keys(self) -> list[dg.AssetKey]:
        """The assets, sources included, in order of their names."""
        return sorted({key for key, _ in self.targets})


def find_studies(steps: Sequence[Step]) -> list[str]:
    """The names of the studies that are switched on."""
    return sorted({key.path[1] for unit in steps for key in unit.keys if key.path[0] == "study"})


def select(graph: AssetGraph, steps: Sequence[Step], studies: Sequence[str], names: Sequence[str]) -> Selection:
    """What the user named, and what that is made from.

    Args:
        graph: the assets.
        units: its steps.
        studies: names of studies; everything where there are none.
        names: what to take of those and of what they are made from, as this module's docstring says; all of the
            studies where there are none.

    Raises:
        UserError: where nothing has a name, with those that are near to it.
    """
    every = {target for unit in steps for target in unit.targets()}
    asked = {(key, part) for key, part in every if key.path[0] == "study" and key.path[1] in _known(studies, steps)}
    if names:
        among = _with_ancestors(graph, asked) & every if studies else every
        asked = set().union(*(_named(name, among) for name in names))
    elif not studies:
        asked = every
    return Selection(frozenset(asked), frozenset(_with_ancestors(graph, asked)))


def _known(studies: Sequence[str], steps: Sequence[Step]) -> Sequence[str]:
    known = find_studies(steps)
    for study in studies:
        if study not in known:
            there = _near(study, known) or f"There are: {', '.join(known) or 'none'}."
            raise UserError(f"There is no study {study!r}. {there}")
    return studies


def _with_ancestors(graph: AssetGraph, targets: set[AssetPartition]) -> set[AssetPartition]:
    found, waiting = set(targets), list(targets)
    while waiting:
        new = [parent for parent in _parents(graph, *waiting.pop()) if parent not in found]
        found.update(new)
        waiting += new
    return found


def _parents(graph: AssetGraph, key: dg.AssetKey, partition: str | None) -> list[AssetPartition]:
    """The partitions that a partition is made from."""
    found: list[AssetPartition] = []
    for parent in graph.get(key).parent_keys:
        definition = graph.get(parent).partitions_def
        partitions = list(definition.get_partition_keys()) if definition else None
        same = partitions is not None and partition in partitions and not reads_all(graph, key, parent)
        found += [(parent, one) for one in ([partition] if same else each_partition(partitions))]
    return found


def _named(name: str, among: set[AssetPartition]) -> set[AssetPartition]:
    read = _NAME.fullmatch(name.strip())
    if read is None:
        raise UserError(f"--select {name!r} cannot be read. {_FORM}")
    keys = _matching(read["path"].split("/"), {key for key, _ in among})
    if not keys:
        raise UserError(f"--select {name!r}: no asset is called so, begins so or has such a part. {_help(name, among)}")
    found = {target for target in among if target[0] in keys}
    return found if read["partition"] is None else _partition(name, read["partition"], found)


def _matching(parts: list[str], keys: set[dg.AssetKey]) -> set[dg.AssetKey]:
    """The keys that begin with these parts or, where none does, have them anywhere, one after another."""
    size = len(parts)
    begin = {key for key in keys if list(key.path[:size]) == parts}
    return begin or {key for key in keys if any(list(key.path[at : at + size]) == parts for at in range(len(key.path)))}


def _partition(name: str, asked: str, found: set[AssetPartition]) -> set[AssetPartition]:
    wanted = f"{int(asked):02d}" if asked.isdecimal() else asked
    chosen = {target for target in found if target[1] == wanted}
    if not chosen:
        there = sorted({partition for _, partition in found if partition is not None})
        has = f"has the partitions {there[0]} to {there[-1]}" if there else "has no partitions"
        raise UserError(f"--select {name!r}: what is called so {has}, not {asked!r}.")
    return chosen


def _help(name: str, among: set[AssetPartition]) -> str:
    """The names near to a wrong one or, where none is, the steps that there are."""
    path = name.split("[")[0].strip("/ ")
    keys = {tuple(key.path) for key, _ in among}
    inner = {"/".join(path[at:end]) for path in keys for at in range(len(path)) for end in range(at + 1, len(path) + 1)}
    steps = sorted({"/".join(path[:3]) for path in keys})
    return _near(path, sorted(inner)) or f"There are: {', '.join(steps)}."


def _near(name: str, known: Sequence[str]) -> str:
    near = get_close_matches(name, known, n=4, cutoff=0.6)
    return f"Near to it: {', '.join(near)}." if near else ""
