"""A project with connectors that nobody trains: the steps of a Connector copy models that lie in the project.

The folder of the defs.yaml has `trained/NAME/S000002` for each checkpoint. A copied folder counts by its content, as
one that was trained again would.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import dagster as dg
import torch

from latentlens_dag.dag import keys
from latentlens_dag.dag.components import Connector
from latentlens_dag.dag.components.base import folder_of
from latentlens_dag.dag.recording import result
from latentlens_dag.dag.resources import WarehouseResource
from latentlens_dag.dag.versions import version_fields
from latentlens_dag.models.loading import load_with_language_model
from latentlens_dag.storage.files import atomic_path
from latentlens_dag.storage.hashing import hash_file, hash_values
from latentlens_dag.testing import tiny_project
from latentlens_dag.training.checkpoint_folder import save_llava
from latentlens_dag.training.vision_encoder import load_vision_encoder
from tests.training.parts import save_encoder, save_language_model


@contextmanager
def copied_checkpoints() -> Iterator[None]:
    """Let every Connector copy its checkpoints."""

    def build_defs(self: Connector, context: dg.ComponentLoadContext) -> dg.Definitions:
        folder = folder_of(context) / "trained" / self.name
        return dg.Definitions(assets=[_copied(self.name, step, folder) for step in self.kept_steps])

    with patch.object(Connector, "build_defs", build_defs):
        yield


def _copied(connector: str, step: int, folder: Path) -> dg.AssetsDefinition:
    source, key = folder / f"S{step:06d}", keys.checkpoint(connector, step)
    version = version_fields(1, content=hash_values(map(hash_file, sorted(source.iterdir()))))

    @dg.asset(key=key, **version)
    def checkpoint(warehouse: WarehouseResource) -> dg.MaterializeResult:
        out = warehouse.paths.checkpoint(connector, step)
        with atomic_path(out) as partial:
            shutil.copytree(source, partial)
        return result(None, hash_values(map(hash_file, sorted(out.iterdir()))), {}, [out])

    return checkpoint


def write_checkpoint(project: Path, connector: str, step: int, seed: int) -> None:
    """Write a checkpoint between the project's frozen models, whose connector is drawn with a seed."""
    here = project / "assets" / "tiny"
    language, encoder = load_with_language_model(here / "language"), load_vision_encoder(here / "vision", layer=-2)
    random, width = torch.Generator().manual_seed(seed), language.language_model.width
    shapes = {"linear_1.weight": (width, encoder.hidden), "linear_1.bias": (width,)}
    shapes |= {"linear_2.weight": (width, width), "linear_2.bias": (width,)}
    weights = {name: torch.randn(shape, generator=random) / width**0.5 for name, shape in shapes.items()}
    save_llava(language, encoder, weights, "mlp", here / "trained" / connector / f"S{step:06d}", "float32")


def project_with_connectors(folder: Path, declared: str, checkpoints: dict[tuple[str, int], int]) -> Path:
    """A project with the tiny one's corpus and pictures, frozen models in `language` and `vision`, and checkpoints.

    `checkpoints` has a seed for each connector and step; `declared` is the text of the defs.yaml.
    """
    project = tiny_project(folder)
    here = project / "assets" / "tiny"
    shutil.rmtree(here / "model")
    save_language_model("Llama", here / "language")
    save_encoder("clip", here / "vision")
    for (connector, step), seed in checkpoints.items():
        write_checkpoint(project, connector, step, seed)
    (here / "defs.yaml").write_text(declared)
    return project
