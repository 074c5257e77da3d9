"""Models on the Hugging Face Hub: what names one, what of it is downloaded, and what a failure means.

A model is downloaded as a whole into the standard cache and loaded from that folder, so that loading never asks the
Hub. What a newcomer gets wrong: a repository holds more than a model. Pickled weights, code, adapters and copies of
the weights in other formats are never downloaded.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from latentlens_dag.errors import UserError
from latentlens_dag.hub_datasets import http_status
from latentlens_dag.identity import combined

MODEL_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
"""user/name."""
_WANTED = ["*.safetensors", "*.json", "*.jinja", "*.txt", "*.model", "*.tiktoken"]
_UNWANTED = ["*/*.safetensors", "consolidated*.safetensors", "adapter_*"]


@dataclass(frozen=True)
class HubModel:
    """A model on the Hub, at one commit."""

    repo: str
    """user/name."""
    revision: str
    """The full commit."""

    @property
    def name(self) -> str:
        """What a person calls it."""
        return self.repo

    @property
    def version(self) -> str:
        """What changes when it does: nobody can change a commit."""
        return combined([self.repo, self.revision])

    def __str__(self) -> str:
        """What it is called where the commit matters."""
        return f"{self.repo}@{self.revision}"


class LocalModel(NamedTuple):
    """A model on this machine."""

    folder: Path
    name: str
    """The folder as it was given, or user/name@commit."""


def local_model(source: str | Path | HubModel, revision: str | None = None) -> LocalModel:
    """A model as a folder; one of the Hub is downloaded first, unless the cache holds all of it.

    Args:
        source: a folder, a model of the Hub, or its user/name.
        revision: of a user/name: a commit, branch or tag; `main` by default. The name tells the commit.

    Raises:
        UserError: where it is neither a folder nor a name, the Hub refuses or cannot be reached, the revision is not
            there, or the repository has no weights in safetensors.
    """
    if isinstance(source, HubModel):
        return _downloaded(source.repo, source.revision)
    if Path(source).is_dir():
        return LocalModel(Path(source), str(source))
    if isinstance(source, str) and MODEL_ID.fullmatch(source):
        return _downloaded(source, revision or "main")
    raise UserError(f"{source} is no model: there is no such folder, and models of the Hub are written as user/name.")


def cached_config(model: HubModel) -> dict[str, Any] | None:
    """The config.json of a model of the Hub, where it was downloaded before; the Hub is not asked."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(model.repo, "config.json", revision=model.revision)
    if not isinstance(found, str):
        return None
    config: dict[str, Any] = json.loads(Path(found).read_text(encoding="utf-8"))
    return config


def _downloaded(repo: str, revision: str) -> LocalModel:
    from huggingface_hub import snapshot_download

    with _told(repo, revision):
        folder = Path(
            snapshot_download(repo, revision=revision, allow_patterns=_WANTED, ignore_patterns=_UNWANTED)
        )  # its name is the commit
    if not (folder / "config.json").is_file():
        raise UserError(f"{repo} of the Hub is no model that transformers can load: it has no config.json.")
    if not any((folder / name).is_file() for name in ("model.safetensors", "model.safetensors.index.json")):
        raise UserError(
            f"{repo} of the Hub has no model.safetensors at {revision}. Pickled weights are not read, for they can run "
            "code: take a commit with safetensors, or convert the model and name its folder."
        )
    return LocalModel(folder, f"{repo}@{folder.name}")


@contextmanager
def _told(repo: str, revision: str) -> Iterator[None]:
    """Tell the user what a failure of the download means.

    Errors are told without their text and cause, and so nowhere logged: they may quote headers, and a header holds
    the user's token.
    """
    import httpx2  # what huggingface_hub speaks HTTP with
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        yield
    except GatedRepoError:  # a RepositoryNotFoundError too
        raise UserError(
            f"{repo} of the Hub is gated: ask for access on its page, then log in with `hf auth login` or set HF_TOKEN."
        ) from None
    except RepositoryNotFoundError:
        raise UserError(
            f"There is no model {repo} on the Hub, nor a folder of this name here, or it is private. Correct the name; "
            "log in with `hf auth login` if it is private."
        ) from None
    except RevisionNotFoundError:
        raise UserError(
            f"{repo} of the Hub has no revision {revision}. Take a commit that its page shows under `History`."
        ) from None
    except HFValidationError:
        raise UserError(f"{repo} is no name of a model of the Hub: write it as user/name.") from None
    except (httpx2.HTTPError, LocalEntryNotFoundError, ConnectionError, UnicodeEncodeError) as error:
        status = http_status(error)  # UnicodeEncodeError: of a header
        what = f"the Hub answered with status {status}" if status else f"no answer ({type(error).__name__})"
        raise UserError(
            f"{repo} of the Hub cannot be downloaded: {what}. Is there a network, does HF_HUB_OFFLINE forbid it, are "
            "HF_ENDPOINT and HF_TOKEN right where they are set? `hf download` can bring it into the cache before."
        ) from None
    except OSError as error:
        raise UserError(
            f"{repo} of the Hub cannot be written to the cache ({error.strerror or type(error).__name__}): is the disk "
            "full? HF_HOME names another place."
        ) from None
