"""A loaded vision-language model, and the states of its visual tokens."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple

from latentlens_dag.errors import UserError
from latentlens_dag.models.connector import connector_output, visual_mask
from latentlens_dag.models.families.registry import FLAT_IMAGES, ONE_IMAGE_PER_PASS, region_map
from latentlens_dag.models.families.token_map import TokenMap, mark_padding, unmapped
from latentlens_dag.models.hooks import capture_hidden_states, stop_at_layer
from latentlens_dag.models.language_model import LanguageModel
from latentlens_dag.models.layers import check_layers, states_text
from latentlens_dag.models.processors import ensure_pad_token
from latentlens_dag.models.prompts import Prompt, prompt_text
from latentlens_dag.text.html import table_html

if TYPE_CHECKING:
    import polars as pl
    from PIL.Image import Image
    from torch import Tensor

    PromptImages = Image | Sequence[Image]
    """One image of a prompt, or several in their order."""

_MISMATCH = re.compile(r"tokens\b.* do not match", re.IGNORECASE)  # the wordings of transformers
_FAULTS = (ValueError, TypeError, RuntimeError, LookupError, AttributeError, ArithmeticError, AssertionError)
"""What processors and models raise for images, or settings, that do not fit them."""
_USUAL_SIDE = 448  # pixels of an image that every processor can be shown
IMAGES_PER_PASS = 8
"""In one forward pass, unless one prompt has more, the memory of the device is insufficient, or the family needs passes
of one image."""


@dataclass(frozen=True)
class VisualStates:
    """The visual tokens of some images, at some layers."""

    states: dict[int, Tensor]
    """Per layer: [N, d] float32 on the CPU, rows as in `tokens`."""
    tokens: pl.DataFrame
    """image_index, token_index, view, tile, row, col, x0, y0, x1, y1 (pixels of the original image; null: none).

    `image_index` numbers all images in their order, and `token_index` the visual tokens of one. Two more columns are
    `prompt_index`, the image's position in `images`, and `image_in_prompt`, its number in that prompt: 0 if it is
    alone.

    The view is `global`, `tile`, or of a token that shows nothing of the image: `padding` (its box is outside),
    `newline` or `separator` (it has no box). For a family without a region map, it is `unmapped`, and all from `tile`
    to `y1` are null.
    """
    connector: Tensor | None = None
    """The output of the connector: [N, d] float32 on the CPU, rows as in `tokens`; None if not requested.

    Equal to the states of layer 0, except in models that add it to the embedding of their image token (Molmo) or scale
    it (Granite).
    """

    def __repr__(self) -> str:
        """The sizes, on one line."""
        return f"<VisualStates of {states_text(self.states, self.tokens.height, 'visual token')}>"

    def _repr_html_(self) -> str:
        return table_html(repr(self), self.tokens.columns, self.tokens.head(5).iter_rows(), "the first tokens")


class _PassResult(NamedTuple):
    maps: list[list[TokenMap]]
    """Per prompt, of each of its images."""
    states: dict[int, Tensor]
    """Per layer, of the visual tokens, image after image."""
    connector: Tensor | None


@dataclass(frozen=True)
class Vlm:
    """A vision-language model with its processor."""

    name: str
    model: Any
    processor: Any
    language_model: LanguageModel

    def __repr__(self) -> str:
        """One line, in contrast to the representation of a torch module."""
        model = f"{type(self.model).__name__}, {self.depth} blocks, width {self.language_model.width}"
        return f"<Vlm {self.name}: {model}, {self.model.dtype} on {self.model.device}>"

    def _repr_html_(self) -> str:
        model = self.language_model
        rows = [
            ("model", f"{type(self.model).__name__}, {self.model.dtype} on {self.model.device}"),
            ("language model", f"{self.depth} blocks, width {model.width:,}"),
            ("layers", f"0 to {self.depth - 1}"),
        ]
        return table_html(f"Vlm {self.name}", [], rows)

    @property
    def depth(self) -> int:
        """L, the number of blocks of the language model."""
        return self.language_model.depth

    def prompt_text(self, prompt: str | Prompt | None = None, images: int = 1) -> str:
        """The whole text around an image, or several, through the model's chat template.

        Arguments and errors as of `visual_states` and `prompts.prompt_text`.
        """
        return prompt_text(self, Prompt.of(prompt), images)

    def run(self, inputs: Any, **options: Any) -> Any:
        """Run a forward pass.

        Raises:
            UserError: if the processor wrote another number of image tokens than the model has image features.
        """
        try:
            return self.model(**inputs, use_cache=False, **options)
        except ValueError as error:
            if not _MISMATCH.search(str(error)):
                raise
            if re.search(r"tokens: 0\b", str(error)):
                raise UserError(
                    f"{self.name} and its processor do not match: the processor writes no token that the model takes "
                    f"for an image ({error}). Compare the id of the image token in config.json with the tokenizer's; "
                    "both must be the published ones."
                ) from error
            raise UserError(
                f"{self.name} and its processor do not match: {error}. Compare the sizes of images and patches in "
                "processor_config.json (or preprocessor_config.json) and config.json, and whether one of the published "
                "files is missing: without processor_config.json, transformers takes defaults."
            ) from error

    def inputs(self, images: Sequence[PromptImages], prompt: str | Prompt | None = None) -> Any:
        """The model's inputs for some images, or lists of images, one sequence each, on its device and in its dtype.

        Raises:
            UserError: if sequences of several lengths must be padded and the tokenizer has no special token for it, or
                the processor fails on the images.
        """
        from latentlens_dag.storage.pixels import as_rgb

        groups = [
            [as_rgb(image, f"An image of {image.width} x {image.height} pixels") for image in _images_of(one)]
            for one in _upright_images(images)
        ]
        texts = {count: self.prompt_text(prompt, count) for count in {len(group) for group in groups}}
        flat = [image for group in groups for image in group]
        bos, can_pad = self.processor.tokenizer.bos_token, ensure_pad_token(self.processor.tokenizer)
        has_bos = bool(bos) and all(text.startswith(bos) for text in texts.values())
        try:
            inputs = self.processor(
                images=flat if self.model.config.model_type in FLAT_IMAGES else groups,  # most count those of a text
                text=[texts[len(group)] for group in groups],
                add_special_tokens=not has_bos,  # the template may have written it already
                padding=can_pad,
                return_tensors="pt",
            )
        except (*_FAULTS, MemoryError) as error:  # the latter for a size in its settings that no memory holds
            if can_pad or len(images) == 1 or not isinstance(error, ValueError):
                raise self._not_processed(flat, error) from error
            raise UserError(
                f"{self.name} cannot read {len(images)} images together whose prompts are of different lengths: its "
                "tokenizer has no padding token, nor another special token that could replace it. Add a `pad_token` to "
                "tokenizer_config.json in its folder."
            ) from error
        inputs.pop("labels", None)  # PaliGemma's processor adds them, for training
        # Pixels too: not every vision tower casts its own, and Llama 4's are bfloat16.
        return inputs.to(self.model.device, self.model.dtype)

    def _not_processed(self, images: Sequence[Image], error: Exception) -> Exception:
        """The error for images on which the processor or the model failed; a device's own stays as it is."""
        import torch

        if isinstance(error, (UserError, torch.OutOfMemoryError, torch.AcceleratorError)):
            return error
        settings = ", ".join(f"`{name}: false`" for name in _off(self.processor.image_processor)) or "its settings"
        reason = " ".join(str(error).split())
        sizes = ", ".join(dict.fromkeys(f"{width} x {height}" for width, height in _sizes(images)))
        return UserError(
            f"{self.name} fails on {'an image' if len(images) == 1 else 'images'} of {sizes} pixels "
            f"({type(error).__name__}: {reason:.200}). Most likely {settings} of its image processor "
            "(preprocessor_config.json or processor_config.json) or the sizes in config.json are not those it was made "
            "with: use the published files. If they are, scale the image or crop it to a squarer shape."
        )

    def visual_states(
        self,
        images: Sequence[PromptImages],
        layers: Sequence[int],
        prompt: str | Prompt | None = None,
        connector: bool = False,
    ) -> VisualStates:
        """The states of every visual token of the images, at the given layers.

        Args:
            images: of any sizes and modes (turned as the orientation in their EXIF says, read as RGB, transparency on
                white), each in a prompt of its own; a list in place of an image has several in one prompt, in their
                order. Without images, the tables are empty.
            layers: visual layers, each below `depth`.
            prompt: the question after each image (or after all images of a prompt), or a `Prompt` with text before the
                first one and a system prompt too; by default the paper's question. In a causal model only what comes
                before an image changes its states.
            connector: whether to return the output of the connector too.

        Raises:
            TypeError: if `images` is not a list of PIL images or of lists of them, or `prompt` is neither of the two.
            UserError: if a layer does not exist, an image has 32 bits per pixel or no visual tokens, the connector's
                output cannot be captured, the model's chat template has no place for a part of the prompt, the prompt
                contains a token of images, or it is not known which tokens are those of which image of a prompt.
        """
        _check_images(images)
        images = _upright_images(images)
        for sizes in dict.fromkeys(_sizes(one) for one in images):
            self.token_maps(sizes)  # refuses before the first pass
        return self.states_in_passes(_passes(images), layers, prompt, connector)

    def states_in_passes(
        self,
        passes: Iterable[Sequence[PromptImages]],
        layers: Sequence[int],
        prompt: str | Prompt | None = None,
        connector: bool = False,
    ) -> VisualStates:
        """As `visual_states`, for images that come pass after pass and are not kept.

        Args:
            passes: IMAGES_PER_PASS images each but the last, so that the states have the bits of `visual_states`:
                they depend by rounding on what else is in the pass.
            layers: as of `visual_states`.
            prompt: as of `visual_states`.
            connector: as of `visual_states`.

        Raises:
            UserError: as `visual_states`; about an image, when its pass is due.
        """
        import torch

        check_layers(layers, self.depth, self.name, "the call of visual_states")
        results = list(self._results(map(_upright_images, passes), layers, Prompt.of(prompt), connector))
        empty = torch.empty(0, self.language_model.width)
        # Popped, so that no more than one layer is in memory twice.
        states = {layer: torch.cat([empty, *(result.states.pop(layer) for result in results)]) for layer in layers}
        outputs = [result.connector for result in results if result.connector is not None]
        tokens = _token_table([maps for result in results for maps in result.maps])
        return VisualStates(states, tokens, torch.cat([empty, *outputs]) if connector else None)

    def _results(
        self, passes: Iterable[Sequence[PromptImages]], layers: Sequence[int], prompt: Prompt, connector: bool
    ) -> Iterator[_PassResult]:
        """The results of passes, which are halved from where the memory of the device is insufficient."""
        import torch

        count = 1 if self.model.config.model_type in ONE_IMAGE_PER_PASS else IMAGES_PER_PASS
        for images in passes:
            start = 0
            while start < len(images):
                part = images[start : start + count]
                try:
                    result = self._forward(part, layers, prompt, connector)
                except torch.OutOfMemoryError as error:
                    if count == 1:
                        raise self._too_large(part[0]) from error
                    count //= 2
                    torch.cuda.empty_cache()
                    continue
                yield result
                start += count

    def _too_large(self, images: PromptImages) -> UserError:
        return UserError(
            f"{self.name} does not fit into the memory of {self.model.device} beside "
            f"{_described(_sizes(images), 'one image')}. "
            "Free memory there, make the image smaller if larger images have more tokens in its family, take a smaller "
            "model, or use the CPU with CUDA_VISIBLE_DEVICES= (empty)."
        )

    def token_map(self, width: int, height: int) -> TokenMap | None:
        """The boxes of the visual tokens of an image of this size; None for a family without a region map.

        Raises:
            UserError: if the family's processor does not accept images of this shape.
        """
        return self._map(width, height, several=False)

    def token_maps(self, sizes: Sequence[tuple[int, int]]) -> list[TokenMap] | None:
        """As `token_map`, of each image of one prompt, by width and height; some families cut several otherwise."""
        if len(sizes) == 1:
            token_map = self.token_map(*sizes[0])
            return None if token_map is None else [token_map]
        maps = [self._map(*size, several=True) for size in sizes]
        return [token_map for token_map in maps if token_map is not None] or None

    def _map(self, width: int, height: int, several: bool) -> TokenMap | None:
        family_map = region_map(self.model.config.model_type, self.name, several)
        try:
            found = family_map(self.processor, self.model.config, width, height) if family_map else None
        except (*_FAULTS, MemoryError) as error:
            raise self._cannot_be_shown(width, height, error) from error
        return found and mark_padding(found, width, height)

    def _cannot_be_shown(self, width: int, height: int, error: Exception) -> UserError:
        """Why there is no map of an image: its shape if a square image has one, else the settings of the processor."""
        family_map = region_map(self.model.config.model_type, self.name)
        assert family_map is not None
        own = f" ({error})" if isinstance(error, ValueError) else ""
        image = f"{self.name} cannot be shown an image of {width} x {height} pixels"
        try:
            family_map(self.processor, self.model.config, _USUAL_SIDE, _USUAL_SIDE)
        except (*_FAULTS, MemoryError):
            return UserError(
                f"{image}, nor any other: settings of its processor are not those of its family ({error}). Use the "
                "processor_config.json or preprocessor_config.json that was published with the model."
            )
        return UserError(
            f"{image}{own}: it is too narrow or too small for its processor. Enlarge the image, crop it to a squarer "
            "shape, or remove it."
        )

    def _forward(
        self, images: Sequence[PromptImages], layers: Sequence[int], prompt: Prompt, connector: bool
    ) -> _PassResult:
        import torch

        inputs = self.inputs(images, prompt)
        tap = connector_output(self.model, self.language_model.width) if connector else nullcontext()
        with visual_mask(self.model, inputs["input_ids"]) as mask, tap as output, torch.inference_mode():
            # Boolean indexing goes sequence after sequence, whatever side is padded.
            select = lambda states: states[mask()].float().cpu()  # noqa: E731
            decoder = self.language_model.decoder
            with (
                capture_hidden_states(decoder, layers, select) as states,
                stop_at_layer(decoder, max(layers, default=0)),
            ):
                try:
                    self.run(inputs)  # not `logits_to_keep=1`: Gemma 4 would then drop states
                except _FAULTS as error:
                    raise self._not_processed([image for one in images for image in _images_of(one)], error) from error
            visual = mask()
            maps = [
                self._checked_maps(_images_of(one), row.tolist(), set(ids[row].tolist()), prompt)
                for one, row, ids in zip(images, visual, inputs["input_ids"], strict=True)
            ]
            return _PassResult(maps, dict(states), output(visual) if output else None)

    def _checked_maps(
        self, images: Sequence[Image], visual: list[bool], token_ids: set[int], prompt: Prompt
    ) -> list[TokenMap]:
        """The maps of the images of one prompt: the family's, or those of unmapped tokens.

        Args:
            images: the images.
            visual: which tokens of the sequence are visual.
            token_ids: the ids of those.
            prompt: the prompt.
        """
        sizes, tokens = _sizes(images), sum(visual)
        family_maps = self.token_maps(sizes)
        if tokens == 0:
            raise UserError(
                f"{self.name} has no visual tokens for {_described(sizes)}: images of the family "
                f"`{self.model.config.model_type}` may not enter its sequence, and then it cannot be read."
            )
        if family_maps is None:
            return [unmapped(count) for count in self._unmapped_counts(images, visual, token_ids, prompt)]
        mapped = sum(len(token_map.view) for token_map in family_maps)
        if tokens != mapped:
            raise UserError(
                f"{self.name} has {tokens} visual tokens for {_described(sizes)}, but its region map has {mapped}: its "
                "processor or config has a setting that the map does not know. Use the published files; if these are, "
                "please report the model."
            )
        return family_maps

    def _unmapped_counts(
        self, images: Sequence[Image], visual: list[bool], token_ids: set[int], prompt: Prompt
    ) -> list[int]:
        """The visual tokens of each image of one prompt, arguments as of `_checked_maps`.

        Several images are told apart if each alone is one run of tokens, and together they are as many.
        """
        if len(images) == 1:
            return [sum(visual)]
        runs = _runs(visual)
        if len(runs) == len(images):
            alone = (self.inputs([image], prompt)["input_ids"][0].tolist() for image in images)
            if all(len(_runs([token in token_ids for token in ids])) == 1 for ids in alone):
                return runs
        raise UserError(
            f"{self.name} has {sum(visual)} visual tokens in {len(runs)} runs for {len(images)} images of one prompt, "
            f"so it is not known which are whose: the family `{self.model.config.model_type}` has no region map. Give "
            "it one image per prompt."
        )


