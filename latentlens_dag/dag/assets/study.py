"""The assets of a study after its states: lenses, judgements, summaries, catalog."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq

from latentlens_dag.dag import keys
from latentlens_dag.dag.assets.ablation import ablation_assets
from latentlens_dag.dag.assets.captioning import captioning_assets
from latentlens_dag.dag.assets.checks import StepResults, check_result, fail_on_errors, neighbor_problems
from latentlens_dag.dag.assets.common import (
    dtype_setting,
    layer_specs,
    parquet_asset,
    step_dtype,
    write_study_shape,
)
from latentlens_dag.dag.assets.counted import (
    counted_keys,
    counted_settings,
    files_without_padding,
    stored_blank_tokens,
)
from latentlens_dag.dag.assets.reporting import ProgressLog, parquet_result
from latentlens_dag.dag.assets.sources import model_source
from latentlens_dag.dag.assets.states import dtype_of_study, model_checks, token_states
from latentlens_dag.dag.assets.study_connectors import study_connectors
from latentlens_dag.dag.recording import result
from latentlens_dag.dag.resources import ModelResource, WarehouseResource
from latentlens_dag.dag.specs import CheckpointSpec, StudySpec
from latentlens_dag.dag.versions import version_fields
from latentlens_dag.index.contextual_index import ContextualIndex
from latentlens_dag.schema import (
    CANDIDATES,
    DECLARED_LENSES,
    JUDGEMENTS,
    LATENTLENS,
    LENSES,
    NEIGHBORS,
    PATCH_TRUTH,
    TABLES,
)
from latentlens_dag.storage.hashing import hash_file, hash_values
from latentlens_dag.storage.parquet import parquet_rows, write_parquet
from latentlens_dag.storage.warehouse import Warehouse
from latentlens_dag.study.lenses.base import LensInputs
from latentlens_dag.study.lenses.registry import lens_class
from latentlens_dag.study.source import StudySource

if TYPE_CHECKING:
    import polars as pl

    from latentlens_dag.study.hubs import Hub

# Algorithms: raise one when the same input would give other bytes.
_PATCH_TRUTH, _CHANCE, _JUDGEMENTS, _INTERPRETABILITY, _STATES, _SINKS, _CATALOG = 2, 3, 3, 5, 2, 1, 9
_DIVERSITY, _ALIGNMENT, _DIFFERENCES, _CANDIDATES = 4, 3, 3, 1
_POLARS = frozenset({"polars", "parquet"})


def study_definitions(study: StudySpec) -> dg.Definitions:
    """model checks -> states -> lenses (and what patches show) -> judgements -> summaries -> catalog."""
    assets: list[Any] = [_model(study), model_checks(study), token_states(study)]
    assets += [_lens(study, lenses) for lenses in _steps_of_lenses(study)]
    assets += [_candidates(study)] if study.has_shared_candidates else []
    if study.judged:
        assets += [_patch_truth(study), _chance_patches(study), _judgements(study)]
        assets += [_interpretability(study), _lens_differences(study)]
    if study.captions:
        assets += captioning_assets(study)
    if study.corpus_ablation:
        assets += ablation_assets(study, judge=_JUDGEMENTS, shares=_INTERPRETABILITY)
    return dg.Definitions(assets=[*assets, *_analyses(study), _catalog(study)])


def _model(study: StudySpec) -> dg.SourceAsset | dg.AssetsDefinition:
    """The source that is the study's model or, where the model is an asset, the table that says of which connector."""
    if isinstance(study.model, CheckpointSpec):
        return study_connectors(study.name, study.model)
    return model_source(study.model_key, study.model)


def _steps_of_lenses(study: StudySpec) -> list[list[str]]:
    """The lenses of each step: those that differ in their candidates alone share their scores."""
    steps: dict[str, list[str]] = {}
    for name in study.lenses:
        steps.setdefault(LENSES[name].declared or name, []).append(name)
    return list(steps.values())


