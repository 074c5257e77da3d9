"""The boxes of a grid of equal cells, which most families' maps are made of."""

from __future__ import annotations

import numpy as np

from latentlens_dag.families import TokenMap


def grid_map(rows: int, columns: int, box: tuple[float, float, float, float], view: str = "global") -> TokenMap:
    """The cells of `rows` x `columns` in a box (x0, y0, x1, y1 in pixels of the original image), row by row."""
    x0, y0, x1, y1 = box
    row, col = (index.ravel().astype(np.int32) for index in np.mgrid[:rows, :columns])
    x, y = (x1 - x0) / columns, (y1 - y0) / rows
    boxes = np.stack([x0 + col * x, y0 + row * y, x0 + (col + 1) * x, y0 + (row + 1) * y], axis=1)
    return TokenMap([view] * rows * columns, np.zeros(rows * columns, np.int32), row, col, boxes.astype(np.float32))
