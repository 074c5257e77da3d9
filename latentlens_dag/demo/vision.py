"""Stage 2 of the demo model: a CLIP vision encoder trained to classify patches.

The labels are the patches' own truth: the name of the object or background that covers most of the
patch. This is supervision a real encoder does not get, and the model card says so; in exchange 1.9 M
parameters learn the world in minutes on one core. A linear head reads hidden state -1, from which
LLaVA takes its features, and is discarded afterwards.

Training starts on dense scenes (5-10 objects): with 1-4 it learned nothing, because four patches in
five were background. Then every second scene is sparse, with larger objects, like the demo's pictures.
One cycle of the learning rate with a third of its steps mixed in this way was not enough: 79 % of the patches of
80-pixel sprites were right, and 90 % of those of 48 pixels. More cycles, mixed from the start, helped:
94.6 % of object patches were right after the fourth, and no more after the fifth.
Scenes are drawn on demand (12 ms each, over a quarter of a step), so no scene is used twice.
"""

from __future__ import annotations

import logging
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from latentlens_dag.demo.backdrops import PIXELS
from latentlens_dag.demo.scenes import HELD_OUT_FROM, PATCH, PATCHES, SceneSource, training_seed, visible_patches
from latentlens_dag.demo.training import (
    Gate,
    resume_checkpoint,
    save_checkpoint,
    write_figures,
)
from latentlens_dag.device import has_bfloat16
from latentlens_dag.training.schedule import take_step, warmup_cosine

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import CLIPVisionModel

log = logging.getLogger(__name__)

IMAGE_MEAN = (0.48145466, 0.4578275, 0.40821073)
IMAGE_STD = (0.26862954, 0.26130258, 0.27577711)
"""CLIP's own normalization, so that the stock image processor serves."""
MIN_COVERED = 0.5
"""A patch is scored when one region covers at least this much of it."""
GATES = (Gate("object_accuracy", 0.95), Gate("background_accuracy", 0.98))


@dataclass(frozen=True)
class VisionShape:
    """Size of the encoder."""

    hidden: int = 192
    layers: int = 5
    heads: int = 6
    mlp: int = 512


@dataclass(frozen=True)
class VisionTraining:
    """All settings that determine the encoder's weights, on one machine."""

    seed: int = 0
    cycles: tuple[int, ...] = (1600, 1100, 1000, 1200, 700)
    """Steps of each cycle of the learning rate."""
    dense_steps: int = 1056
    """Steps with dense scenes only; afterwards every second scene is sparse."""
    batch: int = 16
    """Scenes per step; 144 labeled patches each."""
    learning_rate: float = 1.2e-3
    """Peak of the first cycle; later ones have two thirds of it."""
    warmup: int = 80
    weight_decay: float = 0.05
    shape: VisionShape = VisionShape()

    @property
    def steps(self) -> int:
        """Steps of all cycles."""
        return sum(self.cycles)

    def rate(self, step: int) -> float:
        """Learning rate of `step`."""
        peak, warmup = self.learning_rate, self.warmup
        for length in self.cycles:
            if step < length:
                return peak * warmup_cosine(step, length, warmup)
            step -= length
            peak, warmup = self.learning_rate * 2 / 3, self.warmup // 2
        raise ValueError(f"The cycles {self.cycles} end before this step.")

    def objects(self, step: int, row: int) -> tuple[int, int]:
        """Fewest and most objects of scene `row` of `step`; up to four objects are large."""
        if step < self.dense_steps or row % 2 == 0:
            return 5, 10
        return (1, 4) if step < self.cycles[0] else (3, 4)


@dataclass(frozen=True)
class PatchAccuracy:
    """Share of patches whose class is right, on held-out sparse scenes.

    A patch counts where one region covers at least half of it.
    """

    object_accuracy: float
    background_accuracy: float
    object_accuracy_all: float
    """The same over all patches that an object covers more of than anything else."""


def train_vision_encoder(
    source: SceneSource,
    out: Path,
    training: VisionTraining = VisionTraining(),
    checkpoint_s: float = 60.0,
    held_out: int = 200,
) -> dict[str, Any]:
    """Train the encoder, or resume from the checkpoint of `out`; writes `out`/model and `out`/DONE.json.

    Gives the figures of DONE.json. The gates are the caller's to check (GATES).
    """
    encoder, head, optimizer = _start(source, training)
    parts = {"encoder": encoder, "head": head, "optimizer": optimizer}
    before = resume_checkpoint(out, {"training": asdict(training)}, **parts) or {"step": 0, "seconds": 0.0}
    step = before["step"]
    saved = time.monotonic()
    started = saved - before["seconds"]
    while step < training.steps:
        loss, right = train_step(source, training, encoder, head, optimizer, step)
        step += 1
        seconds = time.monotonic() - started
        if step % 20 == 0 or step == training.steps:
            progress = (step, training.steps, loss, right, seconds)
            log.info("vision step %d of %d: loss %.3f, patches right %.3f, %.0f s", *progress)
        if time.monotonic() - saved > checkpoint_s or step == training.steps:
            weights = {name: part.state_dict() for name, part in parts.items()}
            save_checkpoint(out, weights | {"training": asdict(training), "step": step, "seconds": seconds})
            saved = time.monotonic()
    accuracy = patch_accuracy(source, encoder, head, held_out)
    return _finish(out, training, encoder, accuracy, time.monotonic() - started)


def new_encoder(shape: VisionShape) -> CLIPVisionModel:
    """An untrained encoder of `shape` for the demo's pictures and patches."""
    from transformers import CLIPVisionConfig, CLIPVisionModel

    config = CLIPVisionConfig(
        hidden_size=shape.hidden,
        intermediate_size=shape.mlp,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        image_size=PIXELS,
        patch_size=PATCH,
        projection_dim=shape.hidden,
        hidden_act="gelu",
    )
    return CLIPVisionModel(config)


