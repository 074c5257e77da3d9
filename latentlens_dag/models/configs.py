"""Reading a model's config.json, without transformers."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from latentlens_dag.errors import UserError
from latentlens_dag.models.hub_models import cached_config
from latentlens_dag.models.model_ref import ModelRef, no_model_error
from latentlens_dag.models.weight_files import check_lfs_pointers, gguf_instructions

_MOST_BYTES = 16 << 20
_MOST_MODULES = 10_000
"""No model has as many layers or experts; building one of a billion would take all memory before weights are read."""
_NUMBERS_OF_MODULES = re.compile(r"(^|_)(layers?|experts?|depths?|blocks?)$")
_OBJECT_FILES = (
    *("added_tokens.json", "chat_template.json", "generation_config.json", "image_processor.json"),
    *("preprocessor_config.json", "processor_config.json", "special_tokens_map.json"),
    *("tokenizer.json", "tokenizer_config.json", "video_preprocessor_config.json", "vocab.json"),
)
_START_BYTES = 1024
_OBJECTS = ("auto_map", "text_config", "vision_config")


def read_config(source: Path | ModelRef) -> dict[str, Any] | None:
    """The config.json of a model; None for a model of the Hub that is not in the cache.

    Raises:
        UserError: if the folder has none, or it is not a JSON object with a `model_type` (which may be missing).
    """
    if isinstance(source, ModelRef):
        if source.path is None:
            cached = cached_config(source)
            return None if cached is None else _parse_config(cached)
        source = source.path
    if not source.is_dir():
        raise no_model_error(source)
    path = source / "config.json"
    if not path.is_file():
        instructions = gguf_instructions(source)
        raise UserError(
            f"{source} is not a model folder: it has no config.json.{f' {instructions}' if instructions else ''}"
        )
    return _parse_config(path)


def check_objects(folder: Path) -> None:
    """Refuse a file of a model that holds another kind of JSON than an object.

    transformers would fail at the first field it looks for, with an error that names no file. Only the beginning is
    read, since a tokenizer has tens of megabytes.

    Raises:
        UserError: with the file.
    """
    for name in _OBJECT_FILES:
        path = folder / name
        if not path.is_file():
            continue
        with path.open("rb") as file:
            start = file.read(_START_BYTES).removeprefix(codecs.BOM_UTF8).lstrip()
        if not start.startswith(b"{"):
            check_lfs_pointers(folder, str(folder))
            raise UserError(
                f"{path} must be a JSON object, and begins with {start[:20].decode(errors='replace')!r}: the folder is "
                "damaged. Use the file that was published with the weights."
            )


def _parse_config(path: Path) -> dict[str, Any]:
    try:
        if (size := path.stat().st_size) > _MOST_BYTES:
            raise ValueError(f"it has {size:,} bytes, and {_MOST_BYTES:,} are the most")
        config: Any = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError, OSError) as error:
        check_lfs_pointers(path.parent, str(path.parent))
        raise UserError(f"{path} is not JSON ({error}): the model folder is damaged.") from error
    if not isinstance(config, dict) or not isinstance(config.get("model_type", ""), str):
        raise UserError(
            f"{path} is not the config of a model, a JSON object with a `model_type`, but {config!r:.80}. Use the "
            "config.json that was published with the weights."
        )
    for field in _OBJECTS:
        if not isinstance(config.get(field) or {}, dict):
            raise UserError(
                f"{path}: `{field}` is {config[field]!r:.80}, and must be a JSON object. Use the config.json that was "
                "published with the weights."
            )
    for field, number in _numbers_of_modules(config):
        if number > _MOST_MODULES:
            raise UserError(
                f"{path}: `{field}` is {number!r:.30}, and {_MOST_MODULES:,} are the most: the folder is damaged. Use "
                "the config.json that was published with the weights."
            )
    return config


def _numbers_of_modules(config: dict[str, Any]) -> Iterator[tuple[str, int]]:
    """The fields, also of configs in it, that say how many layers or experts there are."""
    for field, value in config.items():
        if isinstance(value, dict):
            yield from _numbers_of_modules(value)
        elif isinstance(value, int) and _NUMBERS_OF_MODULES.search(field):
            yield field, value
