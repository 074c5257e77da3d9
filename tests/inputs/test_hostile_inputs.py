"""Inputs that would fill the memory, or take hours: each is refused by name, or read within limits."""

from __future__ import annotations

import gzip
import io
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from latentlens_dag.errors import UserError
from latentlens_dag.inputs import regions as core
from latentlens_dag.inputs.images import open_image
from latentlens_dag.inputs.regions import read_regions, region_rows
from latentlens_dag.inputs.texts import MAX_LINE_BYTES, TextFile, read_texts
from latentlens_dag.storage import pixels

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
from latentlens_dag.inputs.images import open_image
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
