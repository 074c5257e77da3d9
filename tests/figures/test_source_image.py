"""What a person takes away: the original picture where it still is one, and names that every system takes."""

from __future__ import annotations

import io
import json
from pathlib import Path

from PIL import Image

from latentlens_dag.figures.source_image import figure_image, file_stem, find_original
from latentlens_dag.storage.hashing import hash_bytes


def _picture(side: int, form: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), "#7a9b3c").save(buffer, form)
    return buffer.getvalue()


def _opened(content: bytes | None) -> Image.Image:
    assert content is not None
    return Image.open(io.BytesIO(content))


def test_an_original_is_taken_while_its_bytes_are_those_that_its_id_says(tmp_path: Path) -> None:
    content, thumbnail = _picture(3000, "png"), _picture(32, "webp")
    original, image_id = tmp_path / "dog.png", hash_bytes(content)
    original.write_bytes(content)
    (tmp_path / "observed").mkdir()
    memory = tmp_path / "observed" / "images.pictures.source.json"
    memory.write_text(json.dumps({"/nowhere.png": [1, 2, "0" * 16], str(original): [1, 2, image_id]}))
    assert find_original(tmp_path, image_id) == original
    large = _opened(figure_image(tmp_path, image_id, thumbnail))
    assert (large.format, large.size) == ("JPEG", (1960, 1960))
    original.write_bytes(content + b"changed")
    small = _opened(figure_image(tmp_path, image_id, thumbnail))
    assert (small.format, small.size) == ("PNG", (32, 32))


def test_the_pictures_of_a_table_lie_in_the_warehouse(tmp_path: Path) -> None:
    content = _picture(40, "png")
    file = tmp_path / "images" / "pictures" / "originals" / hash_bytes(content)
    file.parent.mkdir(parents=True)
    file.write_bytes(content)
    assert find_original(tmp_path, hash_bytes(content)) == file
    assert find_original(tmp_path, "../" + hash_bytes(content)) is None and find_original(tmp_path, "*") is None


def test_what_is_no_picture_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "observed").mkdir()
    (tmp_path / "observed" / "images.pictures.source.json").write_text("[1, 2")
    assert figure_image(tmp_path, "0" * 16, b"thumbnail") is None and figure_image(None, "x", b"") is None


def test_names_of_files_say_what_is_in_them_with_letters_that_every_system_takes() -> None:
    assert file_stem("my_study", "../é €/шкаф.PNG", "latentlens", 4) == "my-study_e-PNG_latentlens_4"
    assert file_stem("<>", "", "\x00") == "latentlens" and len(file_stem("x" * 400)) == 48
