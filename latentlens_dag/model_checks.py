"""Self-checks of a model, run once per study and recorded with it.

Each check states a property that the method relies on, measures it on the model itself and gives a
figure and a verdict. What a newcomer gets wrong: a check that fails does not mean a bad model. It means
that this package reads the model wrongly, or that the model breaks an assumption (bidirectional text).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from latentlens_dag.errors import UserError
from latentlens_dag.identity import combined
from latentlens_dag.models import Vlm, load_language_model, visual_mask
from latentlens_dag.occurrences import Dedup
from latentlens_dag.states import LanguageModel, captured, fingerprint
from latentlens_dag.warehouse import write_text

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

_TOLERANCE = 1e-3  # relative to the largest value; float32 models reach 1e-6
_ROUNDINGS = 4  # that a model in 16 bits may differ by: 3 % in bfloat16


class ModelCheck(NamedTuple):
    """One property of a model."""

    name: str
    passed: bool
    figure: float
    meaning: str


class ModelFacts(NamedTuple):
    """A model's checks, and what tells it from others."""

    checks: list[ModelCheck]
    prompt: str
    """The whole text around the image, through the model's chat template."""
    fingerprint: str
    """Of the language model (`states.fingerprint`)."""


CHECKS = ("causality", "padding_invariance", "logits_reproduced", "visual_token_count")


def check_model(vlm: Vlm, prompt: str | None = None) -> ModelFacts:
    """All checks, in the order of CHECKS, on a picture of noise that is not square."""
    image = noise_image(150, 100)
    checks = [
        causality(vlm.language_model),
        padding_invariance(vlm.language_model),
        logits_reproduced(vlm, image, prompt),
        visual_token_count(vlm, image, prompt),
    ]
    return ModelFacts(checks, vlm.prompt_text(prompt), fingerprint(vlm.language_model))


def check_same_model(mine: str, folder: Path, study: str, index: str) -> None:
    """Refuse an index that was made with other weights than the study's.

    Args:
        mine: fingerprint of the study's language model.
        folder: where the index's language model lies.
        study, index: what they are called, for the message.

    Raises:
        UserError: where the two differ; vectors of different models cannot be compared.
    """
    if fingerprint(load_language_model(folder)) != mine:
        raise UserError(
            f"{study} cannot be read through Index {index}: the language model in {folder} has other weights than the "
            "study's own (perhaps it was fine-tuned with the connector), so their states cannot be compared. Name an "
            "index whose `language_model` is this VLM."
        )


def check_text_pass(model: LanguageModel, dedup: Dedup, index: str) -> None:
    """Refuse to make an index whose states would not be those that its keys say.

    Args:
        model: the index's language model.
        dedup: of the index.
        index: its name, for the message.

    Raises:
        UserError: where occurrences count as equal whose states are not, or states change with their batch.
    """
    padding = padding_invariance(model)
    if not padding.passed:
        raise UserError(
            f"Index {index} cannot be made of {model.name}: text states change by {padding.figure:.2g} of the largest "
            "value when their batch is padded, so the model does not leave out what its attention mask leaves out. "
            "Name another `language_model`, or another `attn_implementation` in its config.json."
        )
    causal = causality(model) if dedup == "prefix" else None
    if causal is not None and not causal.passed:
        raise UserError(
            f"Index {index} cannot be made with `dedup: prefix`: in {model.name} a later token changes the states of "
            f"earlier ones by {causal.figure:.2g} of the largest value, so equal prefixes do not have equal states. "
            f"Set `dedup: sentence` in Index {index}."
        )


def write_checks(facts: ModelFacts, path: Path) -> str:
    """Write the facts as JSON; give their version, which leaves out the figures' last digits."""
    checks = [check._asdict() for check in facts.checks]
    content = {"prompt": facts.prompt, "language_model": facts.fingerprint, "checks": checks}
    write_text(json.dumps(content, indent=1) + "\n", path)
    return combined([facts.prompt, facts.fingerprint, *((check.name, check.passed) for check in facts.checks)])


def noise_image(width: int, height: int) -> Image:
    """The same colored noise at every call."""
    import numpy as np
    from PIL import Image

    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def causality(model: LanguageModel) -> ModelCheck:
    """Whether what follows a text token leaves its states as they were, at every layer."""
    ids = _some_ids(model, 8)
    changed = [*ids[:-1], ids[0]]
    one, other = (_text_states(model, [row], [[1] * 8])[:, 0, :-1] for row in (ids, changed))
    return _close(model, "causality", one, other, "change of earlier text states when the last token changes")


def padding_invariance(model: LanguageModel) -> ModelCheck:
    """Whether a text token's states are the same alone and in a padded batch."""
    ids = _some_ids(model, 8)
    alone = _text_states(model, [ids[:5]], [[1] * 5])[:, 0]
    padded = _text_states(model, [ids, ids[:5] + [0] * 3], [[1] * 8, [1] * 5 + [0] * 3])[:, 1, :5]
    return _close(model, "padding_invariance", alone, padded, "change of text states when their batch is padded")


def logits_reproduced(vlm: Vlm, image: Image, prompt: str | None = None) -> ModelCheck:
    """Whether LogitLens after the last block gives the model's own logits."""
    import torch

    language_model = vlm.language_model
    inputs = vlm.inputs([image], prompt)
    with captured(language_model.decoder, [language_model.depth], lambda s: s) as states, torch.inference_mode():
        own = vlm.model(**inputs, use_cache=False).logits
        ours = language_model.logits(states[language_model.depth])
    meaning = "LogitLens after the last block against the logits"
    return _close(language_model, "logits_reproduced", own.float(), ours.float(), meaning)


def visual_token_count(vlm: Vlm, image: Image, prompt: str | None = None) -> ModelCheck:
    """Whether the model has as many visual tokens as the region map has boxes."""
    import torch

    inputs = vlm.inputs([image], prompt)
    with visual_mask(vlm.model, inputs["input_ids"]) as mask, torch.inference_mode():
        vlm.model(**inputs, use_cache=False, logits_to_keep=1)
        difference = int(mask().sum()) - len(vlm.token_map(image.width, image.height).view)
    return ModelCheck("visual_token_count", difference == 0, float(difference), "visual tokens less mapped tokens")


def _text_states(model: LanguageModel, ids: Sequence[list[int]], mask: Sequence[list[int]]) -> Tensor:
    """All layers' states: [L, B, T, d]."""
    import torch

    device = model.embedding.device
    layers = list(range(model.depth))
    with captured(model.decoder, layers, lambda s: s.float().cpu()) as states, torch.inference_mode():
        model.decoder(
            input_ids=torch.tensor(ids, device=device),
            attention_mask=torch.tensor(mask, device=device),
            use_cache=False,
        )
    return torch.stack([states[layer] for layer in layers])


def _some_ids(model: LanguageModel, count: int) -> list[int]:
    special = set(model.tokenizer.all_special_ids)
    return [i for i in range(len(model.embedding)) if i not in special][5 : 5 + count]


def _close(model: LanguageModel, name: str, one: Tensor, other: Tensor, meaning: str) -> ModelCheck:
    import torch

    difference = float((one - other).abs().max() / one.abs().max().clamp_min(1e-12))
    allowed = max(_TOLERANCE, _ROUNDINGS * torch.finfo(model.embedding.dtype).eps)
    return ModelCheck(name, difference <= allowed, difference, f"{meaning}, relative to the largest value")
