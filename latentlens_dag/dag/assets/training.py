"""The assets of a connector: its frozen models, its training, and the models that it becomes part of.

The training is one step: it makes the table of its losses and, after each step that is kept, a model. Its state lies in
a folder of its own until all of them are written, so that a build that was killed goes on where it was.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq

from latentlens_dag.dag import keys
from latentlens_dag.dag.assets.common import dtype_setting
from latentlens_dag.dag.assets.features import encoder_of
from latentlens_dag.dag.assets.reporting import ProgressLog, column_schema, markdown_table
from latentlens_dag.dag.assets.sources import model_source
from latentlens_dag.dag.building.left_out import LEFT_OUT
from latentlens_dag.dag.recording import input_version, result, store_of
from latentlens_dag.dag.resources import ModelResource, WarehouseResource
from latentlens_dag.dag.run_tags import FORCED
from latentlens_dag.dag.specs import ConnectorSpec
from latentlens_dag.dag.versions import settings_of, version_fields
from latentlens_dag.errors import UserError
from latentlens_dag.inputs.captions import read_captions
from latentlens_dag.schema import CONNECTORS, LOSSES
from latentlens_dag.storage.files import remove
from latentlens_dag.storage.hashing import hash_file, hash_values
from latentlens_dag.storage.package_versions import package_versions
from latentlens_dag.storage.parquet import write_parquet
from latentlens_dag.storage.records import ArtifactRecord, FileFacts
from latentlens_dag.storage.warehouse import Warehouse
from latentlens_dag.training.kept_weights import has_kept, keep_weights, kept_weights

if TYPE_CHECKING:
    from latentlens_dag.training.checkpoint import StepFacts
    from latentlens_dag.training.connector_file import ConnectorFacts

_FROZEN, _TRAINING = 1, 1  # algorithms
_CURVE_ROWS = 24
_CHECKPOINT_S = 60.0  # between states of a training, from which one that was killed goes on
_LOSSES_TEXT = "The loss of every step of the training, and what the connector was trained with."
_MODEL_TEXT = "The model with the connector after {step} steps, as transformers loads it, and the connector alone."


def connector_definitions(connector: ConnectorSpec) -> dg.Definitions:
    """language_model, frozen; and of the features and captions: losses, checkpoint/S...... ."""
    source = model_source(keys.training(connector.name, "language_model"), connector.language_model)
    return dg.Definitions(assets=[source, _frozen(connector), _training(connector)])


def _models_of(connector: ConnectorSpec) -> list[dg.AssetKey]:
    """The sources of both frozen models."""
    return [keys.training(connector.name, "language_model"), keys.features(connector.features.name, "vision_encoder")]


def _frozen(connector: ConnectorSpec) -> dg.AssetsDefinition:
    features = connector.features

    @dg.asset(
        key=keys.training(connector.name, "frozen"),
        deps=_models_of(connector),
        group_name=f"connector/{connector.name}",
        kinds={"torch", "transformers"},
        **version_fields(_FROZEN, layer=features.layer, pool=features.pool),
        description="The weights of both frozen models, named as in the finished model; its checkpoints share them.",
    )
    def frozen(
        context: dg.AssetExecutionContext, warehouse: WarehouseResource, models: ModelResource
    ) -> dg.MaterializeResult:
        from latentlens_dag.models.dtypes import dtype_of_checkpoint
        from latentlens_dag.training.checkpoint_folder import link_folder, linked_facts, write_frozen_parts

        paths, dtype = warehouse.paths, dtype_of_checkpoint(connector.language_model)
        out, other, known = paths.frozen_parts(connector.name), _same_frozen(connector, context), list[FileFacts]()
        if other is None:
            language = models.cache.full_model(connector.language_model, dtype)
            write_frozen_parts(language, encoder_of(features), out, dtype)
        else:
            folder = paths.frozen_parts(other.asset.split("/")[1])
            link_folder(folder, out)
            known = linked_facts(other.files, folder, out, paths.root)
        facts = store_of(context).file_facts([out], known)
        size = sum(fact.size_bytes for fact in facts)
        version = hash_values([f"{Path(fact.path).name} {fact.digest}" for fact in facts])
        return result(None, version, {"size_bytes": size, "dtype": dtype}, [out], known=facts)

    return frozen


def _same_frozen(connector: ConnectorSpec, context: dg.AssetExecutionContext) -> ArtifactRecord | None:
    """What another connector between the same frozen models has of them, whole."""
    if context.has_tag(FORCED):
        return None
    store, own = store_of(context), keys.training(connector.name, "frozen").to_user_string()
    settings = settings_of(context.assets_def.specs_by_key[context.asset_key].metadata)
    versions = [str(input_version(context, key)) for key in _models_of(connector)]
    for record in store.records("connector"):
        if record.asset == own or not record.asset.endswith("/frozen") or record.damaged is not None:
            continue
        by_part = {name.rpartition("/")[2]: version for name, version in record.inputs.items()}
        same = [by_part.get(key.path[-1]) for key in _models_of(connector)] == versions
        same &= record.settings == settings and record.packages == package_versions()
        if same and not store.problems(record):
            return record
    return None


def _training(connector: ConnectorSpec) -> dg.AssetsDefinition:
    images, features = connector.features.images.name, keys.features(connector.features.name, "features")
    learned = {*_models_of(connector), features, keys.images(images, "captions"), keys.images(images, "pictures")}
    version = version_fields(_TRAINING, **_settings_of(connector))
    losses = keys.training(connector.name, "losses")
    models_of = {step: keys.checkpoint(connector.name, step) for step in connector.kept_steps}
    group = f"connector/{connector.name}"
    specs = [
        dg.AssetSpec(
            losses,
            deps=sorted(learned),
            skippable=True,
            group_name=group,
            kinds={"torch", "parquet"},
            description=_LOSSES_TEXT,
            **version,
        )
    ]
    specs += [
        dg.AssetSpec(
            key,
            deps=sorted({*learned, keys.training(connector.name, "frozen")}),
            skippable=True,
            group_name=f"{group}/checkpoint",
            kinds={"torch", "transformers"},
            description=_MODEL_TEXT.format(step=step),
            **version,
        )
        for step, key in models_of.items()
    ]

    @dg.multi_asset(name=f"{connector.name}_training", specs=specs, can_subset=True)
    def training(
        context: dg.AssetExecutionContext, warehouse: WarehouseResource, models: ModelResource
    ) -> Iterator[dg.MaterializeResult]:
        paths, wanted = warehouse.paths, context.selected_asset_keys
        steps = [step for step, key in models_of.items() if key in wanted]
        run = _run_folder(connector, context, paths)
        end = connector.settings.steps if losses in wanted else max(steps)
        trained = _train(connector, context, models, paths, run, steps, end)
        if losses in wanted:
            yield _write_losses(connector, paths, trained, losses)
        for step in steps:
            yield _write_model(connector, context, paths, run, step, models_of[step], trained)
        remove(paths.training_run(connector.name))

    return training


def _settings_of(connector: ConnectorSpec) -> dict[str, object]:
    """The fields of the YAML that decide the weights; which steps are kept does not."""
    fields: dict[str, object] = asdict(connector.settings) | dtype_setting(connector.dtype)
    return fields | ({} if connector.most_images is None else {"images": connector.most_images})


@dataclass(frozen=True)
class _Trained:
    """What a training tells when it has ended."""

    facts: list["StepFacts"]
    seconds: float
    images: int
    dtype: str
    model_versions: Mapping[str, str]
    """Of the frozen models, by the names of their sources."""
    left_out: str
    """What of the images was not learned from, and why."""


def _run_folder(connector: ConnectorSpec, context: dg.AssetExecutionContext, paths: Warehouse) -> Path:
    """The folder of a training's state, named by all that decides it; those of others are removed.

    A forced build begins anew.
    """
    specs = context.assets_def.specs_by_key
    losses = keys.training(connector.name, "losses")
    inputs = [f"{dep.asset_key.to_user_string()} {_version_of(context, dep.asset_key)}" for dep in specs[losses].deps]
    folder = paths.training_run(connector.name)
    run = folder / hash_values([str(specs[losses].code_version), *sorted(inputs)])
    for other in folder.iterdir() if folder.is_dir() else ():
        if other != run or context.has_tag(FORCED):
            context.log.info("The state of a training with other settings or inputs is there: this one begins anew.")
            remove(other)
    return run


def _version_of(context: dg.AssetExecutionContext, key: dg.AssetKey) -> str:
    """The version of an input, or those of all its partitions."""
    store, partitions = store_of(context), context.job_def.asset_layer.asset_graph.get(key).partitions_def
    if partitions is None:
        return str(input_version(context, key))
    return " ".join(str(store.data_version(key.to_user_string(), one)) for one in partitions.get_partition_keys())


def _train(
    connector: ConnectorSpec,
    context: dg.AssetExecutionContext,
    models: ModelResource,
    paths: Warehouse,
    run: Path,
    kept_steps: Collection[int],
    end: int,
) -> _Trained:
    """Train to the step `end`, or go on; the weights of the steps that are kept lie in the folder of the run."""
    from latentlens_dag.training.connector import train_connector, training_dtype
    from latentlens_dag.training.feature_files import Features

    if not has_kept(run, kept_steps):
        remove(run)
    dtype = connector.dtype or training_dtype(_device())
    chosen, captions, parts, left_out = _captioned(connector, paths)
    if left_out:
        context.log.warning(left_out)
    batches = range(connector.features.images.batches)
    features = Features([paths.features(connector.features.name, batch) for batch in batches], chosen)
    language = models.cache.language_model(connector.language_model, dtype)
    grid = _grid(connector, features.tokens)
    if (numbered := connector.features.images.caption_grid) not in (None, grid) and parts:
        raise UserError(
            f"The captions of ImageSet {connector.features.images.name} number patches on a grid of {numbered}, but "
            f"VisionFeatures {connector.features.name} has one of {grid}: they are about other patches."
        )
    progress = ProgressLog(context.log.info, "steps")
    trained = train_connector(
        language,
        features,
        grid,
        captions,
        run,
        connector.settings,
        [step for step in kept_steps if step <= end],
        partial(keep_weights, run),
        _CHECKPOINT_S,
        report=lambda state: progress(state.step, end, f"loss {state.loss:.3f}"),
        until=end,
        parts=parts,
    )
    keep_weights(run, end, trained.weights)
    sources = {key.to_user_string(): str(input_version(context, key)) for key in _models_of(connector)}
    return _Trained(trained.facts, trained.seconds, len(features), dtype, sources, left_out)


def _device() -> str:
    from latentlens_dag.device import default_device

    return default_device()


def _grid(connector: ConnectorSpec, tokens: int) -> tuple[int, int]:
    side = round(tokens**0.5)
    if side * side != tokens:
        raise UserError(
            f"VisionFeatures {connector.features.name} has {tokens} visual tokens an image, which are no square grid."
        )
    return side, side


def _captioned(
    connector: ConnectorSpec, paths: Warehouse
) -> tuple[list[int], list[list[str]], list[tuple[int, Sequence[int], str]], str]:
    """What is learned from.

    Images without a caption of the whole are left out; of the others, the first ones by their ids are taken.

    Returns:
        The numbers of the images among those of the features; the captions of each; those of parts, as of
        `train_connector`; and what was left out.
    """
    images = connector.features.images
    ids = [
        image
        for batch in range(images.batches)
        for image in pq.read_table(paths.pictures(images.name, batch), columns=["image_id"])["image_id"].to_pylist()
    ]
    given = read_captions([paths.captions(images.name, batch) for batch in range(images.batches)])
    whole = {image: [one.text for one in found if one.patches is None] for image, found in given.items()}
    with_caption = [number for number, image in enumerate(ids) if whole.get(image)]
    if not with_caption:
        raise UserError(
            f"Connector {connector.name} has nothing to learn from: no image of ImageSet {images.name} has a caption."
        )
    missing = len(ids) - len(with_caption)
    left_out = f"{missing:,} of {len(ids):,} images have no caption and are not learned from." if missing else ""
    chosen = sorted(with_caption, key=lambda number: ids[number])[: connector.most_images]
    parts: list[tuple[int, Sequence[int], str]] = [
        (place, one.patches, one.text)
        for place, number in enumerate(chosen)
        for one in given[ids[number]]
        if one.patches is not None
    ]
    return chosen, [whole[ids[number]] for number in chosen], parts, left_out


def _write_losses(
    connector: ConnectorSpec, paths: Warehouse, trained: _Trained, key: dg.AssetKey
) -> dg.MaterializeResult:
    facts = trained.facts
    table = pa.table(
        {
            "connector": [connector.name] * len(facts),
            "step": range(1, len(facts) + 1),
            "loss": [one.loss for one in facts],
            "learning_rate": [one.learning_rate for one in facts],
            "images": [one.images for one in facts],
            "caption_tokens": [one.caption_tokens for one in facts],
        },
        schema=LOSSES,
    )
    out, beside = paths.losses(connector.name), paths.connector_facts(connector.name)
    write_parquet(table, out, LOSSES)
    write_parquet(_connector_row(connector, trained), beside, CONNECTORS)
    metadata = {
        "dagster/row_count": len(table),
        "dagster/column_schema": column_schema(LOSSES),
        "dtype": trained.dtype,
        "images": trained.images,
        "loss": _mean_of_last(facts),
        "seconds": round(trained.seconds, 1),
        "steps_per_second": round(len(facts) / max(trained.seconds, 1e-9), 2),
        "loss_curve": dg.MetadataValue.md(markdown_table(_curve(table))),
    }
    metadata |= {LEFT_OUT: trained.left_out} if trained.left_out else {}
    return result(key, hash_values([hash_file(out), hash_file(beside)]), metadata, [out, beside])


def _mean_of_last(facts: list["StepFacts"]) -> float:
    last = [one.loss for one in facts[-100:]]
    return round(sum(last) / len(last), 4)


def _curve(table: pa.Table) -> pa.Table:
    """The mean loss of about 24 equal parts of the steps."""
    width = max(1, -(-len(table) // _CURVE_ROWS))
    parts = [table.slice(start, width) for start in range(0, len(table), width)]
    means = [sum(part["loss"].to_pylist()) / len(part) for part in parts]
    ends = [part["step"][-1].as_py() for part in parts]
    scale = max(means) or 1.0
    return pa.table({"to step": ends, "mean loss": means, " ": ["█" * round(24 * mean / scale) for mean in means]})


def _connector_row(connector: ConnectorSpec, trained: _Trained) -> pa.Table:
    import json

    features, settings = connector.features, connector.settings
    row = {
        "connector": connector.name,
        "kind": settings.kind,
        "seed": settings.seed,
        "steps": settings.steps,
        "images": trained.images,
        "language_model": connector.language_model.name,
        "vision_encoder": features.encoder.name,
        "layer": features.layer,
        "pool": features.pool,
        "settings": json.dumps(asdict(settings), sort_keys=True),
    }
    return pa.Table.from_pylist([row], schema=CONNECTORS)


def _write_model(
    connector: ConnectorSpec,
    context: dg.AssetExecutionContext,
    paths: Warehouse,
    run: Path,
    step: int,
    key: dg.AssetKey,
    trained: _Trained,
) -> dg.MaterializeResult:
    from latentlens_dag.training.checkpoint_folder import linked_facts, write_checkpoint
    from latentlens_dag.training.connector_file import save_connector

    frozen, out = paths.frozen_parts(connector.name), paths.checkpoint(connector.name, step)
    weights, alone = kept_weights(run, step), paths.connector_file(connector.name, step)
    save_connector(weights, _facts(connector, trained, step), alone)
    write_checkpoint(frozen, weights, connector.settings.kind, out)
    store, frozen_key = store_of(context), keys.training(connector.name, "frozen").to_user_string()
    record = store.read(frozen_key, None)
    known = [] if record is None else linked_facts(record.files, frozen, out, paths.root)
    files = store.file_facts([out, alone], known)
    version = hash_values([f"{Path(fact.path).name} {fact.digest}" for fact in files])
    last = [one.loss for one in trained.facts[max(0, step - 100) : step]]
    metadata = {"steps": step, "size_bytes": sum(fact.size_bytes for fact in files), "dtype": trained.dtype}
    metadata |= {"loss": round(sum(last) / len(last), 4)} if last else {}
    return result(key, version, metadata, [out, alone], known=files)


def _facts(connector: ConnectorSpec, trained: _Trained, step: int) -> "ConnectorFacts":
    from latentlens_dag.training.connector_file import ConnectorFacts

    language, encoder = (trained.model_versions[key.to_user_string()] for key in _models_of(connector))
    return ConnectorFacts(
        kind=connector.settings.kind,
        language_model=connector.language_model.name,
        language_model_hash=language,
        vision_encoder=connector.features.encoder.name,
        vision_encoder_hash=encoder,
        feature_layer=connector.features.layer,
        pool=connector.features.pool,
        step=step,
        settings=asdict(connector.settings),
    )
