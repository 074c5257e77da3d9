"""The components Corpus, ImageSet, TextSet, Index and Study (Release is in `release.py`).

A component documents its fields, checks their values, and makes a spec for the module with its assets. Note:
definitions load often and everywhere (UI, command line, editor), so nothing here reads weights, opens images or uses
the network; only a local config.json is read. Values that depend on the config of a model that was not downloaded yet
are checked when its steps run.
"""

# `from __future__ import annotations` is left out: Dagster resolves these annotations itself.
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import dagster as dg

from latentlens_dag.dag.components.base import NamedComponent, check_at_least, check_count
from latentlens_dag.dag.components.sources import (
    CaptionsSource,
    CorpusSource,
    ImageSource,
    ModelSource,
    RegionSource,
    VlmSource,
    existing_file,
)
from latentlens_dag.dag.components.trained_model import TrainedModel
from latentlens_dag.dag.keys import DISABLED
from latentlens_dag.dag.specs import (
    CheckpointSpec,
    CorpusSpec,
    ImageSetSpec,
    IndexSpec,
    StudySpec,
    TextSetSpec,
    check_top_k,
)
from latentlens_dag.errors import UserError
from latentlens_dag.models.configs import read_config
from latentlens_dag.models.dtypes import Dtype
from latentlens_dag.models.families.registry import check_family, check_text_family, is_mapped
from latentlens_dag.models.layers import auto_contextual_layers, auto_visual_layers, check_layers
from latentlens_dag.models.model_ref import ModelRef
from latentlens_dag.models.prompts import DEFAULT_PROMPT, Prompt
from latentlens_dag.schema import DECLARED_LENSES, LATENTLENS, Candidates

if TYPE_CHECKING:
    Lens = str
else:
    Lens = Literal[tuple(DECLARED_LENSES)]


class RegionsJudge(dg.Model, dg.Resolvable):
    """The judge that compares neighbors with the image set's annotated regions; it has no settings."""


class Judge(dg.Model, dg.Resolvable):
    """Who judges the neighbors."""

    regions: RegionsJudge | None = None


class PromptParts(dg.Model, dg.Resolvable):
    """The text around the image, where it is not only a question after it."""

    before: str = ""
    """Text before the image: in a causal model only this, or `system`, changes the states of visual tokens."""
    after: str | None = None
    """The question after the image; by default the paper's, and none if it is empty."""
    system: str = ""
    """The system prompt; by default the chat template's own, if it has one."""

    def prompt(self) -> str | Prompt:
        """The same; a question alone is what a plain `prompt` is."""
        after = DEFAULT_PROMPT if self.after is None else self.after
        return Prompt(after, self.before, self.system) if self.before or self.system or not after else after


class Corpus(NamedComponent):
    """Sentences, in shards."""

    source: CorpusSource
    shards: int = 4

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """Its assets."""
        from latentlens_dag.dag.assets.corpus import corpus_definitions

        self.check_name(context)
        check_count(self.shards, "shards", self.place(context))
        indexes = context.component_tree.get_all_components(of_type=Index)
        ordered = any(index.corpus == self.name and index.sampling == "first" for index in indexes)
        return corpus_definitions(self.spec(context), ordered)

    def spec(self, context: dg.ComponentLoadContext) -> CorpusSpec:
        """Its fields, resolved and checked."""
        return CorpusSpec(self.name, self.source.text_source(self.place(context)), self.shards)


class ImageSet(NamedComponent):
    """Images, in batches, with or without annotated regions and captions."""

    source: ImageSource
    regions: RegionSource | None = None
    captions: CaptionsSource | None = None
    batches: int = 1

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """Its assets."""
        from latentlens_dag.dag.assets.images import image_definitions

        self.check_name(context)
        check_count(self.batches, "batches", self.place(context))
        return image_definitions(self.spec(context))

    def spec(self, context: dg.ComponentLoadContext) -> ImageSetSpec:
        """Its fields, resolved and checked."""
        place = self.place(context)
        source = self.source.image_source(place)
        masks = existing_file(self.regions.masks, "regions.masks", place) if self.regions else None
        captions = None if self.captions is None else self.captions.caption_source(source, place)
        return ImageSetSpec(self.name, source, self.batches, masks, captions)


