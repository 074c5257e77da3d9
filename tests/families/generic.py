"""A tiny random model of any family of transformers, made from the defaults of its config and of its processor.

It is for families without a builder of their own in `latentlens_dag/testing`: enough to see whether a family can be
read, not to prove where its visual tokens lie. Widths shrink with the number of heads, so that the size of a head and
what follows from it (rotary sections, say) stay; sizes of images and patches stay as well, since the defaults of the
image processor belong to them.
"""

from __future__ import annotations

import copy
import inspect
import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from latentlens_dag.models.families.registry import replacement_processor
from latentlens_dag.models.processors import for_images_only
from latentlens_dag.models.remote_code import may_have_vision
from latentlens_dag.testing.models import chat_template, save_random_model, tiny_tokenizer

_HEADS_LEFT, _LAYERS_LEFT, _EXPERTS_LEFT, _INNER_WIDTH = 2, 4, 4, 64
_WIDTHS = ("hidden_size", "embed_dim", "d_model", "n_embd", "hidden_dim", "dim", "width", "embedding_dim")
_HEADS = ("num_attention_heads", "num_heads", "n_head", "n_heads", "attention_heads", "encoder_attention_heads")
_DEPTHS = ("num_hidden_layers", "num_layers", "depth", "n_layers", "n_layer", "encoder_layers", "decoder_layers")
_NO_WIDTH = re.compile("position|token|_id|vocab|image|patch|length|window|seq|layer|head|theta")
_INNER = re.compile("intermediate|ffn|mlp_dim|mlp_hidden")
_SPECIAL = re.compile(r"""["'](<[^<>\s"']{1,40}>|\[[A-Z_]{3,20}\]|\|[A-Z]+\|)["']""")
_SETTINGS = ("patch_size", "spatial_merge_size", "vision_feature_select_strategy", "downsample_ratio", "merge_size")
_PLACEHOLDERS = ("image_token", "boi_token", "start_image_token", "image_start_token", "placeholder_token")
_TOKEN_COUNTS = ("num_image_tokens", "image_seq_length", "image_seq_len")
_ORDINARY = {"pad_token", "bos_token", "eos_token", "unk_token", "cls_token", "sep_token", "mask_token"}


class CannotBeMadeError(Exception):
    """A tiny model cannot be made of the defaults; says why, as the end of a sentence about the family."""


