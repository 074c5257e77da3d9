"""The shapes that assets of several stages share: a Parquet file, and the layers of a study."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import dagster as dg
import pyarrow as pa

from latentlens_dag.dag import keys
from latentlens_dag.dag.assets.reporting import parquet_result
from latentlens_dag.dag.recording import input_version, other_valid_parts
from latentlens_dag.dag.resources import WarehouseResource
from latentlens_dag.dag.run_tags import is_of_a_build
from latentlens_dag.dag.specs import IndexSpec, StudySpec
from latentlens_dag.dag.versions import VersionFields
from latentlens_dag.models.model_ref import ModelRef
from latentlens_dag.storage.hashing import hash_values
from latentlens_dag.storage.shapes import StudyShape, stored_dtype
from latentlens_dag.storage.split_input import NumberedRows, SharedInput, rows_of_part, split_rows
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


@dataclass(frozen=True)
class InputSpec:
    """An input that all partitions of an asset share: what decides it, and how to read it."""

    keys: Sequence[dg.AssetKey]
    """The sources, or artifacts without partitions, that decide its rows."""
    read: Callable[[Warehouse], Iterable[NumberedRows]]

    def rows(
        self, context: dg.AssetExecutionContext, paths: Warehouse, partitions: int
    ) -> AbstractContextManager[Iterable[pa.Table]]:
        """The rows of the partition that runs now; a build reads the input once for all partitions."""
        part, read = int(context.partition_key), partial(self.read, paths)
        versions = {key.to_user_string(): input_version(context, key) for key in self.keys}
        # A run from the UI has a process of its own, and makes one partition.
        if None in versions.values() or not is_of_a_build(context.run):
            return nullcontext(rows_of_part(read, part))
        shared = SharedInput(read, hash_values([*versions.values(), _code_version(context)]))
        return split_rows(shared, paths.split_input(*context.asset_key.path), part, partitions)


def _code_version(context: dg.AssetExecutionContext) -> str | None:
    return context.assets_def.specs_by_key[context.asset_key].code_version


def split_asset(
    key: dg.AssetKey,
    deps: Sequence[dg.AssetKey],
    version: VersionFields,
    description: str,
    shared_input: InputSpec,
    write: Callable[[Warehouse, int, Iterable[pa.Table]], list[Path]],
    partitions: int,
) -> dg.AssetsDefinition:
    """As `parquet_asset`, for partitions that share an input; `write` also gets the partition's rows of it."""

    @dg.asset(
        key=key,
        deps=deps,
        partitions_def=keys.partitions(partitions),
        group_name="/".join(key.path[:2]),
        kinds={"parquet"},
        description=description,
        **version,
    )
    def asset(context: dg.AssetExecutionContext, warehouse: WarehouseResource) -> dg.MaterializeResult:
        with shared_input.rows(context, warehouse.paths, partitions) as rows:
            file, *beside = write(warehouse.paths, int(context.partition_key), rows)
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


def step_dtype(model: ModelRef, declared: str | None) -> str:
    """The dtype in which the model of an index or study is computed on this machine; `declared` is None for `auto`."""
    from latentlens_dag.models.dtypes import chosen_dtype

    return chosen_dtype(model, dtype=declared)


def check_dtype_of_step(
    context: dg.AssetExecutionContext,
    spec: IndexSpec | StudySpec,
    model: dg.AssetKey,
    dtype: str,
    stored_dtype_of: Callable[[dg.AssetKey, str], str | None] = lambda key, partition: None,
) -> None:
    """Refuse to compute a part of a step in another dtype than its other parts.

    Args:
        context: of the step.
        spec: its index or study.
        model: the asset that is the model.
        dtype: in which the part would be computed.
        stored_dtype_of: gives the dtype of a part that an earlier version of this package recorded without one.

    Raises:
        UserError: where `auto` gives another dtype than the other parts were computed in, and they still hold.
    """
    from latentlens_dag.models.dtypes import check_one_dtype

    for record in other_valid_parts(context, model):
        stored = record.dtype or stored_dtype_of(dg.AssetKey.from_user_string(record.asset), str(record.partition))
        if stored is not None:  # all that hold are in one dtype, so that the first one tells
            kind = "Index" if isinstance(spec, IndexSpec) else "Study"
            check_one_dtype(dtype, stored, spec.dtype, f"{kind} {spec.name}")
            return


def write_study_shape(
    study: StudySpec, paths: Warehouse, source: StudySource | None = None, dtype: str | None = None
) -> None:
    """Write the batches, layers and lenses that the study now has, whether it is judged, and whether it is of texts.

    The last step adds what the study was made with. Earlier steps keep that part, as the file is among those that the
    last step recorded; so they keep the dtype of the states, which that step gives too.
    """
    path = paths.shape("study", study.name)
    StudyShape(
        parts=study.batches,
        visual_layers=study.visual_layers,
        lenses=sorted(study.lenses),
        judged=study.judged,
        corpus_ablation=True if study.corpus_ablation else None,
        captions=True if study.captions else None,
        of="texts" if study.of_texts else None,
        connector=None if study.checkpoint is None else study.checkpoint.connector,
        step=None if study.checkpoint is None else study.checkpoint.step,
        dtype=dtype or stored_dtype(path),
        **(recorded_source_fields(path) if source is None else source_fields(source, paths)),
    ).write(path)