def _lens(study: StudySpec, names: list[str]) -> dg.AssetsDefinition:
    """The step of one lens, or of lenses of one class with different candidates."""
    made, visual_key_of = lens_class(names[0]), study.layer_keys("visual")
    key_of, shared_lens = {name: study.layer_keys(name) for name in names}, DECLARED_LENSES[made.name].shared.name
    tables = [keys.table(study.index.name, layer) for layer in study.index.layers]
    sources = tables if made.needs == "index" else [study.model_key]
    own_sentence = {"own_sentence": "excluded"} if study.of_texts and made.needs == "index" else {}
    declared = {} if made.needs == "index" else dtype_setting(study.dtype)
    composed = {"words": "composed"} if study.unique == "word" else {}  # an algorithm's number would be of all studies
    fields = {"top_k": study.top_k, "unique": study.unique, **own_sentence, **declared, **composed}
    specs: list[dg.AssetSpec] = []
    for name in names:
        shared = bool(LENSES[name].declared)
        version = version_fields(made.algorithm, **fields, **({"candidates": "shared"} if shared else {}))
        of_index = [keys.study(study.name, "candidates")] if shared else []
        deps = {layer: [visual_key_of[layer], *sources, *of_index] for layer in study.visual_layers}
        text = made.description + (_OF_THE_INDEX if shared else "")
        specs += layer_specs(key_of[name], deps, version, {"torch", "parquet"}, text)

    @dg.multi_asset(
        name=f"{study.name}_{made.name}",
        specs=specs,
        check_specs=[dg.AssetCheckSpec("sorted_neighbors", asset=spec.key, blocking=True) for spec in specs],
        partitions_def=keys.partitions(study.batches),
        can_subset=True,
    )
    def neighbors(
        context: dg.AssetExecutionContext, warehouse: WarehouseResource, models: ModelResource
    ) -> StepResults:
        from latentlens_dag.index.state_tables import read_states
        from latentlens_dag.models.dtypes import DTYPES, check_one_dtype
        from latentlens_dag.study.candidates import tokens_of

        batch, paths, selected = int(context.partition_key), warehouse.paths, context.selected_asset_keys
        wanted = {name: {layer for layer, key in key_of[name].items() if key in selected} for name in names}
        layers = sorted(set[int]().union(*wanted.values()))
        states = {layer: read_states(paths.visual(study.name, layer, batch)) for layer in layers}
        dtype = None if made.needs == "index" else step_dtype(study.model_ref(paths), study.dtype)
        facts: dict[str, Any] = {}
        if dtype is not None:
            for at in states.values():
                check_one_dtype(dtype, at.dtype if at.dtype in DTYPES else None, study.dtype, f"Study {study.name}")
            facts["dtype"] = dtype
        chosen = {name: LENSES[name].candidates for name in names if wanted[name]}
        lens = made(study.name, study.top_k, study.unique, study.of_texts, tuple(chosen.values()))
        inputs = LensInputs(
            lambda: ContextualIndex.open(paths.index(study.index.name).root),
            lambda needs: models.cache.vocabulary(study.model_ref(paths), needs, dtype),
            ProgressLog(context.log.info, "rows"),
            study.index.layers,
            lambda: tokens_of(pq.read_table(paths.summary(study.name, "candidates")), shared_lens),
        )
        for name, layer, table in lens.neighbors(states, inputs):
            if layer in wanted[name]:
                out, key = paths.neighbors(study.name, name, layer, batch), key_of[name][layer]
                write_parquet(table, out, NEIGHBORS)
                problems = neighbor_problems(table, len(states[layer].image_ids), study.top_k)
                check = check_result("sorted_neighbors", key, problems)
                yield from fail_on_errors(parquet_result(out, key, [check], **facts))

    return neighbors


_OF_THE_INDEX = " Only tokens that the index has."


