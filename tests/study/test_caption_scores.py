"""What captions name, against the plain definition."""

from fractions import Fraction
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latentlens_dag.study.caption_scores import caption_objects, caption_scores

NAMES = {"dog": "object", "ice cream": "object", "cat": "object", "grass": "background", "sky": "background"}


def _objects(captions: dict[str, str], there: dict[str, list[str]]) -> list[dict[str, Any]]:
    regions = [(image, name, NAMES[name]) for image, names in there.items() for name in names]
    return caption_objects("s", captions, regions).to_pylist()


@pytest.mark.parametrize(
    ("caption", "named"),
    [
        ("Two dogs on the grass.", {"dog", "grass"}),
        ("DOG!", {"dog"}),
        ("A hotdog and a doggy bag.", set()),
        ("Ice-cream? Some ice creams, and a cat\u2019s tail.", {"ice cream", "cat"}),
        ("Ice. Cream.", {"ice cream"}),
        ("Cream ice", set()),
        ("ice", set()),
        ("", set()),
    ],
)
def test_a_name_stands_in_a_caption_as_words_one_after_the_other_up_to_inflection(
    caption: str, named: set[str]
) -> None:
    rows = _objects({"a": caption}, {"a": ["sky"], "b": list(NAMES)})
    assert {row["name"] for row in rows if row["named"]} == named
    assert [row["name"] for row in rows if row["present"]] == ["sky"]
    assert {row["image_id"] for row in rows} == {"a"}  # of b there is no caption


_IMAGE = st.tuples(st.sets(st.sampled_from(sorted(NAMES))), st.sets(st.sampled_from(sorted(NAMES))))


@settings(deadline=None)
@given(st.lists(_IMAGE, min_size=1, max_size=6))
def test_recall_precision_and_chance_are_those_of_all_pairs_of_captions_and_images(
    images: list[tuple[set[str], set[str]]],
) -> None:
    there = {f"i{number}": sorted(present) for number, (present, _) in enumerate(images)}
    captions = {f"i{number}": " and ".join(sorted(named)) for number, (_, named) in enumerate(images)}
    regions = [(image, name, NAMES[name]) for image, names in there.items() for name in names]
    regions += [("elsewhere", name, kind) for name, kind in NAMES.items()]
    table = caption_objects("s", captions, regions)
    found = pl.DataFrame(caption_scores("s", table, sorted(captions)))
    for kind in found["kind"].unique():
        some = {name for name, of in NAMES.items() if kind in ("all", of)}
        sets = [(present & some, named & some) for present, named in images]
        for measure in ("recall", "precision"):
            asked = [(one, other) if measure == "recall" else (other, one) for one, other in sets]
            total = sum(len(wanted) for wanted, _ in asked)
            [row] = found.filter(kind=kind, measure=measure).to_dicts()
            assert (row["objects"], row["images"]) == (total, sum(bool(wanted) for wanted, _ in asked))
            if not total:
                assert row["share"] is None
                continue
            hits = sum(len(wanted & given) for wanted, given in asked)
            assert row["share"] == pytest.approx(hits / total)
            if len(images) == 1:
                assert row["chance"] is row["low"] is None
                continue
            pairs = [
                Fraction(len(wanted & given), len(images) - 1)
                for number, (wanted, _) in enumerate(asked)
                for other, (_, given) in enumerate(asked)
                if other != number
            ]
            assert row["chance"] == pytest.approx(float(sum(pairs)) / total)
            if row["low"] is not None:
                assert row["low"] <= row["share"] <= row["high"]
