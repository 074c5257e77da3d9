"""Stage 3 of the demo model: the connector, trained on captions of the visible patches.

Language model and vision encoder are frozen and stay as they are; only LLaVA's two-layer MLP
learns. A step shows the model the visual tokens of whole scenes, or only some of them (a window,
a random subset, a few patches of one region), and asks for the caption of exactly what is visible
there. On captions of whole scenes alone one background token is enough for the caption and the
rest carry nothing: then 84 % of the background patches are read instead of 96 %. The model is never asked
to name single patches, which would train exactly what the lenses measure.

What is special to the demo is here: its scenes, their captions, and the regions of which a step keeps patches. The
training itself is that of `latentlens_dag.training`.
"""

from __future__ import annotations

import random
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from latentlens_dag.demo.scenes import GRID, PATCHES, SceneSource, Truth, scene_truth, training_seed, visible_view
from latentlens_dag.demo.text_captions import PROMPT, caption
from latentlens_dag.demo.vision import normalize, patch_features
from latentlens_dag.device import has_bfloat16
from latentlens_dag.models.loading import language_model_of
from latentlens_dag.training.captions import Batch, caption_loss, embedding_rms, padded_texts
from latentlens_dag.training.checkpoint import ConnectorRun
from latentlens_dag.training.modules import llava_weights, new_connector
from latentlens_dag.training.standardization import Standardization, root_mean_square
from latentlens_dag.training.token_dropping import kept_tokens
from latentlens_dag.training.trainer import Schedule, new_optimizer, train

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import CLIPVisionModel, LlamaForCausalLM, PreTrainedTokenizerBase

Kind = Literal["whole", "subset", "window", "region", "few"]
Shares = tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class ConnectorTraining:
    """All settings that determine the connector's weights, given the two frozen models."""

    seed: int = 0
    steps: int = 3200
    scenes: int = 8000
    """Distinct training scenes; their features are computed once and kept in bfloat16 (55 kB each)."""
    output_scale: float = 8.0
    """RMS of the untrained connector's output, in RMS of the text embeddings; training makes it several times as
    large, unless `fixed_size`. Blocks add to a visual token what they add to a word; where its own state is not much
    larger, the last layers no longer say what it is."""
    fixed_size: bool = True
    """Keep the mean size of each step's visual tokens at `output_scale`; the factor is folded into the last layer."""
    finished_scale: float = 6.5
    """The mean size that the finished connector has instead, with `fixed_size`: large visual tokens are learned from
    sooner, but the language model then names fewer of the objects."""
    whitening: float = 0.05
    """Above 0, the features are decorrelated before they are learned from (this is added to the variance of each
    direction, 1 in the mean): as the encoder gives them, the smallest variance is a seven-hundredth of the largest."""
    name_weight: float = 5.0
    """Weight in the loss of the tokens that name an object or background; every other token has 1."""
    learning_rate: float = 1.2e-2
    warmup: int = 40
    kinds: Shares = (("whole", 0.15), ("subset", 0.37), ("window", 0.14), ("region", 0.24), ("few", 0.10))
    """What a step keeps, and how often: all patches; 12-100 random patches; a window of 2-7 by 2-7
    patches; 1-4 patches that show one region; 1-8 random patches."""
    small_steps: int = 250
    """The first steps keep windows and few patches only: there the caption is about little."""
    last_steps: int = 960
    """Steps at the end that use `last_kinds`: they learn to caption whole scenes."""
    last_kinds: Shares = (("whole", 0.60), ("subset", 0.20), ("window", 0.05), ("region", 0.10), ("few", 0.05))
    tokens: int = 1600
    """Visual and text tokens of a step, about: the fewer patches are kept, the larger the batch."""


class Features(NamedTuple):
    """The frozen encoder's view of the training scenes."""

    rows: Tensor
    """bfloat16 [N, PATCHES, hidden]: the encoder's features, standardized."""
    truths: list[Truth]
    standardization: Standardization


def scene_features(
    source: SceneSource, encoder: CLIPVisionModel, training: ConnectorTraining, batch: int = 20
) -> Features:
    """Draw the training scenes and encode them with the frozen encoder, its weights as they are shipped."""
    import torch

    rows: list[Tensor] = []
    truths: list[Truth] = []
    for start in range(0, training.scenes, batch):
        images = []
        for index in range(start, min(start + batch, training.scenes)):
            scene, rendered = source(training_seed("connector", training.seed, index))
            images.append(np.asarray(rendered.image))
            truths.append(scene_truth(rendered, scene))
        with torch.inference_mode():
            rows.append(patch_features(encoder, normalize(np.stack(images)).to(encoder.dtype)).bfloat16())
    return _standardized(torch.cat(rows), truths, training.whitening)


def choose_patches(
    kind: Kind, truth: Truth, count: int, window: tuple[int, int], rng: random.Random
) -> npt.NDArray[np.bool_]:
    """The patches a sequence keeps: bool [PATCHES] with exactly `count` true (PATCHES for "whole").

    "region" falls back on random patches when no region shows in `count` patches.
    """
    if kind != "region":
        return kept_tokens(kind, (GRID, GRID), count, window, rng)
    kept = np.zeros(PATCHES, bool)
    kept[rng.sample(_region_patches(truth, count, rng), count)] = True
    return kept


