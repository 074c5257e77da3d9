"""The keys of all assets, and the names of their partitions.

Note: a layer is part of an asset's key, a shard or batch is a partition. A new layer is then a new asset, and a removed
one makes its descendants stale; as partitions, both would go unnoticed. The UI's groups are the folders of the keys
(`study/demo/visual`): unfolding `study` shows the studies, unfolding a study its steps, unfolding a step its layers.
"""

from __future__ import annotations

import dagster as dg

MOST_PARTITIONS = 96  # from 100 on, Dagster ignores the data versions of an edge's upstream partitions

DISABLED = "latentlens/switched_off/"  # metadata of the definitions: what has no assets for now, as study/demo
MANUAL_ONLY = "latentlens/asked_for"  # metadata of an asset that no build makes, only a user of the UI


def partitions(count: int) -> dg.StaticPartitionsDefinition:
    """`count` shards or batches: 00, 01, ..."""
    return dg.StaticPartitionsDefinition([f"{number:02d}" for number in range(count)])


def corpus(name: str, part: str) -> dg.AssetKey:
    """corpus/<name>/source, sentences, shards, order."""
    return dg.AssetKey(["corpus", name, part])


def images(name: str, part: str) -> dg.AssetKey:
    """images/<name>/source, names or originals, pictures, regions_source, regions, captions_source, captions."""
    return dg.AssetKey(["images", name, part])


def features(name: str, part: str) -> dg.AssetKey:
    """features/<name>/vision_encoder, features."""
    return dg.AssetKey(["features", name, part])


def training(connector: str, part: str) -> dg.AssetKey:
    """connector/<name>/language_model, frozen, losses."""
    return dg.AssetKey(["connector", connector, part])


def checkpoint(connector: str, step: int) -> dg.AssetKey:
    """connector/<name>/checkpoint/S000200: the model with the connector after so many steps."""
    return dg.AssetKey(["connector", connector, "checkpoint", f"S{step:06d}"])


def is_checkpoint(key: dg.AssetKey) -> bool:
    """Whether an asset is a model that was trained here: what a study may read in place of an observed source."""
    return key.path[0] == "connector" and key.path[2] == "checkpoint"


def texts(name: str, part: str) -> dg.AssetKey:
    """texts/<name>/source, texts."""
    return dg.AssetKey(["texts", name, part])


def index(name: str, part: str) -> dg.AssetKey:
    """index/<name>/language_model, candidates, selection, occurrences."""
    return dg.AssetKey(["index", name, part])


def contextual(name: str, layer: int) -> dg.AssetKey:
    """index/<name>/contextual/L08: the states of a shard's occurrences."""
    return dg.AssetKey(["index", name, "contextual", f"L{layer:02d}"])


def table(name: str, layer: int) -> dg.AssetKey:
    """index/<name>/table/L08: the layer table, all shards."""
    return dg.AssetKey(["index", name, "table", f"L{layer:02d}"])


def study(name: str, part: str) -> dg.AssetKey:
    """study/<name>/vlm, model_checks, visual_tokens, patch_truth, chance_patches, catalog, and a summary.

    Of a study of texts: language_model in place of vlm, and text_tokens too.
    """
    return dg.AssetKey(["study", name, part])


def connector(name: str) -> dg.AssetKey:
    """study/<name>/visual/connector: what the connector gives for the visual tokens."""
    return dg.AssetKey(["study", name, "visual", "connector"])


def study_layer(name: str, part: str, layer: int) -> dg.AssetKey:
    """study/<name>/<part>/V08; part is visual, judgements, ablation_neighbors or a lens."""
    return dg.AssetKey(["study", name, part, f"V{layer:02d}"])


def release(name: str, part: str) -> dg.AssetKey:
    """release/<name>/dataset, published."""
    return dg.AssetKey(["release", name, part])


def label(key: dg.AssetKey, partition: str | None) -> str:
    """An asset's partition in messages: study/demo/visual/V08[00]."""
    return key.to_user_string() + (f"[{partition}]" if partition is not None else "")