class TextSet(NamedComponent):
    """Texts, in batches, for studies of language models."""

    source: CorpusSource
    batches: int = 1

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """Its assets."""
        from latentlens_dag.dag.assets.texts import text_definitions

        self.check_name(context)
        check_count(self.batches, "batches", self.place(context))
        return text_definitions(self.spec(context))

    def spec(self, context: dg.ComponentLoadContext) -> TextSetSpec:
        """Its fields, resolved and checked."""
        return TextSetSpec(self.name, self.source.text_source(self.place(context)), self.batches)


class Index(NamedComponent):
    """One language model's contextual states of one corpus."""

    language_model: ModelSource
    corpus: str
    layers: list[int] | Literal["auto"] = "auto"
    contexts_per_token: int = 50
    sampling: Literal["smallest_hash", "first"] = "smallest_hash"
    """Which occurrences of a token are kept: a uniform sample that does not depend on the order of the corpus, or the
    first ones in the order of the source, as in the authors' reference library."""
    fraction: float = 1.0
    min_position: int = 1
    dedup: Literal["prefix", "sentence"] = "prefix"
    """Which occurrences count as one: those with equal prefixes or, for models that read text in both directions, in
    equal sentences."""
    sinks: Literal["exclude", "include"] = "exclude"
    """Whether attention sinks, rows whose norm is an outlier of their layer, are excluded from neighbors."""
    dtype: Literal["auto", Dtype] = "auto"
    """The dtype in which the language model is computed; `auto` decides by the checkpoint and the device."""

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """Its assets."""
        from latentlens_dag.dag.assets.index import index_definitions

        place = self.place(context)
        self.check_name(context)
        check_at_least(self.contexts_per_token, 1, "contexts_per_token", place)
        check_at_least(self.min_position, 0, "min_position", place)
        if not 0 < self.fraction <= 1:
            raise UserError(f"`fraction: {self.fraction}` of {place} must be above 0 and at most 1.")
        return index_definitions(self.spec(context))

    def spec(self, context: dg.ComponentLoadContext) -> IndexSpec:
        """Its fields, resolved and checked."""
        corpus = self.find(context, Corpus, self.corpus, "corpus")
        place = self.place(context)
        model = language_model_ref(self.language_model, place)
        layers = chosen_layers(self.layers, model, auto_contextual_layers, place)
        return IndexSpec(
            name=self.name,
            model=model,
            corpus=corpus.spec(context),
            layers=layers,
            contexts_per_token=self.contexts_per_token,
            sampling=self.sampling,
            fraction=self.fraction,
            min_position=self.min_position,
            dedup=self.dedup,
            sinks=self.sinks,
            dtype=declared_dtype(self.dtype),
        )

    @property
    def model_ref(self) -> ModelRef:
        """Its language model."""
        return self.language_model.model_ref("language_model", f"Index {self.name}")


