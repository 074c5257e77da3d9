"""A vision-language model that is loaded: the states of its visual tokens, pass by pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from latentlens_dag.errors import UserError
from latentlens_dag.models.connector import connector_output
from latentlens_dag.models.families.registry import WITHOUT_TEMPLATE, region_map
from latentlens_dag.models.families.token_map import TokenMap, unmapped
from latentlens_dag.models.hooks import capture_hidden_states, stop_at_layer
from latentlens_dag.models.language_model import LanguageModel
from latentlens_dag.models.layers import check_layers
from latentlens_dag.models.placeholder_mask import visual_mask
from latentlens_dag.models.processors import ensure_pad_token

if TYPE_CHECKING:
    import polars as pl
    from PIL.Image import Image
    from torch import Tensor


DEFAULT_PROMPT = "Describe this image in detail."
_IMAGES_PER_PASS = 8


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
        bos, pads = self.processor.tokenizer.bos_token, ensure_pad_token(self.processor.tokenizer)
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
            with capture_hidden_states(decoder, layers, keep) as states, stop_at_layer(decoder, max(layers, default=0)):
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
