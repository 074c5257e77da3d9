"""Loading a vision-language model, and reading the states of its visual tokens.

What a newcomer gets wrong: `AutoModelForCausalLM` loads the text half of some VLMs without a word, so
VLMs are loaded as image-text-to-text models only. Code that comes with a model is run only if the user says so, and
what that means is in `remote_code.py`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from latentlens_dag.device import bfloat16_pays, default_device
from latentlens_dag.errors import UserError
from latentlens_dag.models.checkpoints import check_pointers, check_tokenizer, conversion_of_gguf, load_checkpoint
from latentlens_dag.models.connector import connector_output
from latentlens_dag.models.families.registry import WITHOUT_TEMPLATE, check_packages, heed_files, region_map
from latentlens_dag.models.families.token_map import TokenMap, unmapped
from latentlens_dag.models.hub_models import LocalModel, cached_config, local_model, weight_bytes
from latentlens_dag.models.language_model import (
    LanguageModel,
    blocks_of,
    captured,
    decoder_of,
    final_norm_of,
    positions_of,
    stopping,
)
from latentlens_dag.models.layers import check_layers
from latentlens_dag.models.logit_rule import logit_rule
from latentlens_dag.models.model_ref import ModelRef, model_ref, no_model
from latentlens_dag.models.placeholder_mask import visual_mask
from latentlens_dag.models.processors import can_pad, load_processor
from latentlens_dag.models.remote_code import check_code, class_of_vlm, loading, may_have_vision

if TYPE_CHECKING:
    import polars as pl
    from PIL.Image import Image
    from torch import Tensor

DEFAULT_PROMPT = "Describe this image in detail."
_IMAGES_PER_PASS = 8
_LARGE_BYTES = 1 << 30  # of 16-bit weights: half a billion


@dataclass(frozen=True)
class VisualStates:
    """The visual tokens of some images, at some layers."""

    states: dict[int, Tensor]
    """Per layer: [N, d] float32 on the CPU, rows as in `tokens`."""
    tokens: pl.DataFrame
    """image_index, token_index, view, tile, row, col, x0, y0, x1, y1 (pixels of the original image; null: none).

    Of a family without a region map, the view is `unmapped`, and all after it is null.
    """
    connector: Tensor | None = None
    """What the connector gives for each token: [N, d] float32 on the CPU, rows as in `tokens`; None if not asked for.

    It is the states of layer 0, but in models that add it to the embedding of their image token (Molmo).
    """


class _Pass(NamedTuple):
    """What one forward pass gives."""

    states: dict[int, Tensor]
    """Per layer, of the visual tokens, image after image."""
    tokens: list[int]
    """How many each image has."""
    connector: Tensor | None


@dataclass(frozen=True)
class Vlm:
    """A vision-language model with its processor, ready to be read."""

    name: str
    model: Any
    processor: Any
    language_model: LanguageModel

    def __repr__(self) -> str:
        """One line: the modules, of which a model's own representation has hundreds of lines, are in `model`."""
        model = f"{type(self.model).__name__}, {self.depth} blocks, width {self.language_model.width}"
        return f"<Vlm {self.name}: {model}, {self.model.dtype} on {self.model.device}>"

    @property
    def depth(self) -> int:
        """Number of blocks of the language model, L."""
        return self.language_model.depth

    def prompt_text(self, prompt: str | None = None) -> str:
        """The whole text the model is given around one image, through its own chat template.

        A family that is made without one (PaliGemma) is given its image token and then the prompt as it stands.

        Raises:
            UserError: where another family's processor has no chat template, or one that leaves the image out.
        """
        if not getattr(self.processor, "chat_template", None):
            if self.model.config.model_type in WITHOUT_TEMPLATE:
                return f"{self.processor.image_token}{prompt or DEFAULT_PROMPT}"
            raise UserError(
                f"{self.name} has no chat template, so it is not known how to ask it about an image. Put the one that "
                "it was published with into its folder, as chat_template.jinja."
            )
        question = {"type": "text", "text": prompt or DEFAULT_PROMPT}
        text, without = self._templated({"type": "image"}, question), self._templated(question)
        if text == without:
            raise UserError(
                f"{self.name} would not see the image: its chat template leaves it out, and the prompt has no image "
                "token. It may be the template of its language model: replace chat_template.jinja in its folder."
            )
        return text

    def _templated(self, *content: dict[str, str]) -> str:
        messages = [{"role": "user", "content": list(content)}]
        text: str = self.processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        return text

    def run(self, inputs: Any, **options: Any) -> Any:
        """The model's output for its inputs.

        Raises:
            UserError: where its processor wrote another number of image tokens than the model has features.
        """
        try:
            return self.model(**inputs, use_cache=False, **options)
        except ValueError as error:
            if "image tokens do not match" not in str(error):
                raise
            raise UserError(
                f"{self.name} and its processor do not belong together: {error}. Compare what they say of the patches "
                "and the size of images in processor_config.json and config.json; both must be as they were published."
            ) from error

    def inputs(self, images: Sequence[Image], prompt: str | None = None) -> Any:
        """The model's inputs for some images, one sequence each, on its device.

        Raises:
            UserError: where sequences of several lengths are to be padded and no token can pad them.
        """
        text = self.prompt_text(prompt)
        bos, pads = self.processor.tokenizer.bos_token, can_pad(self.processor.tokenizer)
        try:
            found = self.processor(
                images=[[image] for image in images],  # one list per text, for some processors count them
                text=[text] * len(images),
                add_special_tokens=not (bos and text.startswith(bos)),  # the template may have written it already
                padding=pads,
                return_tensors="pt",
            )
        except ValueError as error:
            if pads or len(images) == 1:
                raise
            raise self._cannot_pad(len(images)) from error
        found.pop("labels", None)  # PaliGemma's processor makes them, for training
        return found.to(self.model.device)

    def _cannot_pad(self, images: int) -> UserError:
        return UserError(
            f"{self.name} cannot read {images} images together whose prompts are of different lengths: its tokenizer "
            "has no padding token, nor another special token that could stand for it. Add a `pad_token` to "
            "tokenizer_config.json in its folder."
        )

    def visual_states(
        self, images: Sequence[Image], layers: Sequence[int], prompt: str | None = None, connector: bool = False
    ) -> VisualStates:
        """The states of every visual token of the images, at the given layers.

        Args:
            images: any sizes; none give empty tables.
            layers: visual layers, each below `depth`.
            prompt: the question asked about each image; the paper's by default.
            connector: whether the connector's output is wanted too.

        Raises:
            TypeError: where `images` is not a list of PIL images.
            UserError: where a layer does not exist, an image has no visual tokens, or the connector's output is wanted
                and cannot be told.
        """
        import torch

        _check_images(images)
        check_layers(layers, self.depth, self.name, "the call of visual_states")
        known = [self.token_map(image.width, image.height) for image in images]
        found: list[_Pass] = []
        maps: list[TokenMap] = []
        for part, one in self._passes(images, layers, prompt, connector):
            found.append(one)
            maps += [self._fitting(*each) for each in zip(known[part], one.tokens, images[part], strict=True)]
        none = torch.empty(0, self.language_model.width)
        states = {layer: torch.cat([none, *(one.states[layer] for one in found)]) for layer in layers}
        outputs = [one.connector for one in found if one.connector is not None]
        return VisualStates(states, _token_table(maps), torch.cat([none, *outputs]) if connector else None)

    def _passes(
        self, images: Sequence[Image], layers: Sequence[int], prompt: str | None, connector: bool
    ) -> Iterator[tuple[slice, _Pass]]:
        """Which images, and as `_forward`; by half as many images where the device's memory does not hold them."""
        import torch

        start, most = 0, _IMAGES_PER_PASS
        while start < len(images):
            part = slice(start, start + most)
            try:
                one = self._forward(images[part], layers, prompt, connector)
            except torch.OutOfMemoryError as error:
                if most == 1:
                    raise self._too_large(images[start]) from error
                most //= 2
                torch.cuda.empty_cache()
                continue
            yield part, one
            start += most

    def _too_large(self, image: Image) -> UserError:
        return UserError(
            f"{self.name} does not fit into the memory of {self.model.device} beside one image of {image.width} x "
            f"{image.height} pixels. Free memory there, make the image smaller if its family shows more tokens of "
            "larger ones, take a smaller model, or leave the GPU aside with CUDA_VISIBLE_DEVICES= (empty)."
        )

    def token_map(self, width: int, height: int) -> TokenMap | None:
        """Where the visual tokens of an image of this size lie in it; None where that is not known of the family.

        Raises:
            UserError: where the family's processor takes no image of this shape.
        """
        family_map = region_map(self.model.config.model_type, self.name)
        try:
            return family_map(self.processor, self.model.config, width, height) if family_map else None
        except (ValueError, IndexError, ZeroDivisionError) as error:
            raise UserError(
                f"{self.name} cannot be shown an image of {width} x {height} pixels ({error}): its processor takes "
                "none that is so narrow or so small. Cut the image to a squarer shape, or leave it out."
            ) from error

    def _forward(self, images: Sequence[Image], layers: Sequence[int], prompt: str | None, connector: bool) -> _Pass:
        import torch

        inputs = self.inputs(images, prompt)
        tap = connector_output(self.model, self.language_model.width) if connector else nullcontext()
        with visual_mask(self.model, inputs["input_ids"]) as mask, tap as output, torch.inference_mode():
            # Boolean indexing goes along the sequences one after the other, whatever side is padded.
            keep = lambda states: states[mask()].float().cpu()  # noqa: E731
            decoder = self.language_model.decoder
            with captured(decoder, layers, keep) as states, stopping(decoder, max(layers, default=0)):
                self.run(inputs, logits_to_keep=1)
            return _Pass(dict(states), mask().sum(dim=1).tolist(), output(mask()) if output else None)

    def _fitting(self, known: TokenMap | None, tokens: int, image: Image) -> TokenMap:
        """The map of an image that has so many visual tokens: the family's, or that of unmapped tokens."""
        size = f"an image of {image.width} x {image.height} pixels"
        if tokens == 0:
            raise UserError(
                f"{self.name} has no visual tokens for {size}: images of the family `{self.model.config.model_type}` "
                "may not enter its sequence, and then it cannot be read."
            )
        if known is not None and tokens != len(known.view):
            raise ValueError(
                f"{self.name} has {tokens} visual tokens for {size}, but its region map has {len(known.view)}: the map "
                "does not fit this model or its processor."
            )
        return known or unmapped(tokens)