def _candidates(study: StudySpec) -> dg.AssetsDefinition:
    lenses = [lens for lens in LENSES if lens in study.lenses and LENSES[lens].candidates == "shared"]

    def write(paths: Warehouse, _: int) -> list[Path]:
        from latentlens_dag.study.candidates import candidates

        files = [paths.occurrences(study.index.name, shard) for shard in range(study.index.corpus.shards)]
        found = candidates(study.name, lenses, study.top_k, files)
        write_parquet(found, out := paths.summary(study.name, "candidates"), CANDIDATES)
        return [out]

    version = version_fields(_CANDIDATES, lenses=lenses, top_k=study.top_k, index=study.index.name)
    text = "The tokens that LatentLens and the lenses with shared candidates may answer with."
    deps = [keys.index(study.index.name, "occurrences")]
    return parquet_asset(keys.study(study.name, "candidates"), deps, version, text, write, kinds=_POLARS)


def _patch_truth(study: StudySpec) -> dg.AssetsDefinition:
    def write(paths: Warehouse, batch: int) -> list[Path]:
        from latentlens_dag.study.patch_truth import patch_truth

        tables = paths.regions(images, batch), paths.visual_tokens(study.name, batch), paths.pictures(images, batch)
        with parquet_rows(out := paths.patch_truth(study.name, batch), PATCH_TRUTH) as rows:
            for table in patch_truth(*map(pq.read_table, tables)):
                rows.write(table)
        return [out]

    images = study.images.name
    deps = [keys.images(images, "regions"), keys.images(images, "pictures"), keys.study(study.name, "visual_tokens")]
    text = "What the annotated regions show in each patch, in words."
    key, version = keys.study(study.name, "patch_truth"), version_fields(_PATCH_TRUTH)
    return parquet_asset(key, deps, version, text, write, study.batches)


def _chance_patches(study: StudySpec) -> dg.AssetsDefinition:
    @dg.asset(
        key=keys.study(study.name, "chance_patches"),
        deps=[keys.study(study.name, "patch_truth")],
        group_name=study.group,
        kinds={"parquet"},
        **version_fields(_CHANCE, batches=study.batches),
        description="For each patch other images' patches of the same group, and what they show; a file per batch.",
    )
    def chance_patches(warehouse: WarehouseResource) -> dg.MaterializeResult:
        from latentlens_dag.study.chance_patches import write_chance_patches

        paths, batches = warehouse.paths, range(study.batches)
        files = [paths.chance_patches(study.name, batch) for batch in batches]
        rows = write_chance_patches([paths.patch_truth(study.name, batch) for batch in batches], files)
        facts = {"dagster/row_count": rows, "size_bytes": sum(file.stat().st_size for file in files)}
        return result(None, hash_values(map(hash_file, files)), facts, files)

    return chance_patches


def _judgements(study: StudySpec) -> dg.AssetsDefinition:
    key_of = study.layer_keys("judgements")
    truth_keys = [keys.study(study.name, name) for name in ("patch_truth", "chance_patches")]
    deps = {layer: [*(study.layer_keys(lens)[layer] for lens in study.lenses), *truth_keys] for layer in key_of}
    lenses = [lens for lens in LENSES if lens in study.lenses]  # in any order of the YAML
    version = version_fields(_JUDGEMENTS, lenses=lenses, batches=study.batches)
    text = "For every visual token at layer {layer} and every lens: concrete, abstract, global or none, and chance."

    @dg.multi_asset(
        name=f"{study.name}_judgements",
        specs=layer_specs(key_of, deps, version, {"parquet"}, text),
        partitions_def=keys.partitions(study.batches),
        can_subset=True,
    )
    def judgements(context: dg.AssetExecutionContext, warehouse: WarehouseResource) -> StepResults:
        from latentlens_dag.study.regions_judge import Truth, judge_files

        batch, paths = int(context.partition_key), warehouse.paths
        truth = Truth.of(paths.patch_truth(study.name, batch), paths.chance_patches(study.name, batch))
        for layer, key in key_of.items():
            if key in context.selected_asset_keys:
                files = [paths.neighbors(study.name, lens, layer, batch) for lens in sorted(study.lenses)]
                out = paths.judgements(study.name, layer, batch)
                with parquet_rows(out, JUDGEMENTS) as rows:
                    for table in judge_files(files, truth):
                        rows.write(table)
                yield parquet_result(out, key)

    return judgements


