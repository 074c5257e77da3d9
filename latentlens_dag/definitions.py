"""The Dagster definitions of the project: every component in `assets/`, on the home in force."""

import dagster as dg


@dg.definitions
def defs() -> dg.Definitions:
    """What `dagster dev -w workspace.yaml` and `dg` load: a project's assets, the job `build` and its sensor."""
    from latentlens_dag.dag.automation import with_automation
    from latentlens_dag.dag.loading import load_definitions

    return with_automation(load_definitions())
