"""The partitions of assets that a user names on the command line, with all that they are made from.

A name is an asset's key (`study/demo/judgements/V04`), the beginning of several (`study/demo/judgements`), or parts of
keys that follow one another (`judgements/V04`, `visual`, `L02`); `[02]` after it selects one partition. Note: of the
ancestors of a partition only the same partition is selected, except where a step reads all of them.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches

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
        studies: names of studies; everything where there are none.
        names: what to take of those and of what they are made from, as this module's docstring says; all of the
            studies where there are none.

    Raises:
        UserError: where nothing has a name, with those that are near to it.
    """
    every = {target for step in steps for target in step.targets()}
    studies = _known(studies, steps)
    requested = {(key, part) for key, part in every if key.path[0] == "study" and key.path[1] in studies}
    if names:
        among = lineage.with_ancestors(requested) & every if studies else every
        requested = set().union(*(_named(name, among) for name in names))
    elif not studies:
        requested = every
    return Selection(frozenset(requested), frozenset(lineage.with_ancestors(requested)))


def _known(studies: Sequence[str], steps: Sequence[Step]) -> Sequence[str]:
    known = find_studies(steps)
    for study in studies:
        if study not in known:
            hint = _similar(study, known) or f"There are: {', '.join(known) or 'none'}."
            raise UserError(f"There is no study {study!r}. {hint}")
    return studies


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
