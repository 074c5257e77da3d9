from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from latentlens_dag.errors import UserError
from latentlens_dag.inputs.regions import (
    decode_mask,
    encode_mask,
    patch_coverage,
    read_regions,
    region_rows,
    regions_by_batch,
)
from latentlens_dag.schema import REGIONS
from latentlens_dag.storage.hashing import hash_bytes, shard_of
from latentlens_dag.storage.split_input import rows_of_part
from tests.helpers.small_dataset import region

WIDTH, HEIGHT = 6, 4
IDS = {"a.png": ("id_a", WIDTH, HEIGHT), "b.png": ("id_b", 2, 2)}
masks = arrays(bool, st.tuples(st.integers(1, 7), st.integers(1, 7)))


@given(masks)
def test_a_mask_survives_its_run_lengths(mask: npt.NDArray[np.bool_]) -> None:
    runs = encode_mask(mask)
    height, width = mask.shape
    assert np.array_equal(decode_mask(runs, width, height), mask)
    assert sum(runs) == mask.size and all(run > 0 for run in runs[1:])
    assert runs[0] == (mask.size if not mask.any() else int(mask.argmax()))


@pytest.mark.parametrize("runs", [[3], [2, 3], [5, -1], []])
def test_runs_that_do_not_add_up_to_the_image_are_refused(runs: list[int]) -> None:
    with pytest.raises(ValueError, match="2 x 2 = 4"):
        decode_mask(runs, 2, 2)


def slow_cover(pixels: npt.NDArray[np.bool_], box: tuple[float, float, float, float]) -> float:
    """The definition, pixel by pixel: area of box and pixel, over the area of the box."""
    x0, y0, x1, y1 = box
    total = 0.0
    for (row, col), inside in np.ndenumerate(pixels):
        across = max(0.0, min(x1, col + 1) - max(x0, col))
        down = max(0.0, min(y1, row + 1) - max(y0, row))
        total += bool(inside) * across * down
    return total / ((x1 - x0) * (y1 - y0))


edges = st.floats(-3, 9, width=32)
boxes_inside_and_out = st.tuples(edges, edges, st.floats(0.25, 8, width=32), st.floats(0.25, 8, width=32))


@settings(max_examples=60, deadline=None)
@given(
    arrays(bool, st.tuples(st.integers(1, 3), st.just(HEIGHT), st.just(WIDTH))),
    st.lists(boxes_inside_and_out, max_size=4),
)
def test_patch_cover_is_what_counting_pixels_by_area_gives(
    pixels: npt.NDArray[np.bool_], places: list[tuple[float, float, float, float]]
) -> None:
    boxes = np.array([(x, y, x + w, y + h) for x, y, w, h in places], np.float32).reshape(-1, 4)
    rows = [{**region("i", str(n), "object", ["w"], []), "mask": encode_mask(mask)} for n, mask in enumerate(pixels)]
    table = pa.Table.from_pylist(rows, schema=REGIONS)
    expected = [[slow_cover(mask, tuple(map(float, box))) for mask in pixels] for box in boxes]
    found, objects = patch_coverage(table, boxes, WIDTH, HEIGHT)
    assert found.dtype == np.float32 and found.shape == (len(boxes), len(pixels))
    assert np.allclose(found, np.reshape(expected, found.shape), atol=1e-5)
    union = [slow_cover(pixels.any(axis=0), tuple(map(float, box))) for box in boxes]
    assert np.allclose(objects, union, atol=1e-5)


def test_a_region_without_a_mask_is_its_box_even_with_fractional_edges() -> None:
    box = region("i", "1", "object", ["w"], [], x0=1.5, y0=0.0, x1=3.0, y1=2.0)
    table = pa.Table.from_pylist([box], schema=REGIONS)
    whole = np.array([[0, 0, WIDTH, HEIGHT], [1, 0, 2, 1], [0, 0, 0, 0]], np.float32)
    assert patch_coverage(table, whole, WIDTH, HEIGHT).regions[:, 0].tolist() == [np.float32(3 / 24), 0.5, 0.0]


def test_objects_with_and_without_a_mask_cover_a_patch_together_and_a_pixel_of_both_counts_once() -> None:
    box = region("i", "1", "object", ["w"], [], x0=0.0, y0=0.0, x1=1.5, y1=4.0)
    mask = {
        **region("i", "2", "object", ["w"], []),
        "mask": encode_mask(np.arange(WIDTH * HEIGHT).reshape(4, 6) % 6 == 1),
    }
    boxes = np.array([[0, 0, 4, 4], [1, 0, 2, 1]], np.float32)
    for rows in ([box, mask], [mask, box]):
        cover = patch_coverage(pa.Table.from_pylist(rows, schema=REGIONS), boxes, WIDTH, HEIGHT)
        assert cover.objects.tolist() == [0.5, 1.0]
        assert sorted(cover.regions.T.tolist()) == [[0.25, 1.0], [0.375, 0.5]]