class Study(NamedComponent):
    """One model read through one index on one set: a VLM on images, or a language model on texts."""

    enabled: bool = True
    vlm: VlmSource | None = None
    images: str | None = None
    language_model: ModelSource | None = None
    """In place of `vlm` and `images`, with `texts`; of a VLM, its own language model."""
    texts: str | None = None
    index: str
    layers: list[int] | Literal["auto"] = "auto"
    lenses: Sequence[Lens] = tuple(DECLARED_LENSES)
    candidates: Candidates | Sequence[Candidates] = "all"
    """Of the lenses on the vocabulary: all its tokens, or `shared`, the tokens of the index, which are those that
    LatentLens has; or a list of both, each with lenses of its own."""
    top_k: int = 5
    prompt: str | PromptParts | None = None
    """The VLM's question after every image, or the text around it; by default the paper's question."""
    unique: Literal["none", "word", "sentence"] = "none"
    judge: Judge | Literal["none"] = "none"
    corpus_ablation: Sequence[float] = ()
    """Fractions of the index's sentences, ascending, from which LatentLens answers too: how much is interpretable by a
    smaller index. It needs a judge, and no pass of a model."""
    captions: bool = False
    """Store what the VLM itself says of each image, and score it where the images have regions."""
    connector: bool = False
    """Whether the connector's output is stored too, which differs from layer 0 in models that add it to the embedding
    of their image token."""
    dtype: Literal["auto", Dtype] = "auto"
    """The dtype in which the model is computed; `auto` decides by the checkpoint and the device."""

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """Its assets; none if it is switched off."""
        from latentlens_dag.dag.assets.study import study_definitions

        place = self.place(context)
        self.check_name(context)
        check_at_least(self.top_k, 1, "top_k", place)
        if not self.lenses or len(set(self.lenses)) < len(self.lenses):
            raise UserError(f"`lenses: {self.lenses}` of {place} must name at least one lens, each once.")
        self._check_candidates(place)
        if not self.enabled:
            return dg.Definitions(metadata={f"{DISABLED}study/{self.name}": True})
        return study_definitions(self.spec(context))

    def spec(self, context: dg.ComponentLoadContext) -> StudySpec:
        """Its fields, resolved and checked."""
        place = self.place(context)
        model = self._model(place) if self.connector_name is None else self._checkpoint(context, place)
        index = self.find(context, Index, self.index, "index")
        kind: type[ImageSet | TextSet] = TextSet if self.images is None else ImageSet
        field = "texts" if self.images is None else "images"
        inputs = self.find(context, kind, getattr(self, field), field)
        self._check_same_model(model, index, place)
        if (shape := text_shape(model)) is not None:
            check_top_k(self.top_k, shape[2], place)
        self._check_judge(inputs, model, place)
        self._check_ablation(place)
        return StudySpec(
            name=self.name,
            model=model,
            index=index.spec(context),
            inputs=inputs.spec(context),
            visual_layers=chosen_layers(self.layers, model, auto_visual_layers, place),
            lenses=self._lenses(),
            top_k=self.top_k,
            unique=self.unique,
            judged=self.judge != "none",
            corpus_ablation=tuple(self.corpus_ablation),
            connector=self.connector,
            captions=self.captions,
            prompt=self._prompt(place),
            dtype=declared_dtype(self.dtype),
        )

    @property
    def connector_name(self) -> str | None:
        """The connector whose checkpoint is its model; None where the model is not made by this project."""
        return None if self.vlm is None else self.vlm.connector

    @property
    def model_ref(self) -> ModelRef:
        """Its model, which must not be that of a connector."""
        return self._model(f"Study {self.name}")

    def _checkpoint(self, context: dg.ComponentLoadContext, place: str) -> CheckpointSpec:
        """Its model, of a connector; a UserError for one or a step that there is not."""
        assert self.vlm is not None
        self._check_fields(place)
        self.vlm.check_connector(place)
        kind: Any = TrainedModel
        trained: TrainedModel = self.find(context, kind, str(self.vlm.connector), "vlm.connector", "Connector")
        step = trained.steps if self.vlm.step is None else self.vlm.step
        if step not in trained.kept_steps:
            raise UserError(
                f"`vlm.step: {step}` of {place}: Connector {trained.name} is not kept after so many steps. It is after "
                f"{', '.join(map(str, trained.kept_steps))}. Name one of them, or add {step} to its `checkpoints`."
            )
        return CheckpointSpec(trained.name, step, language_model_ref(trained.language_model, trained.place(context)))

    def _lenses(self) -> list[str]:
        """The names of its lenses: a lens on the vocabulary is one per set of candidates."""
        found = list[str]()
        for lens in (DECLARED_LENSES[name] for name in self.lenses):
            versions = {"all": lens, "shared": lens if lens.candidates == "shared" else lens.shared}
            found += dict.fromkeys(versions[one].name for one in self._candidates())
        return found

    def _candidates(self) -> Sequence[Candidates]:
        return [self.candidates] if isinstance(self.candidates, str) else self.candidates

    def _check_candidates(self, place: str) -> None:
        chosen = self._candidates()
        if not chosen or len(set(chosen)) < len(chosen):
            raise UserError(f"`candidates: {self.candidates}` of {place} must name `all`, `shared` or both, each once.")
        if "shared" in chosen and all(DECLARED_LENSES[lens].candidates == "shared" for lens in self.lenses):
            raise UserError(
                f"`candidates: {self.candidates}` of {place} is for lenses on the vocabulary, and it has none of them "
                f"(`lenses: {list(self.lenses)}`): LatentLens always answers from its index. Leave it out, or add "
                f"one of {', '.join(lens.name for lens in DECLARED_LENSES.values() if lens.candidates == 'all')}."
            )

    def _prompt(self, place: str) -> str | Prompt:
        if isinstance(self.prompt, PromptParts):
            return self.prompt.prompt()
        if self.prompt is not None and not self.prompt.strip():
            raise UserError(
                f"`prompt: {self.prompt!r}` of {place} is empty. Leave it out for the paper's question "
                f"({DEFAULT_PROMPT!r}), or write `prompt: {{after: ''}}` for none."
            )
        return self.prompt or DEFAULT_PROMPT

    def _model(self, place: str) -> ModelRef:
        """The model, unless it is a connector's; a UserError for fields that do not go together."""
        self._check_fields(place)
        if self.vlm is not None:
            self.vlm.check_connector(place)
            vlm = self.vlm.model_ref("vlm", place)
            check_family(_family(vlm), f"`vlm` of {place}, {vlm.name},")
            return vlm
        assert self.language_model is not None
        return language_model_ref(self.language_model, place)

    def _check_fields(self, place: str) -> None:
        """Refuse fields of models and inputs that do not go together."""
        fields = ("vlm", "images", "language_model", "texts")
        given = [field for field in fields if getattr(self, field) is not None]
        if given not in (["vlm", "images"], ["language_model", "texts"]):
            raise UserError(
                f"{place} has {', '.join(f'`{field}`' for field in given) or 'no model'}, but a study needs either "
                "`vlm` and `images`, a vision-language model on an image set, or `language_model` and `texts`, a "
                "language model on a text set."
            )
        of_vlms = {"prompt": self.prompt is not None, "connector": self.connector, "captions": self.captions}
        if self.texts is not None and any(of_vlms.values()):
            raise UserError(
                f"`{next(field for field, given in of_vlms.items() if given)}` of {place} is for a VLM that sees "
                "images; `texts` are read as they stand. Leave it out."
            )

    def _check_judge(self, inputs: ImageSet | TextSet, vlm: ModelRef | CheckpointSpec, place: str) -> None:
        if not isinstance(self.judge, Judge):
            return
        if isinstance(inputs, TextSet):
            raise UserError(
                f"`judge` of {place} judges by annotated regions of images, and TextSet {inputs.name} has texts: "
                "what their tokens mean is not annotated. Set `judge: none`, or leave it out."
            )
        if self.judge.regions is None:
            raise UserError(f"`judge` of {place} names nobody. Write `judge: {{regions: {{}}}}`, or `judge: none`.")
        if inputs.regions is None:
            raise UserError(
                f"`judge` of {place} judges by regions, but ImageSet {inputs.name} has none. Give it "
                "`regions: {masks: FILE}`, or set `judge: none`."
            )
        if isinstance(vlm, CheckpointSpec):
            return  # of the class Llava, whose visual tokens have boxes
        config = read_config(vlm)
        family = (config or {}).get("model_type", "of no name")
        if config is not None and not is_mapped(family, vlm.name):
            raise UserError(
                f"`judge` of {place} judges by regions, but {vlm.name} is of the family `{family}`, of which it is not "
                "known where in the image its visual tokens lie. They can be read, but not judged: set `judge: none`."
            )

    def _check_ablation(self, place: str) -> None:
        """Refuse fractions that are none, out of order, or of a study whose answers nobody judges."""
        fractions = list(self.corpus_ablation)
        if not fractions:
            return
        field = f"`corpus_ablation: {fractions}` of {place}"
        if wrong := [one for one in fractions if not 0 < one <= 1]:
            raise UserError(f"{field} has {wrong[0]}: a fraction of the index's sentences is above 0 and at most 1.")
        if any(one >= other for one, other in pairwise(fractions)):
            raise UserError(f"{field} must be ascending, each fraction once, as in [0.01, 0.1, 1.0].")
        if self.texts is not None:
            raise UserError(
                f"{field} compares how many answers fit annotated regions of images, and texts have none. Leave it out."
            )
        if self.judge == "none":
            raise UserError(
                f"{field} compares how many answers fit, but nobody judges them (`judge: none`). Set "
                "`judge: {regions: {}}`, where the image set has annotated regions, or leave `corpus_ablation` out."
            )
        if LATENTLENS not in self.lenses:
            raise UserError(
                f"{field} is of LatentLens, the lens that answers from an index, and `lenses` has only "
                f"{', '.join(self.lenses)}. Add it, or leave `corpus_ablation` out."
            )

    def _check_same_model(self, model: ModelRef | CheckpointSpec, index: Index, place: str) -> None:
        """Refuse an index of a model of another shape; the step `model_checks` compares the weights.

        Vocabularies may differ: a VLM's embedding has rows for its image token.
        """
        shape, index_shape = text_shape(model), text_shape(index.model_ref)
        if shape is not None and index_shape is not None and shape[:2] != index_shape[:2]:
            own = "VLM's own language model" if self.vlm is not None else "language model"
            raise UserError(
                f"{place} reads {model.name} through Index {index.name} of another model: {_shape_text(shape)} here, "
                f"{_shape_text(index_shape)} there ({index.model_ref.name}). Name an index of this {own}."
            )


