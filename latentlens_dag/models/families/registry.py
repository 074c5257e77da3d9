"""Where the visual tokens of each family of VLMs lie in the image: one small module per family.

A region map is a function from a model's processor and config and an image's size to the boxes of the
image's visual tokens, in their order in the sequence. What a newcomer gets wrong: a grid of sqrt(n)
cells is a guess. Crops, tiles, newline tokens and padding make it wrong, so the tokens of a family without
a module here are read, but have no place: they are `unmapped`.

A new family is one module with `region_map`, one line in `_MODULES`, and one builder in `testing/families.py` (or
`tiled_families.py`), with which tests/models/families/test_families.py proves the map.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from latentlens_dag.errors import UserError
from latentlens_dag.models.families.token_map import TokenMap

# NaN for tokens without pixels: newline and unmapped.


RegionMap = Callable[[Any, Any, int, int], TokenMap]
"""(processor, config, width, height) -> where the tokens of an image of that size lie.

It computes from the processor's settings what the processor does to an image of that size, so that a map needs no
pixels; how many tokens the model then has is compared with it at every pass.
"""

_MODULES = {
    "aya_vision": "latentlens_dag.models.families.internvl",
    "deepseek_vl": "latentlens_dag.models.families.deepseek_vl",
    "gemma3": "latentlens_dag.models.families.gemma3",
    "glm46v": "latentlens_dag.models.families.qwen_vl",
    "glm4v": "latentlens_dag.models.families.qwen_vl",
    "idefics3": "latentlens_dag.models.families.idefics3",
    "internvl": "latentlens_dag.models.families.internvl",
    "llava": "latentlens_dag.models.families.llava",
    "llava_next": "latentlens_dag.models.families.llava_next",
    "llava_onevision": "latentlens_dag.models.families.llava_next",
    "mistral3": "latentlens_dag.models.families.pixtral",
    "molmo2": "latentlens_dag.models.families.molmo2",
    "ovis2": "latentlens_dag.models.families.ovis2",
    "paligemma": "latentlens_dag.models.families.paligemma",
    "qwen2_5_vl": "latentlens_dag.models.families.qwen_vl",
    "qwen2_vl": "latentlens_dag.models.families.qwen_vl",
    "qwen3_5": "latentlens_dag.models.families.qwen_vl",
    "qwen3_vl": "latentlens_dag.models.families.qwen_vl",
    "qwen3_vl_moe": "latentlens_dag.models.families.qwen_vl",
    "smolvlm": "latentlens_dag.models.families.smolvlm",
}
_CROSS = "its images enter by cross-attention, so there are no visual tokens in its sequence to read"
_MIXED = "its connector mixes the whole image into every visual token, so none has a place in it"
_REFUSED = {"mllama": _CROSS, "idefics": _CROSS} | dict.fromkeys(("blip-2", "instructblip", "idefics2"), _MIXED)
_PROCESSORS = {
    "PixtralProcessor": "latentlens_dag.models.families.pixtral",
    "SmolVLMProcessor": "latentlens_dag.models.families.smolvlm",
}
NEED_TORCHVISION = frozenset({"molmo2"})  # whose image processor in transformers has no form for Pillow
WITHOUT_TEMPLATE = frozenset({"paligemma"})
"""Families that are made without a chat template: they are given the image token, then the prompt."""


def is_mapped(model_type: str, name: str) -> bool:
    """Whether it is known where the visual tokens of a family lie, by the `model_type` of its config.

    Args:
        model_type: of a VLM.
        name: of the model, for the message.

    Raises:
        UserError: where no visual token of the family can have a place.
    """
    if model_type in _REFUSED:
        raise UserError(
            f"{name} is of the family `{model_type}` and cannot be read: {_REFUSED[model_type]}. Families that can: "
            f"{', '.join(sorted(_MODULES))}."
        )
    return model_type in _MODULES


def region_map(model_type: str, name: str) -> RegionMap | None:
    """The region map of a family; None where none is known. Arguments, and errors, of `is_mapped`, `check_packages`."""
    if not is_mapped(model_type, name):
        return None
    check_packages(model_type, name)
    found: RegionMap = import_module(_MODULES[model_type]).region_map
    return found


def check_packages(model_type: str, name: str) -> None:
    """Refuse a family that cannot be shown an image with the packages that are installed; arguments as `is_mapped`.

    Raises:
        UserError: where torchvision is needed and cannot be imported.
    """
    if model_type not in NEED_TORCHVISION:
        return
    try:
        import_module("torchvision")
    except (ImportError, OSError, RuntimeError) as error:  # RuntimeError: it is there, but made for another torch
        raise UserError(
            f"{name} is of the family `{model_type}`, whose image processor needs torchvision: pip install torchvision"
            f", of the version that belongs to your torch. It cannot be imported here ({str(error).strip()})."
        ) from error


def apply_checkpoint_settings(model_type: str, processor: Any) -> None:
    """Let a processor do what its model's files say, where transformers has a default that wins over them."""
    if model_type == "gemma3":
        import_module(_MODULES[model_type]).apply_checkpoint_settings(processor)


def replacement_processor(name: str | None) -> Any:
    """Our class in place of a processor of transformers that asks for packages which images do not need; or None."""
    return import_module(_PROCESSORS[name]).processor_class() if name in _PROCESSORS else None