def test_background_is_no_object_and_no_region_covers_nothing() -> None:
    table = pa.Table.from_pylist([region("i", "1", "background", ["sky"], [])], schema=REGIONS)
    boxes = np.array([[0, 0, 1, 1]], np.float32)
    assert patch_coverage(table, boxes, WIDTH, HEIGHT).objects.tolist() == [0.0]
    assert patch_coverage(REGIONS.empty_table(), boxes, WIDTH, HEIGHT).regions.shape == (1, 0)


def written(folder: Path, *rows: dict[str, Any], **changes: Any) -> Path:
    """A regions file of some rows for a.png."""
    base = region("", "1", "object", ["dog"], ["pet"], x1=2.0, y1=2.0)
    del base["image_id"]
    table = pa.Table.from_pylist([{"file_name": "a.png", **base, **row, **changes} for row in rows or ({},)])
    pq.write_table(table, folder / "regions.parquet")
    return folder / "regions.parquet"


def test_regions_come_with_their_images_id_in_order_and_without_other_images(tmp_path: Path) -> None:
    path = written(tmp_path, {"region_id": "2"}, {"file_name": "z.png"}, {"file_name": "b.png"}, {"region_id": "1"})
    table = read_regions(path, region_rows(path), IDS)
    assert table.schema == REGIONS
    found = list(zip(*(table.column(name).to_pylist() for name in ("image_id", "region_id")), strict=True))
    assert found == [("id_a", "1"), ("id_a", "2"), ("id_b", "1")]


def test_abstract_words_and_mask_may_be_missing_or_null(tmp_path: Path) -> None:
    path = written(tmp_path, {"words": None})
    pq.write_table(pq.read_table(path).drop_columns(["mask", "abstract_words"]), path)
    row = read_regions(path, region_rows(path), IDS).to_pylist()[0]
    assert (row["words"], row["abstract_words"], row["mask"]) == ([], [], None)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"kind": "thing"}, ["row 1", "a.png", "kind", "'thing'", "object, background"]),
        ({"mask": [3, 4]}, ["row 1", "mask", "7 pixels", "6 x 4 = 24"]),
        ({"x1": 0.0}, ["row 1", "x0 < x1"]),
        ({"y0": float("nan")}, ["row 1", "nan"]),
        ({"name": None}, ["row 1", "name must not be null"]),
        ({"words": "dog"}, ["column words", "string"]),
    ],
)
def test_a_wrong_value_is_named_with_its_place(tmp_path: Path, changes: dict[str, Any], told: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        path = written(tmp_path, **changes)
        read_regions(path, region_rows(path), IDS)
    assert all(piece in str(caught.value) for piece in [*told, "regions.parquet"])


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    path = written(tmp_path)
    pq.write_table(pq.read_table(path).drop_columns(["kind"]), path)
    with pytest.raises(UserError, match=r"no column kind; it has file_name"):
        read_regions(path, region_rows(path), IDS)


def test_a_region_id_that_comes_twice_in_an_image_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"'1' comes twice for 'a.png'"):
        path = written(tmp_path, {}, {})
        read_regions(path, region_rows(path), IDS)


def test_a_file_that_is_missing_or_no_parquet_is_the_users_mistake(tmp_path: Path) -> None:
    (tmp_path / "text.parquet").write_text("no")
    for name in ("none.parquet", "text.parquet"):
        with pytest.raises(UserError, match=name):
            list(region_rows(tmp_path / name))


