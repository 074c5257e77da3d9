from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from latentlens_dag.demo.backdrops import backdrop
from latentlens_dag.demo.colors import color_shares, color_words, dominant_color
from latentlens_dag.demo.scenes import (
    DEMO_SEED,
    HELD_OUT_FROM,
    PATCH,
    PATCHES,
    PIXELS,
    PlacedObject,
    Scene,
    SceneSource,
    demo_scenes,
    patch_regions,
    random_scene,
    render_scene,
    scene_regions,
    scene_truth,
    training_seed,
    visible_patches,
    visible_view,
    write_scenes,
)
from latentlens_dag.inputs.regions import decode_mask


@pytest.fixture(scope="module")
def source() -> SceneSource:
    return SceneSource.open()


def test_a_seed_gives_one_scene_and_one_picture(source: SceneSource) -> None:
    scene, rendered = source(7)
    again, recomposed = source(7)
    assert scene == again
    assert rendered.image.tobytes() == recomposed.image.tobytes()
    assert np.array_equal(rendered.labels, recomposed.labels)
    assert source(8)[0] != scene


@pytest.mark.parametrize(("fewest", "most"), [(1, 4), (5, 10)])
def test_scenes_have_distinct_objects_inside_the_picture(source: SceneSource, fewest: int, most: int) -> None:
    for seed in range(30):
        scene = random_scene(source.world, seed, fewest, most)
        names = [item.name for item in scene.objects]
        assert fewest <= len(names) <= most
        assert len(set(names)) == len(names)
        assert all(item.left >= 0 and item.left + item.size <= PIXELS for item in scene.objects)
        assert all(item.top >= 0 and item.top + item.size <= PIXELS for item in scene.objects)


def test_labels_are_the_sprites_own_alpha(source: SceneSource) -> None:
    item = PlacedObject("duck", left=30, top=50, size=64, flipped=False)
    scene = Scene(3, "sky", "grass", 100, (item,))
    rendered = render_scene(source.world, source.atlas, scene)
    alpha = np.asarray(source.atlas.sprites["duck"].resize((64, 64), Image.Resampling.BICUBIC).getchannel("A"))
    expected = np.zeros((PIXELS, PIXELS), np.uint8)
    expected[100:] = 1
    expected[50:114, 30:94][alpha >= 128] = 2
    assert np.array_equal(rendered.labels, expected)


def test_background_pixels_are_the_backgrounds_own(source: SceneSource) -> None:
    scene = Scene(3, "sky", "grass", 100, (PlacedObject("duck", 30, 50, 64, True),))
    without = Scene(3, "sky", "grass", 100, ())
    with_duck = render_scene(source.world, source.atlas, scene)
    bare = np.asarray(render_scene(source.world, source.atlas, without).image)
    box = np.zeros((PIXELS, PIXELS), bool)
    box[50:114, 30:94] = True
    assert np.array_equal(np.asarray(with_duck.image)[~box], bare[~box])
    assert (np.asarray(with_duck.image)[with_duck.labels == 2] != bare[with_duck.labels == 2]).any()


def test_later_objects_cover_earlier_ones(source: SceneSource) -> None:
    ball, sun = PlacedObject("ball", 40, 40, 60, False), PlacedObject("basketball", 40, 40, 60, False)
    rendered = render_scene(source.world, source.atlas, Scene(0, "sky", "grass", 100, (ball, sun)))
    rows = scene_regions(source.world, rendered, Scene(0, "sky", "grass", 100, (ball, sun)))
    areas = {row.name: int(decode_mask(row.mask, PIXELS, PIXELS).sum()) for row in rows}
    assert areas["basketball"] > 20 * areas.get("ball", 0)


