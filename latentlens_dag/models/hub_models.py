"""Models on the Hugging Face Hub: what of one is downloaded.

A model is downloaded as a whole into the standard cache and loaded from that folder, so that loading never asks the
Hub. What a newcomer gets wrong: a repository holds more than a model. Pickled weights, adapters and copies of the
weights in other formats are never downloaded, code only where the user has allowed it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from latentlens_dag.errors import UserError
from latentlens_dag.hub.errors import download_errors
from latentlens_dag.hub.names import COMMIT
from latentlens_dag.models.model_ref import ModelRef, no_model_error

_SETTINGS = ["*.json", "*.jinja", "*.txt", "*.model", "*.tiktoken"]
_WEIGHTS, _CODE = "*.safetensors", "*.py"
_INDEX = "model.safetensors.index.json"
_UNWANTED = ["*/*.safetensors", "consolidated*.safetensors", "adapter_*"]


class LocalModel(NamedTuple):
    """A model on this machine."""

    folder: Path
    name: str
    """The folder as it was given, or user/name@commit."""


def local_model(model: ModelRef, weights: bool = True) -> LocalModel:
    """A model as a folder; one of the Hub is downloaded first, unless the cache holds all of it.

    Args:
        model: of the Hub, its code is downloaded too where it may be run; the name tells the commit.
        weights: False where its configs and its tokenizer are enough.

    Raises:
        UserError: where the folder is not there, the Hub refuses or cannot be reached, the revision is not there or,
            where its code may be run, no full commit, or the repository has no weights in safetensors.
    """
    if model.repo is not None:
        return _downloaded(model.repo, model.revision or "main", model.trust_remote_code, weights)
    if model.path is None or not model.path.is_dir():
        raise no_model_error(model)
    return LocalModel(model.path, str(model))


def weight_bytes(model: ModelRef) -> int:
    """The size of a model's weights, which are not downloaded for it; errors as `local_model`."""
    from huggingface_hub import snapshot_download

    assert model.repo is not None
    folder = local_model(model, weights=False).folder
    if _holds_weights(folder):
        return sum(file.stat().st_size for file in folder.glob(_WEIGHTS))
    with download_errors(model.repo, model.revision or "main", "model"):
        files: Any = snapshot_download(
            model.repo, revision=model.revision, allow_patterns=_WEIGHTS, ignore_patterns=_UNWANTED, dry_run=True
        )
    return sum(int(file.file_size) for file in files)


def _holds_weights(folder: Path) -> bool:
    """Whether all of a model's weights are here."""
    if not (folder / _INDEX).is_file():
        return (folder / "model.safetensors").is_file()
    names = json.loads((folder / _INDEX).read_text(encoding="utf-8"))["weight_map"].values()
    return all((folder / name).is_file() for name in names)


def cached_config(model: ModelRef) -> dict[str, Any] | None:
    """The config.json of a model of the Hub, where it was downloaded before; the Hub is not asked."""
    from huggingface_hub import try_to_load_from_cache

    assert model.repo is not None
    found = try_to_load_from_cache(model.repo, "config.json", revision=model.revision)
    if not isinstance(found, str):
        return None
    config: dict[str, Any] = json.loads(Path(found).read_text(encoding="utf-8"))
    return config


def _downloaded(repo: str, revision: str, code: bool, weights: bool) -> LocalModel:
    from huggingface_hub import snapshot_download

    if code and not COMMIT.fullmatch(revision):
        raise UserError(
            f"`trust_remote_code` with {repo} at {revision}: the code of a branch, a tag or a short commit may be "
            "another one tomorrow. Give the full commit as the revision, the 40 hexadecimal digits that the Hub shows "
            "under `History` of the files."
        )
    wanted = [*_SETTINGS, *([_WEIGHTS] if weights else []), *([_CODE] if code else [])]
    try:
        with download_errors(repo, revision, "model"):
            folder = Path(
                snapshot_download(repo, revision=revision, allow_patterns=wanted, ignore_patterns=_UNWANTED)
            )  # its name is the commit
    except UserError as error:
        if not Path(repo).parent.is_dir():
            raise
        raise UserError(f"There is no folder {repo} here: correct the path if you meant one. {error}") from error
    if not (folder / "config.json").is_file():
        raise UserError(f"{repo} of the Hub is no model that transformers can load: it has no config.json.")
    if weights and not any((folder / name).is_file() for name in ("model.safetensors", _INDEX)):
        raise UserError(
            f"{repo} of the Hub has no model.safetensors at {revision}. Pickled weights are not read, for they can run "
            "code: take a commit with safetensors, or convert the model and name its folder."
        )
    return LocalModel(folder, f"{repo}@{folder.name}")
