from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latentlens_dag.schema import DECLARED_LENSES, IMAGES, JUDGEMENTS, NEIGHBORS, PATCH_TRUTH, REGIONS, VISUAL_TOKENS
from latentlens_dag.storage.hashing import hash_bytes
from latentlens_dag.storage.parquet import write_parquet
from latentlens_dag.study import regions_judge
from latentlens_dag.study.chance_patches import CHANCE_SEED, DRAWS, write_chance_patches
from latentlens_dag.study.patch_truth import patch_truth
from latentlens_dag.study.regions_judge import VERDICTS, Truth, judge_files, judge_regions
from tests.helpers.patch_truths import Inputs, truth_of, truth_tables, truths_of
from tests.helpers.small_dataset import (
    ANIMALS,
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

WORDS = ("dog", "dogs", "Cat", "grass", "leaves", "leave", "leaf", "tree", "the", None, ",", "owls", "animal")
PLACE = ["image_id", "token_index"]


def truth_of_image(rows: Sequence[dict[str, Any]], boxes: Sequence[tuple[float, float, float, float] | None]) -> Truth:
    """The truth of one 32 x 32 image."""
    tokens = [
        dict.fromkeys(VISUAL_TOKENS.names)
        | {"image_id": "i", "token_index": number}
        | dict(zip(("x0", "y0", "x1", "y1"), box or [None] * 4, strict=True))
        for number, box in enumerate(boxes)
    ]
    size = {"image_id": "i", "file_name": "i", "width": SIDE, "height": SIDE, "thumbnail": None}
    return truth_of(
        pa.Table.from_pylist(list(rows), schema=REGIONS),
        pa.Table.from_pylist(tokens, schema=VISUAL_TOKENS),
        pa.Table.from_pylist([size], schema=IMAGES),
    )


def inputs_of(animals: Sequence[str]) -> Inputs:
    return regions(tuple(animals)), visual_tokens("s", tuple(animals)), images(tuple(animals))


def answers(*rows: dict[str, Any]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), schema=NEIGHBORS)


SKY = region("i", "0", "background", ["sky", "blue"], ["outdoors"])
DOG = region("i", "1", "object", ["dog"], ["pet"], x0=0, y0=0, x1=8, y1=16)


def test_tokens_without_a_box_and_images_without_a_region_get_no_judgement() -> None:
    truth = truth_of_image([SKY], [None, (0, 0, 8, 8)])
    found = answers(*(answer("s", image, token, 0, "logitlens", 1, "sky") for image in "ij" for token in (0, 1)))
    assert judge_regions(found, truth).select(["image_id", "token_index"]).to_pylist() == [
        {"image_id": "i", "token_index": 1}
    ]


def test_the_first_verdict_that_holds_counts_and_its_words_are_those_that_earned_it() -> None:
    far = region("i", "3", "object", ["moon"], ["night"], x0=20, y0=20, x1=30, y1=30)
    truth = truth_of_image([DOG, far], [(0, 0, 16, 16)])
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
    truth = truth_of_image([here, other_dog], [(0, 0, 8, 8), (20, 20, 30, 30)])
    found = answers(*(answer("s", "i", token, 0, "logitlens", 1, word) for token, word in enumerate(["dogs", "sky"])))
    assert judge_regions(found, truth).column("verdict").to_pylist() == ["concrete", "abstract"]


@dataclass(frozen=True)
class SlowPatch:
    """What one patch shows, in words."""

    group: str
    words: tuple[list[str], ...]
    """Concrete, abstract, global."""


def slow_patches(batches: Sequence[Inputs]) -> dict[tuple[str, int], SlowPatch]:
    """What every patch of a study shows, in order of image and token."""
    rows = [row for tables in batches for table in patch_truth(*tables) for row in table.to_pylist()]
    lists = ("concrete_words", "abstract_words", "global_words")
    found = {
        (row["image_id"], row["token_index"]): SlowPatch(row["patch_group"], tuple(row[name] for name in lists))
        for row in rows
    }
    return dict(sorted(found.items()))


def slow_chance(patches: dict[tuple[str, int], SlowPatch], place: tuple[str, int], draw: int = 0) -> SlowPatch | None:
    """The definition: of all patches of the group in other images the one that the hash of draw and place names."""
    image, token = place
    others = [one for (at, _), one in patches.items() if at != image and one.group == patches[place].group]
    number = int(hash_bytes(f"{CHANCE_SEED + draw} {image}".encode()), 16) + (token + 1) * 0x9E3779B97F4A7C15
    number %= 1 << 64
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        number = ((number ^ (number >> shift)) * factor) % (1 << 64)
    return others[(number ^ (number >> 31)) % len(others)] if others else None


