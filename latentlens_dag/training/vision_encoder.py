"""A frozen vision encoder, and the features that it gives for the visual tokens of images.

Any encoder of transformers fits that takes square images and gives a row per patch, or a map: CLIP, SigLIP, DINOv2,
ViT, Swin, ResNet, ConvNeXt and others, by itself or inside of a model of images and texts. Rows before those of the
patches (class token, registers) are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

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
    image_size: int
    """Side of its input in pixels, as the image processor makes it."""
    patch_size: int
    """Side of a patch, or of a place of the map, in pixels of the input."""
    side: int
    """Rows and columns of patches, or of the map."""
    hidden: int
    """Width of the features."""
    rows_before: int | None
    """Rows of the hidden state before those of the patches: the class token, and registers; None of a map."""

    @property
    def config(self) -> Any:
        """That of the model."""
        return self.model.config

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the visual tokens."""
        return self.side // self.pool, self.side // self.pool

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
        return _pixels(self.processor, images)

    def _features(self, images: Sequence[Image]) -> Tensor:
        from latentlens_dag.models.vision_grid import patch_rows, pooled

        weight = next(self.model.parameters())
        states = _hidden_states(self.model, self.pixels(images).to(weight.device, weight.dtype))[self.layer]
        return pooled(patch_rows(states, self.side * self.side), self.pool).bfloat16().cpu()


class Tower(NamedTuple):
    """A vision tower as the class Llava takes it."""

    model: Any
    layer: int
    rows_before: int
    """0 or 1: the rows before those of the patches, which Llava leaves out."""
    patch_size: int
    """Side of a visual token in pixels of the input."""


def vision_tower(encoder: VisionEncoder) -> Tower:
    """The encoder itself where Llava can take its rows as they are, else one that gives a row per visual token."""
    patch = encoder.patch_size * encoder.pool
    own = [getattr(encoder.config, field, None) for field in ("image_size", "patch_size")]
    if encoder.rows_before in (0, 1) and own == [encoder.image_size, patch]:
        return Tower(encoder.model, encoder.layer, encoder.rows_before, patch)
    import torch

    from latentlens_dag.models.vision_grid import VisionGrid, VisionGridConfig

    config = VisionGridConfig(
        encoder.config,
        encoder.layer,
        encoder.pool,
        encoder.image_size,
        patch,
        encoder.hidden,
        dtype=encoder.model.dtype,
    )
    with torch.device("meta"):
        tower = VisionGrid(config)
    tower.encoder = encoder.model
    return Tower(tower, -1, 0, patch)


def _pixels(processor: Any, images: Sequence[Image]) -> Tensor:
    given = processor(images=[image.convert("RGB") for image in images], return_tensors="pt")
    pixels: Tensor = given["pixel_values"]
    return pixels


def _hidden_states(model: Any, pixels: Tensor) -> tuple[Tensor, ...]:
    states: tuple[Tensor, ...] = model(pixel_values=pixels, output_hidden_states=True).hidden_states
    return states


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
    model = model.to(device or default_device()).eval().requires_grad_(False)
    return _checked(name, model, processor, layer, pool)


def _image_processor(folder: Path) -> Any:
    """Made with Pillow, which needs no torchvision."""
    from transformers import AutoImageProcessor

    return AutoImageProcessor.from_pretrained(folder, backend="pil")


def _checked(name: str, model: Any, processor: Any, layer: int, pool: int) -> VisionEncoder:
    """An encoder whose sizes are those of what it gives; a layer, pooling or processor that does not fit is refused."""
    size = _input_side(name, model, processor)
    states = _states_of_nothing(name, model, size)
    if not -len(states) <= layer < len(states):
        raise UserError(
            f"`layer: {layer}` of {name} does not exist: it has {len(states)} hidden states, 0 to {len(states) - 1}, "
            "or -1 for the last."
        )
    state = states[layer]
    patch = getattr(model.config, "patch_size", None)
    side, before = _grid_of(state, size, patch)
    is_of_patches = isinstance(patch, int) and side == size // patch  # of whole ones; pixels after them are left out
    if side is None or (size % side and not is_of_patches):
        raise UserError(
            f"{name}, a {type(model).__name__}, gives a hidden state {tuple(state.shape[1:])} for an image of {size} x "
            f"{size} pixels at layer {layer}: no row per patch of a square grid that divides the image."
        )
    if pool < 1 or side % pool:
        raise UserError(
            f"`pool: {pool}` does not fit {name}, which has {side} x {side} patches: it must divide {side}."
        )
    hidden = state.shape[1] if before is None else state.shape[2]
    patch_size = int(patch) if is_of_patches else size // side  # type: ignore[arg-type]
    return VisionEncoder(name, model, processor, layer, pool, size, patch_size, side, hidden, before)


def _states_of_nothing(name: str, model: Any, size: int) -> tuple[Tensor, ...]:
    """The hidden states of an image of `size` x `size` pixels that are 0."""
    import torch

    weight = next(model.parameters())
    pixels = torch.zeros(1, 3, size, size, device=weight.device, dtype=weight.dtype)
    try:
        with torch.inference_mode():
            return _hidden_states(model, pixels)
    except (ValueError, RuntimeError) as error:
        # DINOv2 and others take images of another side than that of their config.json.
        if getattr(model.config, "image_size", size) == size:
            raise
        raise _no_such_side(name, model.config.image_size, size, size) from error


def _input_side(name: str, model: Any, processor: Any) -> int:
    """The side of the images that the processor makes."""
    from PIL import Image

    pixels = _pixels(processor, [Image.new("RGB", (300, 200))])
    height, width = pixels.shape[-2:]
    if height != width or pixels.ndim != 4:
        raise _no_such_side(name, getattr(model.config, "image_size", None), width, height)
    return int(width)


def _no_such_side(name: str, own: Any, width: int, height: int) -> UserError:
    takes = f"images of {own} x {own} pixels" if isinstance(own, int) else "square images"
    return UserError(
        f"{name} takes {takes}, but its image processor makes them {width} x {height}: its preprocessor_config.json is "
        "not that of the model, or keeps other shapes."
    )


def _grid_of(state: Tensor, size: int, patch: Any) -> tuple[int | None, int | None]:
    """The side of the grid of a hidden state, and the rows before its patches; None for no grid, and of a map."""
    if state.ndim == 4:
        return (state.shape[2] if state.shape[2] == state.shape[3] else None), None
    if state.ndim != 3:
        return None, 0
    rows = state.shape[1]
    if isinstance(patch, int) and rows >= (size // patch) ** 2:
        return size // patch, rows - (size // patch) ** 2
    side = round(rows**0.5)  # of an encoder that merges patches
    return (side if side * side == rows else None), 0
