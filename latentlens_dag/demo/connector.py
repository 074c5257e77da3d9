"""Stage 3 of the demo model: the connector, trained on captions of the visible patches.

Language model and vision encoder are frozen and stay as they are; only LLaVA's two-layer MLP
learns. A step shows the model the visual tokens of whole scenes, or only some of them (a window,
a random subset, a few patches of one region), and asks for the caption of exactly what is visible
there. On captions of whole scenes alone one background token is enough for the caption and the
rest carry nothing: then 84 % of the background patches are read instead of 96 %. The model is never asked
to name single patches, which would train exactly what the lenses measure.

All sequences of a step keep the same number of tokens, so nothing is padded on the left and an
all-ones attention mask is right; captions are padded on the right, where causal attention never
looks. Without a mask, transformers 5 takes jumps of the positions for packed sequences.
"""

from __future__ import annotations

import logging
import random
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from latentlens_dag.demo.scenes import GRID, PATCHES, SceneSource, Truth, scene_truth, training_seed, visible_view
from latentlens_dag.demo.text_captions import PROMPT, caption
from latentlens_dag.demo.training import resume_checkpoint, save_checkpoint, take_step, warmup_cosine
from latentlens_dag.demo.vision import normalize, patch_features
from latentlens_dag.device import has_bfloat16

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import CLIPVisionModel, LlamaForCausalLM, PreTrainedTokenizerBase

log = logging.getLogger(__name__)

IGNORED = -100
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
    """bfloat16 [N, PATCHES, hidden]: the encoder's features, centered, scaled to RMS 1, times `whitening`."""
    truths: list[Truth]
    mean: Tensor
    """float32 [hidden], subtracted from the raw features."""
    rms: float
    """The raw features were divided by it, after centering."""
    whitening: Tensor
    """float32 [hidden, hidden], symmetric; the identity where features stay as they are."""


class Batch(NamedTuple):
    """One step's sequences: <bos>, the kept visual tokens, the prompt, a caption, <eos>, padding."""

    features: Tensor
    """[B, kept, hidden] as in `Features.rows`."""
    token_ids: Tensor
    """int64 [B, text]: prompt, caption, <eos>, padding."""
    targets: Tensor
    """int64 [B, text]: the caption's tokens and <eos>; IGNORED elsewhere."""
    weights: Tensor
    """float32 [B, text]: weight of each target in the loss."""


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


