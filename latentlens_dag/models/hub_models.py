"""Downloading models from the Hugging Face Hub.

A model is downloaded as a whole into the standard cache and loaded from that folder, so that loading needs no
connection. Pickled weights, adapters and copies of the weights in other formats are never downloaded, and code only if
the user allows it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from latentlens_dag.errors import UserError
from latentlens_dag.hub.errors import download_errors
from latentlens_dag.hub.names import COMMIT
from latentlens_dag.models.model_ref import ModelRef, no_model_error
from latentlens_dag.models.weight_files import SHARD_INDEX, SINGLE_FILE

_SETTINGS = ["*.json", "*.jinja", "*.txt", "*.model", "*.tiktoken"]
_WEIGHTS, _CODE = "*.safetensors", "*.py"
_UNWANTED = ["*/*.safetensors", "consolidated*.safetensors", "adapter_*"]


class LocalModel(NamedTuple):
    """A model on this machine."""

    folder: Path
    name: str
    """The folder as the user wrote it, or user/name@commit."""


def local_model(model: ModelRef, weights: bool = True) -> LocalModel:
    """A model as a folder; a model of the Hub is downloaded first, unless all of it is cached.

    Args:
        model: the model; its code is downloaded too if it may be run.
        weights: False if configs and tokenizer are enough.

    Raises:
        UserError: if the folder does not exist, the Hub refuses or cannot be reached, the revision does not exist, the
            model's code may be run but the revision is not a full commit, or there are no weights in safetensors.
    """
    if model.repo is not None:
        return _downloaded(model.repo, model.revision or "main", model.trust_remote_code, weights)
    if model.path is None or not model.path.is_dir():
        raise no_model_error(model)
    return LocalModel(model.path, str(model))


def weight_bytes(model: ModelRef) -> int:
    """The size of the weights of a model of the Hub, without downloading them; errors as `local_model`."""
    from huggingface_hub import snapshot_download

    assert model.repo is not None
    folder = local_model(model, weights=False).folder
    if _has_weights(folder):
        return sum(file.stat().st_size for file in folder.glob(_WEIGHTS))
    with download_errors(model.repo, model.revision or "main", "model"):
        files: Any = snapshot_download(
            model.repo, revision=model.revision, allow_patterns=_WEIGHTS, ignore_patterns=_UNWANTED, dry_run=True
        )
    return sum(int(file.file_size) for file in files)


def _has_weights(folder: Path) -> bool:
    """Whether a folder has all weights of its model."""
    if not (folder / SHARD_INDEX).is_file():
        return (folder / SINGLE_FILE).is_file()
    try:
        names = json.loads((folder / SHARD_INDEX).read_text(encoding="utf-8"))["weight_map"].values()
        return all((folder / name).is_file() for name in names)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OSError):
        return True  # a damaged index is refused, by name, where weights are read


def cached_config(model: ModelRef) -> Path | None:
    """The config.json of a model of the Hub in the local cache; None if it was not downloaded."""
    from huggingface_hub import try_to_load_from_cache

    assert model.repo is not None
    path = try_to_load_from_cache(model.repo, "config.json", revision=model.revision)
    return Path(path) if isinstance(path, str) else None


def _downloaded(repo: str, revision: str, code: bool, weights: bool) -> LocalModel:
    from huggingface_hub import snapshot_download

    if code and not COMMIT.fullmatch(revision):
        raise UserError(
            f"`trust_remote_code` with {repo} at {revision}: the code of a branch, a tag or a short commit may change. "
            "Give the full commit as the revision, the 40 hexadecimal digits that the Hub shows under `History` of the "
            "files."
        )
    patterns = [*_SETTINGS, *([_WEIGHTS] if weights else []), *([_CODE] if code else [])]
    try:
        with download_errors(repo, revision, "model"):
            folder = Path(
                snapshot_download(repo, revision=revision, allow_patterns=patterns, ignore_patterns=_UNWANTED)
            )  # its name is the commit
    except UserError as error:
        if not Path(repo).parent.is_dir():
            raise
        raise UserError(f"There is no folder {repo} here: correct the path if you meant one. {error}") from error
    if not (folder / "config.json").is_file():
        raise UserError(f"{repo} of the Hub is not a model that transformers can load: it has no config.json.")
    if weights and not any((folder / name).is_file() for name in (SINGLE_FILE, SHARD_INDEX)):
        raise UserError(
            f"{repo} of the Hub has no {SINGLE_FILE} at {revision}. Pickled weights are not read, because they can run "
            "code: take a commit with safetensors, or convert the model and name its folder."
        )
    return LocalModel(folder, f"{repo}@{folder.name}")
