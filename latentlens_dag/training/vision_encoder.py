"""A frozen vision encoder, and the features that it gives for the visual tokens of images.

Any encoder of transformers that gives a row per patch fits: CLIP, SigLIP, DINOv2, ViT, by itself or inside of a model
of images and texts. Rows before those of the patches (class token, registers) are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latentlens_dag.device import default_device
from latentlens_dag.errors import UserError
from latentlens_dag.models.loading import checked_folder
from latentlens_dag.models.model_ref import ModelRef, model_ref
from latentlens_dag.models.remote_code import loading

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor, nn

_IMAGES_AT_ONCE = 16


@dataclass(frozen=True)
class VisionEncoder:
    """A loaded vision encoder that takes square images of one size."""

    name: str
    model: nn.Module
    """A vision model of transformers, frozen."""
    processor: Any
    """Its image processor."""
    layer: int
    """The hidden state that gives the features: -1 is the last, as in `vision_feature_layer` of LLaVA."""
    pool: int
    """Rows and columns of patches that are averaged to one visual token; 1 for none."""

    @property
    def config(self) -> Any:
        """That of the model."""
        return self.model.config

    @property
    def hidden(self) -> int:
        """Width of the features."""
        return int(self.config.hidden_size)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the visual tokens."""
        side = self.config.image_size // self.config.patch_size // self.pool
        return side, side

    @property
    def tokens(self) -> int:
        """Visual tokens of an image."""
        return self.grid[0] * self.grid[1]

    def features(self, images: Sequence[Image]) -> Tensor:
        """Of images [N, tokens, hidden], bfloat16 on the CPU, row by row of the grid."""
        import torch

        parts = [images[start : start + _IMAGES_AT_ONCE] for start in range(0, len(images), _IMAGES_AT_ONCE)]
        with torch.inference_mode():
            return torch.cat([self._features(part) for part in parts])

    def pixels(self, images: Sequence[Image]) -> Tensor:
        """What the model takes: float32 [N, 3, side, side]."""
        given = self.processor(images=[image.convert("RGB") for image in images], return_tensors="pt")
        pixels: Tensor = given["pixel_values"]
        return pixels

    def _features(self, images: Sequence[Image]) -> Tensor:
        weight = next(self.model.parameters())
        pixels = self.pixels(images).to(weight.device, weight.dtype)
        states: Tensor = self.model(pixel_values=pixels, output_hidden_states=True).hidden_states[self.layer]
        return pooled(patch_rows(states, self.config), self.pool).bfloat16().cpu()


def patch_rows(states: Tensor, config: Any) -> Tensor:
    """The rows of the patches, [N, patches, hidden], of a hidden state that may have others before them."""
    return states[:, states.shape[1] - _patches(config) :]


def rows_before_patches(encoder: VisionEncoder) -> int:
    """How many rows a hidden state has before those of the patches: the class token, and registers."""
    return int(_states_of_nothing(encoder)[encoder.layer].shape[1]) - _patches(encoder.config)


def _states_of_nothing(encoder: VisionEncoder) -> tuple[Tensor, ...]:
    """The hidden states of an image whose pixels are 0, each [1, rows, hidden]."""
    import torch

    side, weight = encoder.config.image_size, next(encoder.model.parameters())
    with torch.inference_mode():
        pixels = torch.zeros(1, 3, side, side, device=weight.device, dtype=weight.dtype)
        states: tuple[Tensor, ...] = encoder.model(pixel_values=pixels, output_hidden_states=True).hidden_states
    return states


def _patches(config: Any) -> int:
    side: int = config.image_size // config.patch_size
    return side * side


def pooled(rows: Tensor, pool: int) -> Tensor:
    """The means of squares of `pool` x `pool` patches: [N, n, hidden] to [N, n / pool^2, hidden]."""
    if pool == 1:
        return rows
    count, patches, hidden = rows.shape
    side = round(patches**0.5) // pool
    squares = rows.reshape(count, side, pool, side, pool, hidden)
    return squares.float().mean(dim=(2, 4)).to(rows.dtype).reshape(count, side * side, hidden)


def load_vision_encoder(
    source: str | Path | ModelRef, layer: int = -1, pool: int = 1, device: str | None = None, dtype: str = "float32"
) -> VisionEncoder:
    """Load a vision encoder from a folder or the Hub.

    Args:
        source: a folder, user/name on the Hub, or a `ModelRef`: an encoder, or a model of images and texts with one.
        layer: the hidden state that gives the features, as `vision_feature_layer` of LLaVA.
        pool: rows and columns of patches that are averaged to one visual token.
        device: a torch device; by default CUDA if available, else the CPU.
        dtype: the name of a torch dtype.

    Raises:
        UserError: if it cannot be loaded, gives no row per patch, has no such layer, or `pool` does not divide the
            side of its grid.
    """
    from transformers import AutoConfig, AutoModel

    folder, name = checked_folder(model_ref(source))
    with loading(folder, name, "vision encoder", trusted=False):
        config = AutoConfig.from_pretrained(folder)
        vision = getattr(config, "vision_config", config)
        model, info = AutoModel.from_pretrained(
            folder, config=vision, dtype=dtype, use_safetensors=True, output_loading_info=True
        )
        processor = _image_processor(folder)
    if info["missing_keys"]:
        raise UserError(
            f"{name} is no vision encoder that can be read: its files lack {len(info['missing_keys'])} weights of a "
            f"{type(model).__name__}, such as {sorted(info['missing_keys'])[0]}."
        )
    encoder = VisionEncoder(
        name, model.to(device or default_device()).eval().requires_grad_(False), processor, layer, pool
    )
    _check(encoder)
    return encoder


def _image_processor(folder: Path) -> Any:
    """Made with Pillow, which needs no torchvision."""
    from transformers import AutoImageProcessor

    return AutoImageProcessor.from_pretrained(folder, backend="pil")


def _check(encoder: VisionEncoder) -> None:
    """Refuse an encoder whose patches are not a square grid, and a layer or pooling that does not fit it."""
    from PIL import Image

    config, name = encoder.config, encoder.name
    if not all(isinstance(getattr(config, field, None), int) for field in ("image_size", "patch_size", "hidden_size")):
        raise UserError(
            f"{name}, a {type(encoder.model).__name__}, cannot be used as vision encoder: its config.json gives no "
            "`image_size`, `patch_size` and `hidden_size` of a square grid of patches."
        )
    side = config.image_size // config.patch_size
    if encoder.pool < 1 or side % encoder.pool:
        raise UserError(
            f"`pool: {encoder.pool}` does not fit {name}, which has {side} x {side} patches: it must divide {side}."
        )
    image = Image.new("RGB", (config.image_size, config.image_size))
    pixels = encoder.pixels([image])
    if tuple(pixels.shape[-2:]) != (config.image_size, config.image_size):
        raise UserError(
            f"{name} takes images of {config.image_size} pixels, but its image processor makes them "
            f"{pixels.shape[-1]} x {pixels.shape[-2]}: its preprocessor_config.json is not that of the model."
        )
    states = _states_of_nothing(encoder)
    if not -len(states) <= encoder.layer < len(states):
        raise UserError(
            f"`layer: {encoder.layer}` of {name} does not exist: it has {len(states)} hidden states, 0 to "
            f"{len(states) - 1}, or -1 for the last."
        )
    if states[encoder.layer].shape[1] < side * side:
        raise UserError(
            f"{name}, a {type(encoder.model).__name__}, gives {states[encoder.layer].shape[1]} rows for an image of "
            f"{side} x {side} patches: it has no row per patch."
        )
