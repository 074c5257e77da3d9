"""Code that comes with a model: who allows it, what of it would be run, and what is refused even then.

Nothing of it is run unless the user writes `trust_remote_code` for this model. What a newcomer gets wrong: a commit
pins only what lies in its repository. An `auto_map` may name a class of another repository, whose code anybody may
change tomorrow; that is refused, and so are branches.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from threading import RLock
from typing import Any

from latentlens_dag.errors import UserError
from latentlens_dag.storage.hashing import hash_file, hash_values

_CONFIGS = "*config.json"  # of the model, its processor and its tokenizer
_VOCABULARIES = ("tokenizer.json", "tekken.json", "vocab.*", "*.model", "*.tiktoken")  # each may be all there is
_LOADING = RLock()
_REGISTERED: dict[tuple[str, int], dict[Any, Any]] = {}  # by code and registry; as transformers', of the process


def check_code(config: Mapping[str, Any], folder: Path, name: str, trusted: bool) -> None:
    """Refuse a model whose code is needed but not allowed, or would come from elsewhere; nothing is run.

    Args:
        config: of its config.json.
        folder: where its files are, of the weights none is needed.
        name: of the model, for the message.
        trusted: whether the user has allowed its code.

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
    """Tell the user why a model cannot be loaded as a `kind`, such as "language model".

    One model is loaded at a time: transformers keeps its classes, and the default dtype, for the whole process.
    """
    from safetensors import SafetensorError
    from torch import OutOfMemoryError

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
            raise _failed(name, kind, error) from error
        raise _not_as_published(name, kind, error) from error


@contextmanager
def _own_classes(folder: Path) -> Iterator[None]:
    """Let a model's own code register its classes at transformers' auto classes, and take them out again afterwards.

    Such code often says `AutoConfig.register("own", OwnConfig)`. Any later model with `"model_type": "own"` would then
    be answered with those classes, one with other code too, and whether its code is allowed or not. Code is run once
    per process, so its classes are put back when the same code is loaded again.
    """
    code = hash_values(hash_file(file) for file in sorted(folder.rglob("*.py")))
    before = [dict(registry) for registry in _registries()]
    for number, registry in enumerate(_registries()):
        registry.update(_REGISTERED.get((code, number), {}))
    try:
        yield
    finally:
        for number, (registry, others) in enumerate(zip(_registries(), before, strict=True)):
            mine = {key: value for key, value in registry.items() if others.get(key) is not value}
            _REGISTERED.setdefault((code, number), {}).update(mine)
            registry.clear()
            registry.update(others)


def _registries() -> list[dict[Any, Any]]:
    """What code has registered at transformers' auto classes, by name or class of config; private, hence tested."""
    from transformers.models.auto import (
        configuration_auto,
        feature_extraction_auto,
        image_processing_auto,
        modeling_auto,
        processing_auto,
        tokenization_auto,
        video_processing_auto,
    )

    modules = [configuration_auto, feature_extraction_auto, image_processing_auto, modeling_auto, processing_auto]
    modules += [tokenization_auto, video_processing_auto]
    values = [value for module in modules for value in vars(module).values()]
    found = [value._extra_content for value in values if isinstance(getattr(value, "_extra_content", None), dict)]
    found += [tokenization_auto.REGISTERED_TOKENIZER_CLASSES, tokenization_auto.REGISTERED_FAST_ALIASES]
    return list({id(registry): registry for registry in found}.values())


def code_not_allowed(folder: Path, name: str) -> UserError:
    """The error of a model that cannot be read without code of its own, which nobody has allowed."""
    what = ", ".join(f"{file} ({', '.join(classes)})" for file, classes in _files(folder).items())
    return UserError(
        f"{name} cannot be read without code that comes with it: {what}. It would be run with all your rights, so it "
        "is run only if you say so. Read it first; then write `trust_remote_code: true` beside the model's `path` or "
        "`hub` in the defs.yaml, `--trust-remote-code` for inspect-model, `trust_remote_code=True` in Python."
    )


