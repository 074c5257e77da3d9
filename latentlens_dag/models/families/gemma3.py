"""Gemma 3: the whole image squashed to a square, then, with pan and scan, crops of a long image, each squashed too.

What a newcomer gets wrong: several patches are averaged into one token, so its g is not the vision tower's. And
transformers' processor has a default of its own for pan and scan, off, that wins over what the model's files say of it;
here the files win.
"""

from __future__ import annotations

from typing import Any

from latentlens_dag.models.families.grid import concat_maps
from latentlens_dag.models.families.paligemma import squashed_map
from latentlens_dag.models.families.token_map import TokenMap

_CROPS = (
    "do_pan_and_scan",
    "pan_and_scan_min_crop_size",
    "pan_and_scan_max_num_crops",
    "pan_and_scan_min_ratio_to_activate",
)


def apply_checkpoint_settings(processor: Any) -> None:
    """Let a processor cut the crops that its model's files ask for."""
    told = {name: getattr(processor.image_processor, name, None) for name in _CROPS}
    processor.images_kwargs = processor.images_kwargs | {
        name: value for name, value in told.items() if value is not None
    }


def region_map(processor: Any, config: Any, width: int, height: int) -> TokenMap:
    """The boxes of the g x g visual tokens of the whole image, then of those of its crops, row by row in each."""
    maps = [squashed_map(config, (0, 0, width, height))]
    count, lies = _crops(processor, width, height), width >= height
    side = -(-max(width, height) // max(count, 1))
    for number in range(count):
        start, end = number * side, min((number + 1) * side, max(width, height))  # the last may be shorter
        box, place = ((start, 0, end, height), (0, number)) if lies else ((0, start, width, end), (number, 0))
        maps.append(squashed_map(config, box, number + 1, place))
    return concat_maps(maps)


def _crops(processor: Any, width: int, height: int) -> int:
    """How many crops an image is cut into, along its longer side."""
    active, least_side, most, least_ratio = (processor.images_kwargs[name] for name in _CROPS)
    long, short = max(width, height), min(width, height)
    if not active or long / short < least_ratio:
        return 0
    count: int = min(most, max(2, min(long // least_side, int(long / short + 0.5))))
    return count if min(short, -(-long // count)) >= least_side else 0
