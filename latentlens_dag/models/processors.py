"""Loading a VLM's processor without its part for videos, which may need torchvision."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from latentlens_dag.models.families.registry import ALWAYS_REPLACED, processor_of_config, replacement_processor


def load_processor(source: Path, trusted: bool) -> Any:
    """Load a model's processor, without the part for videos if that cannot be loaded."""
    from transformers import AutoConfig, AutoProcessor

    if not (source / "processor_config.json").is_file():
        config = AutoConfig.from_pretrained(source, trust_remote_code=trusted)
        if (processor := processor_of_config(source, config)) is not None:
            return processor
    try:
        processor = AutoProcessor.from_pretrained(source, trust_remote_code=trusted)
    except (ImportError, OSError, ValueError):
        processor_class = _class_for_images_only(_processor_name(source, trusted))
        if processor_class is None:
            raise
    else:
        if type(processor).__name__ not in ALWAYS_REPLACED:
            return processor
        processor_class = replacement_processor(type(processor).__name__)
    return processor_class.from_pretrained(source, trust_remote_code=trusted)


def ensure_pad_token(tokenizer: Any) -> bool:
    """Give a tokenizer without padding token another special token for it; return whether it has one.

    Any token will do, because the attention mask excludes padding.
    """
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.bos_token or tokenizer.unk_token
    return tokenizer.pad_token is not None


def _processor_name(source: Path, trusted: bool) -> str | None:
    """The name of a model's processor class, by its files or else its family; None if neither has one."""
    from transformers import AutoConfig
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES
    from transformers.utils import cached_file

    for name in ("processor_config.json", "preprocessor_config.json", "tokenizer_config.json"):
        path = cached_file(source, name, _raise_exceptions_for_missing_entries=False)
        class_name: str | None = json.loads(Path(path).read_text("utf-8")).get("processor_class") if path else None
        if class_name is not None:
            return class_name
    model_type = AutoConfig.from_pretrained(source, trust_remote_code=trusted).model_type
    family_class: str | None = PROCESSOR_MAPPING_NAMES.get(model_type)
    return family_class


def _class_for_images_only(name: str | None) -> Any:
    """A processor class without a part for videos, for the class of that name; None if there is none."""
    import transformers

    replacement = replacement_processor(name)
    if replacement is not None:
        return replacement
    processor_class = getattr(transformers, name or "", None)
    if processor_class is None or "video_processor" not in processor_class.get_attributes():
        return None
    return for_images_only(processor_class)


def for_images_only(processor_class: type) -> Any:
    """A subclass of a processor class that has an image processor and a tokenizer only.

    Its other parts are a `_NoPart`. Note: a processor class has its parts in any order and may require all of them, and
    transformers passes them by position.
    """
    from transformers.processing_utils import ProcessorMixin

    whole: list[str] = processor_class.get_attributes()  # type: ignore[attr-defined]

    class Parts(ProcessorMixin):  # type: ignore[misc]
        """What `super().__init__` of the processor class calls."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            given = dict(zip(whole, args, strict=False)) | kwargs
            super().__init__(**{name: part for name, part in given.items() if name in _PARTS or name not in whole})

    class ForImages(processor_class, Parts):  # type: ignore[misc, valid-type]
        @classmethod
        def get_attributes(cls) -> list[str]:
            return list(_PARTS)

        @classmethod
        def _get_arguments_from_pretrained(cls, *args: Any, **kwargs: Any) -> list[Any]:
            parts = dict(zip(_PARTS, super()._get_arguments_from_pretrained(*args, **kwargs), strict=True))
            return [parts.get(name, _NoPart()) for name in whole]

    for name in set(whole).difference(_PARTS):
        setattr(ForImages, name, _NoPart())
    ForImages.__name__, ForImages.__module__ = processor_class.__name__, processor_class.__module__
    return ForImages


_PARTS = ("image_processor", "tokenizer")


class _NoPart:
    """In place of a part of a processor that images do not need: any setting of it is None."""

    def __getattr__(self, name: str) -> None:
        if name.startswith("_"):
            raise AttributeError(name)
