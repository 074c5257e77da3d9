"""The assets of a study that run its model: self-checks, and the states of all tokens of images or texts."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import pyarrow.parquet as pq

from latentlens_dag.dag import keys
from latentlens_dag.dag.assets.checks import StepResults, check_result, fail_on_errors
from latentlens_dag.dag.assets.common import (
    check_dtype_of_step,
    dtype_setting,
    layer_specs,
    step_dtype,
    write_study_shape,
)
from latentlens_dag.dag.assets.images import files_of, read_again_if_changed
from latentlens_dag.dag.assets.reporting import ProgressLog, parquet_result
from latentlens_dag.dag.recording import can_reuse, result
from latentlens_dag.dag.resources import ModelResource, WarehouseResource
from latentlens_dag.dag.run_tags import FORCED
from latentlens_dag.dag.specs import IndexSpec, StudySpec, check_top_k
from latentlens_dag.dag.versions import version_fields
from latentlens_dag.errors import UserError
from latentlens_dag.models.model_ref import ModelRef
from latentlens_dag.schema import TABLES
from latentlens_dag.storage.parquet import write_parquet
from latentlens_dag.storage.records import ArtifactStore
from latentlens_dag.storage.warehouse import Warehouse

if TYPE_CHECKING:
    from latentlens_dag.models.fingerprints import WeightSample
    from latentlens_dag.models.language_model import LanguageModel
    from latentlens_dag.models.self_checks import ModelFacts
    from latentlens_dag.models.text_checks import ModelCheck
    from latentlens_dag.study.stored_states import BatchStates, Layer, StoredStates

# Algorithms: raise one when the same input would give other bytes.
_MODEL_CHECKS, _VISUAL, _TEXT_STATES, _TEXT_TOKENS = 3, 2, 2, 3


def model_checks(study: StudySpec) -> dg.AssetsDefinition:
    """Self-checks of the model, and the refusal of an index of another one."""
    from latentlens_dag.models.self_checks import CHECKS, TEXT_CHECKS

    key, checks = keys.study(study.name, "model_checks"), TEXT_CHECKS if study.of_texts else CHECKS
    # An index of whole sentences does not need a causal model or one that ignores padding, nor a study without a judge
    # the places of tokens: these checks only warn.
    not_needed = {"causality", "padding_invariance"} if study.index.dedup == "sentence" else set()
    not_needed |= {"localization"} if not study.judged and not study.of_texts else set()
    fields: dict[str, object] = {} if study.of_texts else dict(study.prompt_settings)
    fields |= {"not_needed": sorted(not_needed)} if not_needed else {}
    fields |= dtype_setting(study.dtype)

    @dg.asset(
        key=key,
        deps=[study.model_key, keys.index(study.index.name, "language_model")],
        group_name=study.group,
        kinds={"torch", "transformers"},
        **version_fields(_MODEL_CHECKS, **fields),
        check_specs=[dg.AssetCheckSpec(name, asset=key, blocking=name not in not_needed) for name in checks],
        description="Self-checks of the model: what the lenses rely on, measured on the model itself.",
    )
    def model_checks(warehouse: WarehouseResource, models: ModelResource) -> StepResults:
        from latentlens_dag.models.self_checks import check_same_model, stored_fingerprint, write_checks

        out, index = warehouse.paths.model_checks(study.name), study.index
        model = study.model_ref(warehouse.paths)
        dtype = step_dtype(model, study.dtype)
        # The index's model first: it is in memory after a build of the index, and two models need not fit.
        others = None if _same(model, index.model) else _index_weights(index, models)
        facts = _model_facts(study, model, models, dtype, stored_fingerprint(out))
        if others is not None:
            check_same_model(facts.weights, others, index.model, f"Study {study.name}", index.name)
        version = write_checks(facts, out)
        results = [
            check_result(check.name, key, _problems(check, study), check.name not in not_needed)
            for check in facts.checks
        ]
        figures = {check.name: _figure(check) for check in facts.checks}
        metadata = {**figures, "prompt": facts.prompt, "language_model": facts.fingerprint, "dtype": dtype}
        yield from fail_on_errors(result(key, version, metadata, [out], results))

    return model_checks


def _figure(check: "ModelCheck") -> float | str | None:
    return f"not checked: {check.not_checked}" if check.not_checked else check.figure


def _problems(check: "ModelCheck", study: StudySpec) -> list[str]:
    """The problem with its remedy, if any."""
    if check.passed:
        return []
    judged = check.name == "localization" and study.judged
    remedy = f" (verdicts by regions need it: set `judge: none` in Study {study.name} to go without)" if judged else ""
    return [f"{check.meaning}: {_figure(check)}{remedy}"]


def _index_weights(index: IndexSpec, models: ModelResource) -> "WeightSample":
    """A sample of the weights of the index's model; it is the same in every dtype."""
    from latentlens_dag.models.fingerprints import weight_sample

    return weight_sample(models.cache.language_model(index.model, step_dtype(index.model, index.dtype)))


