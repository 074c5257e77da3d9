"""The tags of Dagster's runs that builds set and read."""

from dagster._core.storage.dagster_run import DagsterRun

BUILD = "latentlens/build"  # tag of a build's runs: its process


def is_of_a_build(run: DagsterRun) -> bool:
    """Whether a build started a run; one that the UI launched again has its parent's tags, but is not a build's."""
    return BUILD in run.tags and run.parent_run_id is None


BUILD_ID = "latentlens/build_id"  # tag of the runs of one build
FORCED = "latentlens/forced"  # tag of a run that is to take nothing from what was built before
