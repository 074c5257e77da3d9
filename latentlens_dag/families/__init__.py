"""Where the visual tokens of each family of VLMs lie in the image: one small module per family.

A region map is a function from a model's processor and config and an image's size to the boxes of the
image's visual tokens, in their order in the sequence. What a newcomer gets wrong: a grid of sqrt(n)
cells is a guess. Crops, tiles, newline tokens and padding make it wrong, so a family without a module
here is refused, not guessed.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

from latentlens_dag.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class TokenMap(NamedTuple):
    """Where the visual tokens of one image lie, in their order in the sequence."""

    view: list[str]  # global, tile, newline, unmapped
    tile: NDArray[np.int32]  # [T]
    row: NDArray[np.int32]  # [T]
    col: NDArray[np.int32]  # [T]
    boxes: NDArray[np.float32]  # [T, 4]: x0, y0, x1, y1 in pixels of the original image; may exceed it


RegionMap = Callable[[Any, Any, int, int], TokenMap]
"""(processor, config, width, height) -> where the tokens of an image of that size lie."""

_MODULES = {"llava": "latentlens_dag.families.llava"}


def region_map(model_type: str, name: str) -> RegionMap:
    """The region map of a family, by the `model_type` of its config.

    Raises:
        UserError: where no map is known for the family.
    """
    if model_type not in _MODULES:
        raise UserError(
            f"{name} is of the family `{model_type}`, whose visual tokens cannot be mapped to the image yet. Families "
            f"that can: {', '.join(sorted(_MODULES))}."
        )
    found: RegionMap = import_module(_MODULES[model_type]).region_map
    return found
