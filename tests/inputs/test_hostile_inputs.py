"""Inputs that would fill the memory, or take hours: each is refused by name, or read within limits."""

from __future__ import annotations

import gzip
import io
import re
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from latentlens_dag.errors import UserError
from latentlens_dag.inputs import regions as core
from latentlens_dag.inputs.images import ImageFile, open_image, read_image
from latentlens_dag.inputs.regions import read_regions, region_rows
from latentlens_dag.inputs.texts import MAX_LINE_BYTES, TextFile, read_texts
from latentlens_dag.storage import pixels
from latentlens_dag.storage.hashing import hash_bytes

READ = """
import resource, sys
from pathlib import Path
from latentlens_dag.errors import UserError
from latentlens_dag.inputs.texts import TextFile, write_sentences
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    write_sentences(TextFile(sys.argv[1], Path(sys.argv[2]), "text"), Path(sys.argv[2]).with_suffix(".out"))
except UserError as error:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before >> 10, error)
"""


@pytest.mark.parametrize(("kind", "start"), [("lines", ""), ("csv", "id,text\n"), ("csv", 'text\n"'), ("jsonl", "")])
def test_a_line_without_end_is_refused_in_the_memory_of_a_few_lines(tmp_path: Path, kind: str, start: str) -> None:
    path = tmp_path / "a.gz"
    with gzip.open(path, "wb", 1) as file:
        file.write(start.encode())
        for _ in range(20):
            file.write(b"x" * MAX_LINE_BYTES)
    run = subprocess.run([sys.executable, "-c", READ, kind, str(path)], capture_output=True, text=True, check=True)
    grown, _, message = run.stdout.partition(" ")
    assert int(grown) < 16 * MAX_LINE_BYTES >> 20
    assert re.search(r"a\.gz, line [12]: it has more than 16,777,216 bytes", message)


def test_a_line_of_the_most_bytes_is_read(tmp_path: Path) -> None:
    row = '{"text": "a dog", "other": "' + "x" * 1_000_000 + '"}\n'
    (tmp_path / "a.jsonl").write_text(row * 2)
    assert list(read_texts(TextFile("jsonl", tmp_path / "a.jsonl", "text"))) == ["a dog"] * 2


ROW: dict[str, Any] = {"file_name": "a.png", "region_id": "0", "kind": "object", "name": "dog", "words": ["dog"]}
BOX = {"x0": 0.0, "y0": 0.0, "x1": 2.0, "y1": 2.0}


def _regions(folder: Path, rows: list[dict[str, Any]]) -> Path:
    pq.write_table(pa.Table.from_pylist([{**ROW, **BOX, **row} for row in rows]), folder / "regions.parquet")
    return folder / "regions.parquet"


@pytest.mark.parametrize(("column", "value"), [("mask", [1] * 60), ("words", ["dog"] * 60)])
def test_a_region_of_more_entries_than_any_is_named_with_its_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, column: str, value: list[Any]
) -> None:
    monkeypatch.setattr(core, "MAX_RUNS", 50)
    monkeypatch.setattr(core, "MAX_WORDS", 50)
    path = _regions(tmp_path, [{column: value[:50]}, {"region_id": "1", column: value}])
    with pytest.raises(UserError, match=rf"regions\.parquet, row 2: {column} has 60 entries, and 50 are the most"):
        list(region_rows(path))


def test_an_image_of_more_regions_than_can_be_compared_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(core, "MAX_REGIONS", 3)
    path = _regions(tmp_path, [{"region_id": str(number)} for number in range(4)])
    with pytest.raises(UserError, match=r"'a\.png' has 4 regions, and 3 are the most"):
        read_regions(path, region_rows(path), {"a.png": ("0" * 16, 4, 4)})


def test_regions_read_in_small_groups_are_those_read_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _regions(tmp_path, [{"region_id": f"{number:02}", "mask": [number, 64 - number]} for number in range(40)])
    ids = {"a.png": ("0" * 16, 8, 8)}
    whole = read_regions(path, region_rows(path), ids)
    monkeypatch.setattr(core, "_BYTES_IN_PYTHON", 300)
    assert max(map(len, core._small_groups(next(region_rows(path))))) < 10
    assert read_regions(path, region_rows(path), ids).equals(whole)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "P", "RGB", "L"])
