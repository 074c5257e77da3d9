"""The order of a build: which steps run together, and after which."""

import os
import shutil
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latentlens_dag.dag import keys
from latentlens_dag.dag.building.steps import Lineage, RunGroup, find_run_groups, find_steps
from latentlens_dag.dag.loading import load_definitions
from latentlens_dag.testing import tiny_project


def _asset(name: str, parents: list[str], partitions: int) -> dg.AssetsDefinition:
    whole = dg.AllPartitionMapping()
    deps = [dg.AssetDep(parent, partition_mapping=None if partitions == 2 else whole) for parent in parents]

    @dg.asset(name=name, deps=deps, partitions_def=keys.partitions(partitions) if partitions else None)
    def asset() -> None:
        pass

    return asset


def _graph(project: Path) -> Any:
    """The asset graph of a project."""
    before = Path.cwd()
    os.chdir(project)
    try:
        return load_definitions().resolve_asset_graph()
    finally:
        os.chdir(before)


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
    done, lineage = set(), Lineage(graph)
    for group in find_run_groups(graph, find_steps(graph)):
        for partition in group.partitions or [None]:
            run = set(group.targets(partition))
            assert not run & done
            for target in group.targets(partition):  # Dagster orders the steps of a run by themselves
                assert set(lineage.parents(*target)) <= done | run
            done |= run
    assert len(done) == sum(kind or 1 for kind in kinds)


@pytest.mark.parametrize("other", ["path", "dtype"])
def test_steps_of_two_models_take_no_turns_partition_by_partition(tmp_path: Path, other: str) -> None:
    project = tiny_project(tmp_path)
    file = project / "assets" / "tiny" / "defs.yaml"
    _corpus, _pictures, index, study = file.read_text().split("---\n")
    if other == "path":
        shutil.copytree(file.parent / "model", file.parent / "second")
        index, study = (text.replace("path: model", "path: second") for text in (index, study))
    else:
        index = index.replace("layers:", "dtype: bfloat16, layers:")
        study = study.replace("  layers:", "  dtype: bfloat16\n  layers:")
    index = index.replace("name: words", "name: words_again")
    study = study.replace("name: tiny", "name: tiny_again").replace("index: words", "index: words_again")
    file.write_text(f"{file.read_text()}---\n{index}---\n{study}")
    graph = _graph(project)
    of_partitions = [group for group in find_run_groups(graph, find_steps(graph)) if group.partitions]
    models = [{step.model for step in group.steps} - {None} for group in of_partitions]
    assert len(set.union(*models)) == 2
    assert all(len(of_group) <= 1 for of_group in models)


@pytest.mark.parametrize(("shards", "batches"), [(8, 4), (2, 2), (1, 3)])
def test_the_images_of_a_batch_are_read_in_the_run_that_gives_them_to_the_model(
    tmp_path: Path, shards: int, batches: int
) -> None:
    graph = _graph(tiny_project(tmp_path, shards=shards, batches=batches))
    groups: list[RunGroup] = find_run_groups(graph, find_steps(graph))
    together = [{step.name for step in group.steps} for group in groups]
    assert any({"images/pictures/pictures", "images/pictures/regions", "study/tiny/visual"} <= g for g in together)
    assert {"images/pictures/names", "study/tiny/model_checks"} <= together[0]