def _interpretability(study: StudySpec) -> dg.AssetsDefinition:
    def compute(paths: Warehouse) -> pa.Table:
        from latentlens_dag.study.interpretability import interpretability

        files = [paths.judgements(study.name, layer, b) for layer in study.visual_layers for b in range(study.batches)]
        sinks = pq.read_table(paths.summary(study.name, "sinks"))
        return interpretability(map(pq.read_table, files), study.top_k, sinks)

    deps = [*study.layer_keys("judgements").values(), keys.study(study.name, "sinks")]
    text = "Shares of visual tokens with a related word, by lens, layer, group and measure, with intervals and chance."
    return _summary(study, "interpretability", deps, compute, _INTERPRETABILITY, text, top_k=study.top_k)


def _lens_differences(study: StudySpec) -> dg.AssetsDefinition:
    def compute(paths: Warehouse) -> pa.Table:
        import polars as pl

        from latentlens_dag.study.differences import lens_differences

        judgements = {
            layer: [
                pl.scan_parquet(paths.judgements(study.name, layer, batch), glob=False)
                for batch in range(study.batches)
            ]
            for layer in study.visual_layers
        }
        sinks = pq.read_table(paths.summary(study.name, "sinks"))
        return lens_differences(study.name, judgements, study.top_k, sinks)

    deps = [*study.layer_keys("judgements").values(), keys.study(study.name, "sinks")]
    text = "By how much lenses, and layers of a lens, differ on the same patches, with interval and adjusted p-value."
    return _summary(study, "lens_differences", deps, compute, _DIFFERENCES, text, top_k=study.top_k)


def _analyses(study: StudySpec) -> list[dg.AssetsDefinition]:
    def distinct(paths: Warehouse, blank: "pl.DataFrame") -> pa.Table:
        from latentlens_dag.study.answer_statistics import diversity
        from latentlens_dag.study.counted_tokens import without_blank

        return diversity(without_blank(_neighbors_of(study, paths, list(study.lenses)), blank))

    deps = [key for lens in study.lenses for key in study.layer_keys(lens).values()]
    text = "Distinct words among the answers."
    summaries = [_token_summary(study, "diversity", deps, distinct, _DIVERSITY, text)]
    aligned = [_layer_alignment(study)] if LATENTLENS in study.lenses else []
    return [*summaries, *aligned, _state_statistics(study), _sinks(study)]


def _neighbors_of(
    study: StudySpec, paths: Warehouse, lenses: list[str], columns: list[str] | None = None
) -> Iterable[pa.Table]:
    layers, batches = study.visual_layers, range(study.batches)
    files = (paths.neighbors(study.name, lens, v, b) for lens in lenses for v in layers for b in batches)
    return (pq.read_table(file, columns=columns) for file in files)


def _visual_files(study: StudySpec, paths: Warehouse) -> dict[int, list[Path]]:
    batches = range(study.batches)
    return {layer: [paths.visual(study.name, layer, batch) for batch in batches] for layer in study.visual_layers}


def _layer_alignment(study: StudySpec) -> dg.AssetsDefinition:
    def compute(paths: Warehouse, blank: "pl.DataFrame") -> pa.Table:
        from latentlens_dag.study.answer_statistics import ALIGNMENT_COLUMNS, layer_alignment
        from latentlens_dag.study.counted_tokens import TOKEN, without_blank
        from latentlens_dag.study.null_answers import null_answers

        lens = lens_class(LATENTLENS)(study.name, study.top_k, study.unique, study.of_texts)
        inputs = LensInputs(
            lambda: ContextualIndex.open(paths.index(study.index.name).root),
            _no_vocabulary,
            contextual_layers=study.index.layers,
        )
        columns = [*ALIGNMENT_COLUMNS, *(TOKEN if len(blank) else [])]
        measured = without_blank(_neighbors_of(study, paths, [LATENTLENS], columns), blank)
        return layer_alignment(measured, null_answers(lens, _visual_files(study, paths), inputs, blank))

    deps = [*study.layer_keys(LATENTLENS).values(), *study.layer_keys("visual").values()]
    deps += [keys.table(study.index.name, layer) for layer in study.index.layers]
    text = "From which contextual layers each visual layer's neighbors come, and those of states that mean nothing."
    same = {"top_k": study.top_k, "unique": study.unique}
    return _token_summary(study, "layer_alignment", deps, compute, _ALIGNMENT, text, settings=same)