@pytest.mark.parametrize("batches", [1, 2, 5])
def test_the_regions_of_a_batch_are_those_of_its_images_with_their_rows_in_the_file(
    tmp_path: Path, batches: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("latentlens_dag.inputs.regions._ROWS", 3)
    names = [f"{number}.png" for number in range(8)]
    ids = {name: (hash_bytes(name.encode()), 6, 4) for name in names}
    path = written(tmp_path, *({"file_name": name, "region_id": name[0]} for name in names[::-1]))
    table = pa.table({"image_id": [image_id for image_id, *_ in ids.values()], "file_name": names})
    found = []
    for batch in range(batches):
        rows = list(rows_of_part(partial(regions_by_batch, path, table, batches), batch))
        mine = {name: facts for name, facts in ids.items() if shard_of(facts[0], batches) == batch}
        assert read_regions(path, rows, mine).equals(read_regions(path, region_rows(path), mine))
        found += [(row["file_name"], row["row"]) for part in rows for row in part.to_pylist()]
    assert sorted(found) == [(name, 8 - number) for number, name in enumerate(names)]


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [
        (
            "pictures/a/\u00e9.png",
            " Is 'pictures/a/\u00e9.png' the image 'a/\u00e9.png'?",
        ),  # relative to another folder
        ("a/e\u0301.png", r" Is 'a/e\u0301.png' the image 'a/\xe9.png'?"),  # the same letters, stored otherwise
        ("A\\\u00c9.PNG", " Is 'A\\\\\u00c9.PNG' the image 'a/\u00e9.png'?"),
        ("copy.png", ""),
        (None, ""),
    ],
)
def test_regions_of_no_image_are_refused_with_the_names_of_their_files(
    tmp_path: Path, wrong: str | None, meant: str
) -> None:
    names = pa.table({"image_id": [hash_bytes(b"a"), hash_bytes(b"b")], "file_name": ["a/\u00e9.png", "b.png"]})
    path = written(tmp_path, {"file_name": "b.png"}, {"file_name": wrong}, {"file_name": wrong, "region_id": "2"})
    for batch in (0, 1):  # whichever batch is built first
        with pytest.raises(UserError) as refused:
            list(rows_of_part(partial(regions_by_batch, path, names, 2), batch))
        message = str(refused.value)
        assert message.startswith(f"{path}: ") and f"does not have: 2, of {wrong!r}.{meant}" in message
        assert ("Is " in message) == bool(meant)


def test_of_many_files_that_are_no_images_the_first_are_named(tmp_path: Path) -> None:
    names = pa.table({"image_id": [hash_bytes(b"a")], "file_name": ["a.png"]})
    path = written(tmp_path, *({"file_name": f"{n}.png"} for n in range(9)))
    with pytest.raises(UserError, match=r"does not have: 9, of '0.png', '1.png', '2.png' and 6 more\."):
        list(regions_by_batch(path, names, 1))


def test_a_wrong_value_is_named_with_its_row_in_the_whole_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("latentlens_dag.inputs.regions._ROWS", 2)
    path = written(tmp_path, *({"region_id": str(n), "kind": "object" if n < 6 else "thing"} for n in range(9)))
    with pytest.raises(UserError, match="row 7 "):
        read_regions(path, region_rows(path), IDS)


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("words", pa.array([[["dog"]]]), "column words has type"),
        ("x0", pa.array([{"a": 1}]), "column x0 has type"),
        ("name", pa.array([["dog"]]), "column name has type"),
        ("kind", pa.array([None], pa.null()), "kind is None"),
        ("mask", pa.array([[24, None]]), "mask is invalid"),
        ("mask", pa.array([[2**63, 2**63 + 24]], pa.list_(pa.uint64())), "column mask has type"),
        ("name", pa.array([b"caf\xe9"], pa.binary()).view(pa.string()), "column name has type .*UTF-?8"),
        ("name", pa.array([b"caf\xe9"], pa.binary()), "column name has type .*UTF-?8"),
        ("words", pa.array(["dog"]), "column words has type"),
    ],
)
def test_a_column_of_any_other_type_is_refused_by_name(
    tmp_path: Path, column: str, values: pa.Array, message: str
) -> None:
    row = {name: value for name, value in region("i", "r", "object", ["w"], []).items() if name != "image_id"}
    table = pa.Table.from_pylist([{"file_name": "a.png", **row}])
    table = table.drop_columns([column]).append_column(column, values)
    pq.write_table(table, tmp_path / "regions.parquet")
    with pytest.raises(UserError, match=rf"regions\.parquet.*{message}"):
        read_regions(tmp_path / "regions.parquet", list(region_rows(tmp_path / "regions.parquet")), IDS)


def test_a_column_of_regions_that_comes_twice_is_refused(tmp_path: Path) -> None:
    row = {name: value for name, value in region("i", "r", "object", ["w"], []).items() if name != "image_id"}
    table = pa.Table.from_pylist([{"file_name": "a.png", **row}])
    pq.write_table(table.append_column("name", pa.array(["other"])), tmp_path / "regions.parquet")
    with pytest.raises(UserError, match=r"regions\.parquet has several columns name"):
        list(region_rows(tmp_path / "regions.parquet"))