def _family(model: ModelRef) -> str:
    """The family of a model by its config; empty if the config is not downloaded yet."""
    family: str = (read_config(model) or {}).get("model_type", "")
    return family


def language_model_ref(source: ModelSource, place: str) -> ModelRef:
    """The model that the field `language_model` of `place` names."""
    model = source.model_ref("language_model", place)
    check_text_family(_family(model), f"`language_model` of {place}, {model.name},")
    return model


def declared_dtype(dtype: str) -> str | None:
    """The dtype of a YAML; None for `auto`, which is decided when a step runs."""
    return None if dtype == "auto" else dtype


def chosen_layers(
    layers: list[int] | str, model: ModelRef | CheckpointSpec, auto: Callable[[int], list[int]], place: str
) -> list[int]:
    """The declared layers, in order, or the automatic choice."""
    source = model.language_model if isinstance(model, CheckpointSpec) else model
    shape = text_shape(source)
    if isinstance(layers, str):
        if shape is None:
            raise UserError(
                f"`layers: auto` of {place} depends on how many blocks {source.repo} has, and its config.json was not "
                f"downloaded yet. Write the layers, such as `layers: [1, 2, 4]`, or run "
                f"`hf download {source.repo} config.json --revision {source.revision}` first."
            )
        return auto(shape[0])
    if not layers or len(set(layers)) < len(layers):
        raise UserError(f"`layers: {layers}` of {place} must name at least one layer, each once.")
    depth = max(layers) + 1 if shape is None else shape[0]  # of an unknown model, only that none is negative
    check_layers(layers, depth, source.name, place)
    return sorted(layers)


