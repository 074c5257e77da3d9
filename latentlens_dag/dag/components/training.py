"""The components VisionFeatures and Connector: what a frozen encoder gives for images, and what is trained on it."""

# `from __future__ import annotations` is left out: Dagster resolves these annotations itself.
from collections.abc import Mapping
from dataclasses import fields
from typing import Literal

import dagster as dg

from latentlens_dag.dag.components.base import NamedComponent, check_at_least
from latentlens_dag.dag.components.sources import ModelSource
from latentlens_dag.dag.components.studies import ImageSet, declared_dtype, language_model_ref
from latentlens_dag.dag.components.trained_model import TrainedModel
from latentlens_dag.dag.specs import ConnectorSpec, FeaturesSpec
from latentlens_dag.errors import UserError
from latentlens_dag.models.configs import read_config
from latentlens_dag.models.dtypes import Dtype
from latentlens_dag.training.modules import Kind
from latentlens_dag.training.settings import ConnectorSettings

Kept = Literal["whole", "subset", "window", "few", "captioned"]
_MOST_STEPS = 999_999  # S999999


class VisionFeatures(NamedComponent):
    """What a frozen vision encoder gives for the patches of an image set; connectors share it."""

    vision_encoder: ModelSource
    """An encoder of transformers, by itself or inside of a model of images and texts."""
    images: str
    """An ImageSet with `captions`."""
    layer: int = -2
    """The hidden state that gives the features, as `vision_feature_layer` of LLaVA: 0 is the first, -1 the last."""
    pool: int = 1
    """Rows and columns of patches that are averaged to one visual token."""

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """Its assets."""
        from latentlens_dag.dag.assets.features import features_definitions

        self.check_name(context)
        return features_definitions(self.spec(context))

    def spec(self, context: dg.ComponentLoadContext) -> FeaturesSpec:
        """Its fields, resolved and checked."""
        place = self.place(context)
        check_at_least(self.pool, 1, "pool", place)
        images = self.find(context, ImageSet, self.images, "images").spec(context)
        if images.captions is None:
            raise UserError(
                f"`images: {self.images}` of {place} has no captions, from which connectors learn. Give ImageSet "
                f"{self.images} `captions`, such as `captions: {{folder: FOLDER}}` with a text beside each picture."
            )
        encoder = self.vision_encoder.model_ref("vision_encoder", place)
        config = read_config(encoder)
        vision = None if config is None else config.get("vision_config", config)
        if vision is not None and not isinstance(vision.get("patch_size", 1), int):
            raise UserError(
                f"`vision_encoder` of {place}, {encoder.name}, has patches that are no squares (`patch_size: "
                f"{vision['patch_size']}`): name another encoder."
            )
        return FeaturesSpec(self.name, encoder, images, self.layer, self.pool)


class Connector(TrainedModel):
    """What maps the features of a frozen vision encoder into a frozen language model, trained on captions."""

    features: str
    """A VisionFeatures."""
    images: int | None = None
    """How many images are learned from, the first ones by their ids; by default all."""
    kind: Kind = "mlp"
    """Two layers with a GELU between them as in LLaVA, or one layer."""
    seed: int = 0
    tokens: int = ConnectorSettings.tokens
    """Visual and text tokens of a step, about: the fewer visual tokens a step keeps, the more images it has."""
    learning_rate: float = ConnectorSettings.learning_rate
    """The peak: it rises for `warmup` steps and falls as half a cosine."""
    warmup: int = ConnectorSettings.warmup
    output_scale: float = ConnectorSettings.output_scale
    """RMS of the untrained connector's output, in RMS of the text embeddings."""
    fixed_size: bool = ConnectorSettings.fixed_size
    """Scale the visual tokens of every step together to `output_scale`, and the finished weights too."""
    finished_scale: float | None = ConnectorSettings.finished_scale
    """With fixed_size: the mean size that the finished connector has instead."""
    whitening: float = ConnectorSettings.whitening
    """Above 0, the encoder's features are decorrelated first; this is added to each direction's variance (1 in the
    mean)."""
    kept: Mapping[Kept, float] | None = None
    """What a step keeps of the visual tokens, and how often: `whole` (all), `subset` (a random part), `window`, `few`
    (1 to 8), or `captioned` (what captions of parts are about). `{whole: 1}` is the paper's training."""
    whole_steps: float = ConnectorSettings.whole_steps
    """The share of the steps, at the end, that keep all visual tokens."""
    dtype: Literal["auto", Dtype] = "auto"
    """Of the frozen language model in training; `auto` is bfloat16 on a device with instructions for it."""

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """Its assets."""
        from latentlens_dag.dag.assets.training import connector_definitions

        self.check_name(context)
        return connector_definitions(self.spec(context))

    def spec(self, context: dg.ComponentLoadContext) -> ConnectorSpec:
        """Its fields, resolved and checked."""
        place = self.place(context)
        self._check_checkpoints(place)
        if self.images is not None:
            check_at_least(self.images, 1, "images", place)
        return ConnectorSpec(
            name=self.name,
            language_model=language_model_ref(self.language_model, place),
            features=self.find(context, VisionFeatures, self.features, "features").spec(context),
            settings=self._settings(place),
            kept_steps=self.kept_steps,
            most_images=self.images,
            dtype=declared_dtype(self.dtype),
        )

    def _settings(self, place: str) -> ConnectorSettings:
        own = {one.name: getattr(self, one.name) for one in fields(ConnectorSettings) if one.name != "kept"}
        if self.kept is not None:
            own["kept"] = tuple(self.kept.items())
        try:
            return ConnectorSettings(**own)
        except UserError as error:
            raise UserError(str(error).replace(" of a connector ", f" of {place} ", 1)) from error

    def _check_checkpoints(self, place: str) -> None:
        check_at_least(self.steps, 1, "steps", place)
        if self.steps > _MOST_STEPS:
            raise UserError(f"`steps: {self.steps}` of {place} must be at most {_MOST_STEPS}.")
        for step in self.checkpoints:
            if not 0 <= step <= self.steps:
                raise UserError(
                    f"`checkpoints: {list(self.checkpoints)}` of {place} has {step}, but the training has the steps 0 "
                    f"(the untrained connector) to {self.steps} (`steps`)."
                )
        if len(set(self.checkpoints)) < len(self.checkpoints):
            raise UserError(f"`checkpoints: {list(self.checkpoints)}` of {place} must name each step once.")
