"""The state of a training on disk, from which it goes on after a kill and ends with the same bytes.

One safetensors file holds the connector, the moments of the optimizer, the loss of every step, and as metadata the
number of steps and the settings. It is renamed when it is complete: a kill leaves the old one or the new one. All
randomness of a step is a function of the seed and the step, so that no generator's state is needed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from latentlens_dag.errors import UserError
from latentlens_dag.storage.files import atomic_path
from latentlens_dag.training.captions import IGNORED, Batch
from latentlens_dag.training.schedule import take_step

if TYPE_CHECKING:
    from torch import Tensor, nn

CHECKPOINT = "checkpoint.safetensors"
_FACTS = "steps"
_LAST = 100


class StepFacts(NamedTuple):
    """What a training tells of a step."""

    loss: float
    learning_rate: float
    images: int
    caption_tokens: int
    """Those with a loss: of the captions and their ends."""


@dataclass
class ConnectorRun:
    """The state of a training, and its checkpoint."""

    out: Path
    settings: Mapping[str, Any]
    """What decides the weights; a checkpoint must have been made with the same."""
    connector: nn.Module
    optimizer: Any
    step: int = 0
    """Steps that were taken."""
    seconds: float = 0.0
    """What they took."""
    facts: list[StepFacts] = field(default_factory=list)
    """Of every step."""

    @property
    def loss(self) -> float:
        """Mean loss of the last 100 steps; NaN before the first."""
        last = [facts.loss for facts in self.facts[-_LAST:]]
        return sum(last) / len(last) if last else float("nan")

    def learn(self, loss: Tensor, rate: float, batch: Batch) -> None:
        """One step of the optimizer down the `loss` of a batch at the learning rate `rate`."""
        take_step(self.optimizer, loss, self.connector.parameters(), rate)
        self.step += 1
        tokens = int((batch.targets != IGNORED).sum())
        self.facts.append(StepFacts(loss.item(), rate, len(batch.features), tokens))

    def save(self) -> None:
        """Write the checkpoint."""
        from safetensors.torch import save_file

        progress = {"step": self.step, "seconds": self.seconds}
        metadata = {"settings": _json(self.settings), "progress": json.dumps(progress)}
        with atomic_path(self.out / CHECKPOINT) as partial:
            save_file(self._tensors(), partial, metadata)

    def resume(self) -> float:
        """Go back to the checkpoint, if there is one; give the seconds that its steps took.

        Raises:
            UserError: if the checkpoint was made with other settings, or cannot be read.
        """
        from safetensors import SafetensorError, safe_open

        path = self.out / CHECKPOINT
        if not path.exists():
            return self.seconds
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                self._check_settings(metadata.get("settings", ""))
                stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise UserError(f"{path} cannot be read: {error}. Remove it to start anew.") from error
        self._restore(stored)
        progress = json.loads(metadata["progress"])
        self.step, self.seconds = progress["step"], progress["seconds"]
        columns = (_below(_FACTS, stored)[name].tolist() for name in StepFacts._fields)
        self.facts = [StepFacts(*row) for row in zip(*columns, strict=True)]
        return self.seconds

    def _check_settings(self, stored: str) -> None:
        if stored != _json(self.settings):
            raise UserError(
                f"The checkpoint in {self.out} was made with {stored or 'nothing that it tells'}, not with "
                f"{_json(self.settings)}: remove the folder to start anew, or give the same settings, images, captions "
                "and frozen models to go on."
            )

    def _tensors(self) -> dict[str, Tensor]:
        """The connector's weights, and of each what the optimizer keeps, by its number."""
        weights = {f"connector.{name}": weight for name, weight in self.connector.state_dict().items()}
        moments = {
            f"optimizer.{number}.{name}": value
            for number, state in self.optimizer.state_dict()["state"].items()
            for name, value in state.items()
        }
        tensors = weights | moments | self._facts_as_tensors()
        return {name: tensor.detach().contiguous() for name, tensor in tensors.items()}

    def _facts_as_tensors(self) -> dict[str, Tensor]:
        """The facts of all steps, by column: 24 bytes a step."""
        import torch

        columns = zip(*self.facts, strict=True) if self.facts else ((),) * len(StepFacts._fields)
        types = (torch.float64, torch.float64, torch.int32, torch.int32)
        return {
            f"{_FACTS}.{name}": torch.tensor(column, dtype=kind)
            for name, column, kind in zip(StepFacts._fields, columns, types, strict=True)
        }

    def _restore(self, stored: Mapping[str, Tensor]) -> None:
        self.connector.load_state_dict(_below("connector", stored))
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in _below("optimizer", stored).items():
            number, _, moment = name.partition(".")
            state.setdefault(int(number), {})[moment] = value
        self.optimizer.load_state_dict(self.optimizer.state_dict() | {"state": state})


def steps_taken(out: Path) -> int:
    """The steps of the training whose checkpoint lies in a folder; 0 where there is none that can be read."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(out / CHECKPOINT, framework="pt") as file:
            return int(json.loads((file.metadata() or {})["progress"])["step"])
    except (SafetensorError, OSError, KeyError, ValueError):
        return 0


def _below(prefix: str, stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(f"{prefix}."): value for name, value in stored.items() if name.startswith(f"{prefix}.")}


def _json(settings: Mapping[str, Any]) -> str:
    return json.dumps(settings, sort_keys=True)