def patch_features(encoder: CLIPVisionModel, pixels: Tensor) -> Tensor:
    """The features that LLaVA takes: hidden state -1 of the patches, [B, PATCHES, hidden]."""
    states = encoder(pixel_values=pixels, output_hidden_states=True).hidden_states
    patches: Tensor = states[-1][:, 1:]
    return patches


def normalize(images: np.ndarray) -> Tensor:
    """uint8 [B, PIXELS, PIXELS, 3] as the image processor would give it: float32 [B, 3, PIXELS, PIXELS]."""
    import torch

    pixels = torch.tensor(images).permute(0, 3, 1, 2).float() / 255
    return (pixels - torch.tensor(IMAGE_MEAN).view(1, 3, 1, 1)) / torch.tensor(IMAGE_STD).view(1, 3, 1, 1)


class PatchLabels(NamedTuple):
    """Pictures with the class of every patch."""

    pixels: Tensor
    """float32 [B, 3, PIXELS, PIXELS], normalized."""
    classes: Tensor
    """int64 [B, PATCHES]: index into `world.class_names` of what covers most of the patch."""
    covered: Tensor
    """float32 [B, PATCHES]: the share of the patch that it covers."""


def labeled_scenes(source: SceneSource, seeds: list[int], bounds: list[tuple[int, int]]) -> PatchLabels:
    """The scenes of `seeds`, with the class of every patch.

    `bounds` gives the fewest and most objects of each scene.
    """
    import torch

    classes = {name: index for index, name in enumerate(source.world.class_names)}
    images = np.empty((len(seeds), PIXELS, PIXELS, 3), np.uint8)
    labels = np.empty((len(seeds), PATCHES), np.int64)
    covered = np.empty((len(seeds), PATCHES), np.float32)
    for row, (seed, (fewest, most)) in enumerate(zip(seeds, bounds, strict=True)):
        scene, rendered = source(seed, fewest, most)
        images[row] = np.asarray(rendered.image)
        of_region = np.array([classes[name] for name in scene.names])
        shares = visible_patches(rendered.labels, len(scene.names))
        labels[row], covered[row] = of_region[shares.argmax(axis=1)], shares.max(axis=1)
    return PatchLabels(normalize(images), torch.from_numpy(labels), torch.from_numpy(covered))


def train_step(
    source: SceneSource, training: VisionTraining, encoder: CLIPVisionModel, head: nn.Module, optimizer: Any, step: int
) -> tuple[float, float]:
    """One step on the scenes that belong to `step`: its loss and the share of patches that were right."""
    import torch

    seeds = [training_seed("vision", training.seed, step * training.batch + row) for row in range(training.batch)]
    bounds = [training.objects(step, row) for row in range(training.batch)]
    pixels, labels, _ = labeled_scenes(source, seeds, bounds)
    with torch.autocast("cpu", torch.bfloat16, enabled=has_bfloat16()):
        logits = head(patch_features(encoder, pixels))
    loss = torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), labels.flatten())
    take_step(optimizer, loss, [*encoder.parameters(), *head.parameters()], training.rate(step))
    return loss.item(), (logits.argmax(-1) == labels).float().mean().item()


def patch_accuracy(
    source: SceneSource, encoder: CLIPVisionModel, head: nn.Module, scenes: int, batch: int = 20
) -> PatchAccuracy:
    """Share of right patches on `scenes` held-out scenes of 1-4 objects, in float32."""
    import torch

    right: list[Tensor] = []
    classes: list[Tensor] = []
    covered: list[Tensor] = []
    for start in range(0, scenes, batch):
        seeds = [HELD_OUT_FROM + index for index in range(start, min(start + batch, scenes))]
        labeled = labeled_scenes(source, seeds, [(1, 4)] * len(seeds))
        with torch.inference_mode():
            right.append(head(patch_features(encoder, labeled.pixels)).argmax(-1) == labeled.classes)
        classes.append(labeled.classes)
        covered.append(labeled.covered)
    hits, is_object = torch.cat(right).float(), torch.cat(classes) < len(source.world.objects)
    clear = torch.cat(covered) >= MIN_COVERED
    shares = [hits[which].mean().item() for which in (is_object & clear, ~is_object & clear, is_object)]
    return PatchAccuracy(*shares)


def _start(source: SceneSource, training: VisionTraining) -> tuple[CLIPVisionModel, nn.Module, Any]:
    import torch

    torch.manual_seed(training.seed)
    encoder = new_encoder(training.shape)
    head = torch.nn.Sequential(
        torch.nn.LayerNorm(training.shape.hidden), torch.nn.Linear(training.shape.hidden, len(source.world.class_names))
    )
    weights = [*encoder.parameters(), *head.parameters()]
    decayed, plain = [one for one in weights if one.ndim >= 2], [one for one in weights if one.ndim < 2]
    groups = [{"params": decayed, "weight_decay": training.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return encoder, head, torch.optim.AdamW(groups, lr=training.learning_rate, betas=(0.9, 0.98))


def _finish(
    out: Path, training: VisionTraining, encoder: CLIPVisionModel, accuracy: PatchAccuracy, seconds: float
) -> dict[str, Any]:
    import torch

    encoder.save_pretrained(out / "model")
    figures = asdict(training) | asdict(accuracy)
    figures |= {
        "steps": training.steps,
        "scenes": training.steps * training.batch,
        "parameters": sum(weight.numel() for weight in encoder.parameters()),
        "patches": PATCHES,
        "seconds": round(seconds, 1),
        "threads": torch.get_num_threads(),
        "bfloat16": has_bfloat16(),
    }
    write_figures(out, figures)
    return figures
