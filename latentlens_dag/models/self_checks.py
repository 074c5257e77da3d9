"""Self-checks of a model, run once per study and recorded with it.

Each check measures on the model itself a property that the method relies on, and returns a figure and whether it
passes. Note: a failed check does not mean a bad model. It means that this package reads the model wrongly, or that the
model violates an assumption (bidirectional text).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from latentlens_dag.errors import UserError
from latentlens_dag.models.connector import visual_mask
from latentlens_dag.models.families.token_map import TokenMap
from latentlens_dag.models.fingerprints import WeightSample, fingerprint_like, weight_sample
from latentlens_dag.models.hooks import capture_hidden_states
from latentlens_dag.models.language_model import LanguageModel
from latentlens_dag.models.localization import LOCALIZATION_MEANING, CannotBeCheckedError, localization
from latentlens_dag.models.logit_rule import unembedding_of
from latentlens_dag.models.model_ref import ModelRef
from latentlens_dag.models.text_checks import (
    ModelCheck,
    batch_invariance,
    causality,
    closeness,
    ordinary_token_ids,
    padding_invariance,
)
from latentlens_dag.models.vlm import Vlm
from latentlens_dag.models.weight_files import first_names
from latentlens_dag.storage.files import write_text
from latentlens_dag.storage.hashing import hash_values

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from latentlens_dag.models.prompts import Prompt

_LOGITS_MEANING = "LogitLens after the last block against the logits"
_MIN_BOX_PIXELS = 16  # for `localization`
_SIZES = [(150 << doubled, 100 << doubled) for doubled in range(5)]  # up to 2400 x 1600


class ModelFacts(NamedTuple):
    """The checks of a model, and what identifies it."""

    checks: list[ModelCheck]
    prompt: str
    """The whole text around the image, through the model's chat template; empty without an image."""
    fingerprint: str
    """The fingerprint of the language model (`fingerprints.py`)."""
    weights: WeightSample
    """A sample of the language model's weights."""


Dedup = Literal["prefix", "sentence"]
"""What two occurrences must share to have the same key, and so the same state: the prefix, or the whole sentence."""
CHECKS = ("causality", "padding_invariance", "logits_reproduced", "visual_token_count", "localization")
TEXT_CHECKS = CHECKS[:3]
"""The checks of a model that reads texts only."""


def check_model(
    vlm: Vlm, prompt: str | Prompt | None = None, localize: bool = True, stored: str | None = None
) -> ModelFacts:
    """Run all checks, in the order of CHECKS, on an image of noise that is not square.

    Args:
        vlm: the model.
        prompt: as in `Vlm.visual_states`.
        localize: whether to run the last and most expensive one (`localization`).
        stored: an earlier fingerprint, whose scheme is then used.
    """
    image = noise_image(150, 100)
    checks = [
        causality(vlm.language_model),
        padding_invariance(vlm.language_model),
        logits_reproduced(vlm, image, prompt),
        visual_token_count(vlm, image, prompt),
        *([localization_if_possible(vlm, prompt)] if localize else []),
    ]
    return _facts(checks, vlm.prompt_text(prompt), vlm.language_model, stored)


def check_language_model(model: Any, language_model: LanguageModel, stored: str | None = None) -> ModelFacts:
    """Run TEXT_CHECKS in order; arguments as in `loading.FullModel` and `check_model`."""
    checks = [
        causality(language_model),
        padding_invariance(language_model),
        text_logits_reproduced(model, language_model),
    ]
    return _facts(checks, "", language_model, stored)


def _facts(checks: list[ModelCheck], prompt: str, model: LanguageModel, stored: str | None) -> ModelFacts:
    return ModelFacts(checks, prompt, fingerprint_like(model, stored), weight_sample(model))


