"""The check that a region map is right: a visual token sees the pixels of its box, and no others.

Attention in the vision tower is switched off, and so are convolutions whose windows overlap, so that a token sees only
its own patches. Then the inner part of one token's box after the other is inverted: of its view, that token's state at
layer 0 must change most, and all tokens whose boxes the inverted part does not touch must not change, nor any token
without pixels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from latentlens_dag.errors import UserError
from latentlens_dag.models.families.registry import why_unmapped
from latentlens_dag.models.families.token_map import WITHOUT_PIXELS, TokenMap
from latentlens_dag.models.text_checks import ModelCheck
from latentlens_dag.models.vlm import Vlm

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image

    from latentlens_dag.models.prompts import Prompt

LOCALIZATION_MEANING = "share of visual tokens that see exactly their box"
_UNCHANGED = 1e-3  # relative to the change of the token whose box is inverted


class CannotBeCheckedError(UserError):
    """A property of a model cannot be measured."""


def localization(vlm: Vlm, image: Image, per_view: int | None = 8, prompt: str | Prompt | None = None) -> ModelCheck:
    """Measure the share of visual tokens whose box is right; the check passes if it is 1.

    It costs one pass, and one more per checked token, through the vision tower and the connector; no block of the
    language model runs. Tokens that do not see the inverted part keep their states to the bit in any dtype, so bfloat16
    is measured as strictly as float32. Because resizing blurs, only the inner half of a box is inverted: a map that is
    off by less than a quarter of a box is not detected.

    Args:
        vlm: the model; it is left unchanged.
        image: not square, and large enough for boxes of at least 16 pixels: resizing blurs across their edges.
        per_view: how many tokens of each view to check, evenly spaced; None for all.
        prompt: as in `Vlm.visual_states`.

    Raises:
        CannotBeCheckedError: if the family has no region map, or its vision tower is not found.
    """
    token_map = vlm.token_map(image.width, image.height)
    if token_map is None:
        raise CannotBeCheckedError(
            f"{vlm.name} is of the family `{vlm.model.config.model_type}`, which has no region map that could be "
            f"checked: {why_unmapped(vlm.model.config.model_type) or 'its visual tokens are unmapped'}."
        )
    parts = {token: _inner_half(token_map.boxes[token], image) for token in _sample_tokens(token_map.view, per_view)}
    with _without_mixing(vlm.model):
        original = vlm.visual_states([image], [0], prompt).states[0]

        def change(part: tuple[int, int, int, int]) -> NDArray:
            changed = vlm.visual_states([_invert(image, part)], [0], prompt).states[0]
            return (changed - original).norm(dim=1).numpy()

        localized = [_is_localized(token_map, token, part, change(part)) for token, part in parts.items() if part]
    share = sum(localized) / max(len(localized), 1)
    return ModelCheck("localization", share == 1, share, LOCALIZATION_MEANING)


def _sample_tokens(view: list[str], per_view: int | None) -> list[int]:
    """Evenly spaced tokens of every view that shows pixels."""
    sample = []
    for name in sorted(set(view) - WITHOUT_PIXELS):
        tokens = [token for token, token_view in enumerate(view) if token_view == name]
        count = len(tokens) if per_view is None else min(per_view, len(tokens))
        sample += [tokens[round(index)] for index in np.linspace(0, len(tokens) - 1, count)]
    return sample


def _inner_half(box: Any, image: Image) -> tuple[int, int, int, int] | None:
    """The inner half of a box (x0, y0, x1, y1), clipped to the image; None if it is outside."""
    x, y = (box[2] - box[0]) / 4, (box[3] - box[1]) / 4
    x0, y0 = max(math.ceil(box[0] + x), 0), max(math.ceil(box[1] + y), 0)
    x1, y1 = min(math.floor(box[2] - x), image.width), min(math.floor(box[3] - y), image.height)
    return (x0, y0, x1, y1) if x0 < x1 and y0 < y1 else None


def _invert(image: Image, part: tuple[int, int, int, int]) -> Image:
    from PIL import ImageChops

    changed = image.copy()
    changed.paste(ImageChops.invert(image.crop(part)), part[:2])
    return changed


def _is_localized(token_map: TokenMap, token: int, part: tuple[int, int, int, int], change: NDArray) -> bool:
    """Whether inverting `part` changed [T] this token most, and no token whose box it does not touch."""
    view, boxes = np.array(token_map.view), token_map.boxes
    same_view = view == view[token]
    touched = (boxes[:, 0] < part[2]) & (boxes[:, 2] > part[0])
    touched &= (boxes[:, 1] < part[3]) & (boxes[:, 3] > part[1])
    must_not_change = (same_view & ~touched) | np.isin(view, list(WITHOUT_PIXELS))
    changed_most = change[token] > 0 and change[token] == change[same_view].max()
    return bool(changed_most and (change[must_not_change] <= _UNCHANGED * change[token]).all())


@contextmanager
def _without_mixing(model: Any) -> Iterator[None]:
    """Let what mixes patches return zeros inside the block: the vision tower's attention, overlapping convolutions."""
    import torch

    def zeros(_module: object, _args: object, output: Any) -> Any:
        if isinstance(output, tuple):
            return (torch.zeros_like(output[0]), *output[1:])
        return torch.zeros_like(output)

    tower = model.get_encoder(modality="image")
    attention = [module for module in tower.modules() if type(module).__name__.endswith("Attention")]
    if tower is model or not attention:
        raise CannotBeCheckedError(
            f"The vision tower of a {type(model).__name__} was not found, or has no attention that we know: where its "
            "visual tokens look cannot be checked."
        )
    hooks = [module.register_forward_hook(zeros) for module in [*attention, *_overlapping_convolutions(model)]]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _overlapping_convolutions(model: Any) -> list[Any]:
    """Convolutions over an image whose windows are larger than their steps; not those that cut it into patches."""
    import torch

    convolutions = [module for module in model.modules() if isinstance(module, torch.nn.Conv2d)]
    return [conv for conv in convolutions if any(k > s for k, s in zip(conv.kernel_size, conv.stride, strict=True))]
