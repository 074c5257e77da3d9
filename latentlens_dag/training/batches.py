"""The sequences of each step: which images, which of their visual tokens, and which caption of each.

All of it is a function of the settings' seed and the step, so that a training that goes on after a kill meets the same
sequences.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

from latentlens_dag.errors import UserError
from latentlens_dag.training.captions import IGNORED, Batch, padded_texts
from latentlens_dag.training.feature_files import Features
from latentlens_dag.training.settings import ConnectorSettings
from latentlens_dag.training.standardization import Standardization
from latentlens_dag.training.token_dropping import CAPTIONED, Rule, kept_tokens

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from torch import Tensor

_SEED_STEPS = 1_000_003
_FEW = 8
"""The most visual tokens that the rule `few` keeps."""


class PartCaption(NamedTuple):
    """A caption of some of an image's visual tokens."""

    image: int
    """Its number."""
    patches: Sequence[int]
    """The numbers of the visual tokens, ascending."""
    caption: Sequence[int]
    """Its tokens, with its end."""


class Batches:
    """The sequences of any step of a training."""

    def __init__(
        self,
        features: Features,
        grid: tuple[int, int],
        standardization: Standardization,
        captions: Sequence[Sequence[Sequence[int]]],
        after: Sequence[int],
        settings: ConnectorSettings,
        parts: Sequence[PartCaption] = (),
    ) -> None:
        """Take the images and their captions.

        Args:
            features: of each image.
            grid: rows and columns of an image's visual tokens.
            standardization: of the features.
            captions: the tokens of the captions of each image, each with its end.
            after: the tokens between the image and every caption.
            settings: of the training.
            parts: captions of parts of images, which the rule `captioned` keeps.

        Raises:
            UserError: if the rule `captioned` has no captions, an image has no caption, there are other images than
                features, or the grid is not theirs.
        """
        if grid[0] * grid[1] != features.tokens:
            raise UserError(f"The features are of {features.tokens} visual tokens an image, no grid of {grid}.")
        if len(captions) != len(features):
            raise UserError(f"There are features of {len(features):,} images and captions of {len(captions):,}.")
        if without := [number for number, texts in enumerate(captions) if not texts]:
            raise UserError(f"{len(without):,} images have no caption, such as the one of number {without[0]}.")
        self._features, self._grid, self._standardization = features, grid, standardization
        self._captions, self._after, self._settings = captions, list(after), settings
        if not parts and any(rule == CAPTIONED for rule, _ in settings.kept):
            raise UserError(
                f"`kept` has the rule `{CAPTIONED}`, but no caption is of a part of an image. Give the captions the "
                "numbers of the patches that they are about, or leave the rule out."
            )
        self._parts: dict[int, list[PartCaption]] = {}
        self._part_counts = [len(part.patches) for part in parts]
        for part in parts:
            self._parts.setdefault(len(part.patches), []).append(part)
        lengths = [len(caption) for texts in captions for caption in texts]
        self._text_tokens = len(self._after) + sum(lengths) / len(lengths)

    def __call__(self, step: int) -> Batch:
        """The sequences of a step; their images are drawn without repetition within it."""
        rng = random.Random(self._settings.seed * _SEED_STEPS + step)
        rule = self._rule(step, rng)
        return self._captioned(rng) if rule == CAPTIONED else self._dropped(rule, rng)

    def _captioned(self, rng: random.Random) -> Batch:
        """Captions of as many visual tokens each, of different images."""
        count = rng.choice(self._part_counts)
        of_count = self._parts[count]
        drawn = rng.sample(of_count, min(len(of_count), 2 * self._images(count)))
        some = list({part.image: part for part in drawn}.values())[: self._images(count)]
        rows = [self._standardization(self._features[part.image][list(part.patches)]) for part in some]
        return self._batch(rows, [part.caption for part in some])

    def _dropped(self, rule: Rule, rng: random.Random) -> Batch:
        """Captions of whole images, of which some visual tokens are kept."""
        window = tuple(rng.randint(min(2, side), max(2, side * 3 // 5)) for side in self._grid)
        height, width = (min(side, most) for side, most in zip(window, self._grid, strict=True))
        count = self._count(rule, (height, width), rng)
        images = rng.sample(range(len(self._features)), self._images(count))
        kept = [kept_tokens(rule, self._grid, count, (height, width), rng) for _ in images]
        texts = [rng.choice(self._captions[image]) for image in images]
        return self._batch([self._kept_rows(image, which) for image, which in zip(images, kept, strict=True)], texts)

    def _batch(self, rows: list[Tensor], texts: Sequence[Sequence[int]]) -> Batch:
        import torch

        token_ids, targets = padded_texts(self._after, texts)
        return Batch(torch.stack(rows), token_ids, targets, (targets != IGNORED).float())

    def _kept_rows(self, image: int, kept: npt.NDArray[np.bool_]) -> Tensor:
        import torch

        return self._standardization(self._features[image][torch.from_numpy(kept)])

    def _rule(self, step: int, rng: random.Random) -> Rule | Literal["captioned"]:
        rules, shares = zip(*self._settings.kept, strict=True)
        drawn: Rule | Literal["captioned"] = rng.choices(rules, shares)[0]
        whole = step >= self._settings.steps * (1 - self._settings.whole_steps)
        return "whole" if whole else drawn

    def _count(self, rule: Rule, window: tuple[int, int], rng: random.Random) -> int:
        """How many visual tokens of each image a step keeps."""
        tokens = self._grid[0] * self._grid[1]
        counts = {
            "whole": tokens,
            "subset": rng.randint(max(1, tokens // 10), max(1, tokens * 7 // 10)),
            "window": window[0] * window[1],
            "few": rng.randint(1, min(_FEW, tokens)),
        }
        return counts[rule]

    def _images(self, count: int) -> int:
        """How many images fit the step's budget of tokens."""
        fitting = int(self._settings.tokens // (count + self._text_tokens))
        return max(1, min(fitting, len(self._features)))
