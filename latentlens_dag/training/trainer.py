"""The loop of a connector's training."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any, NamedTuple

from latentlens_dag.errors import UserError
from latentlens_dag.training.captions import Batch
from latentlens_dag.training.checkpoint import ConnectorRun
from latentlens_dag.training.schedule import warmup_cosine

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger(__name__)
_STEPS_BETWEEN_REPORTS = 25


class Schedule(NamedTuple):
    """How many steps are taken, and how large."""

    steps: int
    learning_rate: float
    """Its peak; see `warmup_cosine`."""
    warmup: int
    kept_steps: Collection[int] = ()
    """Steps after which the connector is kept beside the final one."""
    until: int | None = None
    """The step after which the training stops, where it is before the last: the learning rate is that of all."""

    @property
    def end(self) -> int:
        """The last step that is taken."""
        return self.steps if self.until is None else self.until


def new_optimizer(connector: Any, learning_rate: float) -> Any:
    """AdamW without weight decay for a connector's weights."""
    import torch

    return torch.optim.AdamW(connector.parameters(), lr=learning_rate, betas=(0.9, 0.98), weight_decay=0.0)


def train(
    run: ConnectorRun,
    batch_of: Callable[[int], Batch],
    loss_of: Callable[[Batch], Tensor],
    schedule: Schedule,
    checkpoint_s: float = 60.0,
    keep: Callable[[int], None] = lambda step: None,
    report: Callable[[ConnectorRun], None] = lambda run: None,
) -> None:
    """Train a connector to the last step, or go on from its checkpoint.

    Args:
        run: the connector, its optimizer and the folder of the checkpoint.
        batch_of: the sequences of a step; a function of the step alone.
        loss_of: the loss of sequences.
        schedule: the steps.
        checkpoint_s: seconds between checkpoints.
        keep: called with each of the schedule's `kept_steps` when so many steps were taken, before they are part of a
            checkpoint: after a kill it may be called again, with the same weights.
        report: called after every step.

    Raises:
        UserError: if the checkpoint was made with other settings, or the loss is no finite number.
    """
    began, spent_s = time.monotonic(), run.resume()
    saved = began
    while run.step < schedule.end:
        rate = schedule.learning_rate * warmup_cosine(run.step, schedule.steps, schedule.warmup)
        batch = batch_of(run.step)
        loss = loss_of(batch)
        if not loss.isfinite():
            raise UserError(
                f"The loss of step {run.step + 1} is {loss.item()}: the training diverged. Take a smaller "
                f"`learning_rate` than {schedule.learning_rate}, or a smaller `output_scale`."
            )
        run.learn(loss, rate, batch)
        run.seconds = spent_s + time.monotonic() - began
        if run.step in schedule.kept_steps:
            keep(run.step)
        report(run)
        if run.step % _STEPS_BETWEEN_REPORTS == 0:
            log.info("connector step %d of %d: loss %.3f, %.0f s", run.step, schedule.steps, run.loss, run.seconds)
        if time.monotonic() - saved > checkpoint_s or run.step == schedule.end:
            run.save()
            saved = time.monotonic()
