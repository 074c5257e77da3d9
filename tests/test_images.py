import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from latentlens_dag.errors import UserError
from latentlens_dag.images import batch_of_images, files_of_table, image_table, list_images, open_image


def _save(path: Path, seed: int, size: tuple[int, int] = (40, 30)) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def test_names_and_order_do_not_change_ids_and_equal_files_are_one_image(tmp_path: Path) -> None:
    for seed in range(4):
        _save(tmp_path / "a" / f"{seed}.png", seed)
        _save(tmp_path / "b" / "below" / f"{9 - seed}.png", seed)
    _save(tmp_path / "b" / "again.png", 0)
    assert [f.image_id for f in list_images(tmp_path / "a")] == [f.image_id for f in list_images(tmp_path / "b")]


def test_every_image_is_in_exactly_one_batch(tmp_path: Path) -> None:
    for seed in range(9):
        _save(tmp_path / f"{seed}.png", seed)
    batches = [batch_of_images(tmp_path, batch, 3) for batch in range(3)]
    assert sorted(f.image_id for files in batches for f in files) == [f.image_id for f in list_images(tmp_path)]


def test_the_table_has_sizes_and_thumbnails_of_at_most_256_pixels(tmp_path: Path) -> None:
    _save(tmp_path / "wide.png", 0, (600, 300))
    table = image_table(list_images(tmp_path), tmp_path)
    assert (table["width"][0].as_py(), table["height"][0].as_py()) == (600, 300)
    assert Image.open(io.BytesIO(table["thumbnail"][0].as_py())).size == (256, 128)


def test_a_picture_is_turned_upright(tmp_path: Path) -> None:
    image = Image.new("RGB", (40, 20), "red")
    exif = image.getexif()
    exif[0x0112] = 6  # turn by a quarter
    image.save(tmp_path / "turned.jpg", exif=exif)
    assert open_image(tmp_path / "turned.jpg").size == (20, 40)


def test_an_unreadable_picture_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n not a picture")
    with pytest.raises(UserError, match=r"broken\.png cannot be read"):
        image_table(list_images(tmp_path), tmp_path)


def test_a_folder_without_pictures_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no picture"):
        list_images(tmp_path)
    with pytest.raises(UserError, match="does not exist"):
        list_images(tmp_path / "absent")


def test_a_picture_that_changed_since_it_was_listed_is_refused(tmp_path: Path) -> None:
    _save(tmp_path / "a.png", 0)
    table = image_table(list_images(tmp_path), tmp_path)
    _save(tmp_path / "a.png", 1)
    with pytest.raises(UserError, match="changed or removed"):
        files_of_table(table, tmp_path)