def new_connector(hidden: int, width: int, seed: int) -> nn.Module:
    """LLaVA's MLP from `hidden` to `width`, for inputs and outputs of RMS 1."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    first, last = torch.nn.Linear(hidden, width), torch.nn.Linear(width, width)
    for layer in (first, last):
        torch.nn.init.normal_(layer.weight, std=layer.in_features**-0.5, generator=generator)
        torch.nn.init.zeros_(layer.bias)
    # GELU of a standard normal has RMS 0.65.
    last.weight.data /= 0.65
    return torch.nn.Sequential(first, torch.nn.GELU(), last)


def fold_connector(connector: nn.Module, features: Features, output_rms: float) -> dict[str, Tensor]:
    """The connector's weights for raw features in and embeddings out, named as in LLaVA.

    Training sees features (f - mean) / rms @ whitening and multiplies the output by `output_rms`, so that Adam meets an
    ordinary MLP; both are linear and go into the weights exactly.
    """
    trained = connector.state_dict()
    weight = trained["0.weight"] @ features.whitening / features.rms
    return {
        "linear_1.weight": weight,
        "linear_1.bias": trained["0.bias"] - weight @ features.mean,
        "linear_2.weight": trained["2.weight"] * output_rms,
        "linear_2.bias": trained["2.bias"] * output_rms,
    }


def choose_patches(
    kind: Kind, truth: Truth, count: int, window: tuple[int, int], rng: random.Random
) -> npt.NDArray[np.bool_]:
    """The patches a sequence keeps: bool [PATCHES] with exactly `count` true (PATCHES for "whole").

    "region" falls back on random patches when no region shows in `count` patches.
    """
    kept = np.zeros(PATCHES, bool)
    if kind == "whole":
        kept[:] = True
    elif kind == "window":
        height, width = window
        top, left = rng.randint(0, GRID - height), rng.randint(0, GRID - width)
        kept.reshape(GRID, GRID)[top : top + height, left : left + width] = True
    else:
        candidates = _region_patches(truth, count, rng) if kind == "region" else list(range(PATCHES))
        kept[rng.sample(candidates, count)] = True
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
    token_ids, targets = _padded(prompt, captions)
    named = torch.isin(targets, torch.tensor(_name_tokens(source, tokenizer)))
    return Batch(torch.stack(rows), token_ids, targets, torch.where(named, training.name_weight, 1.0))


def caption_loss(
    language: LlamaForCausalLM,
    connector: nn.Module,
    batch: Batch,
    bos: int,
    output_rms: float,
    fixed_size: bool = False,
) -> Tensor:
    """Weighted mean cross-entropy of the captions' tokens given the kept visual tokens and the prompt.

    With `fixed_size` the visual tokens of the batch have RMS `output_rms` together.
    """
    import torch

    embed = language.get_input_embeddings()
    visual = connector(batch.features.float())
    visual = visual * (output_rms / _rms(visual) if fixed_size else output_rms)
    start = embed(torch.full((len(visual), 1), bos))
    inputs = torch.cat([start, visual.to(start.dtype), embed(batch.token_ids)], dim=1)
    ones = torch.ones(inputs.shape[:2], dtype=torch.int64)
    states = language.model(inputs_embeds=inputs, attention_mask=ones, use_cache=False).last_hidden_state
    # The state before a token predicts it: text token t sits at 1 + kept + t.
    before = states[:, visual.shape[1] : -1]
    is_target = batch.targets != IGNORED
    losses = torch.nn.functional.cross_entropy(
        language.lm_head(before[is_target]).float(), batch.targets[is_target], reduction="none"
    )
    weights = batch.weights[is_target]
    return (losses * weights).sum() / weights.sum()


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

    began = time.monotonic()
    language, encoder = _frozen(language), _frozen(encoder)
    features = scene_features(source, encoder, training)
    output_rms = training.output_scale * embedding_rms(language)
    connector = new_connector(features.rows.shape[-1], language.config.hidden_size, training.seed)
    optimizer = torch.optim.AdamW(
        connector.parameters(), lr=training.learning_rate, betas=(0.9, 0.98), weight_decay=0.0
    )
    run = ConnectorRun(
        out, asdict(training) | {"output_rms": output_rms, "features_rms": features.rms}, connector, optimizer
    )
    spent_s, saved = run.resume(), time.monotonic()
    while run.step < training.steps:
        batch = sample_batch(source, features, tokenizer, training, run.step)
        rate = training.learning_rate * warmup_cosine(run.step, training.steps, training.warmup)
        loss = caption_loss(language, connector, batch, tokenizer.bos_token_id, output_rms, training.fixed_size)
        run.learn(loss, rate)
        run.seconds = spent_s + time.monotonic() - began
        if run.step % 25 == 0:
            log.info("connector step %d of %d: loss %.3f, %.0f s", run.step, training.steps, run.loss, run.seconds)
        if time.monotonic() - saved > checkpoint_s or run.step == training.steps:
            run.save()
            saved = time.monotonic()
    figures = asdict(training) | {
        "loss": round(run.loss, 4),
        "seconds": round(run.seconds, 1),
        "threads": torch.get_num_threads(),
        "parameters": sum(weight.numel() for weight in connector.parameters()),
    }
    if training.fixed_size:
        with torch.inference_mode():
            size = float(_rms(connector(features.rows[:200].float())))
        output_rms = training.finished_scale * embedding_rms(language) / size
    return fold_connector(connector, features, output_rms), figures


@dataclass
class ConnectorRun:
    """The state of a training, and its checkpoint."""

    out: Path
    settings: dict[str, Any]
    """A checkpoint must have been made with the same; includes the scales of the frozen models."""
    connector: nn.Module
    optimizer: Any
    step: int = 0
    seconds: float = 0.0
    losses: list[float] = field(default_factory=list)
    """Of the last 100 steps."""

    @property
    def loss(self) -> float:
        """Mean loss of the last 100 steps."""
        return float(np.mean(self.losses)) if self.losses else float("nan")

    def learn(self, loss: Tensor, rate: float) -> None:
        """One step of the optimizer down `loss`."""
        take_step(self.optimizer, loss, self.connector.parameters(), rate)
        self.step += 1
        self.losses = [*self.losses[-99:], loss.item()]

    def save(self) -> None:
        """Write the checkpoint."""
        parts = {"connector": self.connector.state_dict(), "optimizer": self.optimizer.state_dict()}
        progress = {"step": self.step, "seconds": self.seconds, "losses": self.losses}
        save_checkpoint(self.out, parts | progress | {"settings": self.settings})

    def resume(self) -> float:
        """Go back to the checkpoint, if there is one; gives the seconds spent before."""
        parts = {"connector": self.connector, "optimizer": self.optimizer}
        if state := resume_checkpoint(self.out, {"settings": self.settings}, **parts):
            self.step, self.seconds, self.losses = state["step"], state["seconds"], state["losses"]
        return self.seconds


def untrained_connector(
    source: SceneSource, language: LlamaForCausalLM, encoder: CLIPVisionModel, training: ConnectorTraining
) -> dict[str, Tensor]:
    """LLaVA's connector weights before the first step: the control for every figure of a lens."""
    features = scene_features(source, _frozen(encoder), replace(training, scenes=min(100, training.scenes)))
    connector = new_connector(features.rows.shape[-1], language.config.hidden_size, training.seed)
    return fold_connector(connector, features, training.output_scale * embedding_rms(language))