def test_patch_shares_are_pixel_counts(source: SceneSource) -> None:
    scene, rendered = source(11)
    shares = visible_patches(rendered.labels, len(scene.names))
    assert shares.shape == (PATCHES, len(scene.names))
    for patch in (0, 13, 77, 143):
        row, column = divmod(patch, PIXELS // PATCH)
        tile = rendered.labels[row * PATCH : (row + 1) * PATCH, column * PATCH : (column + 1) * PATCH]
        for region in range(len(scene.names)):
            assert shares[patch, region] == pytest.approx((tile == region).mean())
        assert patch_regions(rendered.labels, len(scene.names))[patch] == shares[patch].argmax()


def test_masks_decode_to_labels_and_boxes_hold_them(source: SceneSource) -> None:
    for seed in range(5):
        scene, rendered = source(seed)
        rebuilt = np.full((PIXELS, PIXELS), 255, np.uint8)
        for row in scene_regions(source.world, rendered, scene):
            mask = decode_mask(row.mask, PIXELS, PIXELS)
            rebuilt[mask] = int(row.region_id)
            x0, y0, x1, y1 = (int(corner) for corner in row.box)
            inside = np.zeros_like(mask)
            inside[y0:y1, x0:x1] = True
            assert not (mask & ~inside).any()
            assert mask[y0].any() and mask[y1 - 1].any() and mask[:, x0].any() and mask[:, x1 - 1].any()
        assert np.array_equal(rebuilt, rendered.labels)


def test_a_view_holds_what_covers_most_of_a_kept_patch(source: SceneSource) -> None:
    scene, rendered = source(21)
    truth = scene_truth(rendered, scene)
    for seed in range(40):
        kept = np.zeros(PATCHES, bool)
        kept[np.random.default_rng(seed).integers(0, PATCHES, 3)] = True
        view = visible_view(truth, kept)
        names = {scene.names[region] for region in truth.patch_regions[kept]}
        seen = {view.upper, view.lower, *(item.name for item in view.objects)} - {None}
        assert seen == names


def test_a_whole_view_says_where_an_object_is_in_the_order_in_which_patches_show_them(source: SceneSource) -> None:
    scene = Scene(
        1, "wall", "road", 96, (PlacedObject("apple", 0, 130, 50, False), PlacedObject("frog", 110, 2, 80, False))
    )
    view = visible_view(scene_truth(render_scene(source.world, source.atlas, scene), scene))
    frog, apple = view.objects
    assert (view.upper, view.lower) == ("wall", "road")
    assert (apple.color, apple.size, apple.column, apple.row) == ("red", "small", "left", "bottom")
    assert (frog.color, frog.size, frog.column, frog.row) == ("green", "large", "right", "top")


@pytest.mark.parametrize(
    ("rgb", "word"),
    [
        ((255, 0, 0), "red"), ((255, 140, 0), "orange"), ((255, 220, 30), "yellow"), ((30, 160, 40), "green"),
        ((30, 90, 220), "blue"), ((130, 50, 170), "purple"), ((255, 150, 190), "pink"), ((110, 70, 40), "brown"),
        ((15, 15, 15), "black"), ((250, 250, 250), "white"), ((130, 130, 130), "gray"),
    ],
)  # fmt: skip
def test_basic_colors_have_their_word(rgb: tuple[int, int, int], word: str) -> None:
    assert dominant_color(color_shares(np.array([rgb], np.uint8))) == word


@pytest.mark.parametrize(
    ("name", "words"),
    [("strawberry", {"red", "green"}), ("eggplant", {"purple"}), ("panda", {"white", "black"}), ("car", {"red"}),
     ("elephant", {"gray"}), ("frog", {"green"}), ("flamingo", {"pink"}), ("teddy", {"brown"}), ("fish", {"blue"})],
)  # fmt: skip
def test_sprites_measure_as_the_eye_sees_them(source: SceneSource, name: str, words: set[str]) -> None:
    sprite = np.asarray(source.atlas.sprites[name])
    assert set(color_words(color_shares(sprite[..., :3][sprite[..., 3] >= 128]))) == words


def test_a_color_needs_a_fifth_of_the_pixels() -> None:
    pixels = np.array([[255, 0, 0]] * 8 + [[250, 250, 250]] * 2, np.uint8)
    assert color_words(color_shares(pixels)) == ("red", "white")
    assert color_words(color_shares(np.concatenate([pixels, [[255, 0, 0]]]).astype(np.uint8))) == ("red",)


def test_every_background_has_a_texture(source: SceneSource) -> None:
    for item in source.world.backgrounds:
        picture = backdrop(item.name, np.random.default_rng(0))
        assert picture.shape == (PIXELS, PIXELS, 3)
        assert picture.std() > 1
    with pytest.raises(KeyError, match="No texture"):
        backdrop("fog", np.random.default_rng(0))


def test_no_training_meets_a_held_out_scene() -> None:
    seeds = [
        training_seed(stage, seed, index)
        for stage in ("vision", "connector")
        for seed in (0, 99)
        for index in (0, 10**7)
    ]
    assert max(seeds) < HELD_OUT_FROM < DEMO_SEED


def test_demo_scenes_show_much_of_the_world(source: SceneSource) -> None:
    scenes = demo_scenes(source.world)
    assert len({(scene.upper, scene.lower) for scene in scenes}) >= 40
    assert len({item.name for scene in scenes for item in scene.objects}) >= 100
    assert {item.name for item in source.world.backgrounds} == {name for scene in scenes for name in scene.names[:2]}


def test_written_scenes_equal_their_truth(source: SceneSource, tmp_path: Path) -> None:
    regions = write_scenes(source.world, source.atlas, tmp_path, demo_scenes(source.world, 2))
    table = pq.read_table(tmp_path / "regions.parquet")
    assert table.num_rows == regions
    for index, scene in enumerate(demo_scenes(source.world, 2)):
        picture = np.asarray(Image.open(tmp_path / "scenes" / f"scene_{index:03d}.webp"))
        assert np.array_equal(picture, np.asarray(render_scene(source.world, source.atlas, scene).image))
    first = (tmp_path / "regions.parquet").read_bytes()
    write_scenes(source.world, source.atlas, tmp_path, demo_scenes(source.world, 2))
    assert (tmp_path / "regions.parquet").read_bytes() == first
