"""PaliGemma: the whole image is squashed to a square, which is cut into g x g visual tokens.

Note: the last pixels of the square may be in no patch, so the grid may be smaller than the image.
"""

from __future__ import annotations

from typing import Any

from latentlens_dag.models.families.token_map import TokenMap, grid_map


def region_map(processor: Any, config: Any, width: int, height: int) -> TokenMap:
    """The boxes of the g x g visual tokens of an image of `width` x `height` pixels, row by row."""
    return squashed_map(config, (0, 0, width, height))


def squashed_map(
    config: Any, box: tuple[float, float, float, float], tile: int = 0, place: tuple[int, int] = (0, 0)
) -> TokenMap:
    """The tokens of a part of an image that is squashed to the vision tower's square.

    Args:
        config: the model's config.
        box: the part: x0, y0, x1, y1 in pixels of the image.
        tile: the number of the tile; 0 for the global view.
        place: row and column of the tile among the tiles.
    """
    vision = config.vision_config
    patches = vision.image_size // vision.patch_size
    grid = round(getattr(config, "mm_tokens_per_image", patches**2) ** 0.5)
    # Pixels beyond the last whole cell are in no token.
    covered = grid * (patches // grid) * vision.patch_size / vision.image_size
    x0, y0, x1, y1 = box
    cells = grid_map(
        grid, grid, (x0, y0, x0 + (x1 - x0) * covered, y0 + (y1 - y0) * covered), "tile" if tile else "global"
    )
    return cells._replace(tile=cells.tile + tile, row=cells.row + place[0] * grid, col=cells.col + place[1] * grid)