def sample_batch(
    source: SceneSource, features: Features, tokenizer: PreTrainedTokenizerBase, training: ConnectorTraining, step: int
) -> Batch:
    """The sequences of `step`: scenes, kept patches and captions are functions of the seed and the step."""
    import torch

    rng = random.Random(training.seed * 1_000_003 + step)
    kind, count, window = _draw_kind(training, step, rng)
    prompt = tokenizer.encode(PROMPT, add_special_tokens=False)
    rows, captions = [], []
    for index in rng.sample(range(len(features.truths)), max(1, training.tokens // (count + 56))):
        kept = choose_patches(kind, features.truths[index], count, window, rng)
        rows.append(features.rows[index][torch.from_numpy(kept)])
        text = caption(source.world, visible_view(features.truths[index], kept), rng)
        captions.append([*tokenizer.encode(text, add_special_tokens=False), tokenizer.eos_token_id])
    token_ids, targets = padded_texts(prompt, captions)
    named = torch.isin(targets, torch.tensor(_name_tokens(source, tokenizer)))
    return Batch(torch.stack(rows), token_ids, targets, torch.where(named, training.name_weight, 1.0))


def train_connector(
    source: SceneSource,
    language: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    encoder: CLIPVisionModel,
    out: Path,
    training: ConnectorTraining = ConnectorTraining(),
    checkpoint_s: float = 60.0,
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Train the connector between the frozen `language` and `encoder`, or go on from `out`'s checkpoint.

    Gives LLaVA's connector weights and the figures of the training.
    """
    import torch

    language, encoder = _frozen(language), _frozen(encoder)
    parts = language_model_of("the demo's language model", language, tokenizer)
    features = scene_features(source, encoder, training)
    output_rms = training.output_scale * embedding_rms(language)
    connector = new_connector(features.rows.shape[-1], parts.width, training.seed)
    before = [tokenizer.bos_token_id]
    settings = asdict(training) | {"output_rms": output_rms, "features_rms": features.standardization.rms}
    run = ConnectorRun(out, settings, connector, new_optimizer(connector, training.learning_rate))

    def loss_of(batch: Batch) -> Tensor:
        return caption_loss(parts, connector, batch, before, output_rms, training.fixed_size)

    batch_of = partial(sample_batch, source, features, tokenizer, training)
    train(run, batch_of, loss_of, Schedule(training.steps, training.learning_rate, training.warmup), checkpoint_s)
    figures = asdict(training) | {
        "loss": round(run.loss, 4),
        "seconds": round(run.seconds, 1),
        "threads": torch.get_num_threads(),
        "parameters": sum(weight.numel() for weight in connector.parameters()),
    }
    if training.fixed_size:
        with torch.inference_mode():
            size = float(root_mean_square(connector(features.rows[:200].float())))
        output_rms = training.finished_scale * embedding_rms(language) / size
    return llava_weights(connector, features.standardization, output_rms), figures


def untrained_connector(
    source: SceneSource, language: LlamaForCausalLM, encoder: CLIPVisionModel, training: ConnectorTraining
) -> dict[str, Tensor]:
    """LLaVA's connector weights before the first step: the control for every figure of a lens."""
    features = scene_features(source, _frozen(encoder), replace(training, scenes=min(100, training.scenes)))
    connector = new_connector(features.rows.shape[-1], language.config.hidden_size, training.seed)
    return llava_weights(connector, features.standardization, training.output_scale * embedding_rms(language))


def _standardized(rows: Tensor, truths: list[Truth], whitening: float) -> Features:
    import torch

    standardization = Standardization.of(rows[:200].flatten(0, 1), whitening)
    for part in rows.split(100):
        part.copy_(standardization(part))
    return Features(rows.to(torch.bfloat16), truths, standardization)


def _name_tokens(source: SceneSource, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The names that are one token; tokenized in one call, since every step needs them."""
    ids = tokenizer(list(source.world.class_names), add_special_tokens=False)["input_ids"]
    return [found[0] for found in ids if len(found) == 1]


def _region_patches(truth: Truth, count: int, rng: random.Random) -> list[int]:
    """All patches of one random region that shows in at least `count`."""
    regions, sizes = np.unique(truth.patch_regions, return_counts=True)
    fitting = regions[sizes >= count].tolist()
    if not fitting:
        return list(range(PATCHES))
    return np.flatnonzero(truth.patch_regions == rng.choice(fitting)).tolist()


def _draw_kind(training: ConnectorTraining, step: int, rng: random.Random) -> tuple[Kind, int, tuple[int, int]]:
    """What a step keeps: the kind, the number of patches and, for a window, its height and width."""
    small, last = step < training.small_steps, step >= training.steps - training.last_steps
    shares = training.last_kinds if last else training.kinds
    drawn = {kind: share for kind, share in shares if not (small and kind in ("whole", "subset"))}
    kind: Kind = rng.choices(list(drawn), list(drawn.values()))[0]  # type: ignore[assignment]
    window = (rng.randint(2, 7), rng.randint(2, 7))
    counts = {
        "whole": PATCHES,
        "subset": rng.randint(12, 100),
        "window": window[0] * window[1],
        "region": rng.randint(1, 4),
        "few": rng.randint(1, 8),
    }
    return kind, counts[kind], window


def _frozen(model: Any) -> Any:
    """`model` with its weights rounded to bfloat16, as shipped, and without gradients."""
    import torch

    rounded = model.to(torch.bfloat16).eval().requires_grad_(False)
    return rounded if has_bfloat16() else rounded.float()
