"""The last events of Dagster's history, read at once, and what is stale by them: as Dagster itself has it."""

import random
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.definitions.data_version import CachingStaleStatusResolver, StaleStatus

from latentlens_dag.dag.building.latest_events import LatestEvents, _by_dagster
from latentlens_dag.dag.building.staleness import NOT_BUILT, _Context, _reason, find_stale
from latentlens_dag.dag.building.steps import AssetPartition, Lineage
from tests.dag.small_graph import BATCHES, SOURCE, SUMMARY, TOKENS, opened, say, small_definitions, small_project

CHANGES = ["source", "build", "force", "materialize", "report", "observe", "wipe", "delete"]
STEPS = ["pictures", "visual", "judgements", "interpretability", "table"]


@pytest.fixture
def project(tmp_path: Path) -> Iterator[object]:
    with opened(small_project(tmp_path / "home")) as one:
        one.observe(one.select())
        one.build(one.select())
        yield one


def _change(project: object, what: str, chance: random.Random) -> None:
    """Something that a user may do, in the files, on the command line or in Dagster's UI; each step has a new word."""
    instance, word = project.instance, str(chance.randrange(1000))
    target = chance.choice([target for step in project.steps for target in step.targets()])
    for step in STEPS:
        say(project.home, step, word)
    if what == "source":
        (project.home.root / "source.txt").write_text(word)
        project.observe(project.select())
    elif what in ("build", "force"):
        name = target[0].to_user_string() + ("" if target[1] is None else f"[{target[1]}]")
        project.build(project.select([], [name]), what == "force")
    elif what == "materialize":
        made_by = project.graph.get(target[0]).assets_def
        assert dg.materialize([made_by], instance=instance, partition_key=target[1], selection=[target[0]]).success
    elif what == "report":
        instance.report_runless_asset_event(dg.AssetMaterialization(target[0], partition=target[1]))
    elif what == "observe":
        instance.report_runless_asset_event(dg.AssetMaterialization(SOURCE))
    elif what == "wipe":
        instance.wipe_assets([target[0], SUMMARY])
    else:
        instance.delete_run(chance.choice(instance.get_runs()).run_id)


def _by_the_resolver(project: object, lineage: Lineage, targets: list[AssetPartition]) -> dict[AssetPartition, str]:
    """What is stale and why, by Dagster's resolver alone."""
    resolver = CachingStaleStatusResolver(project.instance, lineage.graph, _Context(project.instance))
    stale = {}
    for target in targets:
        status = resolver.get_status(*target)
        reasons = [_reason(cause, []) for cause in resolver.get_stale_causes(*target)]
        if status != StaleStatus.FRESH:
            stale[target] = NOT_BUILT if status == StaleStatus.MISSING else "; ".join(dict.fromkeys(reasons))
    return stale


@pytest.mark.parametrize("seed", range(2))
def test_whatever_happens_the_same_is_stale_as_by_dagster_and_for_the_same_reason(project: object, seed: int) -> None:
    chance, targets = random.Random(seed), [target for step in project.steps for target in step.targets()]
    lineages = [
        Lineage(small_definitions(project.home.root, *changed).resolve_asset_graph())
        for changed in (("1",), ("2",), ("1", (0,)))  # the same, of another code version, with an input less
    ]
    seen = set()
    for what in chance.sample(CHANGES, len(CHANGES)):
        _change(project, what, chance)
        for lineage in lineages:
            expected = _by_the_resolver(project, lineage, targets)
            found = find_stale(lineage, project.instance, project.store, targets)
            assert {target: stale.reason for target, stale in found.items()} == expected
            one = [target for target in targets if target[1] in (None, "01")]
            part = find_stale(lineage, project.instance, project.store, one)
            assert part == {target: found[target] for target in one if target in found}
            seen |= {*expected.values()}
        keys = [SOURCE, *{key for key, _ in targets}]
        events = LatestEvents(project.graph, project.instance, keys, BATCHES.get_partition_keys(), figures=True)
        for key in keys:
            by_dagster = dict(_by_dagster(project.graph, project.instance, key))
            for name in (None, *BATCHES.get_partition_keys()):
                assert events.get(key, name) == by_dagster.get((key, name))
    assert len(seen) > 3


def test_figures_are_the_numbers_among_the_metadata_as_by_dagster(project: object) -> None:
    others = {"text": "t", "path": dg.MetadataValue.path("p"), "yes": True, "no": False, "json": [4], "none": None}
    metadata = {"n": 3, "x": 2.5, **others}
    project.instance.report_runless_asset_event(dg.AssetMaterialization(TOKENS, partition="01", metadata=metadata))
    events = LatestEvents(project.graph, project.instance, [TOKENS], ["01"], figures=True)
    by_dagster = dict(_by_dagster(project.graph, project.instance, TOKENS))
    for name in (None, "01"):
        assert events.get(TOKENS, name).figures == by_dagster[TOKENS, name].figures == {"n": 3, "x": 2.5}


def test_partitions_that_were_not_named_are_read_when_they_are_needed(project: object) -> None:
    named, whole = (
        LatestEvents(project.graph, project.instance, [], names) for names in (["01"], BATCHES.get_partition_keys())
    )
    for name in (None, "01", "02"):
        assert named.get(TOKENS, name) == whole.get(TOKENS, name) is not None
    assert named.get(TOKENS, "03") is None
