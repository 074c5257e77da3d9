"""The location of the visual tokens of one image, and the grids of equal cells that most families have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

PADDING = "padding"
WITHOUT_BOX = frozenset({"newline", "separator", "unmapped"})
"""Views of tokens without a place: what ends a row, what stands around a view, and those of no known place."""
WITHOUT_PIXELS = WITHOUT_BOX | {PADDING}
"""Views of tokens that show nothing of the image."""
ROUNDING = 1e-3
"""Of float32 boxes, in pixels."""


class TokenMap(NamedTuple):
    """The location of the T visual tokens of one image, in their order in the sequence."""

    view: list[str]  # global, tile, or one of WITHOUT_PIXELS
    tile: NDArray[np.int32]  # [T]: 0 for the global view, tiles from 1; tile, row and col are -1 if unmapped
    row: NDArray[np.int32]  # [T]: in the grid of the whole view, across its tiles
    col: NDArray[np.int32]  # [T]
    boxes: NDArray[np.float32]  # [T, 4]: x0, y0, x1, y1 in pixels of the image; may exceed it; NaN without pixels


def mark_padding(token_map: TokenMap, width: int, height: int) -> TokenMap:
    """Give the tokens whose whole box is outside of an image of `width` x `height` pixels the view `padding`.

    They keep tile, row, column and box. Processors that fill up a square or whole tiles write them. This is the only
    place that marks them, for all families.
    """
    outside = outside_image(token_map.boxes, width, height)
    return token_map._replace(
        view=[PADDING if is_outside else view for view, is_outside in zip(token_map.view, outside, strict=True)]
    )


def outside_image(boxes: NDArray[np.float32], width: int, height: int) -> NDArray[np.bool_]:
    """[T]: whether the whole of each of `boxes` [T, 4] is outside of an image; False for those with a NaN."""
    x0, y0, x1, y1 = boxes.T
    inside = (x1 > ROUNDING) & (y1 > ROUNDING) & (x0 < width - ROUNDING) & (y0 < height - ROUNDING)
    return np.isfinite(boxes).all(axis=1) & ~inside


def grid_view(view: str, tile: int | None) -> str:
    """The view in whose grid a token lies: of padding that of its tile, which is 0 (or None) for the global view."""
    return view if view != PADDING else "tile" if tile else "global"


def unmapped(tokens: int) -> TokenMap:
    """A map of which only the number of tokens is known."""
    return without_box("unmapped", tokens)


def without_box(view: str, tokens: int) -> TokenMap:
    """Tokens of one view (WITHOUT_BOX) that have no tile, row or column either."""
    nowhere = np.full(tokens, -1, np.int32)
    return TokenMap([view] * tokens, nowhere, nowhere, nowhere, np.full((tokens, 4), np.nan, np.float32))


def grid_map(rows: int, columns: int, box: tuple[float, float, float, float], view: str = "global") -> TokenMap:
    """The `rows` x `columns` cells of a box (x0, y0, x1, y1 in pixels of the original image), row by row."""
    x0, y0, x1, y1 = box
    row, col = (index.ravel().astype(np.int32) for index in np.mgrid[:rows, :columns])
    x, y = (x1 - x0) / columns, (y1 - y0) / rows
    boxes = np.stack([x0 + col * x, y0 + row * y, x0 + (col + 1) * x, y0 + (row + 1) * y], axis=1)
    return TokenMap([view] * rows * columns, np.zeros(rows * columns, np.int32), row, col, boxes.astype(np.float32))


def concat_maps(maps: Sequence[TokenMap]) -> TokenMap:
    """Concatenate the maps of parts of an image."""
    view = [name for part in maps for name in part.view]
    tile, row, col, boxes = (np.concatenate(parts) for parts in list(zip(*maps, strict=True))[1:])
    return TokenMap(view, tile, row, col, boxes)


def tiled_map(
    shape: tuple[int, int], cells: int, covered: float, size: tuple[float, float], whole_first: bool = False
) -> TokenMap:
    """The tokens of an image that is squashed to whole tiles, and of its squashed global view.

    Args:
        shape: rows and columns of tiles; (1, 1) has the global view only.
        cells: each tile, and the global view, has `cells` x `cells` tokens, row by row; tile follows tile.
        covered: the share of a tile's side that the cells cover; less than 1 if its last pixels are in no cell.
        size: width and height of the image.
        whole_first: whether the global view comes before the tiles, not after them.
    """
    (rows, columns), (width, height) = shape, size
    whole = grid_map(cells, cells, (0, 0, width * covered, height * covered))
    if rows * columns == 1:
        return whole
    x, y = width / columns, height / rows
    tiles = []
    for number in range(rows * columns):
        row, column = divmod(number, columns)
        box = (column * x, row * y, (column + covered) * x, (row + covered) * y)
        tile = grid_map(cells, cells, box, "tile")
        tiles.append(
            tile._replace(tile=tile.tile + (number + 1), row=tile.row + row * cells, col=tile.col + column * cells)
        )
    return concat_maps([whole, *tiles] if whole_first else [*tiles, whole])