def _off(image_processor: Any) -> list[str]:
    """The steps that are switched off in an image processor's settings."""
    steps = ("do_resize", "do_pad", "do_center_crop", "do_convert_rgb", "do_image_splitting")
    return [name for name in steps if getattr(image_processor, name, None) is False]


def _images_of(images: PromptImages) -> list[Image]:
    """The images of one prompt."""
    return list(images) if isinstance(images, Sequence) else [images]


def _sizes(images: PromptImages) -> tuple[tuple[int, int], ...]:
    """Width and height of each image of one prompt."""
    return tuple((image.width, image.height) for image in _images_of(images))


def _described(sizes: Sequence[tuple[int, int]], image: str = "an image") -> str:
    """The images of one prompt, for messages: `an image of 40 x 30 pixels`."""
    texts = " and ".join(f"{width} x {height}" for width, height in sizes)
    return f"{image if len(sizes) == 1 else f'{len(sizes)} images in one prompt'} of {texts} pixels"


def _passes(images: Sequence[PromptImages]) -> Iterator[list[PromptImages]]:
    """Prompts with at most IMAGES_PER_PASS images together, or one with more."""
    part: list[PromptImages] = []
    for one in images:
        if part and sum(len(_images_of(other)) for other in [*part, one]) > IMAGES_PER_PASS:
            yield part
            part = []
        part.append(one)
    if part:
        yield part


