"""What steps left out of their inputs, and why, as Dagster's history has it: a fact of their last materializations."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from typing import NamedTuple

import dagster as dg

from latentlens_dag.dag.building.dagster_history import latest_by_partition
from latentlens_dag.dag.building.listener import step_label
from latentlens_dag.dag.building.steps import AssetPartition

LEFT_OUT = "left_out"
"""The name of the fact among an asset's metadata."""
TELLING = ("names", "candidates", "captions", "losses")
"""The last parts of the keys of assets that have it: images of a folder, sentences of an index, images
of a connector."""


class LeftOut(NamedTuple):
    """What a part of an asset left out."""

    part: str
    """As people write it: index/demo/candidates[00]."""
    text: str
    """In sentences."""


def left_out_of(event: dg.EventLogEntry) -> str | None:
    """What the materialization of an event left out; None for nothing, and for other events."""
    made = event.asset_materialization
    fact = None if made is None else made.metadata.get(LEFT_OUT)
    return None if fact is None else str(fact.value)


def known_left_out(instance: dg.DagsterInstance, targets: Iterable[AssetPartition]) -> Iterator[LeftOut]:
    """What some parts left out of their inputs when they were last built, in order of their names."""
    parts_of = defaultdict[dg.AssetKey, set[str | None]](set)
    for key, part in targets:
        if key.path[-1] in TELLING:
            parts_of[key].add(part)
    for key, parts in sorted(parts_of.items()):
        for part, event in _events(instance, key, parts):
            if (text := left_out_of(event)) is not None:
                yield LeftOut(step_label(key.to_user_string(), part), text)


def _events(
    instance: dg.DagsterInstance, key: dg.AssetKey, parts: Collection[str | None]
) -> list[tuple[str | None, dg.EventLogEntry]]:
    """The last materializations of an asset, by partition; by None where it has none."""
    if None in parts:
        last = instance.get_latest_materialization_event(key)
        return [] if last is None else [(None, last)]
    records = latest_by_partition(instance, key, [part for part in parts if part is not None])
    return [(part, records[part].event_log_entry) for part in sorted(records)]
