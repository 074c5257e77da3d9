import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from latentlens_dag.demo.captioned import write_captioned_scenes
from latentlens_dag.demo.scenes import (
    CHOICE_FROM,
    GRID,
    HELD_OUT_FROM,
    PATCHES,
    RenderedScene,
    Scene,
    SceneSource,
    Truth,
    scene_truth,
    training_seed,
    visible_view,
)
from latentlens_dag.demo.text_captions import caption, mentioned_names
from latentlens_dag.errors import UserError
from latentlens_dag.inputs.captions import CaptionFile, UnknownImages, captions_by_batch, read_captions, write_captions
from latentlens_dag.inputs.images import NAMES
from tests.benchmarks import connector_quality

COUNT, PARTS = 8, 6


@pytest.fixture(scope="module")
def source() -> SceneSource:
    return SceneSource.open()


@pytest.fixture(scope="module")
def written(source: SceneSource, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("captioned")
    write_captioned_scenes(source, folder, COUNT, PARTS)
    return folder


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def rows(folder: Path, table: str = "captions") -> list[dict[str, Any]]:
    return pq.read_table(folder / f"{table}.parquet").to_pylist()


def scenes(source: SceneSource) -> Iterator[tuple[str, Scene, RenderedScene]]:
    for index in range(COUNT):
        yield f"{index:06d}.png", *source(training_seed("connector", 0, index))


def visible_names(truth: Truth, patches: list[int] | None) -> set[str]:
    """The names of the regions that cover most of at least one of the patches, the slow way."""
    names = [truth.upper, truth.lower, *(item.name for item in truth.objects)]
    return {names[truth.patch_regions[patch]] for patch in (range(PATCHES) if patches is None else patches)}


def test_equal_arguments_write_equal_bytes_and_another_seed_other_scenes(
    source: SceneSource, written: Path, tmp_path: Path
) -> None:
    write_captioned_scenes(source, tmp_path / "again", COUNT, PARTS)
    write_captioned_scenes(source, tmp_path / "other", 2, PARTS, seed=1)

    assert files(tmp_path / "again") == files(written)
    other = files(tmp_path / "other")
    assert not {content for name, content in other.items() if name in files(written)} & set(files(written).values())


def test_more_scenes_begin_with_the_same_ones(source: SceneSource, written: Path, tmp_path: Path) -> None:
    write_captioned_scenes(source, tmp_path, COUNT - 3, PARTS)

    assert rows(tmp_path) == rows(written)[: (COUNT - 3) * (1 + PARTS)]


def test_pictures_are_scenes_that_connectors_learn_from_and_no_held_out_ones(
    source: SceneSource, written: Path
) -> None:
    assert training_seed("connector", 99, 10_000) < HELD_OUT_FROM < CHOICE_FROM
    for name, _, rendered in scenes(source):
        with Image.open(written / "scenes" / name) as picture:
            assert np.array_equal(np.asarray(picture), np.asarray(rendered.image))


def test_each_scene_has_a_caption_of_the_whole_and_captions_of_distinct_patches_in_order(written: Path) -> None:
    by_name: dict[str, list[list[int] | None]] = {}
    for row in rows(written):
        by_name.setdefault(row["file_name"], []).append(row["patches"])

    assert list(by_name) == [f"{index:06d}.png" for index in range(COUNT)]
    for about in by_name.values():
        assert about[0] is None
        assert len(about) == 1 + PARTS
        for patches in about[1:]:
            assert patches == sorted(set(patches or []))
            assert patches
            assert 0 <= patches[0] <= patches[-1] < PATCHES


def test_a_caption_names_only_what_its_patches_show(source: SceneSource, written: Path) -> None:
    truths = {name: scene_truth(rendered, scene) for name, scene, rendered in scenes(source)}
    named = 0
    for row in rows(written):
        names = mentioned_names(source.world, row["caption"])
        assert names <= visible_names(truths[row["file_name"]], row["patches"]), row
        named += len(names)
    assert named > COUNT * PARTS


def test_the_first_caption_is_the_worlds_of_the_whole_scene(source: SceneSource, written: Path) -> None:
    first = {row["file_name"]: row["caption"] for row in rows(written) if row["patches"] is None}
    for index, (name, scene, rendered) in enumerate(scenes(source)):
        view = visible_view(scene_truth(rendered, scene))
        assert first[name] == caption(source.world, view, random.Random(f"0 {index}"))


def test_many_captions_are_of_less_than_the_whole_scene(source: SceneSource, written: Path) -> None:
    narrower = 0
    truths = {name: scene_truth(rendered, scene) for name, scene, rendered in scenes(source)}
    for row in rows(written):
        truth = truths[row["file_name"]]
        if row["patches"] is not None:
            kept = np.isin(np.arange(PATCHES), row["patches"])
            narrower += visible_view(truth, kept) != visible_view(truth)
    assert narrower > COUNT * PARTS / 3


def test_regions_are_those_of_the_pictures(source: SceneSource, written: Path) -> None:
    found = {(row["file_name"], row["name"]) for row in rows(written, "regions")}

    expected = {
        (name, scene.names[region])
        for name, scene, rendered in scenes(source)
        for region in np.unique(rendered.labels).tolist()
    }
    assert found == expected


def test_an_image_set_takes_the_captions_as_they_are_written(written: Path, tmp_path: Path) -> None:
    names = [f"{index:06d}.png" for index in range(COUNT)]
    table = pa.Table.from_pylist([{"image_id": name[:6].zfill(16), "file_name": name} for name in names], NAMES)
    source = CaptionFile("parquet", written / "captions.parquet", patches="patches", grid=(GRID, GRID))
    unknown = UnknownImages()
    write_captions((found.rows for found in captions_by_batch(source, table, 1, unknown)), tmp_path / "read.parquet")

    read = read_captions([tmp_path / "read.parquet"])
    expected: dict[str, dict[tuple[str, tuple[int, ...] | None], None]] = {}
    for row in rows(written):
        about = None if row["patches"] is None else tuple(row["patches"])
        expected.setdefault(row["file_name"][:6].zfill(16), {})[row["caption"], about] = None
    assert not unknown
    assert {image: [(one.text, one.patches) for one in found] for image, found in read.items()} == {
        image: list(found) for image, found in expected.items()
    }


@pytest.mark.parametrize(("count", "parts"), [(0, 2), (-1, 2), (2, -1), (2, 1000)])
def test_numbers_that_no_image_set_takes_are_refused(
    source: SceneSource, tmp_path: Path, count: int, parts: int
) -> None:
    with pytest.raises(UserError, match=rf"{count} scenes with captions of {parts:,} parts"):
        write_captioned_scenes(source, tmp_path / "out", count, parts)
    assert not (tmp_path / "out").exists()


def test_scenes_without_parts_have_the_same_first_captions(source: SceneSource, written: Path, tmp_path: Path) -> None:
    write_captioned_scenes(source, tmp_path, 2, 0)

    assert rows(tmp_path) == [row for row in rows(written) if row["patches"] is None][:2]


def test_permuted_captions_are_all_of_them_and_none_of_its_own_scene(
    written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connector_quality, "SCENES", COUNT)
    (tmp_path / "captions.parquet").write_bytes((written / "captions.parquet").read_bytes())
    connector_quality._write_permuted(tmp_path)

    own, permuted = (pl.read_parquet(tmp_path / f"{name}.parquet") for name in ("captions", "permuted"))
    assert permuted.drop("file_name").equals(own.drop("file_name"))
    assert (own["file_name"] != permuted["file_name"]).all()
    assert sorted(own["file_name"]) == sorted(permuted["file_name"])
    moved = dict(zip(own["file_name"], permuted["file_name"], strict=True))
    assert len(set(moved.values())) == COUNT