def text_shape(source: ModelRef | CheckpointSpec) -> tuple[int, int, int] | None:
    """Blocks, width and vocabulary of a model's language model, from its config.json; None if that is not here."""
    if isinstance(source, CheckpointSpec):
        shape = text_shape(source.language_model)
        return None if shape is None else (*shape[:2], shape[2] + 1)  # the image token
    config = read_config(source)
    if config is None:
        return None
    text = config.get("text_config", config)
    if "num_hidden_layers" not in text or "hidden_size" not in text or "vocab_size" not in text:
        text = _with_defaults(text)
    try:
        return int(text["num_hidden_layers"]), int(text["hidden_size"]), int(text["vocab_size"])
    except KeyError as error:
        raise UserError(
            f"The config.json of {source} does not say {error} of the language model: is it a language model?"
        ) from error


def _with_defaults(text: dict[str, Any]) -> dict[str, Any]:
    """A language model's config with its family's defaults, which a checkpoint may leave out."""
    from transformers import CONFIG_MAPPING  # takes a second

    family = text.get("model_type")
    return {**CONFIG_MAPPING[family]().to_dict(), **text} if family in CONFIG_MAPPING else text


def _shape_text(shape: tuple[int, int, int]) -> str:
    return f"{shape[0]} blocks, width {shape[1]}, vocabulary {shape[2]}"