def _check_images(images: object) -> None:
    from PIL.Image import Image

    if not isinstance(images, Sequence) or isinstance(images, str):
        raise TypeError(f"`images` is a {type(images).__name__}, but must be a list of PIL images: [image].")
    for number, image in enumerate(images):
        if not isinstance(image, Image):
            raise TypeError(
                f"`images[{number}]` is a {type(image).__name__}, but must be a PIL image, as "
                "`PIL.Image.open(path)` or `latentlens_dag.inputs.images.open_image(path)` give."
            )


def load_vlm(
    source: str | Path | ModelRef,
    revision: str | None = None,
    device: str | None = None,
    dtype: str | None = None,
    trust_remote_code: bool = False,
) -> Vlm:
    """Load a VLM from a local folder or from the Hugging Face Hub.

    Args:
        source: a folder, user/name on the Hub, or both as a `ModelRef`.
        revision: of a user/name: a full commit, or a branch or tag; its name tells the commit.
        device: a torch device; CUDA where there is one, else the CPU.
        dtype: a torch dtype's name; by default that of `chosen_dtype`.
        trust_remote_code: run the code that comes with the model, with all your rights; of a user/name, `revision`
            must then be a full commit.

    Raises:
        UserError: where it cannot be downloaded, the folder is no VLM that transformers can load, or it needs code of
            its own that is not allowed, or its checkpoint is refused (`checkpoints`).
    """
    ref = model_ref(source, revision, trust_remote_code)
    trusted = ref.trust_remote_code
    folder, name = _checked_folder(ref)
    config = read_config(folder) or {}
    if not may_have_vision(config, trusted):
        raise UserError(
            f"{name} is no vision-language model: its config.json has no `vision_config`. A language model is loaded "
            "by `load_language_model` in Python, and named as `language_model` (not `vlm`) in the defs.yaml of a study "
            "of texts."
        )
    check_packages(config.get("model_type", ""), name)
    with loading(folder, name, "vision-language model", trusted):
        model = load_checkpoint(
            class_of_vlm(config, trusted), folder, name, trusted, chosen_dtype(folder, device, dtype)
        )
        processor = load_processor(folder, trusted)
    heed_files(model.config.model_type, processor)
    model = model.to(device or default_device()).eval()
    language_model = language_model_of(name, model, processor.tokenizer)
    check_tokenizer(language_model)
    return Vlm(name, model, processor, language_model)