class GenericModel:
    """A tiny model of a family, by the defaults of transformers."""

    def __init__(self, model_type: str) -> None:
        self.model_type = model_type
        self.config = _default_config(model_type)
        self._vocabulary = len(_tokenizer(""))
        shrink(self.config, self._vocabulary)
        self._image_tokens: int | None = None
        self.fits_processor = True

    def refusal(self) -> str | None:
        """Why `load_vlm` refuses the family by its config; None if it does not."""
        if may_have_vision(self.config.to_dict(), trusted=False):
            return None
        return "its config has no `vision_config`, so it is not taken for a vision-language model"

    def on_meta(self) -> Any:
        """The model without weights."""
        import torch

        with torch.device("meta"):
            return self._class(copy.deepcopy(self.config))

    def in_memory(self) -> Any:
        """The model with random weights."""
        import torch

        torch.manual_seed(0)
        return self._class(copy.deepcopy(self.config)).eval()

    def tokenizer(self) -> Any:
        """A tokenizer of the model's vocabulary."""
        return _tokenizer("")

    def parameters(self) -> int:
        """The number of its parameters."""
        return sum(parameter.numel() for parameter in self.on_meta().parameters())

    def placeholders(self) -> list[str]:
        """What a chat template of the family may have for an image, the likeliest first."""
        processor = self._processor()
        owners = (processor, processor.tokenizer)
        found = [getattr(owner, name, None) for name in _PLACEHOLDERS for owner in owners]
        texts = list(dict.fromkeys(text for text in found if isinstance(text, str)))
        if not texts:
            raise CannotBeMadeError("its processor does not say which token stands for an image")
        return texts

    def write(self, folder: Path, placeholder: str) -> None:
        """Write the model into a folder, as a builder does; its chat template has `placeholder` for an image."""
        processor = self._processor()
        processor.chat_template = "{{ bos_token }}" + chat_template(placeholder)
        config = copy.deepcopy(self.config)
        _set_token_ids(config, processor)
        save_random_model(self._class, config, processor, folder, 0)

    def variants(self) -> Iterator[GenericModel]:
        """The model with an image processor that fits its vision tower, and with a vision tower that fits that one."""
        yield self
        other = GenericModel(self.model_type)
        other.fits_processor = False
        yield other

    def learn(self, error: Exception) -> bool:
        """Whether an error says how many tokens an image has, with which the model may be written once more."""
        counts = re.search(r"tokens: (\d+), features:? (\d+)", str(error))
        if counts is None or self._image_tokens is not None:
            return False
        width, vision = (
            self.config.get_text_config(decoder=True).hidden_size,
            getattr(self.config, "vision_config", None),
        )
        features, side, patch = int(counts[2]), getattr(vision, "image_size", 0), getattr(vision, "patch_size", 1)
        self._image_tokens = features // width if features % width == 0 else features
        # More features than patches: the connector is of another width than the language model.
        plausible = isinstance(side, int) and self._image_tokens <= (side // patch) ** 2
        return plausible and any(name in self._parameters for name in _TOKEN_COUNTS)

    @cached_property
    def _class(self) -> Any:
        import transformers
        from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

        return getattr(transformers, MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES[self.model_type])

    @cached_property
    def _processor_class(self) -> Any:
        import transformers
        from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
        from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES

        own_class = MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES[self.model_type]
        same = [name for name, other in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES.items() if other == own_class]
        folder = self._class.__module__.split(".")[-2]
        names = (PROCESSOR_MAPPING_NAMES.get(model_type) for model_type in (self.model_type, *same, folder))
        name = next(filter(None, names), None)
        if name is None:
            raise CannotBeMadeError("transformers names no processor for it")
        replacement = replacement_processor(name)
        return replacement if replacement is not None else for_images_only(getattr(transformers, name))

    @property
    def _parameters(self) -> Any:
        return inspect.signature(self._processor_class.__init__).parameters

    @property
    def _processor_modules(self) -> list[Any]:
        modules = [inspect.getmodule(base) for base in self._processor_class.__mro__]
        own = ("transformers.models.", "latentlens_dag.")
        return [module for module in modules if module is not None and module.__name__.startswith(own)]

    def _processor(self) -> Any:
        vision = getattr(self.config, "vision_config", None)
        settings: dict[str, Any] = {}
        for name, parameter in self._parameters.items():
            value = getattr(self.config, name, getattr(vision, name, None))
            if name in _SETTINGS and value is not None:
                settings[name] = value
            elif name in _TOKEN_COUNTS and self._image_tokens is not None:
                settings[name] = self._image_tokens
            elif name.endswith(("_processor", "_extractor")) and parameter.default is inspect.Parameter.empty:
                settings[name] = None
        if "num_additional_image_tokens" in self._parameters and "clip" in getattr(vision, "model_type", ""):
            settings["num_additional_image_tokens"] = 1
        source = "".join(map(inspect.getsource, self._processor_modules))
        settings |= {"image_processor": self._image_processor(), "tokenizer": _tokenizer(source)}
        return self._processor_class(**settings)

    def _image_processor(self) -> Any:
        import transformers
        from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING_NAMES

        home = next((module.__name__.split(".")[-2] for module in self._processor_modules), "")
        names = IMAGE_PROCESSOR_MAPPING_NAMES.get(self.model_type) or IMAGE_PROCESSOR_MAPPING_NAMES.get(home)
        if names is None:
            raise CannotBeMadeError("transformers names no image processor for it")
        if "pil" not in names:
            raise CannotBeMadeError("its image processor needs torchvision")
        image_processor = getattr(transformers, names["pil"])()
        vision = getattr(self.config, "vision_config", None)
        if self.fits_processor:
            _fit_to_vision(image_processor, vision)
        else:
            _fit_to_processor(vision, image_processor)
        return image_processor


def _default_config(model_type: str) -> Any:
    """The config of a family with its defaults, and a vision part where that is left out by default."""
    from transformers import CONFIG_MAPPING

    config = CONFIG_MAPPING[model_type]()
    vision = type(config).sub_configs.get("vision_config")
    if vision is not None and config.vision_config is None:
        config.vision_config = vision()
    return config


def _parts(config: Any) -> Iterator[Any]:
    """A config and all configs in it."""
    from transformers import PretrainedConfig

    yield config
    for value in vars(config).values():
        if isinstance(value, PretrainedConfig):
            yield from _parts(value)


def shrink(config: Any, vocabulary: int) -> None:
    """Make a config tiny, in place."""
    parts, decoder = list(_parts(config)), config.get_text_config(decoder=True)
    widths: dict[int, int] = {}
    for part in parts:
        width, heads = (_first(part, names) for names in (_WIDTHS, _HEADS))
        if width and heads and heads > _HEADS_LEFT and width % heads == 0:
            widths.setdefault(width, width // heads * _HEADS_LEFT)
    keep_depth = any(_names_layers(part) for part in parts)
    for part in parts:
        _shrink_part(part, widths, vocabulary, keep_depth and part is not decoder)
    for part in parts:
        if hasattr(part, "out_hidden_size"):
            part.out_hidden_size = _first(decoder, _WIDTHS)


def _first(part: Any, names: tuple[str, ...]) -> int | None:
    found = (vars(part).get(name) for name in names)
    return next((value for value in found if isinstance(value, int)), None)


def _names_layers(part: Any) -> bool:
    """Whether a config has settings that name layers of the vision tower by their numbers."""
    return any(re.search("feature_layer|indexes|indices", name) and value for name, value in vars(part).items())


def _shrink_part(part: Any, widths: dict[int, int], vocabulary: int, keep_depth: bool) -> None:
    heads, depth = _first(part, _HEADS), _first(part, _DEPTHS)
    layers = depth if depth is None or keep_depth else min(depth, _LAYERS_LEFT)
    for name, value in list(vars(part).items()):
        if isinstance(value, list | tuple) and depth and len(value) == depth and "image" not in name:
            setattr(part, name, list(value[:layers]))
        elif isinstance(value, int) and not isinstance(value, bool):
            setattr(part, name, layers if name in _DEPTHS else _shrunk(name, value, heads, widths, vocabulary))


def _shrunk(name: str, value: int, heads: int | None, widths: dict[int, int], vocabulary: int) -> int:
    if "vocab_size" in name:
        return vocabulary
    if name.endswith(("_id", "_index")):
        return min(value, vocabulary - 1)
    if name.endswith("attention_heads") or name in _HEADS:
        return min(value, _HEADS_LEFT)
    if re.search("key_value_heads|kv_heads", name):
        return max(1, _HEADS_LEFT * value // heads) if heads else value
    if "experts" in name:
        return min(value, _EXPERTS_LEFT // 2 if re.search("per_tok|topk|top_k", name) else _EXPERTS_LEFT)
    if name in ("n_group", "topk_group"):
        return 1
    if _INNER.search(name):
        return min(value, _INNER_WIDTH)
    return value if _NO_WIDTH.search(name) else widths.get(value, value)


def _tokenizer(source: str) -> Any:
    """A tokenizer that has every special token which the source of a processor names; its length is always the same."""
    attributes = set(re.findall(r"tokenizer\.(\w+_token)\b", source)) - _ORDINARY
    tokens = {name: f"<{name}>" for name in sorted(attributes)}
    taken = {"<pad>", "<bos>", "<eos>", *tokens.values()}
    literals = [text for text in dict.fromkeys(_SPECIAL.findall(source)) if text not in taken]
    tokens |= {f"special_{number}_token": text for number, text in enumerate(literals)}
    tokens |= {f"spare_{number}_token": f"<spare_{number}>" for number in range(100 - len(tokens))}
    return tiny_tokenizer(image_tokens=tokens)


def _fit_to_vision(image_processor: Any, vision: Any) -> None:
    """Let an image processor make images of the size, and patches of the size, that a vision tower has by default."""
    side, patch = getattr(vision, "image_size", None), getattr(vision, "patch_size", None)
    size = dict(getattr(image_processor, "size", None) or {})
    if isinstance(side, int) and {"height", "width"} == set(size) and size["height"] == size["width"]:
        image_processor.size = {"height": side, "width": side}
    if isinstance(side, int) and getattr(image_processor, "crop_size", None):
        image_processor.crop_size = {"height": side, "width": side}
        if set(size) == {"shortest_edge"}:
            image_processor.size = {"shortest_edge": side}
    for name, value in (("patch_size", patch), ("merge_size", getattr(vision, "spatial_merge_size", None))):
        if isinstance(value, int) and isinstance(getattr(image_processor, name, None), int):
            setattr(image_processor, name, value)


def _fit_to_processor(vision: Any, image_processor: Any) -> None:
    """Let a vision tower take images of the size that an image processor makes by default."""
    size = dict(getattr(image_processor, "size", None) or {})
    side = size.get("height") or size.get("shortest_edge") or getattr(image_processor, "max_image_size", None)
    if isinstance(side, int) and isinstance(getattr(vision, "image_size", None), int):
        vision.image_size = side


def _set_token_ids(config: Any, processor: Any) -> None:
    """Give a config the ids of the tiny tokenizer; a token that the processor does not name gets one that is unused."""
    tokenizer, known = processor.tokenizer, {"pad_token": 0, "bos_token": 1, "eos_token": 2}
    for owner in (tokenizer, processor):
        names = {*dir(type(owner)), *vars(owner), *getattr(owner, "_special_tokens_map", {})}
        for name in sorted(name for name in names if name.endswith("_token") and name not in _ORDINARY):
            if isinstance(text := getattr(owner, name, None), str):
                known[name] = tokenizer.convert_tokens_to_ids(text)
    for part in _parts(config):
        for name, value in list(vars(part).items()):
            stem = re.sub("_(id|index)$", "", name)
            if stem != name and not isinstance(value, list):
                if stem in known:
                    setattr(part, name, known[stem])
                elif isinstance(value, int) and value >= len(tokenizer):
                    setattr(part, name, len(tokenizer) - 1)