def check_same_model(
    study_weights: WeightSample, index_weights: WeightSample, index_model: ModelRef, study: str, index: str
) -> None:
    """Refuse an index that was made with other weights than those of the study's language model.

    Args:
        study_weights: a sample of the study's language model.
        index_weights: a sample of the index's.
        index_model: the language model of the index, for messages.
        study: the name of the study, for messages.
        index: the name of the index, for messages.

    Raises:
        UserError: if the two differ, naming tensors. Additional rows of the embedding, for an image token, do not
            count.
    """
    different = study_weights.differences(index_weights)
    if different:
        raise UserError(
            f"{study} cannot be read through Index {index}: the language model in {index_model} has other weights than "
            f"the study's own in {len(different)} of {len(study_weights.tensors) + 1} tensors "
            f"({first_names(different)}); perhaps it was fine-tuned with the connector. Their states cannot be "
            "compared. Name an index whose `language_model` is the study's own model."
        )


def check_index_model(model: LanguageModel, dedup: Dedup, index: str) -> None:
    """Refuse to make an index in which occurrences of equal keys would have different states.

    Args:
        model: the language model of the index.
        dedup: what occurrences of equal keys share.
        index: the name of the index, for messages.

    Raises:
        UserError: if occurrences with equal keys have different states, or states depend on the batch.
    """
    causal = causality(model) if dedup == "prefix" else None
    padding = padding_invariance(model)
    _check_finite_states(model, [padding, *([causal] if causal else [])])
    if causal is not None and not causal.passed:
        raise UserError(
            f"Index {index} cannot be made with `dedup: prefix`: in {model.name} a later token changes the states of "
            f"earlier ones by {causal.figure:.2g} of the largest value, so equal prefixes do not have equal states. "
            f"Set `dedup: sentence` in Index {index}."
        )
    if padding.passed:
        return
    unpadded = batch_invariance(model)  # `dedup: sentence` reads sentences in batches without padding (`encode`)
    if not (dedup == "sentence" and unpadded.passed):
        remedy = f"Set `dedup: sentence` in Index {index}: no batch is padded then." if unpadded.passed else _NO_REMEDY
        raise UserError(
            f"Index {index} cannot be made of {model.name}: text states change by {padding.figure:.2g} of the largest "
            f"value when their batch is padded, so the model does not respect its attention mask. {remedy}"
        )


def _check_finite_states(model: LanguageModel, checks: Sequence[ModelCheck]) -> None:
    if any(check.figure is not None and not math.isfinite(check.figure) for check in checks):
        raise UserError(
            f"{model.name} gives states that are not finite numbers: they overflow in {model.embedding.dtype}. Load "
            "the model in another dtype, float32 if need be."
        )


def failed_checks(checks: Sequence[ModelCheck], model: LanguageModel) -> list[str]:
    """The names of the failed checks, without those that `dedup: sentence` makes irrelevant (`check_index_model`).

    A property that was not checked counts as neither passed nor failed.
    """
    failed = [check.name for check in checks if not check.passed and check.not_checked is None]
    finite = {check.name for check in checks if check.figure is not None and math.isfinite(check.figure)}
    text_checks = {"causality", "padding_invariance"}.intersection(failed) & finite
    if text_checks and ("padding_invariance" not in text_checks or batch_invariance(model).passed):
        return [name for name in failed if name not in text_checks]
    return failed


_NO_REMEDY = (
    "They change with any other sentence in their batch, too. Use another `language_model`, or another "
    "`attn_implementation` in its config.json."
)


