"""A connector as a file of a few MB, with the names and hashes of the frozen models that it was trained between.

The file is one of safetensors; its weights are those of LLaVA's projector (`modules.llava_weights`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latentlens_dag.errors import UserError
from latentlens_dag.storage.files import atomic_path

if TYPE_CHECKING:
    from torch import Tensor

_FORMAT = "latentlens-dag connector 1"
_WEIGHTS = ("linear_1.weight", "linear_1.bias", "linear_2.weight", "linear_2.bias")


@dataclass(frozen=True)
class ConnectorFacts:
    """What a connector belongs to, and how it was trained."""

    kind: str
    """`mlp` or `linear`."""
    language_model: str
    """Name of the frozen language model."""
    language_model_hash: str
    """Of its files, or of its name and commit."""
    vision_encoder: str
    vision_encoder_hash: str
    feature_layer: int
    pool: int
    step: int
    """Steps that were taken; 0 for an untrained connector."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Of the training."""


def save_connector(weights: Mapping[str, Tensor], facts: ConnectorFacts, path: Path) -> None:
    """Write a connector; equal weights and facts give equal bytes."""
    import torch
    from safetensors.torch import save_file

    stored = {name: weights[name].detach().to(torch.bfloat16).cpu().contiguous() for name in _WEIGHTS}
    with atomic_path(path) as partial:
        # One key: safetensors writes several in any order.
        save_file(stored, partial, {_FORMAT: json.dumps(asdict(facts), sort_keys=True)})


def load_connector(path: Path) -> tuple[dict[str, Tensor], ConnectorFacts]:
    """The weights (float32) and facts of a connector's file.

    Raises:
        UserError: if it is no such file, or is damaged.
    """
    import torch
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if _FORMAT not in metadata:
                raise UserError(f"{path} is no file of a connector: its metadata has no {_FORMAT!r}.")
            facts = ConnectorFacts(**json.loads(metadata[_FORMAT]))
            weights = {name: file.get_tensor(name).to(torch.float32) for name in _WEIGHTS}
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} cannot be read as a connector: {error}. Was it copied as a whole?") from error
    return weights, facts
