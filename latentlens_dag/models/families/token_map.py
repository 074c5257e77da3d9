"""Where the visual tokens of one image lie."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class TokenMap(NamedTuple):
    """Where the visual tokens of one image lie, in their order in the sequence."""

    view: list[str]  # global, tile, newline, unmapped
    tile: NDArray[np.int32]  # [T]: 0 for the global view, tiles from 1; this, row and col are -1 where unmapped
    row: NDArray[np.int32]  # [T]: in the grid of the whole view, across its tiles
    col: NDArray[np.int32]  # [T]
    boxes: NDArray[np.float32]  # [T, 4]: x0, y0, x1, y1 in pixels of the original image; may exceed it


def unmapped(tokens: int) -> TokenMap:
    """The visual tokens of an image of which nothing but their number is known."""
    import numpy as np

    nowhere = np.full(tokens, -1, np.int32)
    return TokenMap(["unmapped"] * tokens, nowhere, nowhere, nowhere, np.full((tokens, 4), np.nan, np.float32))