def _failed(name: str, kind: str, error: Exception) -> UserError:
    from importlib.metadata import version

    return UserError(
        f"{name} cannot be loaded as a {kind}: its own code failed ({type(error).__name__}: {_first_line(error)}). "
        f"Was it written for another transformers than {version('transformers')}, or does it need a package?"
    )


def _not_as_published(name: str, kind: str, error: Exception) -> UserError:
    """The error of a model that transformers cannot load, whatever it raises for it."""
    return UserError(
        f"{name} cannot be loaded as a {kind}: {type(error).__name__}: {_first_line(error).removesuffix('.')}. Compare "
        "config.json and the files of the tokenizer and the processor with those that it was published with."
    )


def _lacks_tokenizer(folder: Path, kind: str, error: Exception) -> bool:
    """Whether loading failed at the tokenizer for want of files; some tokenizers, of bytes, need none."""
    of_tokenizer = kind == "tokenizer" or "tokenizer" in str(error)
    return of_tokenizer and not any(file for pattern in _VOCABULARIES for file in folder.glob(pattern))


def _no_tokenizer(name: str, kind: str) -> UserError:
    return UserError(
        f"{name} cannot be loaded as a {kind}: its folder has no tokenizer files (tokenizer.json; or tokenizer.model, "
        "vocab.txt, or vocab.json with merges.txt). Copy those that it was published with into the folder, "
        "tokenizer_config.json too."
    )


def vlm_auto_class(config: Mapping[str, Any], trusted: bool) -> Any:
    """The auto class that a VLM is loaded with: AutoModelForCausalLM only where its own code offers nothing else.

    `AutoModelForCausalLM` has the text half of some families that transformers knows, and so is taken for none of
    them; a class of the model's own code is believed if it uses all weights
    (`checkpoints.check_loaded`).
    """
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

    own = config.get("auto_map", {}) if trusted else {}
    if "AutoModelForImageTextToText" in own or config.get("model_type") in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES:
        return AutoModelForImageTextToText
    return AutoModelForCausalLM if "AutoModelForCausalLM" in own else AutoModelForImageTextToText


def may_have_vision(config: Mapping[str, Any], trusted: bool) -> bool:
    """Whether a model may be a VLM, by its config; one with code of its own may call its vision what it likes."""
    own = config.get("auto_map", {}) if trusted else {}
    # "vit_config" is what Molmo2's own checkpoints call it.
    named = "vision_config" in config or "vit_config" in config
    return named or "AutoProcessor" in own or "AutoModelForImageTextToText" in own


def _check_inside(folder: Path, name: str) -> None:
    """Refuse classes that another repository holds."""
    for reference, _ in _classes(folder):
        if "--" in reference:
            raise UserError(
                f"{name} takes its class {reference.split('--')[1]} from another repository of the Hub, "
                f"{reference.split('--')[0]}, which no commit of its own pins: what would be run may change any day. "
                "Such code is never run. Copy the model with that code into one folder, and name the folder."
            )


def _files(folder: Path) -> dict[str, list[str]]:
    """The files of the model's own code that its configs name, and what is taken from each."""
    found: dict[str, list[str]] = {}
    for reference, role in _classes(folder):
        classes = found.setdefault(f"{reference.rpartition('.')[0]}.py", [])
        classes += [role] if role not in classes else []
    return found


def _classes(folder: Path) -> list[tuple[str, str]]:
    """`module.Class` and the auto class that it stands for, of every `auto_map` in the model's configs."""
    configs = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(folder.glob(_CONFIGS))]
    return [entry for config in configs for entry in _entries(config)]


def _entries(config: Any) -> Iterator[tuple[str, str]]:
    if not isinstance(config, dict):
        return
    found = config.get("auto_map", {})
    # A tokenizer's may be a list: the slow class and the fast one, either of which may be null.
    for role, references in found.items() if isinstance(found, dict) else [("AutoTokenizer", found)]:
        for reference in references if isinstance(references, list) else [references]:
            if isinstance(reference, str):
                yield reference, role
    for part in config.values():
        yield from _entries(part)


def _first_line(error: Exception) -> str:
    """The first line of an exception's message, and the next as well where the first only announces it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or ["no message"]
    return " ".join(lines[: 2 if lines[0].endswith(":") else 1])
