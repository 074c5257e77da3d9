"""The location of the visual tokens of one image."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class TokenMap(NamedTuple):
    """The location of the T visual tokens of one image, in their order in the sequence."""

    view: list[str]  # global, tile, newline, unmapped
    tile: NDArray[np.int32]  # [T]: 0 for the global view, tiles from 1; tile, row and col are -1 if unmapped
    row: NDArray[np.int32]  # [T]: in the grid of the whole view, across its tiles
    col: NDArray[np.int32]  # [T]
    boxes: NDArray[np.float32]  # [T, 4]: x0, y0, x1, y1 in pixels of the image; may exceed it; NaN without pixels


def unmapped(tokens: int) -> TokenMap:
    """A map of which only the number of tokens is known."""
    import numpy as np

    nowhere = np.full(tokens, -1, np.int32)
    return TokenMap(["unmapped"] * tokens, nowhere, nowhere, nowhere, np.full((tokens, 4), np.nan, np.float32))
