"""Loading a VLM's processor without its part for videos, which may need torchvision."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from latentlens_dag.models.families.registry import ALWAYS_REPLACED, replacement_processor


def load_processor(source: Path, trusted: bool) -> Any:
    """Load a model's processor, without the part for videos if that cannot be loaded."""
    from transformers import AutoProcessor

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
    """A subclass of a processor class that has an image processor and a tokenizer only."""
    parts = classmethod(lambda cls: ["image_processor", "tokenizer"])
    name, module = processor_class.__name__, processor_class.__module__
    return type(name, (processor_class,), {"get_attributes": parts, "__module__": module})
