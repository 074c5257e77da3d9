"""The contents of a defs.yaml, resolved and checked, as the assets take them.

Note: a study of texts has the assets, files and columns of one of images, with texts in place of images (`image_id`
holds the text's id), so that the steps after the states are the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import dagster as dg

from latentlens_dag.dag import keys
from latentlens_dag.errors import UserError
from latentlens_dag.inputs.captions import CaptionFile, CaptionSource
from latentlens_dag.inputs.image_tables import TableSource
from latentlens_dag.inputs.texts import TextSource
from latentlens_dag.models.model_ref import ModelRef
from latentlens_dag.models.prompts import Prompt
from latentlens_dag.publish.about import About
from latentlens_dag.publish.tables import SentenceChoice
from latentlens_dag.schema import LENSES
from latentlens_dag.storage.warehouse import Warehouse
from latentlens_dag.training.settings import ConnectorSettings


@dataclass(frozen=True)
class CorpusSpec:
    """Sentences, in shards."""

    name: str
    source: TextSource
    shards: int


@dataclass(frozen=True)
class ImageSetSpec:
    """Images, in batches."""

    name: str
    source: Path | TableSource
    """Their folder, or the table that holds them."""
    batches: int
    regions: Path | None
    """The file of their annotated regions, if any."""
    captions: CaptionSource | None = None
    """Where their captions are, if they have any."""

    @property
    def caption_grid(self) -> tuple[int, int] | None:
        """The grid on which captions of parts number patches."""
        return self.captions.grid if isinstance(self.captions, CaptionFile) else None


@dataclass(frozen=True)
class TextSetSpec:
    """Texts, in batches."""

    name: str
    source: TextSource
    batches: int


@dataclass(frozen=True)
class FeaturesSpec:
    """What a frozen vision encoder gives for the images of a set."""

    name: str
    encoder: ModelRef
    images: ImageSetSpec
    layer: int
    """The hidden state that gives them."""
    pool: int
    """Rows and columns of patches that are one visual token."""


@dataclass(frozen=True)
class ConnectorSpec:
    """A connector between two frozen models, and its training."""

    name: str
    language_model: ModelRef
    features: FeaturesSpec
    settings: ConnectorSettings
    kept_steps: Sequence[int]
    """The steps after which it is kept, ascending; the last is that of the finished connector."""
    most_images: int | None
    """How many images are learned from; None for all."""
    dtype: str | None
    """In which the language model is computed; None for `auto`."""


@dataclass(frozen=True)
class IndexSpec:
    """One language model's contextual states of one corpus."""

    name: str
    model: ModelRef
    corpus: CorpusSpec
    layers: list[int]
    contexts_per_token: int
    sampling: Literal["smallest_hash", "first"]
    fraction: float
    min_position: int
    dedup: Literal["prefix", "sentence"]
    sinks: Literal["exclude", "include"]
    dtype: str | None
    """In which its model is computed; None for `auto`."""


@dataclass(frozen=True)
class CheckpointSpec:
    """A VLM that this project makes: a connector after so many steps. When definitions load, it need not exist."""

    connector: str
    step: int
    language_model: ModelRef
    """The connector's, which is frozen: blocks and width are those of the VLM, whose vocabulary has one token more."""

    @property
    def key(self) -> dg.AssetKey:
        """The asset that is the model."""
        return keys.checkpoint(self.connector, self.step)

    @property
    def name(self) -> str:
        """For messages."""
        return f"connector {self.connector} after {self.step} steps"

    def model_ref(self, paths: Warehouse) -> ModelRef:
        """The model in a warehouse.

        Raises:
            UserError: where it is not there.
        """
        folder = paths.checkpoint(self.connector, self.step)
        if not folder.is_dir():
            raise UserError(
                f"The model of {self.name} is not there ({folder}): it was not trained yet, or was removed. Run "
                f"`latentlens-dag build --select {self.key.to_user_string()}`."
            )
        return ModelRef(path=folder)


