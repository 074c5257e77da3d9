"""What all assets of a study share."""

from collections.abc import Mapping

import dagster as dg

from latentlens_dag.dag.specs import StudySpec
from latentlens_dag.dag.versions import VersionFields
from latentlens_dag.storage.shapes import StudyShape
from latentlens_dag.storage.warehouse import Warehouse
from latentlens_dag.study.source import StudySource, recorded_source_fields, source_fields


def layer_specs(
    parts: StudySpec,
    key_of: Mapping[int, dg.AssetKey],
    deps: Mapping[int, list],
    version: VersionFields,
    kinds: set[str],
    text: str,
) -> list[dg.AssetSpec]:
    """The assets of one step, a visual layer each."""
    return [
        dg.AssetSpec(
            key,
            deps=deps[layer],
            skippable=True,
            **version,
            group_name="/".join(key.path[:-1]),
            kinds=kinds,
            description=text.format(layer=layer),
        )
        for layer, key in key_of.items()
    ]


def write_study_shape(parts: StudySpec, paths: Warehouse, source: StudySource | None = None) -> None:
    """Say which batches, layers and lenses the study now has, whether it is judged, and whether it is of texts.

    And, by the last of its steps, what it was made with: an earlier step keeps what is said of that, for the file is
    among those that the last step recorded.
    """
    path = paths.shape("study", parts.name)
    StudyShape(
        parts=parts.batches,
        visual_layers=parts.visual_layers,
        lenses=sorted(parts.lenses),
        judged=parts.judged,
        of="texts" if parts.of_texts else None,
        **(recorded_source_fields(path) if source is None else source_fields(source, paths)),
    ).write(path)
