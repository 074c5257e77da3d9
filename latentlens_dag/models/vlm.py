"""A loaded vision-language model, and the states of its visual tokens."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from latentlens_dag.errors import UserError
from latentlens_dag.models.connector import connector_output, visual_mask
from latentlens_dag.models.families.registry import ONE_IMAGE_PER_PASS, WITHOUT_TEMPLATE, region_map
from latentlens_dag.models.families.token_map import TokenMap, mark_padding, unmapped
from latentlens_dag.models.hooks import capture_hidden_states, stop_at_layer
from latentlens_dag.models.language_model import LanguageModel
from latentlens_dag.models.layers import check_layers
from latentlens_dag.models.processors import ensure_pad_token

if TYPE_CHECKING:
    import polars as pl
    from PIL.Image import Image
    from torch import Tensor


DEFAULT_PROMPT = "Describe this image in detail."
IMAGES_PER_PASS = 8
"""In one forward pass, unless the memory of the device is insufficient or the family needs passes of one image."""


@dataclass(frozen=True)
class VisualStates:
    """The visual tokens of some images, at some layers."""

    states: dict[int, Tensor]
    """Per layer: [N, d] float32 on the CPU, rows as in `tokens`."""
    tokens: pl.DataFrame
    """image_index, token_index, view, tile, row, col, x0, y0, x1, y1 (pixels of the original image; null: none).

    The view is `global`, `tile`, or of a token that shows nothing of the image: `padding` (its box is outside),
    `newline` or `separator` (it has no box). For a family without a region map, it is `unmapped`, and all
    columns after it are null.
    """
    connector: Tensor | None = None
    """The output of the connector: [N, d] float32 on the CPU, rows as in `tokens`; None if not requested.

    Equal to the states of layer 0, except in models that add it to the embedding of their image token (Molmo).
    """


class _PassResult(NamedTuple):
    sizes: list[tuple[int, int]]
    """Width and height of each image, which itself is not kept."""
    states: dict[int, Tensor]
    """Per layer, of the visual tokens, image after image."""
    token_counts: list[int]
    """Visual tokens per image."""
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

    @property
    def depth(self) -> int:
        """L, the number of blocks of the language model."""
        return self.language_model.depth

    def prompt_text(self, prompt: str | None = None) -> str:
        """The whole text around one image, through the model's chat template.

        A family without chat template (PaliGemma) gets its image token and then the prompt verbatim.

        Raises:
            UserError: if another family's processor has no chat template, or one that omits the image.
        """
        if not getattr(self.processor, "chat_template", None):
            if self.model.config.model_type in WITHOUT_TEMPLATE:
                return f"{self.processor.image_token}{prompt or DEFAULT_PROMPT}"
            raise UserError(
                f"{self.name} has no chat template, so it is not known how to ask it about an image. Put the published "
                "one into its folder, as chat_template.jinja."
            )
        question = {"type": "text", "text": prompt or DEFAULT_PROMPT}
        text = self._apply_template({"type": "image"}, question)
        if text == self._apply_template(question):
            raise UserError(
                f"{self.name} would not see the image: its chat template leaves it out, and the prompt has no image "
                "token. It may be the template of its language model: replace chat_template.jinja in its folder."
            )
        return text

    def _apply_template(self, *content: dict[str, str]) -> str:
        messages = [{"role": "user", "content": list(content)}]
        text: str = self.processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        return text

    def run(self, inputs: Any, **options: Any) -> Any:
        """Run a forward pass.

        Raises:
            UserError: if the processor wrote another number of image tokens than the model has image features.
        """
        try:
            return self.model(**inputs, use_cache=False, **options)
        except ValueError as error:
            if "image tokens do not match" not in str(error):
                raise
            raise UserError(
                f"{self.name} and its processor do not match: {error}. Compare the sizes of images and patches in "
                "processor_config.json and config.json; both must be the published ones."
            ) from error

    def inputs(self, images: Sequence[Image], prompt: str | None = None) -> Any:
        """The model's inputs for some images, one sequence each, on its device and in its dtype.

        Raises:
            UserError: if sequences of several lengths must be padded and the tokenizer has no special token for it.
        """
        text = self.prompt_text(prompt)
        bos, can_pad = self.processor.tokenizer.bos_token, ensure_pad_token(self.processor.tokenizer)
        try:
            inputs = self.processor(
                images=[[image] for image in images],  # a list per text, because some processors count them
                text=[text] * len(images),
                add_special_tokens=not (bos and text.startswith(bos)),  # the template may have written it already
                padding=can_pad,
                return_tensors="pt",
            )
        except ValueError as error:
            if can_pad or len(images) == 1:
                raise
            raise UserError(
                f"{self.name} cannot read {len(images)} images together whose prompts are of different lengths: its "
                "tokenizer has no padding token, nor another special token that could replace it. Add a `pad_token` to "
                "tokenizer_config.json in its folder."
            ) from error
        inputs.pop("labels", None)  # PaliGemma's processor adds them, for training
        return inputs.to(self.model.device, self.model.dtype)  # pixels too: not every vision tower casts its own

    def visual_states(
        self, images: Sequence[Image], layers: Sequence[int], prompt: str | None = None, connector: bool = False
    ) -> VisualStates:
        """The states of every visual token of the images, at the given layers.

        Args:
            images: of any sizes; without images, the tables are empty.
            layers: visual layers, each below `depth`.
            prompt: the question about each image; by default the paper's.
            connector: whether to return the output of the connector too.

        Raises:
            TypeError: if `images` is not a list of PIL images.
            UserError: if a layer does not exist, an image has no visual tokens, or the connector's output cannot be
                captured.
        """
        _check_images(images)
        for size in dict.fromkeys((image.width, image.height) for image in images):
            self.token_map(*size)  # refuses before the first pass
        passes = (images[start : start + IMAGES_PER_PASS] for start in range(0, len(images), IMAGES_PER_PASS))
        return self.states_in_passes(passes, layers, prompt, connector)

    def states_in_passes(
        self,
        passes: Iterable[Sequence[Image]],
        layers: Sequence[int],
        prompt: str | None = None,
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
        results: list[_PassResult] = []
        maps: list[TokenMap] = []
        for result in self._results(passes, layers, prompt, connector):
            results.append(result)
            maps += map(self._checked_map, result.sizes, result.token_counts)
        empty = torch.empty(0, self.language_model.width)
        # Popped, so that no more than one layer is in memory twice.
        states = {layer: torch.cat([empty, *(result.states.pop(layer) for result in results)]) for layer in layers}
        outputs = [result.connector for result in results if result.connector is not None]
        return VisualStates(states, _token_table(maps), torch.cat([empty, *outputs]) if connector else None)

    def _results(
        self, passes: Iterable[Sequence[Image]], layers: Sequence[int], prompt: str | None, connector: bool
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

    def _too_large(self, image: Image) -> UserError:
        return UserError(
            f"{self.name} does not fit into the memory of {self.model.device} beside one image of {image.width} x "
            f"{image.height} pixels. Free memory there, make the image smaller if larger images have more tokens in "
            "its family, take a smaller model, or use the CPU with CUDA_VISIBLE_DEVICES= (empty)."
        )

    def token_map(self, width: int, height: int) -> TokenMap | None:
        """The boxes of the visual tokens of an image of this size; None for a family without a region map.

        Raises:
            UserError: if the family's processor does not accept images of this shape.
        """
        family_map = region_map(self.model.config.model_type, self.name)
        try:
            found = family_map(self.processor, self.model.config, width, height) if family_map else None
        except (ValueError, IndexError, ZeroDivisionError) as error:
            raise UserError(
                f"{self.name} cannot be shown an image of {width} x {height} pixels ({error}): it is too narrow or too "
                "small for its processor. Crop the image to a squarer shape, or remove it."
            ) from error
        return found and mark_padding(found, width, height)

    def _forward(
        self, images: Sequence[Image], layers: Sequence[int], prompt: str | None, connector: bool
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
                self.run(inputs, logits_to_keep=1)
            sizes = [(image.width, image.height) for image in images]
            return _PassResult(sizes, dict(states), mask().sum(dim=1).tolist(), output(mask()) if output else None)

    def _checked_map(self, size: tuple[int, int], tokens: int) -> TokenMap:
        """The map of an image of this size with `tokens` visual tokens: the family's, or that of unmapped tokens."""
        family_map, image = self.token_map(*size), f"an image of {size[0]} x {size[1]} pixels"
        if tokens == 0:
            raise UserError(
                f"{self.name} has no visual tokens for {image}: images of the family `{self.model.config.model_type}` "
                "may not enter its sequence, and then it cannot be read."
            )
        if family_map is not None and tokens != len(family_map.view):
            raise ValueError(
                f"{self.name} has {tokens} visual tokens for {image}, but its region map has {len(family_map.view)}: "
                "the map does not fit this model or its processor."
            )
        return family_map or unmapped(tokens)


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


def _token_table(maps: list[TokenMap]) -> pl.DataFrame:
    import polars as pl

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
        )
        for number, token_map in enumerate(maps)
    ]
    empty = {"image_index": pl.Int32, "token_index": pl.Int32, "view": pl.String}
    empty |= dict.fromkeys(("tile", "row", "col"), pl.Int32) | dict.fromkeys(("x0", "y0", "x1", "y1"), pl.Float32)
    return pl.concat([pl.DataFrame(schema=empty), *frames])
