"""The shapes that assets of several stages share: a Parquet file, and the layers of a study."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import dagster as dg

from latentlens_dag.dag import keys
from latentlens_dag.dag.assets.reporting import parquet_result
from latentlens_dag.dag.resources import WarehouseResource
from latentlens_dag.dag.specs import IndexSpec, StudySpec
from latentlens_dag.dag.versions import VersionFields
from latentlens_dag.storage.shapes import IndexShape, StudyShape, stored_dtype
from latentlens_dag.storage.warehouse import Warehouse
from latentlens_dag.study.source import StudySource, recorded_source_fields, source_fields


def parquet_asset(
    key: dg.AssetKey,
    deps: Sequence[dg.AssetKey],
    version: VersionFields,
    description: str,
    write: Callable[[Warehouse, int], list[Path]],
    partitions: int | None = None,
    kinds: frozenset[str] = frozenset({"parquet"}),
) -> dg.AssetsDefinition:
    """An asset that is one Parquet file, or one per partition.

    `write` writes the file of a partition, by its number (0 without partitions); it gives the file, and then the files
    and folders that belong to it.
    """

    @dg.asset(
        key=key,
        deps=deps,
        partitions_def=None if partitions is None else keys.partitions(partitions),
        group_name="/".join(key.path[:2]),
        kinds=set(kinds),
        description=description,
        **version,
    )
    def asset(context: dg.AssetExecutionContext, warehouse: WarehouseResource) -> dg.MaterializeResult:
        file, *beside = write(warehouse.paths, int(context.partition_key) if context.has_partition_key else 0)
        return parquet_result(file, beside=beside)

    return asset


def layer_specs(
    key_of: Mapping[int, dg.AssetKey],
    deps: Mapping[int, list],
    version: VersionFields,
    kinds: set[str],
    description: str,
) -> list[dg.AssetSpec]:
    """The assets of one step, one per layer; `{layer}` in the description stands for its number."""
    return [
        dg.AssetSpec(
            key,
            deps=deps[layer],
            skippable=True,
            group_name="/".join(key.path[:-1]),
            kinds=kinds,
            description=description.format(layer=layer),
            **version,
        )
        for layer, key in key_of.items()
    ]


def dtype_setting(dtype: str | None) -> dict[str, str]:
    """The field `dtype` of a step's version, where the YAML declares one."""
    return {} if dtype is None else {"dtype": dtype}


def step_dtype(spec: IndexSpec | StudySpec, paths: Warehouse) -> str:
    """The dtype in which the model of an index or study is to be computed.

    Raises:
        UserError: where `auto` gives another one than the states that are stored were computed in.
    """
    from latentlens_dag.models.dtypes import check_one_dtype, chosen_dtype

    kind, name = ("index", "Index") if isinstance(spec, IndexSpec) else ("study", "Study")
    shape = IndexShape if isinstance(spec, IndexSpec) else StudyShape
    dtype = chosen_dtype(spec.model, dtype=spec.dtype)
    stored = stored_dtype(shape, paths.shape(kind, spec.name))
    check_one_dtype(dtype, stored, spec.dtype, f"{name} {spec.name}")
    return dtype


def write_study_shape(
    study: StudySpec, paths: Warehouse, source: StudySource | None = None, dtype: str | None = None
) -> None:
    """Write the batches, layers and lenses that the study now has, whether it is judged, and whether it is of texts.

    The last step adds what the study was made with. Earlier steps keep that part, as the file is among those that the
    last step recorded. The step that runs the model gives its dtype, which the others keep.
    """
    path = paths.shape("study", study.name)
    StudyShape(
        parts=study.batches,
        visual_layers=study.visual_layers,
        lenses=sorted(study.lenses),
        judged=study.judged,
        of="texts" if study.of_texts else None,
        dtype=dtype or stored_dtype(StudyShape, path),
        **(recorded_source_fields(path) if source is None else source_fields(source, paths)),
    ).write(path)
