from __future__ import annotations

import math
import random
from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latentlens_dag.dataset.dataset import open_dataset
from latentlens_dag.schema import DECLARED_LENSES, JUDGEMENTS, LENS_DIFFERENCES, SINKS
from latentlens_dag.study.differences import JudgedStudy, lens_differences, study_differences
from latentlens_dag.study.intervals import adjusted_p_values, differences, sign_flip_p_values
from latentlens_dag.study.regions_judge import VERDICTS
from tests.benchmarks.interval_coverage import Cell, draw
from tests.helpers.small_dataset import AWKWARD, LAYERS, write_warehouse

Row = dict[str, Any]
HITS = {
    "interpretable": {"concrete", "abstract", "global"},
    **{verdict: {verdict} for verdict in ("concrete", "abstract", "global")},
}
GROUPS = {"all": {"object", "background"}, "object": {"object"}, "background": {"background"}}
NAMES = list(DECLARED_LENSES)
K = 5


def judged(image: str, token: int, lens: str, layer: int, verdict: str, group: str = "object", study: str = "s") -> Row:
    first = VERDICTS[(VERDICTS.index(verdict) + token + len(image)) % len(VERDICTS)]
    row = {
        "study": study,
        "first_verdict": first,
        "image_id": image,
        "token_index": token,
        "visual_layer": layer,
        "lens": lens,
        "words": [],
    }
    return row | {"judge": "regions", "verdict": verdict, "patch_group": group, "chance_verdict": None}


def table(rows: Iterable[Row]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), schema=JUDGEMENTS)


def by_layer(rows: Sequence[Row], parts: int = 1) -> dict[int, list[pl.LazyFrame]]:
    """As a study has them: a file per layer and part, each image in one part."""
    images = sorted({row["image_id"] for row in rows})
    part_of = {image: number % parts for number, image in enumerate(images)}
    return {
        layer: [
            pl.DataFrame(table(r for r in rows if r["visual_layer"] == layer and part_of[r["image_id"]] == part)).lazy()
            for part in range(parts)
        ]
        for layer in {row["visual_layer"] for row in rows}
    }


def study_of(name: str, rows: Sequence[Row], sinks: pa.Table | None = None) -> JudgedStudy:
    frames = {layer: parts[0] for layer, parts in by_layer(rows).items()}
    return JudgedStudy(name, frames, SINKS.empty_table() if sinks is None else sinks)


def sink_table(*places: tuple[str, int, int]) -> pa.Table:
    names = ("image_id", "token_index", "visual_layer")
    rows = [{**dict(zip(names, one, strict=True)), "study": "s", "norm": 9.0, "sink_norm": 1.0} for one in places]
    return pa.Table.from_pylist(rows, schema=SINKS)


def slow_differences(rows: Sequence[Row], sinks: set[tuple[str, int, int]]) -> list[Row]:
    """The definition, patch by patch; without p-values adjusted."""
    verdict = {(row["lens"], row["visual_layer"], row["image_id"], row["token_index"]): row for row in rows}
    patches: dict[tuple[str, int], list[tuple[str, int, Row]]] = {}
    for (lens, layer, image, token), row in sorted(verdict.items()):
        patches.setdefault((lens, layer), []).append((image, token, row))
    layers = sorted({row["visual_layer"] for row in rows})
    lenses = [lens for lens in NAMES if any(row["lens"] == lens for row in rows)]
    pairs = [("layers", (lens, layer), (lens, layers[0])) for lens in lenses for layer in layers[1:]]
    pairs += [("lenses", (a, layer), (b, layer)) for a, b in combinations(lenses, 2) for layer in layers]
    found = []
    for (column, k), (measure, hits) in product((("first_verdict", 1), ("verdict", K)), HITS.items()):
        for group, members in GROUPS.items():
            for comparison, one, other in pairs:
                counts: dict[str, list[int]] = {}
                for image, token, row in patches.get(one, ()):
                    second = verdict.get((*other, image, token))
                    is_sink = any((image, token, at) in sinks for at in (one[1], other[1]))
                    if second and row["patch_group"] in members and not is_sink:
                        count = counts.setdefault(image, [0, 0, 0])
                        count[0] += row[column] in hits
                        count[1] += second[column] in hits
                        count[2] += 1
                if counts:
                    arrays = np.array([counts[image] for image in sorted(counts)]).T
                    result = differences(*arrays)
                    key = {
                        "comparison": comparison,
                        "measure": measure,
                        "patch_group": group,
                        "judge": "regions",
                        "k": k,
                    }
                    key |= {"study": "s", "other_study": "s", "lens": one[0], "visual_layer": one[1]}
                    key |= {"other_lens": other[0], "other_visual_layer": other[1]}
                    key |= {"images": len(counts), "tokens": int(arrays[2].sum())}
                    key |= {
                        "share": arrays[0].sum() / arrays[2].sum(),
                        "other_share": arrays[1].sum() / arrays[2].sum(),
                    }
                    low, high = (None if math.isnan(x) else float(x) for x in (result.low, result.high))
                    key |= {"difference": float(result.value), "low": low, "high": high}
                    found.append(key | {"p_value": float(sign_flip_p_values(*arrays))})
    return found


