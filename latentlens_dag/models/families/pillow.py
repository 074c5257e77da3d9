"""Processors of families whose image processor transformers has for torchvision only, remade with Pillow."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def with_pillow(processor_class: type, image_processor_class: Any) -> Any:
    """A subclass of a processor class for images and text, with an image processor that needs no torchvision.

    Args:
        processor_class: of transformers; its arguments begin with `image_processor` and `tokenizer`.
        image_processor_class: named as that of transformers, with `Pil` at the end.
    """

    def from_pretrained(cls: Any, source: Path, trust_remote_code: bool = False) -> Any:
        from transformers import AutoTokenizer

        settings, _ = cls.get_processor_dict(source)
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=trust_remote_code)
        return cls.from_args_and_dict([image_processor_class.from_pretrained(source), tokenizer], settings)

    parts = {
        "__module__": processor_class.__module__,
        "get_attributes": classmethod(lambda cls: ["image_processor", "tokenizer"]),
        "from_pretrained": classmethod(from_pretrained),
        "image_processor_type": image_processor_class,
    }
    return type(processor_class.__name__, (processor_class,), parts)


def scaled(images: Any, pixels: Any, options: dict[str, Any]) -> Any:
    """The pixels [3, H, W] of an image, rescaled and normalized by an image processor as it is asked to."""
    if options["do_rescale"]:
        pixels = images.rescale(pixels, options["rescale_factor"])
    return images.normalize(pixels, options["image_mean"], options["image_std"]) if options["do_normalize"] else pixels
