"""The order of a build: which steps run together, and after which."""

import os
from pathlib import Path

import dagster as dg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latentlens_dag.dag import keys
from latentlens_dag.dag.building.steps import RunGroup, find_run_groups, find_steps, parent_partitions
from latentlens_dag.dag.loading import load_definitions
from latentlens_dag.testing import tiny_project


def _asset(name: str, parents: list[str], partitions: int) -> dg.AssetsDefinition:
    whole = dg.AllPartitionMapping()
    deps = [dg.AssetDep(parent, partition_mapping=None if partitions == 2 else whole) for parent in parents]

    @dg.asset(name=name, deps=deps, partitions_def=keys.partitions(partitions) if partitions else None)
    def asset() -> None:
        pass

    return asset


@settings(deadline=None, max_examples=30)
@given(data=st.data())
def test_every_part_runs_once_and_after_all_that_it_is_made_from(data: st.DataObject) -> None:
    kinds = data.draw(st.lists(st.sampled_from([0, 2, 3]), min_size=1, max_size=9))
    assets = []
    for number, kind in enumerate(kinds):
        fitting = [n for n in range(number) if kind != 2 or kinds[n] in (0, 2)]
        parents = data.draw(st.lists(st.sampled_from(fitting), unique=True, max_size=3)) if fitting else []
        assets.append(_asset(f"a{number}", [f"a{parent}" for parent in parents], kind))
    graph = dg.Definitions(assets=assets).resolve_asset_graph()
    done = set()
    for group in find_run_groups(graph, find_steps(graph)):
        for partition in group.partitions or [None]:
            run = set(group.targets(partition))
            assert not run & done
            for target in group.targets(partition):  # Dagster orders the steps of a run by themselves
                assert set(parent_partitions(graph, *target)) <= done | run
            done |= run
    assert len(done) == sum(kind or 1 for kind in kinds)


@pytest.mark.parametrize(("shards", "batches"), [(8, 4), (2, 2), (1, 3)])
def test_the_images_of_a_batch_are_read_in_the_run_that_gives_them_to_the_model(
    tmp_path: Path, shards: int, batches: int
) -> None:
    project, before = tiny_project(tmp_path, shards=shards, batches=batches), Path.cwd()
    os.chdir(project)
    try:
        graph = load_definitions().resolve_asset_graph()
    finally:
        os.chdir(before)
    groups: list[RunGroup] = find_run_groups(graph, find_steps(graph))
    together = [{step.name for step in group.steps} for group in groups]
    assert any({"images/pictures/pictures", "images/pictures/regions", "study/tiny/visual"} <= g for g in together)
    assert {"images/pictures/names", "study/tiny/model_checks"} <= together[0]
