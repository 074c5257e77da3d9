"""Command A Vision: the image is squashed to the tiles that enlarge it least; the thumbnail comes last.

Note: an image of one tile has no thumbnail, and the line break after each tile is no visual token. The image processor
of transformers needs torchvision, so this module has a replacement.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from latentlens_dag.models.families.pillow import with_pillow
from latentlens_dag.models.families.token_map import TokenMap, tiled_map


def region_map(processor: Any, config: Any, width: int, height: int) -> TokenMap:
    """The boxes of an image's visual tokens: tile after tile, then the thumbnail."""
    images, vision = processor.image_processor, config.vision_config
    side, cell = vision.image_size, vision.patch_size * config.downsample_factor
    columns, rows = _tiles(width, height, side, images.max_patches) if images.crop_to_patches else (1, 1)
    return tiled_map((rows, columns), side // cell, side // cell * cell / side, (width, height))


def _tiles(width: int, height: int, side: int, most: int) -> tuple[int, int]:
    """Columns and rows of tiles: those that enlarge the image least or else, if none does, shrink it least.

    Args:
        width: of the image, in pixels.
        height: of the image, in pixels.
        side: of a tile, in pixels.
        most: the largest number of tiles.
    """
    shapes = [(columns, rows) for columns in range(1, most + 1) for rows in range(1, most // columns + 1)]
    scales = np.array([min(columns * side / width, rows * side / height) for columns, rows in shapes])
    if (scales < 1).all():
        return shapes[int(scales.argmax())]
    return shapes[int(np.where(scales < 1, np.inf, scales).argmin())]


def processor_class() -> Any:
    """The Cohere2VisionProcessor of transformers, without torchvision."""
    from transformers.image_utils import SizeDict
    from transformers.models.cohere2_vision.processing_cohere2_vision import Cohere2VisionProcessor
    from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil

    class Cohere2VisionImageProcessorPil(GotOcr2ImageProcessorPil):  # type: ignore[misc]
        size = {"height": 512, "width": 512}  # noqa: RUF012
        crop_to_patches = True
        patch_size = 16

        def crop_image_to_patches(  # type: ignore[no-untyped-def]
            self, image, min_patches, max_patches, use_thumbnail=True, patch_size=None, resample=None
        ) -> list[Any]:
            side = patch_size.height
            columns, rows = _tiles(image.shape[2], image.shape[1], side, max_patches)
            whole = self.resize(image, SizeDict(height=rows * side, width=columns * side), resample)
            tiles = [
                whole[:, row * side : (row + 1) * side, column * side : (column + 1) * side]
                for row in range(rows)
                for column in range(columns)
            ]
            return [*tiles, self.resize(image, patch_size, resample)] if len(tiles) > 1 else tiles

    return with_pillow(Cohere2VisionProcessor, Cohere2VisionImageProcessorPil)
