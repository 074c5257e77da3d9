"""A study with what it names, and what all modules of its assets share.

What a newcomer gets wrong: a study of texts has the assets, files and columns of one of images. Its texts stand where
others have images (`image_id` holds the text's id), so what follows the states need not know which of the two it is.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import dagster as dg

from latentlens_dag.dag import keys
from latentlens_dag.models.model_ref import ModelRef
from latentlens_dag.models.vlm import DEFAULT_PROMPT

if TYPE_CHECKING:
    from latentlens_dag.dag.components.studies import ImageSet, Index, Study, TextSet


@dataclass(frozen=True)
class StudyParts:
    """A study with what it names, resolved and checked."""

    study: "Study"
    model: ModelRef
    """Its VLM, or the language model of a study of texts."""
    index: "Index"
    material: "ImageSet | TextSet"
    """What the model is shown."""
    visual_layers: list[int]
    contextual_layers: list[int]
    shards: int

    @property
    def name(self) -> str:
        """The study's name."""
        return self.study.name

    @property
    def group(self) -> str:
        """The group of its assets; those of its layers have groups inside of it."""
        return f"study/{self.study.name}"

    @property
    def of_texts(self) -> bool:
        """Whether it reads texts, with a language model."""
        return self.study.texts is not None

    @property
    def images(self) -> "ImageSet":
        """The images of a study that is not of texts."""
        from latentlens_dag.dag.components.studies import ImageSet

        assert isinstance(self.material, ImageSet)
        return self.material

    @property
    def prompt(self) -> str:
        """What its VLM is asked about every image."""
        return DEFAULT_PROMPT if self.study.prompt is None else self.study.prompt

    @property
    def model_key(self) -> dg.AssetKey:
        """The observed source that is its model."""
        return keys.study(self.name, "language_model" if self.of_texts else "vlm")

    @property
    def material_key(self) -> dg.AssetKey:
        """The asset that has its pictures or texts, batch by batch."""
        name = self.material.name
        return keys.texts(name, "texts") if self.of_texts else keys.images(name, "pictures")

    @property
    def material_keys(self) -> list[dg.AssetKey]:
        """All assets that say what was shown: that one, and the annotated regions where there are some."""
        regions = not self.of_texts and self.images.regions is not None
        return [self.material_key, *([keys.images(self.material.name, "regions")] if regions else [])]

    @property
    def token_tables(self) -> list[str]:
        """The tables that say of every token where or what it is."""
        return ["visual_tokens", "text_tokens"] if self.of_texts else ["visual_tokens"]

    @property
    def batches(self) -> int:
        """How many batches it has."""
        return self.material.batches

    def layer_keys(self, part: str) -> dict[int, dg.AssetKey]:
        """The assets of one kind, by visual layer."""
        return {layer: keys.study_layer(self.name, part, layer) for layer in self.visual_layers}