def slow_verdict(patch: SlowPatch | None, words: Sequence[str | None]) -> tuple[str | None, list[str]]:
    """The definition, word by word."""
    if patch is None:
        return None, []
    for verdict, right in zip(("concrete", "abstract", "global"), patch.words, strict=True):
        earned = [word for word in words if word and any(same_word(word, one) for one in right)]
        if earned:
            return verdict, list(dict.fromkeys(earned))
    return "none", []


some_words = st.lists(st.sampled_from([word for word in WORDS if word]), max_size=3)
places_of_regions = st.tuples(
    st.integers(0, SIDE - 1), st.integers(0, SIDE - 1), st.integers(1, 24), st.integers(1, 24)
)
some_regions = st.lists(
    st.tuples(places_of_regions, st.sampled_from(["object", "background"]), some_words, some_words), max_size=3
)
some_images = st.lists(st.tuples(some_regions, st.integers(0, 2)), min_size=1, max_size=6)


@settings(max_examples=60, deadline=None)
@given(some_images, st.data())
def test_judgements_are_those_of_the_definition_however_images_are_cut_into_batches(
    drawn: list[tuple[list[Any], int]], data: st.DataObject
) -> None:
    names = [f"animal {number}" for number in range(len(drawn))]
    of_batch = [[name for name, (_, own) in zip(names, drawn, strict=True) if own == batch] for batch in range(3)]
    shown = {name: _regions(name, rows) for name, (rows, _) in zip(names, drawn, strict=True)}
    batches = [
        (
            pa.Table.from_pylist([row for name in own for row in shown[name]], REGIONS),
            visual_tokens("s", tuple(own)),
            images(tuple(own)),
        )
        for own in of_batch
    ]
    words = data.draw(st.lists(st.sampled_from(WORDS), min_size=10 * len(names), max_size=10 * len(names)))
    said = {(image_id(name), token): words[at : at + 2] for at, (name, token) in enumerate(_places(names))}
    patches, judged = slow_patches(batches), list[dict[str, Any]]()
    for truth, own in zip(truths_of(batches), of_batch, strict=True):
        rows = [
            answer("s", *place, 0, lens, rank, word)
            for place in ((image_id(name), token) for name, token in _places(own))
            for lens in ("logitlens", "latentlens")
            for rank, word in enumerate(said[place], 1)
        ]
        table = judge_regions(answers(*data.draw(st.permutations(rows))), truth)
        assert table.schema == JUDGEMENTS
        judged += table.to_pylist()
    assert sorted((row["image_id"], row["token_index"]) for row in judged) == sorted([*patches, *patches])
    for row in judged:
        place = (row["image_id"], row["token_index"])
        assert row["patch_group"] == patches[place].group
        assert (row["verdict"], row["words"]) == slow_verdict(patches[place], said[place])
        assert row["chance_verdict"] == slow_verdict(slow_chance(patches, place), said[place])[0]
        assert row["chance_counts"] == slow_counts(patches, place, said[place])
        assert row["first_verdict"] == slow_verdict(patches[place], said[place][:1])[0]
        assert row["first_chance_counts"] == slow_counts(patches, place, said[place][:1])


def slow_counts(
    patches: dict[tuple[str, int], SlowPatch], place: tuple[str, int], words: Sequence[str | None]
) -> list[int] | None:
    """The definition, draw by draw."""
    found = [slow_verdict(slow_chance(patches, place, draw), words)[0] for draw in range(DRAWS)]
    return None if found[0] is None else [found.count(verdict) for verdict in VERDICTS]


def _places(names: Sequence[str]) -> list[tuple[str, int]]:
    return [(name, token) for name in names for token in range(5)]


def _regions(name: str, drawn: Sequence[Any]) -> list[dict[str, Any]]:
    return [
        region(image_id(name), str(number), kind, words or ["x"], abstract, x0=x, y0=y, x1=x + width, y1=y + height)
        for number, ((x, y, width, height), kind, words, abstract) in enumerate(drawn)
    ]


def test_chance_is_judged_against_a_patch_of_the_same_group_in_another_image() -> None:
    every = pa.concat_tables([neighbors("s", ANIMALS, lens, 0) for lens in DECLARED_LENSES])
    judged = judge_regions(every, truth_of(*inputs_of(ANIMALS))).to_pylist()
    chance = {(row["lens"], row["patch_group"]): set() for row in judged}
    for row in judged:
        chance[row["lens"], row["patch_group"]].add(row["chance_verdict"])
    assert chance["latentlens", "object"] == {"none"} and chance["latentlens", "background"] == {"concrete"}
    assert chance["logitlens", "object"] == {"global"} and chance["embeddinglens", "object"] == {"none"}


