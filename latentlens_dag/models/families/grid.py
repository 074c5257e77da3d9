"""The boxes of a grid of equal cells, which most families' maps are made of."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from latentlens_dag.models.families.token_map import TokenMap


def grid_map(rows: int, columns: int, box: tuple[float, float, float, float], view: str = "global") -> TokenMap:
    """The cells of `rows` x `columns` in a box (x0, y0, x1, y1 in pixels of the original image), row by row."""
    x0, y0, x1, y1 = box
    row, col = (index.ravel().astype(np.int32) for index in np.mgrid[:rows, :columns])
    x, y = (x1 - x0) / columns, (y1 - y0) / rows
    boxes = np.stack([x0 + col * x, y0 + row * y, x0 + (col + 1) * x, y0 + (row + 1) * y], axis=1)
    return TokenMap([view] * rows * columns, np.zeros(rows * columns, np.int32), row, col, boxes.astype(np.float32))


def concat_maps(maps: Sequence[TokenMap]) -> TokenMap:
    """The maps of parts of an image, one after the other."""
    view = [name for one in maps for name in one.view]
    tile, row, col, boxes = (np.concatenate(parts) for parts in list(zip(*maps, strict=True))[1:])
    return TokenMap(view, tile, row, col, boxes)


def tiled_map(
    shape: tuple[int, int], cells: int, seen: float, size: tuple[int, int], whole_first: bool = False
) -> TokenMap:
    """The tokens of an image that is squashed to whole tiles, and of the squashed whole.

    Args:
        shape: rows and columns of tiles; for (1, 1) there is the whole only.
        cells: a tile, and the whole, has `cells` x `cells` tokens, row by row; tiles come one after the other.
        seen: what share of a tile's side the cells cover: 1, or less where its last pixels are in none.
        size: width and height of the image.
        whole_first: whether the whole comes before the tiles, not after them.
    """
    (rows, columns), (width, height) = shape, size
    everything = grid_map(cells, cells, (0, 0, width * seen, height * seen))
    if rows * columns == 1:
        return everything
    x, y = width / columns, height / rows
    tiles = []
    for number in range(rows * columns):
        row, column = divmod(number, columns)
        one = grid_map(cells, cells, (column * x, row * y, (column + seen) * x, (row + seen) * y), "tile")
        tiles.append(
            one._replace(tile=one.tile + (number + 1), row=one.row + row * cells, col=one.col + column * cells)
        )
    return concat_maps([everything, *tiles] if whole_first else [*tiles, everything])