def _checked_folder(model: ModelRef) -> LocalModel:
    """A model as a folder, whose code is not needed or allowed: what is refused is so before its weights come."""
    small = local_model(model, weights=False)
    check_code(read_config(small.folder) or {}, *small, model.trust_remote_code)
    return local_model(model)


def load_language_model(
    source: str | Path | ModelRef,
    revision: str | None = None,
    device: str | None = None,
    dtype: str | None = None,
    trust_remote_code: bool = False,
) -> LanguageModel:
    """Load a language model, or the language model inside a VLM; arguments and errors as `load_vlm`."""
    return load_with_language_model(source, revision, device, dtype, trust_remote_code).language_model


class Loaded(NamedTuple):
    """A model, and the language model that is in it."""

    model: Any
    """Of transformers; gives the model's own logits."""
    language_model: LanguageModel


def load_with_language_model(
    source: str | Path | ModelRef,
    revision: str | None = None,
    device: str | None = None,
    dtype: str | None = None,
    trust_remote_code: bool = False,
) -> Loaded:
    """As `load_language_model`, and the whole model beside it."""
    from transformers import AutoModelForCausalLM

    ref = model_ref(source, revision, trust_remote_code)
    trusted = ref.trust_remote_code
    folder, name = _checked_folder(ref)
    if may_have_vision(read_config(folder) or {}, trusted):
        vlm = load_vlm(ref, None, device, dtype)
        return Loaded(vlm.model, vlm.language_model)
    with loading(folder, name, "language model", trusted):
        model = load_checkpoint(AutoModelForCausalLM, folder, name, trusted, chosen_dtype(folder, device, dtype))
        tokenizer = load_tokenizer(folder, trusted)
    model = model.to(device or default_device()).eval()
    language_model = language_model_of(name, model, tokenizer)
    check_tokenizer(language_model)
    return Loaded(model, language_model)


