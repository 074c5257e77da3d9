"""The tags of Dagster's runs that builds set and read."""

from dagster._core.storage.dagster_run import DagsterRun

BUILD = "latentlens/build"  # the process of the build
BUILD_ID = "latentlens/build_id"  # the same for all runs of a build
FORCED = "latentlens/forced"  # set where the run must not reuse earlier results


def is_of_a_build(run: DagsterRun) -> bool:
    """Whether a build started a run. A run that the UI launched again has its parent's tags, but is not of a build."""
    return BUILD in run.tags and run.parent_run_id is None
