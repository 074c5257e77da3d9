"""What Dagster's history says that a run of a build was for."""

from pathlib import Path

from latentlens_dag.dag.keys import label
from tests.dag.small_graph import opened, small_project


def test_a_run_names_the_assets_that_it_built_as_its_target(tmp_path: Path) -> None:
    with opened(small_project(tmp_path / "home")) as project:
        ran = project.build(project.select())
        of_runs = [
            {label(key, run.tags.get("dagster/partition")) for key in run.asset_selection or ()}
            for run in project.instance.get_runs()
        ]
    built = [{label(target.key, target.partition) for target in one.targets} for one in ran]
    assert len(built) > 1 and of_runs[::-1] == built