def load_tokenizer(source: str | Path | ModelRef, trust_remote_code: bool = False, revision: str | None = None) -> Any:
    """A model's tokenizer; of the Hub, no weights are downloaded. Arguments and errors as `load_vlm`."""
    from transformers import AutoTokenizer

    ref = model_ref(source, revision, trust_remote_code)
    trusted = ref.trust_remote_code
    folder, name = local_model(ref, weights=False)
    check_code(read_config(folder) or {}, folder, name, trusted)
    check_pointers(folder, name)
    with loading(folder, name, "tokenizer", trusted):
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=trusted)


def position_limit(source: str | Path | ModelRef) -> int | None:
    """How many tokens of one text a language model was made for, by its config; as `LanguageModel.positions`."""
    from transformers import AutoConfig

    ref = model_ref(source)
    folder, name = local_model(ref, weights=False)
    check_code(read_config(folder) or {}, folder, name, ref.trust_remote_code)
    with loading(folder, name, "language model", ref.trust_remote_code):
        config = AutoConfig.from_pretrained(folder, trust_remote_code=ref.trust_remote_code)
    return positions_of(config.get_text_config(decoder=True))


def language_model_of(name: str, model: Any, tokenizer: Any) -> LanguageModel:
    """The language model inside a loaded transformers model.

    Raises:
        UserError: where it is no language model, calls its blocks or final norm what we do not know, or its embedding
            or unembedding is not as wide as its residual stream.
    """
    try:
        decoder = decoder_of(model)
        _check_widths(name, model, decoder)
        blocks_of(decoder), final_norm_of(decoder)
        rule = logit_rule(model)
        return LanguageModel(
            name=name,
            decoder=decoder,
            embedding=model.get_input_embeddings().weight,
            unembedding=model.get_output_embeddings(),
            softcap=rule.softcap,
            tokenizer=tokenizer,
            logit_scale=rule.scale,
        )
    except (AttributeError, NotImplementedError) as error:  # the latter where transformers does not find the embedding
        raise UserError(
            f"{name}, a {type(model).__name__}, cannot be read: a transformers causal language model or "
            f"vision-language model is needed, with a stack of blocks and a norm after it ({error})."
        ) from error