def embedding_rms(language: LlamaForCausalLM) -> float:
    """Root mean square of the entries of the text embeddings."""
    return float(language.get_input_embeddings().weight.float().pow(2).mean().sqrt())


def _standardized(rows: Tensor, truths: list[Truth], whitening: float) -> Features:
    import torch

    sample = rows[:200].float().flatten(0, 1)
    mean = sample.mean(dim=0)
    rms = float(_rms(sample - mean))
    matrix = _whitening((sample - mean) / rms, whitening) if whitening else torch.eye(len(mean))
    for part in rows.split(100):
        part.copy_((part.float() - mean) / rms @ matrix)
    return Features(rows.to(torch.bfloat16), truths, mean, rms, matrix)


def _whitening(rows: Tensor, added: float) -> Tensor:
    """The symmetric inverse root of the covariance of centered `rows` of RMS 1, with `added` to every variance."""
    import torch

    variances, directions = torch.linalg.eigh(rows.T @ rows / len(rows))
    return directions @ torch.diag((variances + added) ** -0.5) @ directions.T


def _rms(values: Tensor) -> Tensor:
    return values.pow(2).mean().sqrt()


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


def _padded(prompt: list[int], captions: list[list[int]]) -> tuple[Tensor, Tensor]:
    import torch

    longest = max(map(len, captions))
    token_ids = torch.zeros(len(captions), len(prompt) + longest, dtype=torch.int64)
    targets = torch.full_like(token_ids, IGNORED)
    for row, ids in enumerate(captions):
        token_ids[row, : len(prompt) + len(ids)] = torch.tensor([*prompt, *ids])
        targets[row, len(prompt) : len(prompt) + len(ids)] = torch.tensor(ids)
    return token_ids, targets


def _frozen(model: Any) -> Any:
    """`model` with its weights rounded to bfloat16, as shipped, and without gradients."""
    import torch

    rounded = model.to(torch.bfloat16).eval().requires_grad_(False)
    return rounded if has_bfloat16() else rounded.float()