def stored_fingerprint(path: Path) -> str | None:
    """The fingerprint in a file of `write_checks`; None if there is none."""
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))["language_model"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return stored if isinstance(stored, str) else None


def write_checks(facts: ModelFacts, path: Path) -> str:
    """Write the facts as JSON and return their version, which has no figures.

    It has no `localization` either: the location of tokens changes none of the states, and assets that depend on it are
    not built if that check fails, because it is blocking there.
    """
    checks = [check._asdict() for check in facts.checks]
    content = {"prompt": facts.prompt, "language_model": facts.fingerprint, "checks": checks}
    write_text(json.dumps(content, indent=1) + "\n", path)
    outcomes = [(check.name, check.passed) for check in facts.checks if check.name != "localization"]
    return hash_values([facts.prompt, facts.fingerprint, *outcomes])


def noise_image(width: int, height: int) -> Image:
    """An image of colored noise, always the same."""
    from PIL import Image

    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def logits_reproduced(vlm: Vlm, image: Image, prompt: str | Prompt | None = None) -> ModelCheck:
    """Check that LogitLens after the last block gives the model's own logits."""
    inputs = vlm.inputs([image], prompt)
    return _logits_reproduced(vlm.language_model, lambda: vlm.run(inputs).logits)


def text_logits_reproduced(model: Any, language_model: LanguageModel) -> ModelCheck:
    """`logits_reproduced` on a few tokens of text."""
    import torch

    ids = torch.tensor([ordinary_token_ids(language_model, 8)], device=language_model.embedding.device)
    # The innermost model with this head, because a BLIP-2 around it cannot run without an image.
    complete = [part for part in model.modules() if unembedding_of(part) is language_model.unembedding][-1]
    return _logits_reproduced(language_model, lambda: complete(input_ids=ids, use_cache=False).logits)


def _logits_reproduced(model: LanguageModel, own_logits: Callable[[], Tensor]) -> ModelCheck:
    """Compare the logits of a forward pass with those of LogitLens for the states that enter the final norm.

    The relative difference reveals an unknown scale or soft-cap (`logit_rule.py`). Rows of the unembedding that the
    model itself drops, after those of all tokens, are dropped here too, and so are tokens that it rules out, as
    Chameleon does the codes of images.
    """
    import torch

    with torch.inference_mode():
        with capture_hidden_states(model.decoder, [model.depth], lambda s: s) as states:
            own = own_logits()
        ours = model.logits(states[model.depth])[..., : own.shape[-1]]
    compared = ~(own <= torch.finfo(own.dtype).min)
    return closeness(model, "logits_reproduced", own[compared].float(), ours[compared], _LOGITS_MEANING)


def visual_token_count(vlm: Vlm, image: Image, prompt: str | Prompt | None = None) -> ModelCheck:
    """Check that there are as many visual tokens as the region map has; without a map, that there are any."""
    import torch

    inputs = vlm.inputs([image], prompt)
    with visual_mask(vlm.model, inputs["input_ids"]) as mask, torch.inference_mode():
        vlm.run(inputs, logits_to_keep=1)
        count, token_map = int(mask().sum()), vlm.token_map(image.width, image.height)
    if token_map is None:
        return ModelCheck("visual_token_count", count > 0, float(count), "visual tokens, none of which is mapped")
    difference = count - len(token_map.view)
    return ModelCheck("visual_token_count", difference == 0, float(difference), "visual tokens less mapped tokens")


def localization_if_possible(vlm: Vlm, prompt: str | Prompt | None = None) -> ModelCheck:
    """Run `localization` with 8 tokens per view on an image with large boxes; or return why it cannot be run."""
    try:
        return localization(vlm, _image_with_large_boxes(vlm), prompt=prompt)
    except CannotBeCheckedError as error:
        return ModelCheck("localization", False, None, LOCALIZATION_MEANING, str(error))


def _image_with_large_boxes(vlm: Vlm) -> Image:
    """The smallest noise with boxes that are large enough for `localization`, or nearly as large as possible.

    For families with a token per fixed number of pixels, a larger image has more tokens, not larger boxes.
    """
    narrowest = {size: _narrowest_side(vlm.token_map(*size)) for size in _SIZES}
    enough = min(_MIN_BOX_PIXELS, 0.9 * max(narrowest.values()))
    return noise_image(*next(size for size in _SIZES if narrowest[size] >= enough))


def _narrowest_side(token_map: TokenMap | None) -> float:
    """The shortest side of a box in pixels; 0 without boxes."""
    if token_map is None:
        return 0.0
    sides = token_map.boxes[:, 2:] - token_map.boxes[:, :2]
    return float(sides[sides > 0].min()) if (sides > 0).any() else 0.0
