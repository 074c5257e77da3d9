from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from latentlens_dag.schema import PATCH_TRUTH, VISUAL_TOKENS
from latentlens_dag.storage.parquet import write_parquet
from latentlens_dag.study import chance_patches
from latentlens_dag.study.chance_patches import CHANCE_PATCHES, DRAWS, write_chance_patches
from latentlens_dag.study.patch_truth import WORD_LISTS
from tests.helpers.patch_truths import truth_tables
from tests.helpers.small_dataset import SIDE, images, regions, visual_tokens


def _tables(animals: int, batches: int) -> list[tuple[pa.Table, pa.Table]]:
    cut = [tuple(f"animal {n}" for n in range(animals) if n % batches == batch) for batch in range(batches)]
    return truth_tables([(regions(own), visual_tokens("s", own), images(own)) for own in cut])


def _drawn(animals: int, batches: int) -> dict[tuple[str, int, int], tuple[object, ...]]:
    """The chance patch of each patch and draw, and its words."""
    found = {}
    for truth, chance in _tables(animals, batches):
        patches = truth.take(chance["patch"])
        columns = (*(patches[name] for name in ("image_id", "token_index")), chance["draw"])
        places = zip(*(column.to_pylist() for column in columns), strict=True)
        found |= dict(zip(places, map(_place_and_words, _with_words(chance)), strict=True))
    return found


def _with_words(chance: pa.Table) -> list[dict[str, Any]]:
    """The rows of CHANCE_PATCHES, each with the words that stand in the first row of its truth."""
    rows = chance.to_pylist()
    first: dict[int, dict[str, Any]] = {}
    for row in rows:
        first.setdefault(row["chance_truth"], row)
    return [row | {name: first[row["chance_truth"]][name] for name in WORD_LISTS} for row in rows]


def _place_and_words(row: dict[str, Any]) -> tuple[object, ...]:
    return tuple(row[name] for name in ("chance_image_id", "chance_token_index", *WORD_LISTS))


@pytest.mark.parametrize("batches", [2, 3, 7])
def test_batches_change_no_chance_patch(batches: int) -> None:
    assert _drawn(7, batches) == _drawn(7, 1)


def test_the_chance_patch_is_of_the_same_group_in_another_image_and_its_words_are_those_of_the_truth() -> None:
    tables = _tables(7, 3)
    every = {(row["image_id"], row["token_index"]): row for truth, _ in tables for row in truth.to_pylist()}
    for truth, chance in tables:
        assert chance.schema == CHANCE_PATCHES and len(chance) == DRAWS * len(truth)
        for row in _with_words(chance):
            own = truth.slice(row["patch"], 1).to_pylist()[0]
            other = every[row["chance_image_id"], row["chance_token_index"]]
            assert other["patch_group"] == own["patch_group"] and other["image_id"] != own["image_id"]
            assert [row[name] for name in WORD_LISTS] == [other[name] for name in WORD_LISTS]


def test_words_stand_once_for_each_image_and_regions_that_chance_patches_show() -> None:
    tables = _tables(7, 3)
    shown = {
        (row["image_id"], row["token_index"]): (row["image_id"], *row["region_ids"])
        for truth, _ in tables
        for row in truth.to_pylist()
    }
    for _, chance in tables:
        truth_of: dict[int, object] = {}
        for row in chance.to_pylist():
            drawn = shown[row["chance_image_id"], row["chance_token_index"]]
            is_first = row["chance_truth"] not in truth_of
            assert truth_of.setdefault(row["chance_truth"], drawn) == drawn
            assert all((row[name] is not None) == is_first for name in WORD_LISTS)
        assert len(set(truth_of.values())) == len(truth_of) < len(chance)


def test_the_chance_patch_is_drawn_from_all_others_about_equally_often() -> None:
    counts: dict[object, int] = {}
    for (_, token, draw), (image, *_) in _drawn(41, 1).items():
        if token == draw == 0:
            counts[image] = counts.get(image, 0) + 1
    # 41 draws from 40 others each: about 26 different ones are expected, all the same one would be a defect.
    assert len(counts) > 18 and max(counts.values()) < 7


def test_the_draws_of_a_patch_are_drawn_independently() -> None:
    drawn = _drawn(41, 1)
    images_of = [[drawn[image, token, draw][0] for image, token, _ in drawn] for draw in range(DRAWS)]
    for one, two in itertools.combinations(images_of, 2):
        same = sum(a == b for a, b in zip(one, two, strict=True)) / len(one)
        assert same < 3 / 40


def test_padding_is_drawn_for_padding_and_for_nothing_else() -> None:
    animals = tuple(f"animal {n}" for n in range(6))
    tokens = visual_tokens("s", animals).to_pylist()
    below = {"token_index": 9, "x0": 4.0, "x1": 12.0, "y0": float(SIDE), "y1": SIDE + 16.0}
    shown = pa.Table.from_pylist([*tokens, *(row | below for row in tokens[::5])], VISUAL_TOKENS)
    ((truth, chance),) = truth_tables([(regions(animals), shown, images(animals))])
    group = {(row["image_id"], row["token_index"]): row["patch_group"] for row in truth.to_pylist()}
    assert Counter(group.values()) == {"object": 6, "background": 18, "padding": 6}
    own = truth.take(chance["patch"])["patch_group"].to_pylist()
    columns = (chance[name].to_pylist() for name in ("chance_image_id", "chance_token_index"))
    assert own == [group[place] for place in zip(*columns, strict=True)] and len(own) == DRAWS * len(truth)


def test_what_waits_in_memory_does_not_change_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = [chance for _, chance in _tables(7, 3)]
    monkeypatch.setattr(chance_patches, "_ROW_GROUP", 2)
    assert [chance for _, chance in _tables(7, 3)] == whole


def test_a_set_without_a_region_has_no_chance_patches(tmp_path: Path) -> None:
    truths, outs = ([tmp_path / f"{name}_{batch}" for batch in range(2)] for name in ("truth", "chance"))
    for file in truths:
        write_parquet(PATCH_TRUTH.empty_table(), file)
    assert write_chance_patches(truths, outs) == 0
    assert all(pq.read_table(file).equals(CHANCE_PATCHES.empty_table()) for file in outs)
