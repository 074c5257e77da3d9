"""PaliGemma and Gemma 3: the whole image is squashed to a square, which is cut into g x g visual tokens.

What a newcomer gets wrong: Gemma 3 averages several patches into one token, so its g is not the vision tower's; and
its pan and scan (off by default) adds crops.
"""

from __future__ import annotations

from typing import Any

from latentlens_dag.errors import UserError
from latentlens_dag.families import TokenMap
from latentlens_dag.families.grid import grid_map


def region_map(processor: Any, config: Any, width: int, height: int) -> TokenMap:
    """The boxes of the g x g visual tokens of an image of `width` x `height` pixels, row by row."""
    if getattr(processor.image_processor, "do_pan_and_scan", None):
        raise UserError(
            "The image processor cuts crops out of long images (`do_pan_and_scan`), whose tokens cannot be mapped to "
            "the image yet: set it to false in the model's preprocessor_config.json."
        )
    vision = config.vision_config
    patches = vision.image_size // vision.patch_size
    grid = round(getattr(config, "mm_tokens_per_image", patches**2) ** 0.5)
    # What is left of the square beyond whole cells is seen by no token.
    seen = grid * (patches // grid) * vision.patch_size / vision.image_size
    return grid_map(grid, grid, (0, 0, width * seen, height * seen))
