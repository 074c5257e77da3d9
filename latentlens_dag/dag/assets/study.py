"""The assets of a study that follow its states: lenses, judgements, summaries, catalog."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq

from latentlens_dag.dag import keys
from latentlens_dag.dag.assets.checks import check_result, check_spec, fail_on_errors, neighbor_problems
from latentlens_dag.dag.assets.common import layer_specs, write_study_shape
from latentlens_dag.dag.assets.reporting import ProgressLog, parquet_result, result
from latentlens_dag.dag.assets.sources import model_source
from latentlens_dag.dag.assets.states import model_checks, token_states
from latentlens_dag.dag.resources import WarehouseResource
from latentlens_dag.dag.specs import StudySpec
from latentlens_dag.dag.versions import version_fields
from latentlens_dag.index.contextual_index import ContextualIndex
from latentlens_dag.models.loading import load_language_model
from latentlens_dag.schema import (
    DIVERSITY,
    INTERPRETABILITY,
    JUDGEMENTS,
    LATENTLENS,
    LAYER_ALIGNMENT,
    LENSES,
    NEIGHBORS,
    SINKS,
    STATE_STATISTICS,
)
from latentlens_dag.storage.hashing import hash_file
from latentlens_dag.storage.parquet import write_parquet
from latentlens_dag.storage.warehouse import Warehouse
from latentlens_dag.study.lenses.base import LensInputs, lens_class
from latentlens_dag.study.source import StudySource

# Algorithms: raise one when the same input would give other bytes.
_JUDGEMENTS, _INTERPRETABILITY, _ANALYSIS, _STATES, _SINKS, _CATALOG = 1, 1, 1, 1, 1, 4


def study_definitions(parts: StudySpec) -> dg.Definitions:
    """model checks -> states -> lenses -> judgements -> summaries -> catalog."""
    source = model_source(parts.model_key, parts.model)
    assets: list[Any] = [source, model_checks(parts), token_states(parts)]
    assets += [_lens(parts, lens) for lens in parts.lenses]
    if parts.judged:
        assets += [_judgements(parts), _interpretability(parts)]
    return dg.Definitions(assets=[*assets, *_analyses(parts), _catalog(parts)])


def _lens(parts: StudySpec, name: str) -> dg.AssetsDefinition:
    key_of, visual_key_of = parts.layer_keys(name), parts.layer_keys("visual")
    lens = lens_class(name)(parts.name, parts.top_k, parts.unique, parts.of_texts)
    tables = [keys.table(parts.index.name, layer) for layer in parts.index.layers]
    candidates = tables if lens.needs == "index" else [parts.model_key]
    deps = {layer: [visual_key_of[layer], *candidates] for layer in key_of}
    own_sentence = {"own_sentence": "excluded"} if parts.of_texts and lens.needs == "index" else {}
    version = version_fields(lens.algorithm, top_k=parts.top_k, unique=parts.unique, **own_sentence)

    @dg.multi_asset(
        name=f"{parts.name}_{name}",
        specs=layer_specs(key_of, deps, version, {"torch", "parquet"}, lens.description),
        check_specs=[check_spec("sorted_neighbors", key) for key in key_of.values()],
        partitions_def=keys.partitions(parts.batches),
        can_subset=True,
    )
    def neighbors(
        context: dg.AssetExecutionContext, warehouse: WarehouseResource
    ) -> Iterator[dg.MaterializeResult | dg.AssetCheckResult]:
        from latentlens_dag.index.state_tables import read_states

        batch, paths = int(context.partition_key), warehouse.paths
        layers = [layer for layer, key in key_of.items() if key in context.selected_asset_keys]
        states = {layer: read_states(paths.visual(parts.name, layer, batch)) for layer in layers}
        for layer, table in lens.neighbors(states, _lens_inputs(parts, paths, context.log.info)):
            out = paths.neighbors(parts.name, name, layer, batch)
            write_parquet(table, out, NEIGHBORS)
            problems = neighbor_problems(table, len(states[layer].image_ids), parts.top_k)
            yield from fail_on_errors(
                parquet_result(out, key_of[layer], [check_result("sorted_neighbors", key_of[layer], problems)])
            )

    return neighbors


def _lens_inputs(parts: StudySpec, paths: Warehouse, log: Callable[[str], None]) -> LensInputs:
    return LensInputs(
        lambda: ContextualIndex.open(paths.index(parts.index.name).root),
        lambda: load_language_model(parts.model),
        ProgressLog(log, "rows"),
        parts.index.layers,
    )


def _judgements(parts: StudySpec) -> dg.AssetsDefinition:
    key_of = parts.layer_keys("judgements")
    # Chance is judged against patches of other images, so every batch's truth is read.
    truth = [
        dg.AssetDep(key, partition_mapping=dg.AllPartitionMapping())
        for key in (
            keys.images(parts.images.name, "regions"),
            keys.images(parts.images.name, "pictures"),
            keys.study(parts.name, "visual_tokens"),
        )
    ]
    deps = {layer: [*(parts.layer_keys(lens)[layer] for lens in parts.lenses), *truth] for layer in key_of}
    lenses = [lens for lens in LENSES if lens in parts.lenses]  # whatever their order in the YAML
    version = version_fields(_JUDGEMENTS, lenses=lenses, batches=parts.batches)

    @dg.multi_asset(
        name=f"{parts.name}_judgements",
        specs=layer_specs(key_of, deps, version, {"parquet"}, _JUDGEMENTS_TEXT),
        partitions_def=keys.partitions(parts.batches),
        can_subset=True,
    )
    def judgements(
        context: dg.AssetExecutionContext, warehouse: WarehouseResource
    ) -> Iterator[dg.MaterializeResult | dg.AssetCheckResult]:
        from latentlens_dag.study.regions_judge import judge_regions

        batch, paths = int(context.partition_key), warehouse.paths
        truth = _truth(parts, paths)
        for layer, key in key_of.items():
            if key in context.selected_asset_keys:
                files = [paths.neighbors(parts.name, lens, layer, batch) for lens in parts.lenses]
                out = paths.judgements(parts.name, layer, batch)
                write_parquet(judge_regions(pa.concat_tables(_each(files)), truth), out, JUDGEMENTS)
                yield parquet_result(out, key)

    return judgements


def _interpretability(parts: StudySpec) -> dg.AssetsDefinition:
    def compute(paths: Warehouse) -> pa.Table:
        from latentlens_dag.study.interpretability import interpretability

        files = [paths.judgements(parts.name, layer, b) for layer in parts.visual_layers for b in range(parts.batches)]
        return interpretability(_each(files), pq.read_table(paths.summary(parts.name, "sinks")))

    deps = [*parts.layer_keys("judgements").values(), keys.study(parts.name, "sinks")]
    text = "The share of visual tokens with a related word, by lens, layer and group, with interval and chance."
    return _summary(parts, "interpretability", deps, compute, INTERPRETABILITY, _INTERPRETABILITY, text)


def _analyses(parts: StudySpec) -> list[dg.AssetsDefinition]:
    def neighbors(paths: Warehouse, lenses: list[str]) -> Iterable[pa.Table]:
        layers, batches = parts.visual_layers, range(parts.batches)
        return _each([paths.neighbors(parts.name, lens, v, b) for lens in lenses for v in layers for b in batches])

    def alignment(paths: Warehouse) -> pa.Table:
        from latentlens_dag.study.answer_statistics import layer_alignment

        return layer_alignment(neighbors(paths, [LATENTLENS]))

    def distinct(paths: Warehouse) -> pa.Table:
        from latentlens_dag.study.answer_statistics import diversity

        return diversity(neighbors(paths, list(parts.lenses)))

    deps = [key for lens in parts.lenses for key in parts.layer_keys(lens).values()]
    found = [_summary(parts, "diversity", deps, distinct, DIVERSITY, _ANALYSIS, "Distinct words among the answers.")]
    if LATENTLENS in parts.lenses:
        deps = [*parts.layer_keys(LATENTLENS).values()]
        text = "From which contextual layers each visual layer's neighbors come."
        found.append(_summary(parts, "layer_alignment", deps, alignment, LAYER_ALIGNMENT, _ANALYSIS, text))
    return [*found, _state_statistics(parts), _sinks(parts)]


def _sinks(parts: StudySpec) -> dg.AssetsDefinition:
    def compute(paths: Warehouse) -> pa.Table:
        from latentlens_dag.study.state_statistics import sink_tokens

        batches = range(parts.batches)
        files = {layer: [paths.visual(parts.name, layer, batch) for batch in batches] for layer in parts.visual_layers}
        return sink_tokens(parts.name, files)

    deps = [*parts.layer_keys("visual").values()]
    text = "The tokens whose states are attention sinks: outlying norms, which say nothing and are judged apart."
    return _summary(parts, "sinks", deps, compute, SINKS, _SINKS, text)


def _state_statistics(parts: StudySpec) -> dg.AssetsDefinition:
    contextual = parts.index.layers if LATENTLENS in parts.lenses else []

    def compute(paths: Warehouse) -> pa.Table:
        from latentlens_dag.study.state_statistics import StateFiles, state_statistics

        batches = [
            StateFiles(
                {layer: paths.visual(parts.name, layer, batch) for layer in parts.visual_layers},
                paths.connector(parts.name, batch) if parts.connector else None,
            )
            for batch in range(parts.batches)
        ]
        tables = {layer: paths.layer_table(parts.index.name, layer) for layer in contextual}
        return state_statistics(parts.name, batches, tables)

    deps = [*parts.layer_keys("visual").values(), *([keys.connector(parts.name)] if parts.connector else [])]
    deps += [keys.table(parts.index.name, layer) for layer in contextual]
    text = "How long the states of each layer are, and how far a token's state turns from layer to layer."
    return _summary(parts, "state_statistics", deps, compute, STATE_STATISTICS, _STATES, text)


def _summary(
    parts: StudySpec,
    name: str,
    deps: list[dg.AssetKey],
    compute: Callable[[Warehouse], pa.Table],
    schema: pa.Schema,
    algorithm: int,
    text: str,
) -> dg.AssetsDefinition:
    @dg.asset(
        key=keys.study(parts.name, name),
        deps=deps,
        group_name=parts.group,
        kinds={"polars", "parquet"},
        **version_fields(algorithm, batches=parts.batches),
        description=text,
    )
    def summary(warehouse: WarehouseResource) -> dg.MaterializeResult:
        out = warehouse.paths.summary(parts.name, name)
        write_parquet(compute(warehouse.paths), out, schema)
        return parquet_result(out)

    return summary


def _catalog(parts: StudySpec) -> dg.AssetsDefinition:
    judged = parts.judged
    names = ["diversity", "state_statistics", "sinks", *(["interpretability"] if judged else [])]
    names += ["layer_alignment"] if LATENTLENS in parts.lenses else []
    deps = [keys.study(parts.name, name) for name in (*names, *parts.token_tables, "model_checks")]
    deps += [key for lens in parts.lenses for key in parts.layer_keys(lens).values()]
    deps += list(parts.layer_keys("judgements").values()) if judged else []
    deps += parts.input_keys  # names of pictures, and regions, may change where no answer does
    material = {"texts" if parts.of_texts else "images": parts.inputs.name}

    @dg.asset(
        key=keys.study(parts.name, "catalog"),
        deps=deps,
        group_name=parts.group,
        kinds={"duckdb"},
        **version_fields(_CATALOG, **material, batches=parts.batches, index=parts.index.name),
        description="The study's tables in one DuckDB file.",
    )
    def catalog(warehouse: WarehouseResource) -> dg.MaterializeResult:
        from latentlens_dag.dataset.study_catalog import write_catalog

        out = warehouse.paths.catalog(parts.name)
        write_study_shape(parts, warehouse.paths, StudySource(parts.model, parts.index.name))
        write_catalog(warehouse.paths, parts.name, out, index=parts.index.name, images=material.get("images"))
        files = [out, warehouse.paths.shape("study", parts.name)]
        return result(None, hash_file(out), {"size_bytes": out.stat().st_size}, files)

    return catalog


_JUDGEMENTS_TEXT = (
    "For every visual token at layer {layer} and every lens: concrete, abstract, global or none, and chance."
)


def _truth(parts: StudySpec, paths: Warehouse) -> Any:
    from latentlens_dag.study.regions_judge import build_truth

    batches = range(parts.batches)
    return build_truth(
        _each([paths.regions(parts.images.name, b) for b in batches]),
        _each([paths.visual_tokens(parts.name, b) for b in batches]),
        _each([paths.pictures(parts.images.name, b) for b in batches]),
    )


def _each(files: list[Path]) -> Iterator[pa.Table]:
    return (pq.read_table(file) for file in files)
