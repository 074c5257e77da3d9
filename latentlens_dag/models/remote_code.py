"""A model's own code: the permission to run it, and what is refused even then.

No such code is run unless the user writes `trust_remote_code` for the model. Note: a commit pins only the files of its
repository. An `auto_map` may name a class in another repository, whose code can change at any time; that is refused,
and so are branches.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from importlib import import_module
from pathlib import Path
from threading import RLock
from typing import Any

from latentlens_dag.errors import UserError
from latentlens_dag.storage.hashing import hash_file, hash_values

_CONFIGS = "*config.json"  # of the model, its processor and its tokenizer
_VOCABULARIES = ("tokenizer.json", "tekken.json", "vocab.*", "*.model", "*.tiktoken")  # any one may be sufficient
_AUTO_MODULES = (
    *("configuration", "feature_extraction", "image_processing", "modeling", "processing"),
    *("tokenization", "video_processing"),
)
_LOADING = RLock()
_REGISTERED: dict[tuple[str, int], dict[Any, Any]] = {}  # classes by hash of the code and number of the registry


def check_code(config: Mapping[str, Any], folder: Path, name: str, trusted: bool) -> None:
    """Refuse a model that needs its own code without permission, or takes it from elsewhere; nothing is run.

    Args:
        config: its config.json.
        folder: its folder, without weights if need be.
        name: its name, for messages.
        trusted: whether the user allows its code.

    Raises:
        UserError: see above.
    """
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    needed = "auto_map" in config and config.get("model_type") not in CONFIG_MAPPING_NAMES
    if needed or trusted:
        _check_inside(folder, name)
    if needed and not trusted:
        raise code_not_allowed(folder, name)


@contextmanager
def loading(folder: Path, name: str, kind: str, trusted: bool) -> Iterator[None]:
    """Translate errors of loading a model as a `kind`, such as "language model", into user errors.

    Only one model is loaded at a time, because transformers registers classes and sets the default dtype per process.
    """
    from safetensors import SafetensorError
    from torch import OutOfMemoryError

    import_module("latentlens_dag.models.vision_grid")  # registers our own class
    try:
        with _LOADING, _own_classes(folder) if trusted else nullcontext():
            yield
    except (UserError, OutOfMemoryError, MemoryError):
        raise
    except Exception as error:
        if not trusted and "trust_remote_code" in str(error) and _classes(folder):
            raise code_not_allowed(folder, name) from error
        if _lacks_tokenizer(folder, kind, error):
            raise _no_tokenizer(name, kind) from error
        if trusted and not isinstance(error, (OSError, ValueError, KeyError, ImportError, SafetensorError)):
            raise _own_code_failed(name, kind, error) from error
        raise _not_as_published(name, kind, error) from error
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # of the Rust below tokenizers, which is no Exception
            raise
        raise _not_as_published(name, kind, error) from error


@contextmanager
def _own_classes(folder: Path) -> Iterator[None]:
    """Confine to the block the classes that a model's own code registers with transformers' auto classes.

    Such code often calls `AutoConfig.register("own", OwnConfig)`. Any later model with `"model_type": "own"` would get
    those classes, even one with other code or without permission. Python runs the code only once per process, so its
    classes are registered again when the same code is loaded again.
    """
    code = hash_values(hash_file(file) for file in sorted(folder.rglob("*.py")))
    outside = [dict(registry) for registry in _registries()]
    for number, registry in enumerate(_registries()):
        registry.update(_REGISTERED.get((code, number), {}))
    try:
        yield
    finally:
        for number, (registry, others) in enumerate(zip(_registries(), outside, strict=True)):
            own = {key: value for key, value in registry.items() if others.get(key) is not value}
            _REGISTERED.setdefault((code, number), {}).update(own)
            registry.clear()
            registry.update(others)


def _registries() -> list[dict[Any, Any]]:
    """The registries of transformers' auto classes; private attributes, so a test checks them."""
    modules = [import_module(f"transformers.models.auto.{name}_auto") for name in _AUTO_MODULES]
    tokenization = modules[_AUTO_MODULES.index("tokenization")]
    values = [value for module in modules for value in vars(module).values()]
    registries = [value._extra_content for value in values if isinstance(getattr(value, "_extra_content", None), dict)]
    registries += [tokenization.REGISTERED_TOKENIZER_CLASSES, tokenization.REGISTERED_FAST_ALIASES]
    return list({id(registry): registry for registry in registries}.values())


def code_not_allowed(folder: Path, name: str) -> UserError:
    """The error for a model that needs its own code without permission."""
    files = ", ".join(f"{file} ({', '.join(classes)})" for file, classes in _code_files(folder).items())
    return UserError(
        f"{name} cannot be read without code that comes with it: {files}. It would be run with all your rights, so it "
        "is run only if you say so. Read it first; then write `trust_remote_code: true` beside the model's `path` or "
        "`hub` in the defs.yaml, `--trust-remote-code` for inspect-model, `trust_remote_code=True` in Python."
    )


