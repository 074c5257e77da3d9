"""Perception LM: the squashed image first, then its tiles; even an image of one tile is shown twice.

The number of tiles is that of the canvas into which the image fits, or else of the shape closest to its own. Note: the
image processor of transformers needs torchvision and cannot show images of different numbers of tiles together, so this
module has a replacement, which is always used.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from latentlens_dag.models.families.pillow import scaled, with_pillow
from latentlens_dag.models.families.token_map import TokenMap, concat_maps, grid_map, tiled_map


def region_map(processor: Any, config: Any, width: int, height: int) -> TokenMap:
    """The boxes of an image's visual tokens: the global view, then tile after tile."""
    images = processor.image_processor
    side, cell = images.tile_size, processor.patch_size * processor.pooling_ratio
    cells = side // processor.patch_size // processor.pooling_ratio
    covered = cells * cell / side
    if images.vision_input_type != "thumb+tile":
        return tiled_map((1, 1), cells, covered, (width, height))
    columns, rows = _canvas(width, height, side, images.max_num_tiles)
    views = tiled_map((rows, columns), cells, covered, (width, height), whole_first=True)
    if rows * columns > 1:
        return views
    tile = grid_map(cells, cells, (0, 0, width * covered, height * covered), "tile")
    return concat_maps([views, tile._replace(tile=tile.tile + 1)])


def _canvas(width: int, height: int, side: int, most: int) -> tuple[int, int]:
    """Columns and rows of tiles: the canvas in which the whole image is largest, or that of the closest shape.

    Args:
        width: of the image, in pixels.
        height: of the image, in pixels.
        side: of a tile, in pixels.
        most: the largest number of tiles.
    """
    shapes = _shapes(most)
    best, best_length = None, 0.0
    for columns, rows in (shape for group in shapes.values() for shape in group):
        if columns * side < width or rows * side < height:
            continue
        length = _shorter_side(width, height, min(columns * side / width, rows * side / height))
        if best is None or length >= best_length:
            best, best_length = (columns, rows), length
    return best or _closest(width / height, shapes)


def _shapes(most: int) -> dict[float, list[tuple[int, int]]]:
    """All (columns, rows) by aspect, in the order in which transformers tries them: of equal ones, the last wins."""
    found: dict[float, list[tuple[int, int]]] = {}
    for tiles in range(most, 0, -1):
        for columns in (number for number in range(1, tiles + 1) if tiles % number == 0):
            found.setdefault(columns / (tiles // columns), []).append((columns, tiles // columns))
    return found


def _shorter_side(width: int, height: int, scale: float) -> float:
    """The shorter side of an image that is scaled with its aspect kept."""
    aspect = width / height
    if aspect > 1:
        return math.floor(scale * width / aspect)
    return math.floor(scale * height * aspect) if aspect < 1 else scale * height


def _closest(aspect: float, shapes: dict[float, list[tuple[int, int]]]) -> tuple[int, int]:
    """The largest shape of the closest aspect that is not beyond that of the image."""
    if aspect >= 1:
        closest = min((shape for shape in shapes if shape <= aspect), key=lambda shape: abs(shape - aspect))
        return max(shapes[closest], key=lambda shape: shape[0])
    closest = min((shape for shape in shapes if shape > aspect), key=lambda shape: abs(1 / shape - 1 / aspect))
    return max(shapes[closest], key=lambda shape: shape[1])


def processor_class() -> Any:
    """The PerceptionLMProcessor of transformers for images and text, without torchvision."""
    from transformers import BatchFeature
    from transformers.image_processing_backends import PilBackend
    from transformers.image_utils import IMAGENET_STANDARD_MEAN, IMAGENET_STANDARD_STD, PILImageResampling, SizeDict
    from transformers.models.perception_lm.processing_perception_lm import PerceptionLMProcessor as Whole
    from transformers.processing_utils import ProcessorMixin

    class PerceptionLMImageProcessorPil(PilBackend):  # type: ignore[misc]
        do_resize = do_rescale = do_normalize = do_convert_rgb = True
        resample = PILImageResampling.BICUBIC
        image_mean, image_std = IMAGENET_STANDARD_MEAN, IMAGENET_STANDARD_STD
        vision_input_type, tile_size, max_num_tiles = "thumb+tile", 448, 36
        size = {"width": 448, "height": 448}  # noqa: RUF012

        def _preprocess(self, images: list[Any], return_tensors: Any = None, **kwargs: Any) -> Any:
            views = [self._views(image, kwargs["resample"]) for image in images]
            counts = [len(views_of_image) for views_of_image in views]
            pixels = [scaled(self, view, kwargs) for views_of_image in views for view in views_of_image]
            # As if of one image, because the model flattens images and tiles, and images differ in their tiles.
            data = {"pixel_values": np.stack(pixels)[np.newaxis], "num_tiles": counts}
            return BatchFeature(data, tensor_type=return_tensors)

        def _views(self, image: Any, resample: Any) -> list[Any]:
            side = self.tile_size
            whole = self.resize(image, SizeDict(height=side, width=side), resample)
            if self.vision_input_type != "thumb+tile":
                return [whole]
            columns, rows = _canvas(image.shape[2], image.shape[1], side, self.max_num_tiles)
            canvas = self.resize(image, SizeDict(height=rows * side, width=columns * side), resample)
            tiles = canvas.reshape(3, rows, side, columns, side).transpose(1, 3, 0, 2, 4).reshape(-1, 3, side, side)
            return [whole, *tiles]

    class PerceptionLMProcessor(Whole):  # type: ignore[misc]
        def __init__(  # type: ignore[no-untyped-def]
            self,
            image_processor,
            tokenizer,
            patch_size: int = 14,
            pooling_ratio: int = 2,
            chat_template: str | None = None,
            **kwargs,
        ) -> None:
            self.patch_size, self.pooling_ratio = patch_size, pooling_ratio
            self.image_token, self.video_token = tokenizer.image_token, tokenizer.video_token
            self.image_token_id, self.video_token_id = tokenizer.image_token_id, tokenizer.video_token_id
            ProcessorMixin.__init__(self, image_processor, tokenizer, chat_template=chat_template)

        def replace_image_token(self, image_inputs: Any, image_idx: int, **kwargs: Any) -> str:
            cells = self.image_processor.tile_size // self.patch_size // self.pooling_ratio
            return str(self.image_token * (cells**2 * int(image_inputs["num_tiles"][image_idx])))

        @property
        def unused_input_names(self) -> list[str]:
            return ["num_tiles"]

    return with_pillow(PerceptionLMProcessor, PerceptionLMImageProcessorPil)