def _model_facts(
    study: StudySpec, model: ModelRef, models: ModelResource, dtype: str, stored: str | None
) -> "ModelFacts":
    """The checks of the study's model, after a check that the study fits it."""
    from latentlens_dag.models.self_checks import check_language_model, check_model

    if study.of_texts:
        loaded = models.cache.full_model(model, dtype)
        _check_fits(study, loaded.language_model)
        return check_language_model(*loaded, stored)
    vlm = models.cache.vlm(model, dtype)
    _check_fits(study, vlm.language_model)
    return check_model(vlm, study.prompt, stored=stored)


def _check_fits(study: StudySpec, model: "LanguageModel") -> None:
    """The checks of loading, which needs the model's config; and that the text pass is right."""
    from latentlens_dag.models.layers import check_layers
    from latentlens_dag.models.self_checks import check_index_model

    place = f"Study {study.name}"
    check_layers(study.visual_layers, model.depth, study.model.name, place)
    check_top_k(study.top_k, len(model.embedding), place)
    check_index_model(model, study.index.dedup, study.index.name)  # says what to do; a failed check cannot


def _same(one: ModelRef, other: ModelRef) -> bool:
    if one.path is None or other.path is None:
        return one == other
    return one.trust_remote_code == other.trust_remote_code and one.path.samefile(other.path)


def token_states(study: StudySpec) -> dg.AssetsDefinition:
    """The states of all visual tokens, or of all tokens of texts, and the tables of those tokens."""
    layer_keys: dict[Layer, dg.AssetKey] = dict(study.layer_keys("visual").items())
    if study.connector:
        layer_keys["connector"] = keys.connector(study.name)
    table_keys = {name: keys.study(study.name, name) for name in study.token_tables}

    @dg.multi_asset(
        name=f"{study.name}_visual",
        specs=_state_specs(study),
        check_specs=[dg.AssetCheckSpec("finite_states", asset=key, blocking=True) for key in layer_keys.values()],
        partitions_def=keys.partitions(study.batches),
        can_subset=True,
    )
    def visual(context: dg.AssetExecutionContext, warehouse: WarehouseResource, models: ModelResource) -> StepResults:
        batch, selected, paths = int(context.partition_key), context.selected_asset_keys, warehouse.paths
        write_study_shape(study, paths)
        model = study.model_ref(paths)
        dtype = step_dtype(model, study.dtype)
        check_dtype_of_step(context, study, study.model_key, dtype, partial(_stored_dtype, study, paths))
        wanted = {layer: key for layer, key in layer_keys.items() if key in selected}
        read, load = (_read_texts, models.cache.language_model) if study.of_texts else (_read_images, models.cache.vlm)
        stored = _stored(study, context, paths, batch, wanted, dtype)
        progress = ProgressLog(context.log.info, "tokens" if study.of_texts else "images")
        states = read(study, partial(load, model, dtype), paths, batch, list(wanted), stored, progress)
        for name, key in table_keys.items():
            if key in selected:
                out = _tokens_path(name, study, paths, batch)
                write_parquet(states.tables[name], out, TABLES[name])
                yield parquet_result(out, key)
        for layer, key in wanted.items():
            yield from fail_on_errors(_write_layer(_states_path(study, paths, layer, batch), layer, key, states, dtype))

    return visual


def _state_specs(study: StudySpec) -> list[dg.AssetSpec]:
    # The model checks refuse an index of another model, so nothing is computed before them.
    deps = [study.input_key, study.model_key, keys.study(study.name, "model_checks")]
    declared = dtype_setting(study.dtype)
    if study.of_texts:
        version = version_fields(_TEXT_STATES, **declared)
    else:
        version = version_fields(_VISUAL, **study.prompt_settings, **declared)
    shared: dict[str, Any] = {"deps": deps, "skippable": True, "group_name": study.group, **version}
    layers, states = study.layer_keys("visual"), {"torch", "lance"}
    text = _STATES_OF_TEXTS if study.of_texts else _STATES
    specs = layer_specs(layers, dict.fromkeys(layers, deps), version, states, text)
    if study.connector:
        specs.append(dg.AssetSpec(keys.connector(study.name), kinds=states, description=_CONNECTOR, **shared))
    for name in study.token_tables:
        key, own = keys.study(study.name, name), shared
        if name == "text_tokens":  # another rule for words makes this table anew, and no state
            own = {**shared, **version_fields(_TEXT_TOKENS, **declared)}
        specs.append(dg.AssetSpec(key, kinds={"parquet"}, description=_TABLE_TEXT[name], **own))
    return specs


def _write_layer(
    out: Path, layer: "Layer", key: dg.AssetKey, states: "BatchStates", dtype: str
) -> dg.MaterializeResult:
    from latentlens_dag.study.token_tables import write_visual_layer

    tokens = states.tables["visual_tokens"]
    facts = write_visual_layer(out, tokens, states.states[layer], dtype)
    metadata = {
        "dagster/row_count": len(tokens),
        "mean_norm": facts.mean_norm,
        "forwarded": states.forwarded,
        "dtype": dtype,
    }
    return result(key, facts.content, metadata, [out], [check_result("finite_states", key, facts.problems)])