def _runs(visual: list[bool]) -> list[int]:
    """The lengths of the runs of visual tokens."""
    return [len(list(run)) for is_visual, run in groupby(visual) if is_visual]


def _upright_images(images: Sequence[PromptImages]) -> list[PromptImages]:
    """The images as `upright` turns them: their boxes are in pixels of what a viewer shows."""
    from latentlens_dag.storage.pixels import upright

    return [[upright(image) for image in one] if isinstance(one, Sequence) else upright(one) for one in images]


def _check_images(images: object) -> None:
    from PIL.Image import Image

    if not isinstance(images, Sequence) or isinstance(images, str):
        raise TypeError(f"`images` is a {type(images).__name__}, but must be a list of PIL images: [image].")
    for number, one in enumerate(images):
        several = isinstance(one, Sequence) and not isinstance(one, str)
        if several and not one:
            raise UserError(f"`images[{number}]` is an empty list, but a prompt needs at least one image.")
        for place, image in enumerate(one if several else [one]):
            if not isinstance(image, Image):
                name = f"images[{number}][{place}]" if several else f"images[{number}]"
                raise TypeError(
                    f"`{name}` is a {type(image).__name__}, but must be a PIL image, as "
                    "`PIL.Image.open(path)` or `latentlens_dag.inputs.images.open_image(path)` give."
                )


