"""Pictures and texts of the world outside that were not foreseen: each is read rightly, or refused by name.

What is not so yet is a strict expected failure: whoever mends it takes the mark away and moves the test to the module
that tests the mended one.
"""

import shutil
import struct
from pathlib import Path

import pytest
from PIL import Image

from latentlens_dag.errors import UserError
from latentlens_dag.inputs.images import open_image
from latentlens_dag.inputs.texts import TextFile, read_texts, write_sentences

FILES = Path(__file__).parent / "files"
TURNED = (0x112, 3, 1, struct.pack("<HH", 6, 0))
"""The EXIF tag that turns a picture by a quarter."""


def _exif(*tags: tuple[int, int, int, bytes]) -> bytes:
    rows = [struct.pack("<HHI", number, kind, count) + value for number, kind, count, value in sorted(tags)]
    return b"Exif\0\0II*\0" + struct.pack("<IH", 8, len(rows)) + b"".join(rows) + struct.pack("<I", 0)


@pytest.mark.parametrize(
    "tag",
    [
        pytest.param((0x11A, 2, 4, b"72\0\0"), id="a resolution that is text"),
        pytest.param((0x131, 11, 1, struct.pack("<f", 1.5)), id="software that is a number"),
        pytest.param((0x111, 2, 4, b"abc\0"), id="strip offsets that are text"),
    ],
)
@pytest.mark.xfail(
    strict=True, raises=(TypeError, AttributeError, UserError), reason="the whole EXIF is parsed to learn one tag"
)
def test_a_photo_is_read_upright_whatever_else_its_exif_says(tmp_path: Path, tag: tuple[int, int, int, bytes]) -> None:
    Image.new("RGB", (20, 10)).save(tmp_path / "photo.jpg", "JPEG", exif=_exif(TURNED, tag))
    assert open_image(tmp_path / "photo.jpg").size == (10, 20)


@pytest.mark.parametrize(
    "line",
    [
        pytest.param('{"text": "cut \\ud83d"}', id="half an emoji"),
        pytest.param('{"text": "a", "x": ' + "[" * 9**5 + "]" * 9**5 + "}", id="lists too deep"),
        pytest.param('{"text": ' * 2000 + "1" + "}" * 2000, id="objects too deep"),
        pytest.param('{"text": "a", "x": ' + "9" * 5000 + "}", id="a number too long"),
    ],
)
@pytest.mark.xfail(
    strict=True, raises=(ValueError, RecursionError), reason="only errors of the syntax of JSON are expected"
)
def test_a_line_of_jsonl_that_cannot_be_read_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "a.jsonl").write_text(f'{{"text": "fine"}}\n{line}\n')
    with pytest.raises(UserError, match=r"a\.jsonl, line 2"):
        write_sentences(TextFile("jsonl", tmp_path / "a.jsonl", "text"), tmp_path / "sentences.parquet")


@pytest.mark.parametrize("row", ["1,A dog, a cat and a ball.", "1"], ids=["too many", "too few"])
@pytest.mark.xfail(strict=True, raises=pytest.fail.Exception, reason="a longer row is cut, a shorter one is left out")
def test_a_row_of_csv_with_too_many_or_too_few_fields_is_named(tmp_path: Path, row: str) -> None:
    (tmp_path / "a.csv").write_text(f"id,text\n{row}\n2,Snow.\n")
    with pytest.raises(UserError, match=r"a\.csv, line 2"):
        list(read_texts(TextFile("csv", tmp_path / "a.csv", "text")))


def test_a_parquet_corpus_with_damaged_pages_is_named(tmp_path: Path) -> None:
    shutil.copy(FILES / "dictionary_index.parquet", tmp_path / "corpus.parquet")  # an index beyond its dictionary
    with pytest.raises(UserError, match=r"corpus\.parquet"):
        list(read_texts(TextFile("parquet", tmp_path / "corpus.parquet", "text")))
