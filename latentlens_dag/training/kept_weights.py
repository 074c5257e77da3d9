"""The weights of a connector after the steps that are kept, beside the checkpoint of a training that has not ended."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from latentlens_dag.storage.files import atomic_path
from latentlens_dag.training.checkpoint import steps_taken

if TYPE_CHECKING:
    from torch import Tensor


def keep_weights(run: Path, step: int, weights: Mapping[str, Tensor]) -> None:
    """Write the weights after so many steps, in their own dtype."""
    from safetensors.torch import save_file

    with atomic_path(_file(run, step)) as partial:
        save_file({name: weight.contiguous() for name, weight in weights.items()}, partial)


def kept_weights(run: Path, step: int) -> dict[str, Tensor]:
    """What `keep_weights` wrote."""
    from safetensors.torch import load_file

    weights: dict[str, Tensor] = load_file(_file(run, step))
    return weights


def has_kept(run: Path, steps: Collection[int]) -> bool:
    """Whether a training has kept its weights after all of these steps that it has taken."""
    taken = steps_taken(run)
    return all(_file(run, step).is_file() for step in steps if step <= taken)


def _file(run: Path, step: int) -> Path:
    return run / f"S{step:06d}.safetensors"
