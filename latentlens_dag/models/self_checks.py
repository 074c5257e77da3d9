"""Self-checks of a model, run once per study and recorded with it.

Each check states a property that the method relies on, measures it on the model itself and gives a
figure and a verdict. What a newcomer gets wrong: a check that fails does not mean a bad model. It means
that this package reads the model wrongly, or that the model breaks an assumption (bidirectional text).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from latentlens_dag.errors import UserError
from latentlens_dag.models.families.token_map import TokenMap
from latentlens_dag.models.fingerprints import WeightSample, fingerprint_like, weight_sample
from latentlens_dag.models.hooks import capture_hidden_states
from latentlens_dag.models.language_model import LanguageModel
from latentlens_dag.models.loading import load_language_model
from latentlens_dag.models.model_ref import ModelRef
from latentlens_dag.models.placeholder_mask import visual_mask
from latentlens_dag.models.text_checks import (
    ModelCheck,
    batch_invariance,
    causality,
    closeness,
    ordinary_token_ids,
    padding_invariance,
)
from latentlens_dag.models.vlm import Vlm
from latentlens_dag.storage.files import write_text
from latentlens_dag.storage.hashing import hash_values

if TYPE_CHECKING:
    from numpy.typing import NDArray

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image
    from torch import Tensor

_STILL = 1e-3  # of the painted token's change
_LOGITS_MEANING = "LogitLens after the last block against the logits"
_LEAST_BOX = 16  # pixels: what `localization` asks for
_NAMED = 3  # tensors that a message names
_SIZES = [(150 << doubled, 100 << doubled) for doubled in range(5)]  # up to 2400 x 1600


class CannotBeCheckedError(UserError):
    """Why a property of a model cannot be measured."""


class ModelFacts(NamedTuple):
    """A model's checks, and what tells it from others."""

    checks: list[ModelCheck]
    prompt: str
    """The whole text around the image, through the model's chat template; empty where there is no image."""
    fingerprint: str
    """Of the language model (`fingerprints.py`)."""
    weights: WeightSample
    """Of the language model."""


CHECKS = ("causality", "padding_invariance", "logits_reproduced", "visual_token_count", "localization")
TEXT_CHECKS = CHECKS[:3]
"""Those of a model that reads texts only."""