def _no_vocabulary(needs: str) -> Any:
    raise ValueError(f"LatentLens needs no vocabulary, but asked for {needs}.")


def _sinks(study: StudySpec) -> dg.AssetsDefinition:
    def compute(paths: Warehouse) -> pa.Table:
        from latentlens_dag.study.state_statistics import sink_tokens

        return sink_tokens(study.name, _visual_files(study, paths))

    deps = [*study.layer_keys("visual").values()]
    text = "The tokens whose states are attention sinks: outlying norms, which say nothing and are judged apart."
    return _summary(study, "sinks", deps, compute, _SINKS, text)


def _state_statistics(study: StudySpec) -> dg.AssetsDefinition:
    answered = LATENTLENS in study.lenses
    contextual = study.index.layers if answered else []

    def hubs(paths: Warehouse, tables: dict[int, Path], blank: "pl.DataFrame") -> "dict[tuple[str, int | None], Hub]":
        from latentlens_dag.study.counted_tokens import without_blank
        from latentlens_dag.study.hubs import HUB_COLUMNS, text_hubs, visual_hubs
        from latentlens_dag.study.state_statistics import CONTEXTUAL, VISUAL

        if not answered:
            return {}
        sinks = pq.read_table(paths.summary(study.name, "sinks"))
        answers = without_blank(_neighbors_of(study, paths, [LATENTLENS], HUB_COLUMNS), blank)
        visual = visual_hubs(answers, sinks)
        text = text_hubs(ContextualIndex.open(paths.index(study.index.name).root), tables)
        named = ((VISUAL, visual), (CONTEXTUAL, text))
        return {(source, layer): hub for source, found in named for layer, hub in found.items()}

    def compute(paths: Warehouse, blank: "pl.DataFrame") -> pa.Table:
        from latentlens_dag.study.state_statistics import StateFiles, state_statistics

        batches = [
            StateFiles(
                {layer: paths.visual(study.name, layer, batch) for layer in study.visual_layers},
                paths.connector(study.name, batch) if study.connector else None,
            )
            for batch in range(study.batches)
        ]
        tables = {layer: paths.layer_table(study.index.name, layer) for layer in contextual}
        return state_statistics(study.name, batches, tables, hubs(paths, tables, blank), blank)

    deps = [*study.layer_keys("visual").values(), *([keys.connector(study.name)] if study.connector else [])]
    deps += [keys.table(study.index.name, layer) for layer in contextual]
    deps += [*study.layer_keys(LATENTLENS).values(), keys.study(study.name, "sinks")] if answered else []
    text = "How long the states of each layer are, how their directions are spread, and how far a token's state turns."
    return _token_summary(study, "state_statistics", deps, compute, _STATES, text, partial(_search_recall, study))


def _search_recall(study: StudySpec, paths: Warehouse) -> list[Path]:
    """The file with the recall of the index on the study's states; none where its tables are too small for indexes."""
    from latentlens_dag.index.approximate import measurement_file
    from latentlens_dag.study.search_recall import SEARCH_RECALL, search_recall

    tables = [paths.layer_table(study.index.name, layer) for layer in study.index.layers]
    out = paths.summary(study.name, "search_recall")
    out.unlink(missing_ok=True)
    if LATENTLENS not in study.lenses or not any(measurement_file(table).is_file() for table in tables):
        return []
    files = {layer: [paths.visual(study.name, layer, b) for b in range(study.batches)] for layer in study.visual_layers}
    table = search_recall(study.name, files, ContextualIndex.open(paths.index(study.index.name).root))
    write_parquet(table, out, SEARCH_RECALL)
    return [out]


