from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, NamedTuple

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latentlens_dag.schema import IMAGES, JUDGEMENTS, LENSES, NEIGHBORS, REGIONS, VISUAL_TOKENS
from latentlens_dag.study.regions_judge import Truth, build_truth, judge_regions
from tests.helpers.small_dataset import (
    ANIMALS,
    PATCH,
    SIDE,
    answer,
    image_id,
    images,
    neighbors,
    region,
    regions,
    visual_tokens,
)
from tests.text.test_inflection import same_word

WORDS = ("dog", "dogs", "Cat", "grass", "farm", "outdoors", "tree", "the", None, ",", "owls", "animal")


class PatchTruth(NamedTuple):
    """What one patch shows, in words."""

    patch_group: str
    concrete: tuple[str, ...]
    abstract: tuple[str, ...]
    global_: tuple[str, ...]


def truth_at(truth: Truth, image_id: str, token_index: int) -> PatchTruth | None:
    """The truth of one patch; None for a token without a box or an image without regions."""
    patch = truth.patches.filter(image_id=image_id, token_index=token_index)
    if patch.is_empty():
        return None
    words = truth.words.filter(truth_id=patch["truth_id"][0])
    return PatchTruth(patch["patch_group"][0], *(tuple(words.filter(level=level)["word"]) for level in range(3)))


def truth_of(rows: Sequence[dict[str, Any]], boxes: Sequence[tuple[float, float, float, float] | None]) -> Truth:
    """The truth of one 32 x 32 image."""
    tokens = [
        dict.fromkeys(VISUAL_TOKENS.names)
        | {"image_id": "i", "token_index": number}
        | dict(zip(("x0", "y0", "x1", "y1"), box or [None] * 4, strict=True))
        for number, box in enumerate(boxes)
    ]
    size = {"image_id": "i", "file_name": "i", "width": SIDE, "height": SIDE, "thumbnail": None}
    return build_truth(
        [pa.Table.from_pylist(list(rows), schema=REGIONS)],
        [pa.Table.from_pylist(tokens, schema=VISUAL_TOKENS)],
        [pa.Table.from_pylist([size], schema=IMAGES)],
    )


def whole_truth(animals: Sequence[str] = ANIMALS) -> Truth:
    return build_truth([regions(tuple(animals))], [visual_tokens("s", tuple(animals))], [images(tuple(animals))])


def answers(*rows: dict[str, Any]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), schema=NEIGHBORS)


SKY = region("i", "0", "background", ["sky", "blue"], ["outdoors"])
DOG = region("i", "1", "object", ["dog"], ["pet"], x0=0, y0=0, x1=8, y1=16)
CAT = region("i", "2", "object", ["cat"], ["pet"], x0=8, y0=0, x1=14, y1=16)


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([DOG, CAT], PatchTruth("object", ("dog",), ("pet",), ("cat",))),  # the dog covers exactly half
        ([CAT], PatchTruth("background", ("cat",), ("pet",), ())),  # nothing covers half: the one that covers most
        ([CAT, {**DOG, "x0": 3}], PatchTruth("object", ("cat",), ("pet",), ("dog",))),  # half only together
        ([SKY, DOG], PatchTruth("object", ("sky", "blue", "dog"), ("outdoors", "pet"), ())),  # both cover half
        ([{**DOG, "x0": 20, "x1": 30}], PatchTruth("background", (), (), ("dog",))),  # no region at all
    ],
)
def test_a_patch_shows_what_covers_half_of_it_or_else_most(rows: list[dict[str, Any]], expected: PatchTruth) -> None:
    assert truth_at(truth_of(rows, [(0, 0, PATCH, PATCH)]), "i", 0) == expected


def test_tokens_without_a_box_and_images_without_a_region_get_no_judgement() -> None:
    truth = truth_of([SKY], [None, (0, 0, 8, 8)])
    assert truth_at(truth, "i", 0) is None and truth_at(truth, "i", 1) is not None
    found = answers(*(answer("s", image, token, 0, "logitlens", 1, "sky") for image in "ij" for token in (0, 1)))
    assert judge_regions(found, truth).select(["image_id", "token_index"]).to_pylist() == [
        {"image_id": "i", "token_index": 1}
    ]


def test_the_first_verdict_that_holds_counts_and_its_words_are_those_that_earned_it() -> None:
    far = region("i", "3", "object", ["moon"], ["night"], x0=20, y0=20, x1=30, y1=30)
    truth = truth_of([DOG, far], [(0, 0, 16, 16)])
    given_words = {
        "concrete": ["pets", "Dog", "moon", "dogs", "Dog"],
        "abstract": ["moons", "pet", "the"],
        "global": ["the", "moon"],
        "none": ["night", ",", None],
    }
    for verdict, words in given_words.items():
        rows = [answer("s", "i", 0, 3, "latentlens", rank, word) for rank, word in enumerate(words, start=1)]
        random.Random(0).shuffle(rows)
        judged = judge_regions(answers(*rows), truth, "mine").to_pylist()
        assert len(judged) == 1 and judged[0]["verdict"] == verdict and judged[0]["judge"] == "mine"
        earned = {"concrete": ["Dog", "dogs"], "abstract": ["pet"], "global": ["moon"], "none": []}
        assert judged[0]["words"] == earned[verdict]