def check_model(vlm: Vlm, prompt: str | None = None, localize: bool = True, stored: str | None = None) -> ModelFacts:
    """All checks, in the order of CHECKS, on a picture of noise that is not square.

    Args:
        vlm: as loaded.
        prompt: as in `Vlm.visual_states`.
        localize: whether the last of them is run, which costs the most (`localization`).
        stored: the fingerprint that was written before, whose scheme is then used.
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
    """The checks of TEXT_CHECKS, in their order; `model` is the whole one (`loading.FullModel`), `stored` as above."""
    checks = [
        causality(language_model),
        padding_invariance(language_model),
        text_logits_reproduced(model, language_model),
    ]
    return _facts(checks, "", language_model, stored)


def _facts(checks: list[ModelCheck], prompt: str, model: LanguageModel, stored: str | None) -> ModelFacts:
    return ModelFacts(checks, prompt, fingerprint_like(model, stored), weight_sample(model))


def check_same_model(mine: WeightSample, other: ModelRef, study: str, index: str) -> None:
    """Refuse an index that was made with other weights than the study's.

    Args:
        mine: of the study's language model.
        other: the index's language model.
        study, index: what they are called, for the message.

    Raises:
        UserError: where the two differ, naming tensors; vectors of different models cannot be compared. An embedding
            with more rows, for an image token, is no other model.
    """
    different = mine.differences(weight_sample(load_language_model(other)))
    if different:
        raise UserError(
            f"{study} cannot be read through Index {index}: the language model in {other} has other weights than the "
            f"study's own in {len(different)} of {len(mine.tensors) + 1} tensors ({_some(different)}); perhaps it was "
            "fine-tuned with the connector. Their states cannot be compared. Name an index whose `language_model` is "
            "the study's own model."
        )


def _some(names: list[str]) -> str:
    return ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")


def check_index_model(model: LanguageModel, dedup: Dedup, index: str) -> None:
    """Refuse to make an index whose states would not be those that its keys say.

    Args:
        model: the index's language model.
        dedup: of the index.
        index: its name, for the message.

    Raises:
        UserError: where occurrences count as equal whose states are not, or states change with their batch.
    """
    causal = causality(model) if dedup == "prefix" else None
    padding = padding_invariance(model)
    _check_numbers(model, [padding, *([causal] if causal else [])])
    if causal is not None and not causal.passed:
        raise UserError(
            f"Index {index} cannot be made with `dedup: prefix`: in {model.name} a later token changes the states of "
            f"earlier ones by {causal.figure:.2g} of the largest value, so equal prefixes do not have equal states. "
            f"Set `dedup: sentence` in Index {index}."
        )
    if padding.passed:
        return
    unpadded = batch_invariance(model)  # whole sentences are then read in batches that are not padded (`encode`)
    if not (dedup == "sentence" and unpadded.passed):
        remedy = f"Set `dedup: sentence` in Index {index}: no batch is padded then." if unpadded.passed else _NO_REMEDY
        raise UserError(
            f"Index {index} cannot be made of {model.name}: text states change by {padding.figure:.2g} of the largest "
            "value when their batch is padded, so the model does not leave out what its attention mask leaves out. "
            f"{remedy}"
        )


def _check_numbers(model: LanguageModel, checks: Sequence[ModelCheck]) -> None:
    if any(check.figure is not None and not math.isfinite(check.figure) for check in checks):
        raise UserError(
            f"{model.name} gives states that are not finite numbers: they overflow in {model.embedding.dtype}. Load "
            "the model in another dtype, float32 if need be."
        )


def failed_checks(checks: Sequence[ModelCheck], model: LanguageModel) -> list[str]:
    """The names of the checks that failed without a remedy.

    What was not checked has not failed. Nor has a text pass that looks ahead or at padding, where an index with
    `dedup: sentence` can be made all the same (`check_index_model`).
    """
    failed = [check.name for check in checks if not check.passed and check.not_checked is None]
    numbers = {check.name for check in checks if check.figure is not None and math.isfinite(check.figure)}
    of_text = {"causality", "padding_invariance"}.intersection(failed) & numbers
    if of_text and ("padding_invariance" not in of_text or batch_invariance(model).passed):
        return [name for name in failed if name not in of_text]
    return failed


_NO_REMEDY = (
    "They change with any other sentence in their batch, too. Name another `language_model`, or another "
    "`attn_implementation` in its config.json."
)


def stored_fingerprint(path: Path) -> str | None:
    """The fingerprint in a file that `write_checks` wrote; None where there is none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["language_model"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if isinstance(found, str) else None


def write_checks(facts: ModelFacts, path: Path) -> str:
    """Write the facts as JSON; give their version, which leaves out the figures' last digits.

    It leaves out `localization` too: where tokens lie changes none of the states that are computed after the checks,
    and what does depend on it is not built where that check fails, for there it is a blocking one.
    """
    checks = [check._asdict() for check in facts.checks]
    content = {"prompt": facts.prompt, "language_model": facts.fingerprint, "checks": checks}
    write_text(json.dumps(content, indent=1) + "\n", path)
    of_states = [(check.name, check.passed) for check in facts.checks if check.name != "localization"]
    return hash_values([facts.prompt, facts.fingerprint, *of_states])


def noise_image(width: int, height: int) -> Image:
    """The same colored noise at every call."""
    from PIL import Image

    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def logits_reproduced(vlm: Vlm, image: Image, prompt: str | None = None) -> ModelCheck:
    """Whether LogitLens after the last block gives the model's own logits."""
    import torch

    language_model = vlm.language_model
    inputs = vlm.inputs([image], prompt)
    with (
        capture_hidden_states(language_model.decoder, [language_model.depth], lambda s: s) as states,
        torch.inference_mode(),
    ):
        own = vlm.run(inputs).logits
    return _logits_close(language_model, own, states[language_model.depth])


def text_logits_reproduced(model: Any, language_model: LanguageModel) -> ModelCheck:
    """As `logits_reproduced`, on a few tokens of text."""
    import torch

    depth = language_model.depth
    ids = torch.tensor([ordinary_token_ids(language_model, 8)], device=language_model.embedding.device)
    with capture_hidden_states(language_model.decoder, [depth], lambda s: s) as states, torch.inference_mode():
        own = model(input_ids=ids, use_cache=False).logits
    return _logits_close(language_model, own, states[depth])


def _logits_close(model: LanguageModel, own: Tensor, last_states: Tensor) -> ModelCheck:
    """Compare a model's own logits with those of LogitLens for the states that enter its final norm.

    The difference is relative, so that a scale or a soft-cap that is not known (`logit_rule.py`) is found out. Rows of
    the unembedding that the model itself leaves out, after those of all tokens, are left out here too.
    """
    import torch

    with torch.inference_mode():
        ours = model.logits(last_states)[..., : own.shape[-1]]
    return closeness(model, "logits_reproduced", own.float(), ours, _LOGITS_MEANING)


def visual_token_count(vlm: Vlm, image: Image, prompt: str | None = None) -> ModelCheck:
    """Whether the model has as many visual tokens as the region map has boxes; any, where it has no region map."""
    import torch

    inputs = vlm.inputs([image], prompt)
    with visual_mask(vlm.model, inputs["input_ids"]) as mask, torch.inference_mode():
        vlm.run(inputs, logits_to_keep=1)
        seen, places = int(mask().sum()), vlm.token_map(image.width, image.height)
    if places is None:
        return ModelCheck("visual_token_count", seen > 0, float(seen), "visual tokens, none of which is mapped")
    difference = seen - len(places.view)
    return ModelCheck("visual_token_count", difference == 0, float(difference), "visual tokens less mapped tokens")


def localization(vlm: Vlm, image: Image, per_view: int | None = 8, prompt: str | None = None) -> ModelCheck:
    """Whether a visual token sees the pixels of its box, and no token sees them whose box lies elsewhere.

    Attention in the vision tower is switched off for the while, so that a token sees its own patches only. Then the
    inner part of the box of one token after the other is painted: of its view, that token's state at layer 0 must
    change most, and all tokens must stay as they are whose boxes the painted part does not touch. Resizing blurs, so
    only the inner half is painted: a map that is off by less than a quarter of a box is not found out.

    It costs one pass, and one for each token tried, through the vision tower and the connector; no block of the
    language model runs. Tokens that see nothing of what was painted keep their states to the bit, whatever the dtype,
    so bfloat16 is measured as strictly as float32.

    Args:
        vlm: as loaded; it is left as it was.
        image: not square, and so large that a box is no less than 16 pixels wide: resizing blurs over cell borders.
        per_view: how many tokens of each view are tried, evenly spread; None for all.
        prompt: as in `Vlm.visual_states`.

    Returns:
        The share of the tokens tried that are localized; it passes when that is 1.

    Raises:
        CannotBeCheckedError: where the family has no region map, or its vision tower is not found.
    """
    places = vlm.token_map(image.width, image.height)
    if places is None:
        raise CannotBeCheckedError(
            f"{vlm.name} is of the family `{vlm.model.config.model_type}`, which has no region map that could be "
            "checked: its visual tokens are unmapped."
        )
    parts = {token: _inner(places.boxes[token], image) for token in _spread(places.view, per_view)}
    tried = {token: part for token, part in parts.items() if part is not None}
    with _patches_alone(vlm.model):
        before = vlm.visual_states([image], [0], prompt).states[0]

        def moved(part: tuple[int, int, int, int]) -> NDArray:
            after = vlm.visual_states([_inverted(image, part)], [0], prompt).states[0]
            return (after - before).norm(dim=1).numpy()

        localized = [_is_localized(places, token, part, moved(part)) for token, part in tried.items()]
    share = sum(localized) / max(len(tried), 1)
    return ModelCheck("localization", share == 1, share, _LOCALIZED)


_LOCALIZED = "share of visual tokens that see exactly their box"


def localization_if_possible(vlm: Vlm, prompt: str | None = None) -> ModelCheck:
    """As `localization`, on a picture for it, with 8 tokens of each view; or why it cannot be checked."""
    try:
        return localization(vlm, _image_with_large_boxes(vlm), prompt=prompt)
    except CannotBeCheckedError as error:
        return ModelCheck("localization", False, None, _LOCALIZED, str(error))


def _image_with_large_boxes(vlm: Vlm) -> Image:
    """The smallest noise whose boxes are as large as `localization` asks for, or nearly as the family has them at all.

    Where an image has a token for every so many pixels, a larger one has more tokens and no larger boxes.
    """
    narrowest = {size: _narrowest(vlm.token_map(*size)) for size in _SIZES}
    enough = min(_LEAST_BOX, 0.9 * max(narrowest.values()))
    return noise_image(*next(size for size in _SIZES if narrowest[size] >= enough))


def _narrowest(places: TokenMap | None) -> float:
    """The shortest side of a box, in pixels; 0 where none is known."""

    if places is None:
        return 0.0
    sides = np.stack([places.boxes[:, 2] - places.boxes[:, 0], places.boxes[:, 3] - places.boxes[:, 1]])
    return float(sides[sides > 0].min(initial=np.inf)) if (sides > 0).any() else 0.0


def _spread(view: list[str], per_view: int | None) -> list[int]:
    """Tokens of every view that shows pixels, evenly spread over it."""

    found = []
    for name in sorted(set(view) - {"newline", "unmapped"}):
        tokens = [token for token, of in enumerate(view) if of == name]
        count = len(tokens) if per_view is None else min(per_view, len(tokens))
        found += [tokens[round(place)] for place in np.linspace(0, len(tokens) - 1, count)]
    return found


def _inner(box: Any, image: Image) -> tuple[int, int, int, int] | None:
    """The inner half of a box (x0, y0, x1, y1), as far as it lies in the image; None where it does not."""
    x, y = (box[2] - box[0]) / 4, (box[3] - box[1]) / 4
    x0, y0 = max(math.ceil(box[0] + x), 0), max(math.ceil(box[1] + y), 0)
    x1, y1 = min(math.floor(box[2] - x), image.width), min(math.floor(box[3] - y), image.height)
    return (x0, y0, x1, y1) if x0 < x1 and y0 < y1 else None


def _inverted(image: Image, part: tuple[int, int, int, int]) -> Image:
    from PIL import ImageChops

    other = image.copy()
    other.paste(ImageChops.invert(image.crop(part)), part[:2])
    return other


def _is_localized(places: TokenMap, token: int, painted: tuple[int, int, int, int], moved: NDArray) -> bool:
    """Whether, of what the painted part `moved` [T], it moved this token most and none that it does not touch."""

    view, boxes = np.array(places.view), places.boxes
    same = view == view[token]
    touched = (boxes[:, 0] < painted[2]) & (boxes[:, 2] > painted[0])
    touched &= (boxes[:, 1] < painted[3]) & (boxes[:, 3] > painted[1])
    still = (same & ~touched) | np.isin(view, ["newline", "unmapped"])
    most = moved[token] > 0 and moved[token] == moved[same].max()
    return bool(most and (moved[still] <= _STILL * moved[token]).all())


@contextmanager
def _patches_alone(model: Any) -> Iterator[None]:
    """Let the attention of the vision tower give nothing, so that no patch sees another."""
    import torch

    def nothing(_module: object, _args: object, output: Any) -> Any:
        if isinstance(output, tuple):
            return (torch.zeros_like(output[0]), *output[1:])
        return torch.zeros_like(output)

    tower = model.get_encoder(modality="image")
    parts = [part for part in tower.modules() if type(part).__name__.endswith("Attention")]
    if tower is model or not parts:
        raise CannotBeCheckedError(
            f"The vision tower of a {type(model).__name__} was not found, or has no attention that we know: where its "
            "visual tokens look cannot be checked."
        )
    hooks = [part.register_forward_hook(nothing) for part in parts]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


Dedup = Literal["prefix", "sentence"]
"""What two occurrences must share to have the same key, and so the same state: the prefix, or the whole sentence."""