def _summary(
    study: StudySpec,
    name: str,
    deps: list[dg.AssetKey],
    compute: Callable[[Warehouse], pa.Table],
    algorithm: int,
    text: str,
    **settings: int | str,
) -> dg.AssetsDefinition:
    def write(paths: Warehouse, _: int) -> list[Path]:
        write_parquet(compute(paths), out := paths.summary(study.name, name), TABLES[name])
        return [out]

    version = version_fields(algorithm, batches=study.batches, **settings)
    return parquet_asset(keys.study(study.name, name), deps, version, text, write, kinds=_POLARS)


def _token_summary(
    study: StudySpec,
    name: str,
    deps: list[dg.AssetKey],
    compute: Callable[[Warehouse, "pl.DataFrame"], pa.Table],
    algorithm: int,
    text: str,
    beside: Callable[[Warehouse], list[Path]] = lambda paths: [],
    settings: Mapping[str, int | str] = MappingProxyType({}),
) -> dg.AssetsDefinition:
    """As `_summary`, of the tokens that count; `compute` gets the others, too."""

    def write(paths: Warehouse, _: int) -> list[Path]:
        blank, out = stored_blank_tokens(study, paths), paths.summary(study.name, name)
        if before := files_without_padding(study, blank):
            return [out, *(file for file in before if file != out)]
        write_parquet(compute(paths, blank), out, TABLES[name])
        return [out, *beside(paths)]

    version = version_fields(algorithm, batches=study.batches, **settings, **counted_settings(study))
    key, every = keys.study(study.name, name), list(dict.fromkeys([*deps, *counted_keys(study)]))
    return parquet_asset(key, every, version, text, write, kinds=_POLARS)


def _catalog(study: StudySpec) -> dg.AssetsDefinition:
    judged = study.judged
    names = ["diversity", "state_statistics", "sinks", *(["interpretability", "lens_differences"] if judged else [])]
    names += ["layer_alignment"] if LATENTLENS in study.lenses else []
    names += ["candidates"] if study.has_shared_candidates else []
    names += ["corpus_ablation"] if study.corpus_ablation else []
    names += ["study_connectors"] if study.checkpoint else []
    if study.captions:
        names += ["captions", *(["caption_objects", "caption_scores"] if study.images.regions else [])]
    deps = [keys.study(study.name, name) for name in (*names, *study.token_tables, "model_checks")]
    deps += [key for lens in study.lenses for key in study.layer_keys(lens).values()]
    deps += [keys.study(study.name, "patch_truth"), *study.layer_keys("judgements").values()] if judged else []
    deps += study.input_keys  # names and regions may change where no neighbor does
    inputs = {"texts" if study.of_texts else "images": study.inputs.name}

    @dg.asset(
        key=keys.study(study.name, "catalog"),
        deps=deps,
        group_name=study.group,
        kinds={"duckdb"},
        **version_fields(_CATALOG, **inputs, batches=study.batches, index=study.index.name),
        description="The study's tables in one DuckDB file.",
    )
    def catalog(warehouse: WarehouseResource) -> dg.MaterializeResult:
        from latentlens_dag.dataset.study_catalog import write_catalog

        out, dtype = warehouse.paths.catalog(study.name), dtype_of_study(study, warehouse.paths)
        source = StudySource(study.model_ref(warehouse.paths), study.index.name)
        write_study_shape(study, warehouse.paths, source, dtype)
        write_catalog(warehouse.paths, study.name, out, index=study.index.name, images=inputs.get("images"))
        files = [out, warehouse.paths.shape("study", study.name)]
        return result(None, hash_file(out), {"size_bytes": out.stat().st_size}, files)

    return catalog
