"""The Dagster definitions of the project: every component in `assets/`, on the home in force."""

import dagster as dg


@dg.definitions
def defs() -> dg.Definitions:
    """What `dagster dev -w workspace.yaml`, `dg` and `latentlens-dag build` load."""
    from latentlens_dag.dag.loading import load_definitions

    return load_definitions()