def test_a_word_that_is_right_in_several_ways_counts_as_the_first() -> None:
    other_dog = region("i", "3", "object", ["dog"], ["sky"], x0=20, y0=20, x1=30, y1=30)
    here = {**SKY, "abstract_words": ["dog"], "words": ["sky", "dog"], "x1": 10, "y1": 10}
    truth = truth_of([here, other_dog], [(0, 0, 8, 8), (20, 20, 30, 30)])
    found = answers(*(answer("s", "i", token, 0, "logitlens", 1, word) for token, word in enumerate(["dogs", "sky"])))
    assert judge_regions(found, truth).column("verdict").to_pylist() == ["concrete", "abstract"]


def slow_verdict(truth: PatchTruth, words: Sequence[str | None]) -> tuple[str, list[str]]:
    """The definition, word by word."""
    for verdict, right in zip(("concrete", "abstract", "global"), truth[1:], strict=True):
        earned = [word for word in words if word and any(same_word(word, one) for one in right)]
        if earned:
            return verdict, list(dict.fromkeys(earned))
    return "none", []


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from(WORDS), min_size=3 * 20, max_size=3 * 20))
def test_judgements_are_those_of_the_definition(words: list[str | None]) -> None:
    truth = whole_truth()
    said = {(image_id(ANIMALS[n // 5]), n % 5): words[3 * n : 3 * n + 3] for n in range(20)}
    table = answers(
        *(answer("s", *place, 0, "logitlens", rank, w) for place, ws in said.items() for rank, w in enumerate(ws, 1))
    )
    judged = judge_regions(table, truth)
    assert judged.schema == JUDGEMENTS and len(judged) == 16
    for row in judged.to_pylist():
        place = (row["image_id"], row["token_index"])
        here = truth_at(truth, *place)
        assert here is not None and here.patch_group == row["patch_group"]
        assert (row["verdict"], row["words"]) == slow_verdict(here, said[place])


def test_chance_is_judged_against_a_patch_of_the_same_group_in_another_image() -> None:
    truth = whole_truth()
    shows = {row["truth_id"]: row for row in truth.patches.to_dicts()}
    for row in truth.patches.to_dicts():
        other = shows[row["chance_id"]]
        assert other["patch_group"] == row["patch_group"] and other["image_id"] != row["image_id"]
    every = judge_regions(pa.concat_tables([neighbors("s", ANIMALS, lens, 0) for lens in LENSES]), truth).to_pylist()
    chance = {(row["lens"], row["patch_group"]): set() for row in every}
    for row in every:
        chance[row["lens"], row["patch_group"]].add(row["chance_verdict"])
    assert chance["latentlens", "object"] == {"none"} and chance["latentlens", "background"] == {"concrete"}
    assert chance["logitlens", "object"] == {"global"} and chance["embeddinglens", "object"] == {"none"}


def test_the_chance_patch_is_drawn_from_all_others_about_equally_often() -> None:
    animals = tuple(f"animal {number}" for number in range(41))
    patches = whole_truth(animals).patches
    objects = patches.filter(patches["patch_group"] == "object")
    counts = objects["chance_id"].value_counts()["count"]
    # 41 draws from 40 others each: about 26 different ones are expected, all the same one would be a defect.
    assert len(counts) > 18 and counts.max() < 7


def test_without_another_image_of_the_group_chance_is_null() -> None:
    judged = judge_regions(neighbors("s", ANIMALS[:1], "latentlens", 0), whole_truth(ANIMALS[:1]))
    assert judged.column("chance_verdict").null_count == len(judged) == 4


@settings(max_examples=15, deadline=None)
@given(st.permutations(ANIMALS), st.integers(1, 4), st.randoms(use_true_random=False))
def test_the_batch_a_token_comes_in_and_the_order_of_everything_change_nothing(
    order: list[str], size: int, shuffler: random.Random
) -> None:
    batches = [tuple(order[start : start + size]) for start in range(0, 4, size)]
    truth = build_truth(
        [regions(batch) for batch in batches],
        [shuffled(visual_tokens("s", batch), shuffler) for batch in batches],
        [images(batch) for batch in batches],
    )
    parts = [
        judge_regions(shuffled(neighbors("s", batch, lens, 0), shuffler), truth) for batch in batches for lens in LENSES
    ]
    found = pa.concat_tables(parts).sort_by(KEYS)
    expected = judge_regions(pa.concat_tables([neighbors("s", ANIMALS, lens, 0) for lens in LENSES]), whole_truth())
    assert found.to_pylist() == expected.sort_by(KEYS).to_pylist()
    assert chance_words(truth) == chance_words(whole_truth())


def chance_words(truth: Truth) -> dict[tuple[str, int], set[str]]:
    """The words of each patch's chance patch."""
    words = truth.words.group_by("truth_id").agg("word")
    joined = truth.patches.join(words, left_on="chance_id", right_on="truth_id")
    return {(row["image_id"], row["token_index"]): set(row["word"]) for row in joined.to_dicts()}


KEYS = [("lens", "ascending"), ("image_id", "ascending"), ("token_index", "ascending")]


def shuffled(table: pa.Table, shuffler: random.Random) -> pa.Table:
    rows = list(range(len(table)))
    shuffler.shuffle(rows)
    return table.take(rows)


def test_no_answers_give_no_judgements() -> None:
    assert judge_regions(NEIGHBORS.empty_table(), whole_truth()).equals(JUDGEMENTS.empty_table())
    assert len(judge_regions(neighbors("s", ANIMALS, "logitlens", 0), build_truth([], [], []))) == 0