@pytest.mark.parametrize("piece", [1, 7, 1 << 20])
def test_the_lenses_of_a_layer_are_judged_piece_by_piece_as_together(
    piece: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(regions_judge, "_PIECE", piece)
    order = tuple(sorted(ANIMALS, key=image_id))
    truth, tables = truth_of(*inputs_of(ANIMALS)), [neighbors("s", order, lens, 0) for lens in sorted(DECLARED_LENSES)]
    files = [tmp_path / lens for lens in sorted(DECLARED_LENSES)]
    for table, file in zip(tables, files, strict=True):
        write_parquet(table, file)
    found = pa.concat_tables(judge_files(files, truth))
    assert found.equals(judge_regions(pa.concat_tables(tables), truth)) and len(found) == 48


def test_words_are_held_once_for_each_image_and_regions_that_patches_show() -> None:
    animals = [tuple(f"animal {n}" for n in range(40) if n % 2 == batch) for batch in range(2)]
    tables = truth_tables([inputs_of(own) for own in animals])
    shown = {
        (row["image_id"], row["token_index"]): (row["image_id"], *row["region_ids"])
        for truth, _ in tables
        for row in truth.to_pylist()
    }
    for truth, (own, chance) in zip(truths_of([inputs_of(own) for own in animals]), tables, strict=True):
        places = (chance.select(["chance_image_id", "chance_token_index"]).to_pylist(), own.select(PLACE).to_pylist())
        drawn, mine = ({shown[tuple(row.values())] for row in rows} for rows in places)
        assert len(drawn) + len(mine) < len(own) + len(chance)
        assert len({key // len(truth.forms.codes) for key in truth.forms.keys.tolist()}) == len(drawn) + len(mine)


def test_a_batch_may_have_more_than_two_gigabytes_of_words(tmp_path: Path) -> None:
    truth, chance = tmp_path / "truth", tmp_path / "chance"
    images_of_batch, patches, word = 4, 2800, "w" * 200_000
    assert images_of_batch * patches * len(word) > 1 << 31
    write_long_words(truth, images_of_batch, patches, word)
    write_chance_patches([truth], [chance])
    found = Truth.of(truth, chance)
    assert len(found.patches) == images_of_batch * patches and found.chance.min() >= images_of_batch
    rows = [answer("s", "0", 7, 0, "latentlens", rank, said) for rank, said in enumerate(["v", word], 1)]
    (judged,) = judge_regions(answers(*rows), found).to_pylist()
    assert judged["verdict"] == judged["chance_verdict"] == "global" and judged["words"] == [word]


def write_long_words(file: Path, count: int, patches: int, word: str) -> None:
    """PATCH_TRUTH of `count` images whose patches show nothing; the file holds their only word once per row group."""
    rows = count * patches
    columns = {field.name: pa.array([[]] * rows, field.type) for field in PATCH_TRUTH if pa.types.is_list(field.type)}
    words = pa.DictionaryArray.from_arrays(np.zeros(rows, np.int32), [word])
    columns |= {
        "study": pa.array(["s"] * rows),
        "image_id": pa.array(np.repeat([str(number) for number in range(count)], patches)),
        "token_index": pa.array(np.tile(np.arange(patches, dtype=np.int32), count)),
        "patch_group": pa.array(["background"] * rows),
        "global_words": pa.ListArray.from_arrays(np.arange(rows + 1, dtype=np.int32), words),
    }
    table = pa.table(columns).select(PATCH_TRUTH.names)
    pq.write_table(table, file, row_group_size=1000, compression="zstd", store_schema=False)


def test_neighbors_that_are_not_in_order_of_the_images_are_refused(tmp_path: Path) -> None:
    table = neighbors("s", tuple(sorted(ANIMALS, key=image_id, reverse=True)), "latentlens", 0)
    write_parquet(table, tmp_path / "file")
    with pytest.raises(ValueError, match="not in order of image_id"):
        list(judge_files([tmp_path / "file"], truth_of(*inputs_of(ANIMALS))))


def test_without_another_image_of_the_group_chance_is_null() -> None:
    judged = judge_regions(neighbors("s", ANIMALS[:1], "latentlens", 0), truth_of(*inputs_of(ANIMALS[:1])))
    assert judged.column("chance_verdict").null_count == len(judged) == 4


def test_no_answers_and_no_patches_give_no_judgements(tmp_path: Path) -> None:
    truth = truth_of(*inputs_of(ANIMALS))
    write_parquet(NEIGHBORS.empty_table(), tmp_path / "file")
    assert pa.concat_tables(judge_files([tmp_path / "file"], truth)).equals(JUDGEMENTS.empty_table())
    assert judge_regions(NEIGHBORS.empty_table(), truth).equals(JUDGEMENTS.empty_table())
    nothing = truth_of(*(table.slice(0, 0) for table in inputs_of(ANIMALS)))
    assert judge_regions(neighbors("s", ANIMALS, "logitlens", 0), nothing).equals(JUDGEMENTS.empty_table())
