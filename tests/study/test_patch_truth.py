from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latentlens_dag.inputs import regions as inputs_regions
from latentlens_dag.inputs.regions import decode_mask, encode_mask
from latentlens_dag.schema import IMAGES, PATCH_TRUTH, REGIONS, VISUAL_TOKENS
from latentlens_dag.study.patch_truth import patch_truth
from tests.helpers.small_dataset import ANIMALS, PATCH, SIDE, images, region, regions, visual_tokens

Box = tuple[int, int, int, int]
Row = dict[str, Any]


def rows_of(shown: Sequence[Row], boxes: Sequence[tuple[float, ...] | None], image: str = "i") -> list[Row]:
    """PATCH_TRUTH of one 32 x 32 image."""
    token = dict.fromkeys(VISUAL_TOKENS.names) | {"study": "s", "image_id": image}
    tokens = [
        token | {"token_index": number} | dict(zip(("x0", "y0", "x1", "y1"), box or [None] * 4, strict=True))
        for number, box in enumerate(boxes)
    ]
    size = {"image_id": image, "file_name": image, "width": SIDE, "height": SIDE, "thumbnail": None}
    found = patch_truth(
        pa.Table.from_pylist(list(shown), REGIONS),
        pa.Table.from_pylist(tokens, VISUAL_TOKENS),
        pa.Table.from_pylist([size], IMAGES),
    )
    return [row for table in found for row in table.to_pylist()]


SKY = region("i", "0", "background", ["sky", "blue"], ["outdoors"])
DOG = region("i", "1", "object", ["dog"], ["pet"], x0=0, y0=0, x1=8, y1=16)
CAT = region("i", "2", "object", ["cat"], ["pet"], x0=8, y0=0, x1=14, y1=16)


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        ([DOG, CAT], ("object", ["1"], ["dog"], ["pet"], ["cat"])),  # the dog covers exactly half
        ([CAT], ("background", ["2"], ["cat"], ["pet"], [])),  # nothing covers half: the one that covers most
        ([CAT, {**DOG, "x0": 3}], ("object", ["2"], ["cat"], ["pet"], ["dog"])),  # half only together
        ([SKY, DOG], ("object", ["0", "1"], ["sky", "blue", "dog"], ["outdoors", "pet"], [])),  # both cover half
        ([{**DOG, "x0": 20, "x1": 30}], ("background", [], [], [], ["dog"])),  # no region at all
    ],
)
def test_a_patch_shows_what_covers_half_of_it_or_else_most(shown: list[Row], expected: tuple[Any, ...]) -> None:
    (row,) = rows_of(shown, [(0, 0, PATCH, PATCH)])
    assert tuple(row.values()) == ("s", "i", 0, *expected)


def test_tokens_without_a_box_and_images_without_a_region_have_no_rows() -> None:
    assert [row["token_index"] for row in rows_of([SKY], [None, (0, 0, 8, 8)])] == [1]
    assert rows_of([SKY], [(0, 0, 8, 8)], image="another") == rows_of([SKY], [None]) == []


@pytest.mark.parametrize(
    ("box", "group"),
    [
        ((0, SIDE, 8, SIDE + 8), "padding"),
        ((-8, 0, 0, 8), "padding"),
        ((SIDE, 0, SIDE + 8, 8), "padding"),
        ((0, -8, 8, 1e-5), "padding"),  # float32 boxes of a scaled image are not exact
        ((0, SIDE - 1, 8, SIDE + 7), "background"),
    ],
)
def test_a_patch_whose_whole_box_is_outside_of_the_image_is_padding(box: tuple[float, ...], group: str) -> None:
    (row,) = rows_of([SKY], [box])
    assert (row["patch_group"], row["region_ids"]) == (group, [] if group == "padding" else ["0"])


edges = st.integers(0, SIDE).flatmap(lambda a: st.tuples(st.just(a), st.integers(a + 1, SIDE + 8)))
boxes_of_pixels = st.tuples(edges, edges).map(lambda e: (e[0][0], e[1][0], e[0][1], e[1][1]))
region_kinds = st.tuples(boxes_of_pixels, st.sampled_from(["object", "background"]), st.booleans())


@settings(max_examples=40, deadline=None)
@given(st.lists(region_kinds, min_size=1, max_size=4), st.lists(boxes_of_pixels, min_size=1, max_size=4))
def test_the_truth_is_that_of_the_definition_pixel_by_pixel(
    kinds: list[tuple[Box, str, bool]], boxes: list[Box]
) -> None:
    shown, pixels = [], []
    for number, (box, kind, masked) in enumerate(kinds):
        inside = _pixels(box)
        edges = dict(zip(("x0", "y0", "x1", "y1"), box, strict=True))
        row = region("i", str(number), kind, [f"w{number}", "all"], [f"a{number}"], **edges)
        shown.append(row | {"mask": encode_mask(inside) if masked else None})
        pixels.append(inside)
    for row, (x0, y0, x1, y1) in zip(rows_of(shown, boxes), boxes, strict=True):
        area = (x1 - x0) * (y1 - y0)
        counts = [inside[y0:y1, x0:x1].sum() for inside in pixels]
        here = [number for number, count in enumerate(counts) if 2 * count >= area]
        if not here and max(counts):
            here = [counts.index(max(counts))]
        objects = [inside for inside, (_, kind, _) in zip(pixels, kinds, strict=True) if kind == "object"]
        is_object = 2 * np.any([np.zeros((SIDE, SIDE), bool), *objects], axis=0)[y0:y1, x0:x1].sum() >= area
        others = [number for number in range(len(kinds)) if number not in here]
        padding = x0 >= SIDE or y0 >= SIDE
        assert row["patch_group"] == ("padding" if padding else "object" if is_object else "background")
        assert row["region_ids"] == [str(number) for number in here]
        assert row["concrete_words"] == _in_order([[f"w{number}", "all"] for number in here])
        assert row["abstract_words"] == [f"a{number}" for number in here]
        assert row["global_words"] == _in_order([[f"w{number}", "all"] for number in others])


def _pixels(box: Box) -> np.ndarray[tuple[int, int], np.dtype[np.bool_]]:
    x0, y0, x1, y1 = box
    inside = np.zeros((SIDE, SIDE), bool)
    inside[y0:y1, x0:x1] = True
    return inside


def _in_order(lists: list[list[str]]) -> list[str]:
    return list(dict.fromkeys(word for words in lists for word in words))


def test_rows_are_in_order_of_image_and_token_whatever_the_order_of_the_inputs() -> None:
    tables = regions(ANIMALS), visual_tokens("s", ANIMALS), images(ANIMALS)
    found = pa.concat_tables(patch_truth(*tables))
    assert found.schema == PATCH_TRUTH and len(found) == 16
    assert found.equals(found.sort_by([("image_id", "ascending"), ("token_index", "ascending")]))
    turned = [table.take(list(reversed(range(len(table))))) for table in tables]
    assert pa.concat_tables(patch_truth(*turned)).equals(found)


def test_the_mask_of_a_region_is_decoded_once_however_many_patches_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = []
    monkeypatch.setattr(inputs_regions, "decode_mask", lambda *mask: decoded.append(mask) or decode_mask(*mask))
    rows = pa.concat_tables(patch_truth(regions(ANIMALS), visual_tokens("s", ANIMALS), images(ANIMALS)))
    assert len(rows) == 16 and len(decoded) == len(ANIMALS)  # the animal has a box, the grass a mask
