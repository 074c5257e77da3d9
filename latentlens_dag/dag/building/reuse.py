"""Which planned parts will take over states that are stored, so that the model sees only what is new.

Steps decide it for themselves when they run (`recording.can_reuse`); this says it before.
"""

from collections import Counter
from collections.abc import Sequence
from functools import cache

import dagster as dg
from dagster._core.definitions.assets.graph.asset_graph import AssetGraph

from latentlens_dag.dag.building.staleness import StaleTarget
from latentlens_dag.dag.building.steps import Step, model_keys
from latentlens_dag.dag.recording import is_reusable, version_of_input
from latentlens_dag.storage.records import ArtifactStore

_STORED_STATES = {"visual", "contextual"}  # parts of keys: steps that keep the states that they have


def parts_with_stored_states(
    graph: AssetGraph,
    instance: dg.DagsterInstance,
    store: ArtifactStore,
    steps: Sequence[Step],
    targets: Sequence[StaleTarget],
) -> dict[str, int]:
    """The number of planned parts of each step that has states to take over; forced and damaged parts have none."""
    step_of = {key: step.name for step in steps for key in step.keys if key.path[2] in _STORED_STATES}
    present = cache(lambda model: version_of_input(store, instance, model))
    planned = {target.key for target in targets}
    counts = Counter[str]()
    for target in targets:
        model = next(iter(model_keys(graph, target.key)), None) if target.key in step_of else None
        if model is None or model in planned or target.missing or target.computed_anew:
            continue
        record = store.read(target.key.to_user_string(), target.partition)
        if record and is_reusable(store, record, graph.get(target.key).metadata, model, present(model)):
            counts[step_of[target.key]] += 1
    return dict(counts)