def _own_code_failed(name: str, kind: str, error: Exception) -> UserError:
    from importlib.metadata import version

    return UserError(
        f"{name} cannot be loaded as a {kind}: its own code failed ({type(error).__name__}: {_first_line(error)}). "
        f"Was it written for another version of transformers than {version('transformers')}, or does it need a package?"
    )


def _not_as_published(name: str, kind: str, error: BaseException) -> UserError:
    """The error for a model that transformers cannot load."""
    return UserError(
        f"{name} cannot be loaded as a {kind}: {type(error).__name__}: {_first_line(error).removesuffix('.')}. Compare "
        "config.json and the files of the tokenizer and the processor with the published ones."
    )


def _lacks_tokenizer(folder: Path, kind: str, error: Exception) -> bool:
    """Whether loading failed because the tokenizer has no files; some tokenizers, of bytes, need none."""
    of_tokenizer = kind == "tokenizer" or "tokenizer" in str(error)
    return of_tokenizer and not any(file for pattern in _VOCABULARIES for file in folder.glob(pattern))


def _no_tokenizer(name: str, kind: str) -> UserError:
    return UserError(
        f"{name} cannot be loaded as a {kind}: its folder has no tokenizer files (tokenizer.json; or tokenizer.model, "
        "vocab.txt, or vocab.json with merges.txt). Copy the published ones into the folder, including "
        "tokenizer_config.json."
    )


def vlm_auto_class(config: Mapping[str, Any], trusted: bool) -> Any:
    """The auto class to load a VLM with: AutoModelForCausalLM only if the model's own code has no other.

    For some families of transformers `AutoModelForCausalLM` is the text half, so it is used for none of them; a class
    of the model's own code is accepted if it uses all weights (`checkpoints.check_loaded`).
    """
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

    own = (config.get("auto_map") or {}) if trusted else {}
    if "AutoModelForImageTextToText" in own or config.get("model_type") in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES:
        return AutoModelForImageTextToText
    return AutoModelForCausalLM if "AutoModelForCausalLM" in own else AutoModelForImageTextToText


def text_auto_class(config: Mapping[str, Any]) -> Any:
    """The auto class to load a language model with: that of VLMs if it is part of one without a class of its own."""
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText
    from transformers.models.auto import modeling_auto as auto

    family = config.get("model_type")
    only_vlm = family not in auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and "auto_map" not in config
    if only_vlm and family in auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES:
        return AutoModelForImageTextToText
    return AutoModelForCausalLM


def may_have_vision(config: Mapping[str, Any], trusted: bool) -> bool:
    """Whether a model may be a VLM, by its config; a model with its own code may have any name for its vision part."""
    own = (config.get("auto_map") or {}) if trusted else {}
    has_vision = "vision_config" in config or "vit_config" in config  # the latter in Molmo2's own checkpoints
    return has_vision or "AutoProcessor" in own or "AutoModelForImageTextToText" in own


def _check_inside(folder: Path, name: str) -> None:
    """Refuse classes from another repository."""
    for reference, _ in _classes(folder):
        if "--" in reference:
            raise UserError(
                f"{name} takes its class {reference.split('--')[1]} from another repository of the Hub, "
                f"{reference.split('--')[0]}, which its own commit does not pin: the code may change at any time, so "
                "it is never run. Copy the model with that code into one folder, and name the folder."
            )


def _code_files(folder: Path) -> dict[str, list[str]]:
    """The files of the model's own code that its configs name, and the auto classes that each implements."""
    files: dict[str, list[str]] = {}
    for reference, auto_class in _classes(folder):
        auto_classes = files.setdefault(f"{reference.rpartition('.')[0]}.py", [])
        auto_classes += [auto_class] if auto_class not in auto_classes else []
    return files


def _classes(folder: Path) -> list[tuple[str, str]]:
    """`module.Class` and the auto class that it implements, of every `auto_map` in the model's configs."""
    return [entry for file in sorted(folder.glob(_CONFIGS)) for entry in _entries_of_file(file)]


def _entries_of_file(file: Path) -> list[tuple[str, str]]:
    try:
        return list(_entries(json.loads(file.read_text(encoding="utf-8"))))
    except (ValueError, RecursionError, OSError) as error:
        raise UserError(
            f"{file} is not JSON ({error!s:.200}), so it is not known which code it names. Copy the published one."
        ) from error


def _entries(config: Any) -> Iterator[tuple[str, str]]:
    if not isinstance(config, dict):
        return
    auto_map = config.get("auto_map", {})
    # A tokenizer's may be a list of the slow and the fast class, either of which may be null.
    for auto_class, references in auto_map.items() if isinstance(auto_map, dict) else [("AutoTokenizer", auto_map)]:
        for reference in references if isinstance(references, list) else [references]:
            if isinstance(reference, str):
                yield reference, auto_class
    for part in config.values():
        yield from _entries(part)


def _first_line(error: BaseException) -> str:
    """The first line of an exception's message, and the second if the first ends with a colon."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or ["no message"]
    return " ".join(lines[: 2 if lines[0].endswith(":") else 1])