def _check_widths(name: str, model: Any, decoder: Any) -> None:
    """Refuse a model with a projection between its embedding or unembedding and its residual stream."""
    embedding = model.get_input_embeddings().weight.shape[1]
    stream = getattr(decoder.config.get_text_config(decoder=True), "hidden_size", embedding)
    unembedding = getattr(model.get_output_embeddings(), "in_features", stream)
    if embedding != stream or unembedding != stream:
        raise UserError(
            f"{name}, a {type(model).__name__}, cannot be read: its embedding is {embedding} wide and its unembedding "
            f"{unembedding}, but its residual stream {stream} (`word_embed_proj_dim` and `hidden_size` of an OPT), "
            "with projections between them. The lenses compare states with rows of the embedding, so all three must "
            "be of one width. Take another model of the family: of OPT, all but the one of 350 million parameters."
        )


def read_config(source: Path | ModelRef) -> dict[str, Any] | None:
    """The config.json of a model, as far as this machine has it; None for one of the Hub that is not in the cache.

    Raises:
        UserError: where the folder has none, or it is not JSON; with the way out where it is another format of models.
    """
    if isinstance(source, ModelRef):
        return cached_config(source) if source.path is None else read_config(source.path)
    if not source.is_dir():
        raise no_model(source)
    path = source / "config.json"
    if not path.is_file():
        more = conversion_of_gguf(source)
        raise UserError(f"{source} is no model folder: it has no config.json.{f' {more}' if more else ''}")
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        check_pointers(source, str(source))
        raise UserError(f"{path} is not JSON ({error}): the model folder is damaged.") from error
    return found


def _token_table(maps: list[TokenMap]) -> pl.DataFrame:
    import polars as pl

    frames = [
        pl.DataFrame(
            {
                "view": one.view,
                "tile": one.tile,
                "row": one.row,
                "col": one.col,
                **{name: one.boxes[:, i] for i, name in enumerate(("x0", "y0", "x1", "y1"))},
            }
        ).select(
            pl.lit(number, pl.Int32).alias("image_index"),
            pl.int_range(pl.len(), dtype=pl.Int32).alias("token_index"),
            "view",
            pl.col(pl.Int32).replace(-1, None),  # unmapped
            pl.col(pl.Float32).fill_nan(None),  # tokens without pixels
        )
        for number, one in enumerate(maps)
    ]
    empty = {"image_index": pl.Int32, "token_index": pl.Int32, "view": pl.String}
    empty |= dict.fromkeys(("tile", "row", "col"), pl.Int32) | dict.fromkeys(("x0", "y0", "x1", "y1"), pl.Float32)
    return pl.concat([pl.DataFrame(schema=empty), *frames])


def chosen_dtype(source: str | Path | ModelRef, device: str | None = None, dtype: str | None = None) -> str:
    """The dtype that a model is loaded in: what was asked for, else what suits the device.

    On a GPU the checkpoint's own ("auto"). On a CPU float32, whose figures do not depend on how batches are cut; but
    bfloat16 for a large checkpoint that is stored in 16 bits, where the processor is measured to be faster at it. Of a
    model of the Hub only the config is downloaded for it.
    """
    if dtype is not None:
        return dtype
    if (device or default_device()) != "cpu":
        return "auto"
    return "bfloat16" if _stored_in_16_bits(source) >= _LARGE_BYTES and bfloat16_pays() else "float32"


def _stored_in_16_bits(source: str | Path | ModelRef) -> int:
    """Bytes of a checkpoint's weights, where its config says that they are of 16 bits; else 0."""
    model = model_ref(source)
    folder = local_model(model, weights=False).folder
    config = read_config(folder) or {}
    dtype = config.get("dtype") or config.get("torch_dtype") or (config.get("text_config") or {}).get("dtype")
    if dtype not in ("bfloat16", "float16"):
        return 0
    if model.repo is not None:
        return weight_bytes(model)
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))