@dataclass(frozen=True)
class StudySpec:
    """One model read through one index on one set of images or texts."""

    name: str
    model: ModelRef | CheckpointSpec
    """Its VLM, or the language model of a study of texts."""
    index: IndexSpec
    inputs: ImageSetSpec | TextSetSpec
    """The images or texts that the model reads."""
    visual_layers: list[int]
    lenses: Sequence[str]
    """Keys of `schema.LENSES`: a lens on the vocabulary is one per set of candidates."""
    top_k: int
    unique: Literal["none", "word", "sentence"]
    judged: bool
    """Whether its neighbors are judged by the image set's regions."""
    corpus_ablation: Sequence[float]
    """The parts of the index's sentences from which LatentLens answers too, ascending; empty for none."""
    connector: bool
    captions: bool
    """Whether the model's own captions of the images are stored."""
    prompt: str | Prompt
    """The VLM's question after every image, or all text around it."""
    dtype: str | None
    """In which its model is computed; None for `auto`."""

    @property
    def group(self) -> str:
        """The UI's group of its assets; layers have groups inside of it."""
        return f"study/{self.name}"

    @property
    def of_texts(self) -> bool:
        """Whether it is a language model on texts."""
        return isinstance(self.inputs, TextSetSpec)

    @property
    def prompt_settings(self) -> dict[str, str]:
        """The prompt as settings of a step and facts of a release; those of a question alone are only `prompt`."""
        if isinstance(self.prompt, str):
            return {"prompt": self.prompt}
        return {
            "prompt": self.prompt.after,
            "prompt_before": self.prompt.before,
            "system_prompt": self.prompt.system,
        }

    @property
    def images(self) -> ImageSetSpec:
        """The images of a study that is not of texts."""
        assert isinstance(self.inputs, ImageSetSpec)
        return self.inputs

    @property
    def checkpoint(self) -> CheckpointSpec | None:
        """Its model where this project makes it; None where the model is an observed source."""
        return self.model if isinstance(self.model, CheckpointSpec) else None

    @property
    def model_key(self) -> dg.AssetKey:
        """The asset that is its model: an observed source, or the checkpoint of a connector."""
        if self.checkpoint is not None:
            return self.checkpoint.key
        return keys.study(self.name, "language_model" if self.of_texts else "vlm")

    def model_ref(self, paths: Warehouse) -> ModelRef:
        """Its model; that of a connector in a warehouse, where it must exist (`CheckpointSpec.model_ref`)."""
        return self.model.model_ref(paths) if isinstance(self.model, CheckpointSpec) else self.model

    @property
    def input_key(self) -> dg.AssetKey:
        """The asset with its images or texts, by batch."""
        name = self.inputs.name
        return keys.texts(name, "texts") if self.of_texts else keys.images(name, "pictures")

    @property
    def input_keys(self) -> list[dg.AssetKey]:
        """That asset, and the annotated regions and the captions if any."""
        if self.of_texts:
            return [self.input_key]
        beside = {"regions": self.images.regions, "captions": self.images.captions}
        return [self.input_key, *(keys.images(self.inputs.name, name) for name, one in beside.items() if one)]

    @property
    def token_tables(self) -> list[str]:
        """The tables that describe the tokens: where or what each is."""
        return ["visual_tokens", "text_tokens"] if self.of_texts else ["visual_tokens"]

    @property
    def has_shared_candidates(self) -> bool:
        """Whether a lens on the vocabulary answers with the tokens of the index alone."""
        return any(LENSES[lens].declared for lens in self.lenses)

    @property
    def batches(self) -> int:
        """The number of batches."""
        return self.inputs.batches

    def layer_keys(self, part: str) -> dict[int, dg.AssetKey]:
        """The assets of a part of the study, by visual layer."""
        return {layer: keys.study_layer(self.name, part, layer) for layer in self.visual_layers}


@dataclass(frozen=True)
class ReleaseSpec:
    """One dataset repository of the Hub."""

    about: About
    thumbnails: bool
    """Whether images are published, as thumbnails."""
    sentences: SentenceChoice
    vectors: bool
    """Of an index: whether its vectors are published as Parquet too."""

    @property
    def name(self) -> str:
        """The release's name in this project."""
        return self.about.name

    @property
    def repo_id(self) -> str:
        """user/name on the Hub."""
        return self.about.repo_id


def check_top_k(top_k: int, vocabulary: int, place: str) -> None:
    """Refuse more neighbors than the vocabulary has tokens."""
    if top_k > vocabulary:
        raise UserError(f"`top_k: {top_k}` of {place} must be at most {vocabulary}, the model's vocabulary.")