def _token_table(prompts: list[list[TokenMap]]) -> pl.DataFrame:
    """The table of the maps of each image of each prompt."""
    import polars as pl

    places = [(prompt, image) for prompt, maps in enumerate(prompts) for image in range(len(maps))]
    frames = [
        pl.DataFrame(
            {
                "view": token_map.view,
                "tile": token_map.tile,
                "row": token_map.row,
                "col": token_map.col,
                **{name: token_map.boxes[:, i] for i, name in enumerate(("x0", "y0", "x1", "y1"))},
            }
        ).select(
            pl.lit(number, pl.Int32).alias("image_index"),
            pl.int_range(pl.len(), dtype=pl.Int32).alias("token_index"),
            "view",
            pl.col(pl.Int32).replace(-1, None),  # unmapped
            pl.col(pl.Float32).fill_nan(None),  # tokens without pixels
            pl.lit(prompt, pl.Int32).alias("prompt_index"),
            pl.lit(image, pl.Int32).alias("image_in_prompt"),
        )
        for number, ((prompt, image), token_map) in enumerate(
            zip(places, (token_map for maps in prompts for token_map in maps), strict=True)
        )
    ]
    empty = {"image_index": pl.Int32, "token_index": pl.Int32, "view": pl.String}
    empty |= dict.fromkeys(("tile", "row", "col"), pl.Int32) | dict.fromkeys(("x0", "y0", "x1", "y1"), pl.Float32)
    empty |= dict.fromkeys(("prompt_index", "image_in_prompt"), pl.Int32)
    return pl.concat([pl.DataFrame(schema=empty), *frames])