def adjusted(rows: Sequence[Row]) -> Iterator[Row]:
    families: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        name = tuple(row[part] for part in ("comparison", "judge", "patch_group", "k", "measure"))
        families.setdefault(name, []).append(row)
    for family in families.values():
        values = adjusted_p_values([row["p_value"] for row in family])
        yield from (row | {"adjusted_p_value": float(value)} for row, value in zip(family, values, strict=True))


def in_any_order(rows: Iterable[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: str([row[name] for name in LENS_DIFFERENCES.names[:11]]))


places = st.sets(st.tuples(st.sampled_from("abcd"), st.integers(0, 4), st.sampled_from((0, 2, 5))), max_size=9)
randoms = st.randoms(use_true_random=False)


def some_rows(generator: random.Random) -> list[Row]:
    """Most tokens of some images, under most lenses at most layers; a token is of one group at all layers."""
    groups = ("object", "background", "padding")
    most, images = generator.uniform(0.4, 1), "abcd"[: generator.randint(1, 4)]
    every = [(i, t, lens, layer) for i in images for t in range(5) for lens in NAMES for layer in (0, 2, 5)]
    return [judged(*at, generator.choice(VERDICTS), groups[at[1] % 3]) for at in every if generator.random() < most]


@settings(max_examples=12, deadline=None)
@given(randoms, places)
def test_differences_are_those_of_the_definition_patch_by_patch(
    generator: random.Random, sinks: set[tuple[str, int, int]]
) -> None:
    rows = some_rows(generator)
    found = lens_differences("s", by_layer(rows), K, sink_table(*sorted(sinks)))
    assert found.schema == LENS_DIFFERENCES
    expected = in_any_order(adjusted(slow_differences(rows, sinks)))
    for one, other in zip(in_any_order(found.to_pylist()), expected, strict=True):
        assert one == pytest.approx(other)


@settings(max_examples=6, deadline=None)
@given(randoms, st.integers(1, 4))
def test_order_of_rows_and_cut_into_tables_change_no_byte(generator: random.Random, parts: int) -> None:
    rows = some_rows(generator)
    expected = lens_differences("s", by_layer(rows), K)
    generator.shuffle(rows)
    assert lens_differences("s", by_layer(rows, parts), K).equals(expected)


def by_all_answers(found: pa.Table) -> list[Row]:
    """The rows of all answers, without those of the nearest alone."""
    return [row for row in found.to_pylist() if row["k"] != 1]


def every_lens(images: int = 6, tokens: int = 5, layers: Sequence[int] = (0, 3, 8), study: str = "s") -> list[Row]:
    generator = random.Random(study)
    return [
        judged(f"image {i}", t, lens, layer, generator.choice(VERDICTS), "object" if t % 2 else "background", study)
        for i in range(images)
        for t in range(tokens)
        for lens in NAMES
        for layer in layers
    ]


def test_each_lens_is_compared_with_each_and_each_layer_with_the_first_one() -> None:
    found = by_all_answers(lens_differences("s", by_layer(every_lens()), K))
    shown = [row for row in found if (row["measure"], row["patch_group"]) == ("concrete", "all")]
    lenses = [(r["lens"], r["other_lens"], r["visual_layer"], r["other_visual_layer"]) for r in shown]
    of_layers = [(lens, lens, layer, 0) for lens in NAMES for layer in (3, 8)]
    of_lenses = [(a, b, layer, layer) for a, b in combinations(NAMES, 2) for layer in (0, 3, 8)]
    assert lenses == of_layers + of_lenses


def test_a_row_depends_on_other_lenses_and_layers_in_nothing_but_its_adjusted_p_value() -> None:
    rows = every_lens()
    few = [row for row in rows if row["lens"] != NAMES[2] and row["visual_layer"] != 3]
    every, some = (
        pl.DataFrame(lens_differences("s", by_layer(one), K)).drop("adjusted_p_value") for one in (rows, few)
    )
    assert some.join(every, on=some.columns, how="anti", nulls_equal=True).is_empty()
    assert 0 < len(some) < len(every)


def test_a_patch_that_is_a_sink_at_one_of_two_layers_counts_in_neither() -> None:
    rows = [
        judged(image, token, "latentlens", layer, "none") for image in "ab" for token in range(4) for layer in (0, 3)
    ]
    found = lens_differences("s", by_layer(rows), K, sink_table(("a", 0, 0), ("b", 1, 3))).to_pylist()
    assert {(row["images"], row["tokens"]) for row in found} == {(2, 6)}


def test_lenses_that_differ_in_every_image_are_found_and_equal_ones_are_not() -> None:
    verdict = {"latentlens": "concrete", "logitlens": "none", "embeddinglens": "none"}
    rows = [
        judged(f"{i}", t, lens, 0, verdict[lens] if t else "none") for i in range(9) for t in range(3) for lens in NAMES
    ]
    found = {
        (row["lens"], row["other_lens"]): row
        for row in by_all_answers(lens_differences("s", by_layer(rows), K))
        if (row["measure"], row["patch_group"]) == ("concrete", "all")
    }
    better, same = found["latentlens", "logitlens"], found["logitlens", "embeddinglens"]
    assert better["difference"] == pytest.approx(2 / 3)
    assert better["low"] > 0
    assert better["p_value"] == pytest.approx(2 / 2**9)
    assert better["adjusted_p_value"] == pytest.approx(2 / 2**9 * 3 / 2)
    assert (same["difference"], same["p_value"], same["adjusted_p_value"]) == (0, 1, 1)
    assert same["low"] <= 0 <= same["high"]


def exchanged_study(seed: int, images: int, layers: Sequence[int]) -> list[Row]:
    """Two lenses with hits of alike patches, whose labels are exchanged image by image."""
    generator = np.random.default_rng(seed)
    rows = []
    for layer in layers:
        drawn = draw(Cell("1 to 31", 0.2, images), 0.5, 0.3, 1, seed + 1000 * layer)
        for image in range(images):
            hits = [int(drawn.first[0, image]), int(drawn.second[0, image])]
            generator.shuffle(hits)
            for lens, count in zip(NAMES, hits, strict=False):
                for token in range(int(drawn.patches[0, image])):
                    rows.append(judged(f"{image}", token, lens, layer, "concrete" if token < count else "none"))
    return rows


def test_exchanged_labels_are_found_to_differ_in_at_most_5_percent_and_adjusted_in_fewer() -> None:
    studies, layers = 60, (0, 1, 2, 3)
    found = [
        row
        for seed in range(studies)
        for row in by_all_answers(lens_differences("s", by_layer(exchanged_study(seed, 10, layers)), K))
        if (row["comparison"], row["measure"], row["patch_group"]) == ("lenses", "concrete", "all")
    ]
    tests = studies * len(layers)
    assert len(found) == tests
    assert sum(row["p_value"] <= 0.05 for row in found) / tests < 0.05 + 3 * math.sqrt(0.05 * 0.95 / tests)
    wrong = [sum(row["adjusted_p_value"] <= 0.05 for row in found[at : at + len(layers)]) for at in range(0, tests, 4)]
    assert sum(count > 0 for count in wrong) / studies < 0.05 + 3 * math.sqrt(0.05 * 0.95 / studies)


def test_studies_with_equal_patches_differ_by_their_shares() -> None:
    first, second = every_lens(study="s"), every_lens(study="t")
    compared = study_differences(study_of("s", first), study_of("t", second))
    assert compared.schema == LENS_DIFFERENCES
    found = by_all_answers(compared)
    assert len(found) == len(NAMES) * 3 * len(HITS) * len(GROUPS)
    for row in found:
        assert (row["comparison"], row["study"], row["other_study"]) == ("studies", "s", "t")
        own, other = (
            [r for r in rows if (r["lens"], r["visual_layer"]) == (row["lens"], row["visual_layer"])]
            for rows in (first, second)
        )
        members, hits = GROUPS[row["patch_group"]], HITS[row["measure"]]
        counts = np.array(
            [
                [
                    sum(
                        r["verdict"] in hits
                        for r in rows
                        if r["image_id"] == f"image {i}" and r["patch_group"] in members
                    )
                    for i in range(6)
                ]
                for rows in (own, other)
            ]
        )
        patches = len([r for r in own if r["patch_group"] in members]) // 6
        expected = differences(*counts, patches)
        assert (row["difference"], row["low"], row["high"]) == pytest.approx(tuple(map(float, expected)))
        assert row["p_value"] == sign_flip_p_values(*counts, patches)
        assert row["difference"] == pytest.approx(row["share"] - row["other_share"])
        assert (row["images"], row["tokens"]) == (6, 6 * patches)


def test_of_studies_with_other_patches_an_image_counts_by_its_shares_in_both() -> None:
    first = [judged(image, t, "latentlens", 0, "concrete" if t < 2 else "none") for image in "abc" for t in range(4)]
    finer = [judged(image, t, "latentlens", 0, "concrete" if t < 8 else "none") for image in "abc" for t in range(16)]
    one, other = study_of("s", first), study_of("t", finer)
    for row in by_all_answers(study_differences(one, other)):
        share = 0.5 if row["measure"] in ("interpretable", "concrete") else 0
        assert (row["share"], row["other_share"], row["difference"], row["p_value"]) == (share, share, 0, 1)
        assert (row["images"], row["tokens"]) == (3, 12)
    less = [row for row in finer if row["image_id"] != "a"]
    turned = study_differences(study_of("t", less), one).to_pylist()
    assert {(row["images"], row["tokens"]) for row in turned} == {(2, 32)}


def test_studies_exchanged_give_the_same_with_another_sign() -> None:
    one = study_of("s", every_lens(study="s"))
    other = study_of("t", [row for row in every_lens(tokens=7, study="t") if row["token_index"] != 2])
    there, back = study_differences(one, other).to_pylist(), study_differences(other, one).to_pylist()
    for row, turned in zip(there, back, strict=True):
        assert (row["share"], row["other_share"]) == pytest.approx((turned["other_share"], turned["share"]))
        expected = -turned["difference"], -turned["high"], -turned["low"], turned["p_value"]
        assert (row["difference"], row["low"], row["high"], row["p_value"]) == pytest.approx(expected)


def test_studies_of_a_dataset_and_the_named_query_give_the_same(tmp_path: Path) -> None:
    write_warehouse(tmp_path / "warehouse")
    with open_dataset(tmp_path / "warehouse") as dataset:
        names = "one", AWKWARD
        compared = study_differences(*(JudgedStudy.of(dataset, name) for name in names))
        found = pl.DataFrame(compared).filter(pl.col("k").ne_missing(1))
        assert found["images"].unique().to_list() == [1]
        places = len(LAYERS) * len(GROUPS) - 1  # the only object is a sink at the last layer
        assert len(found) == len(NAMES) * len(HITS) * places
        for (measure, group), rows in found.group_by("measure", "patch_group"):
            asked = {"study": names[0], "other_study": names[1], "measure": str(measure), "patch_group": str(group)}
            query = dataset.collect("study_differences", **asked).sort("lens", "visual_layer")
            points = [pl.col(name).mul(100).round(1) for name in ("share", "other_share", "difference")]
            expected = rows.sort("lens", "visual_layer").select(
                "judge", "lens", "visual_layer", *points, "images", "tokens"
            )
            assert query.rows() == expected.rows()


def test_the_query_of_a_studys_differences_has_one_family_a_time(tmp_path: Path) -> None:
    write_warehouse(tmp_path / "warehouse")
    with open_dataset(tmp_path / "warehouse") as dataset:
        found = dataset.collect("lens_differences", study="one", measure="concrete", patch_group="background")
        table = dataset.collect(
            "FROM lens_differences WHERE study = 'one' AND measure = 'concrete' AND patch_group = 'background' "
            "AND comparison = 'lenses' AND k > 1 ORDER BY lens, other_lens, visual_layer"
        )
    assert len(found) == len(NAMES) * len(LAYERS)
    assert found["points"].to_list() == [round(100 * value, 1) for value in table["difference"]]
    adjusted = adjusted_p_values(table["p_value"].to_list())
    assert found["adjusted_p_value"].to_list() == pytest.approx(adjusted)


def test_no_judgements_one_lens_at_one_layer_and_one_image_have_no_difference_or_interval() -> None:
    assert lens_differences("s", {}, K).equals(LENS_DIFFERENCES.empty_table())
    assert lens_differences("s", {0: [pl.DataFrame(table([])).lazy()]}, K).equals(LENS_DIFFERENCES.empty_table())
    alone = [row for row in every_lens() if row["lens"] == "latentlens" and row["visual_layer"] == 0]
    assert len(lens_differences("s", by_layer(alone), K)) == 0
    assert len(study_differences(study_of("s", alone), study_of("t", []))) == 0
    found = lens_differences("s", by_layer(every_lens(images=1)), K).to_pylist()
    assert {(row["low"], row["high"], row["p_value"]) for row in found} == {(None, None, 1)}
