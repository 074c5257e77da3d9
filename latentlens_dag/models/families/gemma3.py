"""Gemma 3: the whole image is squashed to a square; with pan and scan, crops of a long image follow, squashed too.

Note: several patches are averaged into one token, so the grid is coarser than that of the vision tower. In
transformers, the processor's default for pan and scan, off, wins over the model's files; here the files win.
"""

from __future__ import annotations

from typing import Any

from latentlens_dag.models.families.paligemma import squashed_map
from latentlens_dag.models.families.token_map import TokenMap, concat_maps

_CROPS = (
    "do_pan_and_scan",
    "pan_and_scan_min_crop_size",
    "pan_and_scan_max_num_crops",
    "pan_and_scan_min_ratio_to_activate",
)


def apply_checkpoint_settings(processor: Any) -> None:
    """Apply the settings for crops in the model's files to its processor."""
    settings = {name: getattr(processor.image_processor, name, None) for name in _CROPS}
    overrides = {name: value for name, value in settings.items() if value is not None}
    processor.images_kwargs = processor.images_kwargs | overrides


def region_map(processor: Any, config: Any, width: int, height: int) -> TokenMap:
    """The boxes of the g x g visual tokens of the whole image, then of those of its crops, row by row in each."""
    maps = [squashed_map(config, (0, 0, width, height))]
    count, is_wide = _crop_count(processor, width, height), width >= height
    side = -(-max(width, height) // max(count, 1))
    for number in range(count):
        start, end = number * side, min((number + 1) * side, max(width, height))  # the last may be shorter
        box, place = ((start, 0, end, height), (0, number)) if is_wide else ((0, start, width, end), (number, 0))
        maps.append(squashed_map(config, box, number + 1, place))
    return concat_maps(maps)


def _crop_count(processor: Any, width: int, height: int) -> int:
    """The number of crops along the longer side of an image."""
    active, min_side, max_count, min_ratio = (processor.images_kwargs[name] for name in _CROPS)
    long, short = max(width, height), min(width, height)
    if not active or long / short < min_ratio:
        return 0
    count: int = min(max_count, max(2, min(long // min_side, int(long / short + 0.5))))
    return count if min(short, -(-long // count)) >= min_side else 0
