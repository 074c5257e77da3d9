"""Trains a connector undisturbed and killed five times: `python -m tests.training.killed_training FOLDER`.

Prints, as JSON, the hash of the weights of both and how often a training was killed. The trainings are forks of this
process, so that the libraries are imported once.
"""

import hashlib
import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch

from latentlens_dag.models.loading import load_language_model
from latentlens_dag.training.checkpoint import CHECKPOINT
from latentlens_dag.training.connector import train_connector
from latentlens_dag.training.feature_files import Features
from latentlens_dag.training.settings import ConnectorSettings
from tests.training.parts import pictures

SETTINGS = ConnectorSettings(steps=40, tokens=600, warmup=4)
KILLS = 5


def train(folder: Path, run: Path) -> None:
    """Train from the checkpoint in `run`, if there is one, saving one after each step, and write the hash."""
    language = load_language_model(folder / "language")
    features = Features([folder / "features"])
    result = train_connector(language, features, (4, 4), pictures(12)[1], run, SETTINGS, checkpoint_s=-1)
    weights = b"".join(result.weights[name].numpy().tobytes() for name in sorted(result.weights))
    (run / "hash").write_text(hashlib.sha256(weights).hexdigest())


def start(folder: Path, run: Path) -> int:
    """The id of a process that trains."""
    child = os.fork()
    if child == 0:
        train(folder, run)
        os._exit(0)
    return child


def checkpoint_time(run: Path) -> int:
    """The time of the checkpoint; 0 if there is none."""
    checkpoint = run / CHECKPOINT
    return checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0


def main() -> None:
    """Train both ways."""
    torch.set_num_threads(1)
    folder, rng, kills = Path(sys.argv[1]), random.Random(0), 0
    os.waitpid(start(folder, folder / "undisturbed"), 0)
    for _ in range(KILLS):
        before, child = checkpoint_time(folder / "killed"), start(folder, folder / "killed")
        while checkpoint_time(folder / "killed") == before:
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 0.1))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        kills += os.WIFSIGNALED(status)
    os.waitpid(start(folder, folder / "killed"), 0)
    hashes = {name: (folder / name / "hash").read_text() for name in ("undisturbed", "killed")}
    sys.stdout.write(json.dumps(hashes | {"kills": kills}))


if __name__ == "__main__":
    main()