def _read_images(
    study: StudySpec,
    load: Callable[[], Any],
    paths: Warehouse,
    batch: int,
    layers: list["Layer"],
    stored: "StoredStates",
    progress: ProgressLog,
) -> "BatchStates":
    from latentlens_dag.study.stored_states import visual_batch_states

    files = files_of(study.images, paths, pq.read_table(paths.pictures(study.images.name, batch)))
    with read_again_if_changed(paths, study.images):
        return visual_batch_states(load, study.name, files, layers, study.prompt, stored, progress)


def _read_texts(
    study: StudySpec,
    load: Callable[[], Any],
    paths: Warehouse,
    batch: int,
    layers: list["Layer"],
    stored: "StoredStates",
    progress: ProgressLog,
) -> "BatchStates":
    from latentlens_dag.models.loading import load_tokenizer
    from latentlens_dag.study.stored_states import text_batch_states

    texts = pq.read_table(paths.texts(study.inputs.name, batch))
    by_id = dict(zip(texts["text_id"].to_pylist(), texts["text"].to_pylist(), strict=True))
    numbers = [layer for layer in layers if layer != "connector"]
    tokenizer = partial(load_tokenizer, study.model_ref(paths))
    return text_batch_states(load, tokenizer, study.name, by_id, numbers, stored, progress)


def _stored(
    study: StudySpec,
    context: dg.AssetExecutionContext,
    paths: Warehouse,
    batch: int,
    wanted: Mapping["Layer", dg.AssetKey],
    dtype: str,
) -> "StoredStates":
    """The stored states of a batch that the same model, prompt, algorithm, dtype and packages made."""
    from latentlens_dag.study.stored_states import StoredStates

    if context.has_tag(FORCED):
        return StoredStates()
    layers = {
        layer: _states_path(study, paths, layer, batch)
        for layer, key in wanted.items()
        if can_reuse(context, key, study.model_key)
    }
    tables = {name: _tokens_path(name, study, paths, batch) for name in study.token_tables}
    # Another rule for words leaves the states as they are, and `text_batch_states` makes that table in any case.
    counted = [name for name in tables if name != "text_tokens"]
    whole = all(can_reuse(context, keys.study(study.name, name), study.model_key) for name in counted)
    tables = {name: tables[name] for name in counted}
    return StoredStates.read(tables if whole else {}, layers, dtype)


def dtype_of_study(study: StudySpec, paths: Warehouse) -> str | None:
    """The dtype of all stored states of a study; None where an earlier version of this package recorded none.

    Raises:
        UserError: where there are two, as runs of single parts can make them.
    """
    from latentlens_dag.models.dtypes import DTYPES

    store, found = ArtifactStore(paths.root), dict[str, str]()
    for key in study.layer_keys("visual").values():
        for partition in keys.partitions(study.batches).get_partition_keys():
            record = store.read(key.to_user_string(), partition)
            dtype = (record and record.dtype) or _stored_dtype(study, paths, key, partition) or ""
            if dtype in DTYPES:
                found.setdefault(dtype, keys.label(key, partition))
    if len(found) > 1:
        places = " and ".join(f"{place} in {dtype}" for dtype, place in found.items())
        raise UserError(
            f"The states of Study {study.name} are in two dtypes, {places}: single parts were made by themselves. Run "
            f"`latentlens-dag build {study.name}`, which makes the others again."
        )
    return next(iter(found), None)


def _stored_dtype(study: StudySpec, paths: Warehouse, key: dg.AssetKey, partition: str) -> str | None:
    """The dtype of stored states, as their own file tells; None of other parts."""
    from latentlens_dag.index.state_tables import dtype_of_states

    layers: dict[dg.AssetKey, Layer] = {layer_key: layer for layer, layer_key in study.layer_keys("visual").items()}
    path = _states_path(study, paths, layers[key], int(partition)) if key in layers else None
    return dtype_of_states(path) if path is not None and path.is_dir() else None


def _tokens_path(name: str, study: StudySpec, paths: Warehouse, batch: int) -> Path:
    of = {"visual_tokens": paths.visual_tokens, "text_tokens": paths.text_tokens}
    return of[name](study.name, batch)


def _states_path(study: StudySpec, paths: Warehouse, layer: "Layer", batch: int) -> Path:
    return paths.connector(study.name, batch) if layer == "connector" else paths.visual(study.name, layer, batch)


_STATES = "The states of the visual tokens entering block {layer}; one forward pass for all layers."
_STATES_OF_TEXTS = "The states of the texts' tokens entering block {layer}; one forward pass for all layers."
_CONNECTOR = "What the connector gives for the visual tokens; in most families that is layer 0."
_TABLE_TEXT = {
    "visual_tokens": "Where each visual token lies: view, tile, row, column, box in original pixels.",
    "text_tokens": "What each token of the texts is: its position, its text, and the whole word around it.",
}
