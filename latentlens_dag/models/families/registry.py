"""The region maps of the families of VLMs, one small module per family.

A region map computes the boxes of an image's visual tokens, in their order in the sequence, from the model's processor
and config and the size of the image. Note: a grid of sqrt(n) cells would be a guess, which crops, tiles, newline tokens
and padding make wrong. So the tokens of a family without a module are read, but are `unmapped`.

A new family is one module with `region_map`, one line in `_MODULES`, and one builder in a module of `testing/` whose
builders are in `BUILDERS`, with which tests/models/families/test_families.py proves the map. A family whose
architecture rules out reading it has a line in `_REFUSED`.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from latentlens_dag.errors import UserError
from latentlens_dag.models.families.token_map import TokenMap

RegionMap = Callable[[Any, Any, int, int], TokenMap]
"""(processor, config, width, height) -> the map of an image of that size.

It reproduces the processing of an image from the processor's settings, without pixels; every pass compares the number
of tokens with it.
"""

_MODULES = {
    "aya_vision": "latentlens_dag.models.families.internvl",
    "cohere2_vision": "latentlens_dag.models.families.cohere2_vision",
    "cohere_compass": "latentlens_dag.models.families.qwen_vl",
    "cosmos3_edge": "latentlens_dag.models.families.qwen_vl",
    "cosmos3_omni": "latentlens_dag.models.families.qwen_vl",
    "deepseek_vl": "latentlens_dag.models.families.deepseek_vl",
    "deepseek_vl_hybrid": "latentlens_dag.models.families.deepseek_vl",
    "dots3_note": "latentlens_dag.models.families.qwen_vl",
    "ernie4_5_vl_moe": "latentlens_dag.models.families.qwen_vl",
    "exaone4_5": "latentlens_dag.models.families.qwen_vl",
    "gemma3": "latentlens_dag.models.families.gemma3",
    "gemma4": "latentlens_dag.models.families.gemma4",
    "glm46v": "latentlens_dag.models.families.qwen_vl",
    "glm4v": "latentlens_dag.models.families.qwen_vl",
    "glm4v_moe": "latentlens_dag.models.families.qwen_vl",
    "glm_ocr": "latentlens_dag.models.families.qwen_vl",
    "glmga": "latentlens_dag.models.families.qwen_vl",
    "granite_docling": "latentlens_dag.models.families.granite_docling",
    "hunyuan_vl": "latentlens_dag.models.families.hunyuan_vl",
    "hyperclovax_vision_v2": "latentlens_dag.models.families.qwen_vl",
    "idefics3": "latentlens_dag.models.families.idefics3",
    "internvl": "latentlens_dag.models.families.internvl",
    "janus": "latentlens_dag.models.families.deepseek_vl",
    "kimi_k25": "latentlens_dag.models.families.kimi_k25",
    "lfm2_vl": "latentlens_dag.models.families.lfm2_vl",
    "lfm3_vl": "latentlens_dag.models.families.qwen_vl",
    "lighton_ocr": "latentlens_dag.models.families.pixtral",
    "llama4": "latentlens_dag.models.families.llama4",
    "llava": "latentlens_dag.models.families.llava",
    "llava_next": "latentlens_dag.models.families.llava_next",
    "llava_next_video": "latentlens_dag.models.families.llava_next",
    "llava_onevision": "latentlens_dag.models.families.llava_next",
    "minicpmv4_6": "latentlens_dag.models.families.minicpmv",
    "minicpmv4_7": "latentlens_dag.models.families.minicpmv",
    "minimax_m3_vl": "latentlens_dag.models.families.minimax_m3",
    "mistral3": "latentlens_dag.models.families.pixtral",
    "mistral_large4": "latentlens_dag.models.families.pixtral",
    "molmo2": "latentlens_dag.models.families.molmo2",
    "muse_glimmer": "latentlens_dag.models.families.muse_glimmer",
    "muse_spark": "latentlens_dag.models.families.muse_spark",
    "nemotron_h_omni": "latentlens_dag.models.families.nemotron_omni",
    "ovis2": "latentlens_dag.models.families.ovis2",
    "paddleocr_vl": "latentlens_dag.models.families.qwen_vl",
    "paligemma": "latentlens_dag.models.families.paligemma",
    "perception_lm": "latentlens_dag.models.families.perception_lm",
    "qianfan_ocr": "latentlens_dag.models.families.internvl",
    "qwen2_5_omni_thinker": "latentlens_dag.models.families.qwen_vl",
    "qwen2_5_vl": "latentlens_dag.models.families.qwen_vl",
    "qwen2_vl": "latentlens_dag.models.families.qwen_vl",
    "qwen3_5": "latentlens_dag.models.families.qwen_vl",
    "qwen3_5_moe": "latentlens_dag.models.families.qwen_vl",
    "qwen3_omni_moe_thinker": "latentlens_dag.models.families.qwen_vl",
    "qwen3_vl": "latentlens_dag.models.families.qwen_vl",
    "qwen3_vl_moe": "latentlens_dag.models.families.qwen_vl",
    "smolvlm": "latentlens_dag.models.families.smolvlm",
    "video_llama_3": "latentlens_dag.models.families.qwen_vl",
    "video_llava": "latentlens_dag.models.families.llava",
    "vipllava": "latentlens_dag.models.families.llava",
}


class _Refusal(NamedTuple):
    """Why a family is refused, by its architecture."""

    reason: str
    """Why its visual tokens cannot be read."""
    text_reason: str | None = None
    """Why its language model cannot be read by itself either; None if it can."""


_MIXED = _Refusal("its connector mixes the whole image into every visual token, so none has a place in it")
_CROSS = "its images enter by cross-attention, so there are no visual tokens in its sequence to read"
_CODES = _Refusal(
    "it turns an image into codes of its own vocabulary, so its visual tokens have rows in the embedding, as words do, "
    "and are not features from a connector"
)
_TWO_STACKS = _Refusal(
    "its images are read by an encoder, but its words come from a decoder, whose own sequence has no visual tokens",
    "its decoder attends to an encoder in every block, so it cannot run by itself",
)
_NORMALIZED = "its blocks normalize what they return, as in BERT, so it has neither a residual stream nor a final norm"
_FOUR_STREAMS = "its blocks pass on several streams that each block mixes (AltUp), so there is no one residual stream"
_CONNECTED = _FOUR_STREAMS.replace("AltUp", "hyper-connections")
_ACTIONS = "it answers with the actions of a robot, not with words, so there is no unembedding"
_REFUSED = {
    "blip": _Refusal(_CROSS, _NORMALIZED),
    "blip-2": _MIXED,
    "chameleon": _CODES,
    "deepseek_v4": _Refusal(_CONNECTED, _CONNECTED),
    "emu3": _CODES,
    "evolla": _Refusal("it is shown proteins, not images"),
    "florence2": _TWO_STACKS,
    "fuyu": _Refusal(
        "it has no vision encoder and no connector: the pixels of a patch enter its language model through one linear "
        "layer, in a prompt that its processor writes"
    ),
    "gemma3n": _Refusal(_FOUR_STREAMS, _FOUR_STREAMS),
    "gemma3n_text": _Refusal(_FOUR_STREAMS, _FOUR_STREAMS),
    "git": _Refusal(_NORMALIZED, _NORMALIZED),
    "glm5_next": _Refusal(_CONNECTED, _CONNECTED),
    "glm5_next_text": _Refusal(_CONNECTED, _CONNECTED),
    "hy_v4": _Refusal(_CONNECTED, _CONNECTED),
    "hy_v4_vl": _Refusal(_CONNECTED, _CONNECTED),
    "hy_v4_vl_text": _Refusal(_CONNECTED, _CONNECTED),
    "idefics": _Refusal(_CROSS, "its blocks attend to an image, so it cannot run without one"),
    "idefics2": _MIXED,
    "instructblip": _MIXED,
    "instructblipvideo": _MIXED,
    "kosmos-2": _MIXED,
    "kosmos-2.5": _MIXED,
    "mllama": _Refusal(_CROSS),
    "pi0": _Refusal(_ACTIONS, _ACTIONS),
    "pix2struct": _TWO_STACKS,
    "pp_formulanet": _TWO_STACKS,
    "t5gemma2": _TWO_STACKS,
    "udop": _TWO_STACKS,
    "vision-encoder-decoder": _TWO_STACKS,
}
_BLURRED = "its connector mixes neighboring patches by convolution, so each of its visual tokens sees more than a cell"
_QUERIES = "its visual tokens are queries that attend to the whole image, so none has a place in it"
_WINDOWS = "its visual tokens are queries that attend to windows of patches, and several share a window"
_UNMAPPED = {
    "aria": _QUERIES,
    "deepseek_ocr2": _QUERIES,
    "got_ocr2": _BLURRED,
    "granite4_vision": _WINDOWS,
    "pp_chart2table": _BLURRED,
    "step3p7": _BLURRED,
    "unlimited_ocr": _BLURRED,
}
"""Families whose visual tokens are read, but have no boxes, and why."""
_SETTINGS = {
    "gemma3": "latentlens_dag.models.families.gemma3",
    "got_ocr2": "latentlens_dag.models.families.got_ocr2",
}
_PROCESSORS = {
    "Cohere2VisionProcessor": "latentlens_dag.models.families.cohere2_vision",
    "Kimi_K25Processor": "latentlens_dag.models.families.kimi_k25",
    "MiniMaxM3VLProcessor": "latentlens_dag.models.families.minimax_m3",
    "MuseGlimmerProcessor": "latentlens_dag.models.families.muse_glimmer",
    "MuseSparkProcessor": "latentlens_dag.models.families.muse_spark",
    "NemotronH_Omni_Reasoning_V3Processor": "latentlens_dag.models.families.nemotron_omni",
    "PerceptionLMProcessor": "latentlens_dag.models.families.perception_lm",
    "PixtralProcessor": "latentlens_dag.models.families.pixtral",
    "SmolVLMProcessor": "latentlens_dag.models.families.smolvlm",
}
FLAT_IMAGES = frozenset({"got_ocr2"})
"""Families whose processor takes one image per text, not a list of images per text."""
ALWAYS_REPLACED = frozenset({"PerceptionLMProcessor"})
"""Processors of transformers for which the replacement is used even if they can be imported."""
NEED_TORCHVISION = frozenset({"lfm2_vl", "llama4", "molmo2"})  # the image processor has no variant for Pillow
WITHOUT_TEMPLATE = frozenset({"paligemma"})
"""Families without chat template: the image token is followed by the prompt."""

ONE_IMAGE_PER_PASS = frozenset({"hunyuan_vl"})
"""Families whose positions number the images of all sequences of a pass, so that states depend on what is before."""


def check_family(model_type: str, name: str) -> None:
    """Refuse a family of VLMs whose visual tokens cannot be read; no weights are needed to know.

    Args:
        model_type: the `model_type` of a VLM's config.
        name: the model's name, for messages.

    Raises:
        UserError: if its architecture rules that out.
    """
    refusal = _REFUSED.get(model_type)
    if refusal is None:
        return
    by_itself = "" if refusal.text_reason else " Its language model can be used by itself, as `language_model`."
    raise UserError(
        f"{name} is of the family `{model_type}` and cannot be read: {refusal.reason}.{by_itself} The "
        f"{len(_MODULES)} families whose visual tokens have boxes are listed in docs/families.md of the project."
    )


def check_text_family(model_type: str, name: str) -> None:
    """Refuse a model, a VLM or not, whose language model cannot be read by itself; otherwise as `check_family`."""
    refusal = _REFUSED.get(model_type)
    if refusal is not None and refusal.text_reason is not None:
        raise UserError(
            f"{name} is of the family `{model_type}`, whose language model cannot be read: {refusal.text_reason}. Name "
            "another model as `language_model`."
        )


def is_mapped(model_type: str, name: str) -> bool:
    """Whether a family has a region map; arguments and errors as `check_family`."""
    check_family(model_type, name)
    return model_type in _MODULES


def why_unmapped(model_type: str) -> str | None:
    """Why a family that is read cannot have a region map; None if nobody has written one yet."""
    return _UNMAPPED.get(model_type)


def region_map(model_type: str, name: str, several: bool = False) -> RegionMap | None:
    """The region map of a family, if it has one; arguments as `is_mapped`, errors also as `check_packages`.

    `several`: of an image that shares its prompt with others. A module whose family cuts such images in another way has
    a `several_images_map` too.
    """
    if not is_mapped(model_type, name):
        return None
    check_packages(model_type, name)
    module = import_module(_MODULES[model_type])
    family_map: RegionMap = module.region_map
    return getattr(module, "several_images_map", family_map) if several else family_map


def check_packages(model_type: str, name: str) -> None:
    """Refuse a family whose image processor needs a missing package; arguments as `is_mapped`.

    Raises:
        UserError: if torchvision is needed and cannot be imported.
    """
    if model_type not in NEED_TORCHVISION:
        return
    try:
        import_module("torchvision")
    except (ImportError, OSError, RuntimeError) as error:  # RuntimeError: built for another torch
        raise UserError(
            f"{name} is of the family `{model_type}`, whose image processor needs torchvision: pip install torchvision"
            f", of the version that belongs to your torch. It cannot be imported here ({str(error).strip()})."
        ) from error


def apply_checkpoint_settings(model_type: str, processor: Any) -> None:
    """Apply to a model's processor settings of its files or family that transformers leaves out."""
    if model_type in _SETTINGS:
        import_module(_SETTINGS[model_type]).apply_checkpoint_settings(processor)
    if model_type == "cosmos3_edge":  # its model needs them, its processor gives them on request only
        processor.return_mm_token_type_ids = True


def mend(model: Any) -> None:
    """Work around errors of transformers in a model's class."""
    model_type = model.config.model_type
    if model_type in ("llama4", "nemotron_h_omni"):
        import_module(_MODULES[model_type]).mend(model)


def processor_of_config(source: Path, config: Any) -> Any:
    """The processor of a model whose folder has no processor_config.json, if the config says more than transformers."""
    is_pixtral = config.model_type in ("llava", "mistral3") and config.vision_config.model_type == "pixtral"
    return import_module(_PROCESSORS["PixtralProcessor"]).processor_of_config(source, config) if is_pixtral else None


def replacement_processor(name: str | None) -> Any:
    """Our replacement for a processor class of transformers that imports packages which images do not need, if any."""
    return import_module(_PROCESSORS[name]).processor_class() if name in _PROCESSORS else None
