"""Training a connector between two frozen models on images and their captions."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from latentlens_dag.device import has_bfloat16
from latentlens_dag.errors import UserError
from latentlens_dag.models.fingerprints import weight_sample
from latentlens_dag.models.language_model import LanguageModel
from latentlens_dag.storage.hashing import hash_chunks, hash_values
from latentlens_dag.training.batches import Batches, PartCaption
from latentlens_dag.training.captions import Batch, caption_loss, embedding_rms
from latentlens_dag.training.checkpoint import ConnectorRun, StepFacts
from latentlens_dag.training.feature_files import Features
from latentlens_dag.training.modules import llava_weights, new_connector
from latentlens_dag.training.prompt import PromptTokens, prompt_tokens
from latentlens_dag.training.settings import ConnectorSettings
from latentlens_dag.training.standardization import Standardization, root_mean_square
from latentlens_dag.training.trainer import Schedule, new_optimizer, train

if TYPE_CHECKING:
    from torch import Tensor, nn

_SAMPLE_IMAGES = 200
"""Images whose features give the standardization, and of whose output the size is measured."""


class TrainedConnector(NamedTuple):
    """A connector, and how its training went."""

    weights: dict[str, Tensor]
    """As `llava_weights`."""
    loss: float
    """Mean of the last 100 steps; NaN of a connector of step 0."""
    seconds: float
    facts: list[StepFacts]
    """Of every step."""


def training_dtype(device: str) -> str:
    """The dtype of the frozen language model in training: bfloat16 on a device with instructions for it."""
    return "bfloat16" if has_bfloat16(device) else "float32"


def train_connector(
    language: LanguageModel,
    features: Features,
    grid: tuple[int, int],
    captions: Sequence[Sequence[str]],
    out: Path,
    settings: ConnectorSettings,
    kept_steps: Collection[int] = (),
    keep: Callable[[int, dict[str, Tensor]], None] = lambda step, weights: None,
    checkpoint_s: float = 60.0,
    report: Callable[[ConnectorRun], None] = lambda run: None,
    until: int | None = None,
    parts: Sequence[tuple[int, Sequence[int], str]] = (),
) -> TrainedConnector:
    """Train a connector, or go on from the checkpoint in `out`.

    The language model is frozen here: its weights get no gradients, which go through it to the connector.

    Args:
        language: the language model, in the dtype in which it is computed.
        features: those of the frozen vision encoder, of each image.
        grid: rows and columns of an image's visual tokens.
        captions: those of each image, in the order of `features`.
        out: the folder of the checkpoint; removed by the caller.
        settings: what decides the weights.
        kept_steps: numbers of steps after which the connector is given to `keep`, 0 for the untrained one.
        keep: takes the number of steps and the weights of LLaVA's projector.
        checkpoint_s: seconds between checkpoints.
        report: called after every step.
        until: the step after which to stop, where it is before the last.
        parts: captions of parts of images: number of the image, numbers of its visual tokens, caption.

    Raises:
        UserError: if images have no captions, captions are no texts or do not fit the model's positions, the language
            model has no token that ends a text, the loss is no number, or the checkpoint in `out` was made with other
            settings, captions, features or weights.
    """
    language.decoder.requires_grad_(False)
    language.unembedding.requires_grad_(False)
    tokens, part_captions = _tokens(language, captions, parts, features.tokens)
    standardization = Standardization.of(features.sample(_SAMPLE_IMAGES), settings.whitening)
    batches = Batches(features, grid, standardization, tokens.captions, tokens.after, settings, part_captions)
    output_rms = settings.output_scale * embedding_rms(language.decoder)
    connector = new_connector(features.hidden, language.width, settings.seed, settings.kind).to(language.device)
    _check_lengths(language, tokens, features.tokens)
    inputs = hash_values(
        [tokens, *([part_captions] if parts else []), grid, _facts_of_features(features), _facts_of_model(language)]
    )
    run = ConnectorRun(
        out, asdict(settings) | {"inputs": inputs}, connector, new_optimizer(connector, settings.learning_rate)
    )

    def loss_of(batch: Batch) -> Tensor:
        on_device = Batch(*(part.to(language.device) for part in batch))
        return caption_loss(language, connector, on_device, tokens.before, output_rms, settings.fixed_size)

    def weights() -> dict[str, Tensor]:
        size = _output_size(connector, standardization, features) if settings.fixed_size else 1.0
        finished = (settings.finished_scale or settings.output_scale) / settings.output_scale
        return llava_weights(connector, standardization, output_rms * finished / size)

    if 0 in kept_steps:
        keep(0, weights())
    if wrong := [step for step in kept_steps if not 0 <= step <= settings.steps]:
        raise UserError(f"`kept_steps` has {wrong[0]}, but the training has the steps 0 to {settings.steps}.")
    schedule = Schedule(settings.steps, settings.learning_rate, settings.warmup, kept_steps, until)
    train(run, batches, loss_of, schedule, checkpoint_s, lambda step: keep(step, weights()), report)
    return TrainedConnector(weights(), run.loss, run.seconds, run.facts)


def _tokens(
    language: LanguageModel,
    captions: Sequence[Sequence[str]],
    parts: Sequence[tuple[int, Sequence[int], str]],
    visual: int,
) -> tuple[PromptTokens, list[PartCaption]]:
    """The tokens of the captions of images, and those of parts of them."""
    for image, patches, text in parts:
        if not 0 <= image < len(captions) or not patches or not 0 <= min(patches) <= max(patches) < visual:
            raise UserError(
                f"The caption {text!r} is of the visual tokens {list(patches)} of image {image}, but there are "
                f"{len(captions):,} images of {visual} visual tokens. Were they numbered on another grid?"
            )
    found = prompt_tokens(language.tokenizer, [*captions, [text for *_, text in parts]])
    of_parts = zip(parts, found.captions[-1], strict=True)
    numbered = [PartCaption(image, sorted(patches), ids) for (image, patches, _), ids in of_parts]
    return found._replace(captions=found.captions[:-1]), numbered


def _check_lengths(language: LanguageModel, tokens: PromptTokens, visual: int) -> None:
    """Refuse captions that end beyond the positions of the language model."""
    around = len(tokens.before) + visual + len(tokens.after)
    longest = max((len(caption) for texts in tokens.captions for caption in texts), default=0)
    if language.positions is not None and around + longest > language.positions:
        raise UserError(
            f"{language.name} has {language.positions} positions, but the prompt and an image take {around} and the "
            f"longest caption {longest}. Cut the captions, or pool the visual tokens (`pool`)."
        )


def _facts_of_features(features: Features) -> list[object]:
    """What tells the features of one training from those of another: their number and those of a sample."""
    import torch

    sample = features.sample(_SAMPLE_IMAGES)
    return [len(features), features.tokens, hash_chunks([sample.view(torch.int16).numpy().tobytes()])]


def _facts_of_model(language: LanguageModel) -> list[object]:
    """What tells the frozen weights of one training from those of another."""
    head = [weight.flatten()[:: max(1, weight.numel() // 97)].tolist() for weight in language.unembedding.parameters()]
    return [asdict(weight_sample(language)), str(language.embedding.dtype), head]


def _output_size(connector: nn.Module, standardization: Standardization, features: Features) -> float:
    """The RMS of the connector's output for a sample of images."""
    import torch

    device = next(connector.parameters()).device
    with torch.inference_mode():
        rows = standardization(features.sample(_SAMPLE_IMAGES)).to(device)
        return float(root_mean_square(connector(rows)))
