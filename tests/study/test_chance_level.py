"""From what patches show to the shares: who knows nothing reaches chance, and who knows all reaches everything."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest

from latentlens_dag.schema import IMAGES, NEIGHBORS, REGIONS, VISUAL_TOKENS
from latentlens_dag.study.interpretability import interpretability
from latentlens_dag.study.regions_judge import judge_regions
from tests.helpers.patch_truths import truth_of
from tests.helpers.small_dataset import answer, region

WORDS = ("dog", "cat", "owl", "tree", "moon", "lake", "boat", "house")
SIDE, PATCH, TOP_K = 64, 16, 3
Say = Callable[[str, int, random.Random], list[str]]
"""The answers for a patch of an image."""


def _study(say: Say, images: int, width: int, height: int, seed: int) -> list[dict[str, Any]]:
    """INTERPRETABILITY of one lens on pictures of two objects before a background, padded to a square."""
    drawn, names = random.Random(seed), [f"{number:016x}" for number in range(images)]
    shown: list[dict[str, Any]] = []
    for name in names:
        sky, *things = drawn.sample(WORDS, 3)
        shown.append(region(name, "0", "background", [sky], [], x1=width, y1=height))
        for number, thing in enumerate(things, 1):
            x, y = drawn.randrange(width), drawn.randrange(height)
            box = {"x0": x, "y0": y, "x1": min(x + 32, width), "y1": min(y + 32, height)}
            shown.append(region(name, str(number), "object", [thing], ["thing"], **box))
    side = max(width, height)
    boxes = [(x, y, x + PATCH, y + PATCH) for y in range(0, side, PATCH) for x in range(0, side, PATCH)]
    token = dict.fromkeys(VISUAL_TOKENS.names) | {"study": "s", "view": "global"}
    tokens = [
        token | {"image_id": name, "token_index": number} | dict(zip(("x0", "y0", "x1", "y1"), box, strict=True))
        for name in names
        for number, box in enumerate(boxes)
    ]
    sizes = [{"image_id": name, "file_name": name, "width": width, "height": height} for name in names]
    truth = truth_of(
        pa.Table.from_pylist(shown, REGIONS),
        pa.Table.from_pylist(tokens, VISUAL_TOKENS),
        pa.Table.from_pylist(sizes, IMAGES),
    )
    said = [
        answer("s", name, number, 4, "latentlens", rank, word)
        for name in names
        for number in range(len(boxes))
        for rank, word in enumerate(say(_words_at(shown, name, boxes[number]), number, drawn), 1)
    ]
    judged = judge_regions(pa.Table.from_pylist(said, NEIGHBORS), truth)
    return interpretability(judged, TOP_K).to_pylist()


def _words_at(shown: list[dict[str, Any]], image: str, box: tuple[int, ...]) -> str:
    """A word of the region that covers most of a box."""

    def covered(row: dict[str, Any]) -> float:
        width = min(row["x1"], box[2]) - max(row["x0"], box[0])
        return max(width, 0) * max(min(row["y1"], box[3]) - max(row["y0"], box[1]), 0)

    return max((row for row in shown if row["image_id"] == image), key=covered)["words"][0]


def _blind(_: str, number: int, drawn: random.Random) -> list[str]:
    """Words that have nothing to do with the patch; a few words far more often than others, and of some images."""
    return drawn.choices((*WORDS, "thing"), weights=(9, 9, 1, 1, 1, 1, 1, 1, 4), k=TOP_K)


@pytest.mark.parametrize("seed", range(5))
def test_a_lens_that_knows_nothing_lies_within_its_chance_interval(seed: int) -> None:
    rows = _study(_blind, images=40, width=SIDE, height=SIDE, seed=seed)
    assert {row["patch_group"] for row in rows} == {"all", "object", "background"} and len(rows) == 3 * 2 * 4
    assert max(row["share"] for row in rows) > 0.5  # chance is high, and so is a share without it
    outside = [row for row in rows if not row["chance_low"] <= row["share"] <= row["chance_high"]]
    beyond = [row for row in rows if not row["excess_low"] <= 0 <= row["excess_high"]]
    assert max(len(outside), len(beyond)) <= 2  # of 24, each of which is wrong in 5 % of cases


def test_a_perfect_lens_on_a_padded_picture_of_2_to_1_reaches_100_percent() -> None:
    rows = _study(lambda word, *_: [word, "x", "y"], images=8, width=2 * PATCH * 4, height=PATCH * 4, seed=0)
    tokens = {row["patch_group"]: row["tokens"] for row in rows}
    assert tokens["padding"] == tokens["all"] == 8 * 8 * 4
    shares = {(row["patch_group"], row["measure"]): row["share"] for row in rows if row["k"] == 1}
    assert [shares[group, "concrete"] for group in ("all", "object", "background")] == [1, 1, 1]
    assert shares["padding", "concrete"] == 0
