"""Which visual tokens a training step keeps.

On captions of whole images alone one token of the background is enough for the caption, and the rest carry nothing.
Where steps keep few tokens, and all are equal, each token has to say what it shows.
"""

from __future__ import annotations

import random
from typing import Literal

import numpy as np
import numpy.typing as npt

Rule = Literal["whole", "subset", "window", "few"]
CAPTIONED: Literal["captioned"] = "captioned"
"""The rule that keeps what the captions of parts of images are about."""


def kept_tokens(
    rule: Rule, grid: tuple[int, int], count: int, window: tuple[int, int], rng: random.Random
) -> npt.NDArray[np.bool_]:
    """The visual tokens of an image that are kept: bool [rows * columns] with exactly `count` true.

    Args:
        rule: `whole` keeps all, `window` a rectangle of tokens, `subset` and `few` random ones.
        grid: rows and columns of the image's visual tokens.
        count: how many are kept; of `whole` all, of `window` the product of its sides.
        window: rows and columns of the rectangle.
        rng: makes the choice.
    """
    rows, columns = grid
    kept = np.zeros(rows * columns, bool)
    if rule == "whole":
        kept[:] = True
    elif rule == "window":
        height, width = window
        top, left = rng.randint(0, rows - height), rng.randint(0, columns - width)
        kept.reshape(grid)[top : top + height, left : left + width] = True
    else:
        kept[rng.sample(range(rows * columns), count)] = True
    return kept
