"""Where the visual tokens of each family of VLMs lie in the image: one small module per family.

A region map is a function from a model's processor and config and an image's size to the boxes of the
image's visual tokens, in their order in the sequence. What a newcomer gets wrong: a grid of sqrt(n)
cells is a guess. Crops, tiles, newline tokens and padding make it wrong, so a family without a module
here is refused, not guessed.

A new family is one module with `region_map`, one line in `_MODULES`, and one builder in `tiny_vlms.py`, with which
tests/test_families.py proves the map.
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
    tile: NDArray[np.int32]  # [T]: 0 for the global view, tiles from 1
    row: NDArray[np.int32]  # [T]: in the grid of the whole view, across its tiles
    col: NDArray[np.int32]  # [T]
    boxes: NDArray[np.float32]  # [T, 4]: x0, y0, x1, y1 in pixels of the original image; may exceed it
    # NaN for tokens without pixels: newline and unmapped.


RegionMap = Callable[[Any, Any, int, int], TokenMap]
"""(processor, config, width, height) -> where the tokens of an image of that size lie.

It computes from the processor's settings what the processor does to an image of that size, so that a map needs no
pixels; how many tokens the model then has is compared with it at every pass.
"""

_MODULES = {
    "aya_vision": "latentlens_dag.families.internvl",
    "deepseek_vl": "latentlens_dag.families.deepseek_vl",
    "gemma3": "latentlens_dag.families.squashed",
    "glm46v": "latentlens_dag.families.qwen_vl",
    "glm4v": "latentlens_dag.families.qwen_vl",
    "idefics3": "latentlens_dag.families.idefics3",
    "internvl": "latentlens_dag.families.internvl",
    "llava": "latentlens_dag.families.llava",
    "llava_next": "latentlens_dag.families.llava_next",
    "llava_onevision": "latentlens_dag.families.llava_next",
    "mistral3": "latentlens_dag.families.pixtral",
    "ovis2": "latentlens_dag.families.ovis2",
    "paligemma": "latentlens_dag.families.squashed",
    "qwen2_5_vl": "latentlens_dag.families.qwen_vl",
    "qwen2_vl": "latentlens_dag.families.qwen_vl",
    "qwen3_5": "latentlens_dag.families.qwen_vl",
    "qwen3_vl": "latentlens_dag.families.qwen_vl",
    "qwen3_vl_moe": "latentlens_dag.families.qwen_vl",
    "smolvlm": "latentlens_dag.families.smolvlm",
}
_CROSS = "its images enter by cross-attention, so there are no visual tokens in its sequence to read"
_MIXED = "its connector mixes the whole image into every visual token, so none has a place in it"
_REFUSED = {"mllama": _CROSS, "idefics": _CROSS} | dict.fromkeys(("blip-2", "instructblip", "idefics2"), _MIXED)
_PROCESSORS = {
    "PixtralProcessor": "latentlens_dag.families.pixtral",
    "SmolVLMProcessor": "latentlens_dag.families.smolvlm",
}
WITHOUT_TEMPLATE = frozenset({"paligemma"})
"""Families that are made without a chat template: they are given the image token, then the prompt."""


def region_map(model_type: str, name: str) -> RegionMap:
    """The region map of a family, by the `model_type` of its config.

    Raises:
        UserError: where no map is known for the family, or there can be none.
    """
    if model_type in _REFUSED:
        raise UserError(
            f"{name} is of the family `{model_type}` and cannot be read: {_REFUSED[model_type]}. Families that can: "
            f"{', '.join(sorted(_MODULES))}."
        )
    if model_type not in _MODULES:
        raise UserError(
            f"{name} is of the family `{model_type}`, whose visual tokens cannot be mapped to the image yet. Families "
            f"that can: {', '.join(sorted(_MODULES))}."
        )
    found: RegionMap = import_module(_MODULES[model_type]).region_map
    return found


def own_processor_class(name: str | None) -> Any:
    """Our class in place of a processor of transformers that asks for packages which images do not need; or None."""
    return import_module(_PROCESSORS[name]).processor_class() if name in _PROCESSORS else None