def test_a_transparent_image_on_white_is_the_same_in_parts(monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    random = np.random.default_rng(0)
    image = Image.fromarray(random.integers(0, 256, (37, 23, 4), dtype=np.uint8), "RGBA").convert(mode)
    if mode in ("P", "RGB", "L"):
        stored = io.BytesIO()
        image.save(stored, "PNG", transparency=(*image.getpixel((0, 0)),) if mode == "RGB" else 3)
        image = Image.open(stored, formats=["PNG"])
    assert image.has_transparency_data
    white = Image.new("RGBA", image.size, "white")
    slow = Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    monkeypatch.setattr(pixels, "_PIXELS_AT_ONCE", 50)
    assert pixels.as_rgb(image, "image").tobytes() == slow.tobytes()


# Not ru_maxrss, which begins with that of the process that started this one.
OPEN = """
import re, sys
from pathlib import Path
from latentlens_dag.inputs.images import ImageFile, open_image, read_image
size = open_image(Path(sys.argv[1])).size
print(size, int(re.search(r"VmHWM:\\s+([0-9]+) kB", Path("/proc/self/status").read_text())[1]) >> 10)
"""


def test_the_largest_picture_takes_a_gigabyte_and_a_quarter_at_most(tmp_path: Path) -> None:
    size = (9459, 9459)  # 89 million pixels, just below the limit of Pillow
    Image.new("LA", size, (7, 100)).save(tmp_path / "a.png", compress_level=1)
    run = subprocess.run(
        [sys.executable, "-c", OPEN, str(tmp_path / "a.png")], capture_output=True, text=True, check=True
    )
    peak = int(run.stdout.rpartition(" ")[2])
    assert peak < 1300  # MB: Pillow's picture, its upright copy, and the result, of 358 each


def test_text_in_a_png_that_would_become_very_long_is_refused_by_name(tmp_path: Path) -> None:
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text("note", "x" * 100_000_000, zip=True)
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png", pnginfo=info)
    assert (tmp_path / "a.png").stat().st_size < 200_000
    try:
        assert open_image(tmp_path / "a.png").size == (4, 4)
    except UserError as error:
        assert "a.png" in str(error)


def _png_of(size: tuple[int, int]) -> bytes:
    """The beginning of a PNG of a size, without its pixels."""
    content = io.BytesIO()
    Image.new("L", (1, 1)).save(content, "PNG")
    head = b"IHDR" + struct.pack(">2I", *size) + b"\x08\0\0\0\0"
    return content.getvalue()[:12] + head + struct.pack(">I", zlib.crc32(head)) + content.getvalue()[33:]


@pytest.mark.parametrize("size", [(1, 89_000_000), (89_000_000, 1), (100_001, 8), (8, 100_001)])
def test_a_picture_with_a_side_longer_than_any_is_refused_before_it_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]
) -> None:
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda _: pytest.fail("it is decoded"))
    (tmp_path / "a.png").write_bytes(_png_of(size))
    with pytest.raises(UserError, match=rf"a\.png has {size[0]:,} x {size[1]:,} pixels, and 100,000 are the most"):
        open_image(tmp_path / "a.png")


@pytest.mark.parametrize(
    ("mode", "size", "options"),
    [
        ("LA", (100_000, 890), {"format": "PNG", "compress_level": 1}),
        ("LA", (890, 100_000), {"format": "PNG", "compress_level": 1}),
        ("I;16", (890, 100_000), {"format": "PNG", "compress_level": 1}),
        ("CMYK", (890, 100_000), {"format": "TIFF", "compression": "tiff_lzw"}),
    ],
)
def test_the_longest_pictures_take_no_more_memory_than_square_ones(
    tmp_path: Path, mode: str, size: tuple[int, int], options: dict[str, Any]
) -> None:
    zeros = bytes(len(Image.new(mode, (1, 1)).tobytes()) * size[0] * size[1])
    Image.frombytes(mode, size, zeros).save(tmp_path / "a", **options)
    run = subprocess.run([sys.executable, "-c", OPEN, str(tmp_path / "a")], capture_output=True, text=True, check=False)
    assert int(run.stdout.rpartition(" ")[2]) < 1300, run.stderr


@pytest.mark.parametrize("content", [b"", b"GIF", b"x" * 99, b"\x89PNG\r\n\x1a\n", b"BM" + bytes(60)])
def test_the_message_about_a_picture_names_its_file_and_no_object_in_memory(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.png cannot be read as an image \(") as error:
        read_image(ImageFile(hash_bytes(content), tmp_path / "a.png"))
    assert "0x" not in str(error.value) and "BytesIO" not in str(error.value)


@pytest.mark.parametrize("column", ["file_name", "region_id", "name", "words", "abstract_words"])
def test_a_region_with_a_nul_is_refused_by_row_and_column(tmp_path: Path, column: str) -> None:
    value: Any = ["dog", "a\0b"] if "words" in column else "a\0b"
    path = _regions(tmp_path, [{"abstract_words": ["pet"]}, {"region_id": "1", column: value}])
    with pytest.raises(UserError, match=rf"regions\.parquet, row 2 .*{column} has a NUL"):
        read_regions(path, region_rows(path), dict.fromkeys(("a.png", "a\x00b"), ("0" * 16, 4, 4)))


def test_words_of_a_region_that_are_blank_are_left_out(tmp_path: Path) -> None:
    path = _regions(tmp_path, [{"words": ["", " ", "dog", "\t\n", "\u2003", None]}])
    regions = read_regions(path, region_rows(path), {"a.png": ("0" * 16, 4, 4)})
    assert regions["words"].to_pylist() == [["dog"]]
