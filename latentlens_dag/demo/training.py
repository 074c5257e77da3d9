"""Checkpoints, figures and gates, shared by all stages of the demo model's training.

A stage that is killed resumes from its last checkpoint: files are written under a temporary name and
renamed, and all randomness of a step is a function of (seed, step), so that no generator's state is stored
and a resumed training ends with the weights of an uninterrupted one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latentlens_dag.storage.files import atomic_path, write_text

DONE = "DONE.json"
"""Name of the file of figures; a stage whose folder has it is complete."""
CHECKPOINT = "checkpoint.pt"


class GateError(RuntimeError):
    """A trained part misses a gate of its stage."""


@dataclass(frozen=True)
class Gate:
    """A figure that must reach `least` before the next stage may start."""

    figure: str
    least: float


def check_gates(stage: str, figures: Mapping[str, Any], gates: tuple[Gate, ...]) -> None:
    """Stop when a figure of `stage` is below its gate.

    Raises:
        GateError: naming every figure that falls short.
    """
    short = [
        f"{gate.figure} is {figures[gate.figure]:.3f}, gate {gate.least}"
        for gate in gates
        if figures[gate.figure] < gate.least
    ]
    if short:
        raise GateError(f"Stage {stage} falls short: {'; '.join(short)}. Train it longer, or with another --seed.")


def save_checkpoint(folder: Path, state: Mapping[str, Any]) -> None:
    """Write `state` as the checkpoint of `folder`; a kill leaves the old one or the new one, never half of one."""
    import torch

    with atomic_path(folder / CHECKPOINT) as partial:
        torch.save(dict(state), partial)


def load_checkpoint(folder: Path) -> dict[str, Any] | None:
    """The checkpoint of `folder`, None if there is none."""
    import torch

    path = folder / CHECKPOINT
    if not path.exists():
        return None
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return state


def resume_checkpoint(folder: Path, made_with: Mapping[str, Any], **parts: Any) -> dict[str, Any] | None:
    """Load the checkpoint of `folder` into `parts`; gives what else it holds, None if there is none.

    Raises:
        ValueError: if an entry of `made_with` differs from the checkpoint's.
    """
    state = load_checkpoint(folder)
    if state is None:
        return None
    for name, settings in made_with.items():
        if state[name] != settings:
            raise ValueError(
                f"The checkpoint in {folder} was made with {state[name]}, not with {settings}: remove the folder to "
                "start anew, or give the same settings and frozen models to go on."
            )
    for name, part in parts.items():
        part.load_state_dict(state.pop(name))
    return state


def write_figures(folder: Path, figures: Mapping[str, Any]) -> None:
    """Write the figures of a completed stage to `folder`/DONE.json."""
    write_text(json.dumps(dict(figures), indent=2, sort_keys=True) + "\n", folder / DONE)


def read_figures(folder: Path) -> dict[str, Any] | None:
    """The figures of the stage in `folder`, None if it is not complete."""
    path = folder / DONE
    if not path.exists():
        return None
    figures: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return figures
