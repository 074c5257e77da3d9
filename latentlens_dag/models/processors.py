"""Loading a VLM's processor, of which only the parts for images and text are needed.

What a newcomer gets wrong: a processor of transformers may ask for a part for videos, and that for torchvision, though
no video is ever shown.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from latentlens_dag.models.families.registry import replacement_processor


def load_processor(source: Path, trusted: bool) -> Any:
    """A model's processor; without the part for videos where that cannot be loaded, for it needs torchvision."""
    from transformers import AutoProcessor

    try:
        return AutoProcessor.from_pretrained(source, trust_remote_code=trusted)
    except (ImportError, OSError, ValueError):
        family = _class_for_images_only(_processor_name(source, trusted))
        if family is None:
            raise
        return family.from_pretrained(source, trust_remote_code=trusted)


def ensure_pad_token(tokenizer: Any) -> bool:
    """Whether a tokenizer has a token to pad with; where it lacks one, another of its special tokens becomes it.

    Which one makes no difference: the attention mask leaves padding out, whatever token it is.
    """
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.bos_token or tokenizer.unk_token
    return tokenizer.pad_token is not None


def _processor_name(source: Path, trusted: bool) -> str | None:
    """The class of a model's processor: what its files name, else what its family has; None where neither says."""
    from transformers import AutoConfig
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES
    from transformers.utils import cached_file

    for name in ("processor_config.json", "preprocessor_config.json", "tokenizer_config.json"):
        path = cached_file(source, name, _raise_exceptions_for_missing_entries=False)
        named: str | None = json.loads(Path(path).read_text("utf-8")).get("processor_class") if path else None
        if named is not None:
            return named
    found: str | None = PROCESSOR_MAPPING_NAMES.get(
        AutoConfig.from_pretrained(source, trust_remote_code=trusted).model_type
    )
    return found


def _class_for_images_only(name: str | None) -> Any:
    """A processor class that needs no torchvision, in place of one that may; None where there is none."""
    import transformers

    own = replacement_processor(name)
    if own is not None:
        return own
    family = getattr(transformers, name or "", None)
    if family is None or "video_processor" not in family.get_attributes():
        return None
    return for_images_only(family)


def for_images_only(family: type) -> Any:
    """The same processor class, that asks for an image processor and a tokenizer only."""
    parts = classmethod(lambda cls: ["image_processor", "tokenizer"])
    return type(family.__name__, (family,), {"get_attributes": parts, "__module__": family.__module__})
