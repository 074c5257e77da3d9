"""Captions of images, from every kind of source, against the plain definition."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latentlens_dag.errors import UserError
from latentlens_dag.inputs.captions import (
    MOST_CAPTIONS,
    Caption,
    CaptionColumn,
    CaptionFile,
    CaptionFolder,
    CaptionSource,
    UnknownImages,
    captions_by_batch,
    read_captions,
    write_captions,
)
from latentlens_dag.inputs.image_tables import ImageColumn
from latentlens_dag.inputs.images import NAMES
from latentlens_dag.storage.hashing import hash_bytes, shards_of

BATCHES = 3
Found = dict[str, list[str]]


def _names(names: list[str]) -> pa.Table:
    rows = [{"image_id": hash_bytes(name.encode("utf-8", "surrogatepass")), "file_name": name} for name in names]
    return pa.Table.from_pylist(rows, NAMES)


def _read(source: CaptionSource, names: pa.Table, folder: Path) -> tuple[Found, UnknownImages]:
    """The captions by image id, through the files of the batches."""
    unknown = UnknownImages()
    parts = list(captions_by_batch(source, names, BATCHES, unknown))
    files = [folder / f"captions_{batch:02d}.parquet" for batch in range(BATCHES)]
    for batch, file in enumerate(files):
        write_captions([rows.filter(pa.array(of == batch)) for rows, of in parts], file)
        ids = pq.read_table(file)["image_id"]
        assert (shards_of(ids, BATCHES) == batch).all()
        assert ids.to_pylist() == sorted(ids.to_pylist())
    found = read_captions(files)
    assert all(one.patches is one.grid is None for captions in found.values() for one in captions)
    return {image: [one.text for one in captions] for image, captions in found.items()}, unknown


def _by_name(found: Found, names: pa.Table) -> Found:
    name_of = dict(zip(names["image_id"].to_pylist(), names["file_name"].to_pylist(), strict=True))
    return {name_of[image]: texts for image, texts in found.items()}


_WORD = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), min_size=1, max_size=12)
_ROWS = st.lists(st.tuples(_WORD, st.one_of(_WORD, st.lists(_WORD, max_size=3), st.none())), min_size=1, max_size=12)


@settings(deadline=None)
@given(_ROWS, st.sampled_from(["jsonl", "parquet"]))
def test_a_file_gives_each_name_its_distinct_captions_in_order(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, Any]], kind: Any
) -> None:
    folder = tmp_path_factory.mktemp("captions")
    lists = [(name, value if isinstance(value, list) else [value]) for name, value in rows]
    known = sorted({name for name, _ in rows[::2]})
    expected: Found = {}
    for name, texts in lists:
        for text in (one.strip() for one in texts if one is not None):
            if name in known and text and text not in expected.setdefault(name, []):
                expected[name].append(text)
    expected = {name: texts for name, texts in expected.items() if texts}
    path = folder / f"captions.{kind}"
    if kind == "jsonl":
        path.write_text("".join(json.dumps({"file_name": name, "caption": text}) + "\n" for name, text in rows))
    else:
        pq.write_table(pa.table({"file_name": [name for name, _ in rows], "caption": [t for _, t in lists]}), path)
    names = _names(known)
    if not expected:
        with pytest.raises(UserError):
            _read(CaptionFile(kind, path), names, folder)
        return
    found, unknown = _read(CaptionFile(kind, path), names, folder)
    assert _by_name(found, names) == expected
    others = [(name, text) for name, texts in lists for text in texts if name not in known and text and text.strip()]
    assert unknown.total() == len(others)
    assert bool(str(unknown)) == bool(others)


def test_a_folder_has_a_text_of_the_picture_s_name_with_a_caption_on_each_line(tmp_path: Path) -> None:
    names = _names(["a.png", "b/a.PNG", "b/c.tar.jpg", "none.png", "ünï.webp"])
    texts = {
        "a.txt": "\ufeffA dog.\r\n\r\n A cat. \r\n",
        "b/a.txt": "A boat.",
        "b/c.tar.txt": "A hat.\nA hat.\n",
        "ünï.txt": "A tree.",
        "other.txt": "Of no picture.",
    }
    for name, text in texts.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(text.encode())
    found, _ = _read(CaptionFolder(tmp_path), names, tmp_path / "out")
    assert _by_name(found, names) == {
        "a.png": ["A dog.", "A cat."],
        "b/a.PNG": ["A boat."],
        "b/c.tar.jpg": ["A hat."],
        "ünï.webp": ["A tree."],
    }


@pytest.mark.parametrize("name", ["../secret.png", "ABSOLUTE.png", "in/../../secret.png", ".", "", "..", "x" * 300])
def test_a_name_in_a_table_of_pictures_is_no_path_of_this_machine(tmp_path: Path, name: str) -> None:
    (folder := tmp_path / "texts").mkdir()
    (folder / "in").mkdir()
    (folder / "a.txt").write_text("inside")
    (tmp_path / "secret.txt").write_text("outside")
    names = pa.table([["0" * 16, "1" * 16], ["a.png", name.replace("ABSOLUTE", str(tmp_path / "secret"))]], NAMES)
    rows = captions_by_batch(CaptionFolder(folder), names, 1, UnknownImages())
    found = {(row["image_id"], row["caption"]) for some in rows for row in some.rows.to_pylist()}
    assert found == {("0" * 16, "inside")}


@pytest.mark.parametrize("with_path", [False, True])
def test_a_column_of_the_pictures_table_adds_up_over_equal_pictures(tmp_path: Path, with_path: bool) -> None:
    pictures = [b"one", b"two", b"one"]
    images = [{"bytes": one, "path": "a.png"} for one in pictures] if with_path else pictures
    path = tmp_path / "table.parquet"
    pq.write_table(pa.table({"image": images, "said": [["A.", "B."], None, ["B.", "C."]]}), path)
    rows = [{"image_id": hash_bytes(one), "file_name": one.decode()} for one in (b"one", b"two")]
    found, _ = _read(
        CaptionColumn(ImageColumn(path, "image"), "said"), pa.Table.from_pylist(rows, NAMES), tmp_path / "out"
    )
    assert found == {hash_bytes(b"one"): ["A.", "B.", "C."]}


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_a_caption_may_be_of_some_patches_of_a_grid(tmp_path: Path, kind: Any) -> None:
    rows = [("A.", None), ("B.", [5, 1, 1]), ("B.", [1, 5]), ("A.", [0]), ("C.", None)]
    path = tmp_path / f"c.{kind}"
    table = {"file_name": ["a.png"] * 5, "caption": [text for text, _ in rows], "of": [of for _, of in rows]}
    if kind == "parquet":
        pq.write_table(pa.table(table), path)
    else:
        lines = (dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True))
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    names, unknown = _names(["a.png"]), UnknownImages()
    [(rows_of, _)] = captions_by_batch(CaptionFile(kind, path, patches="of", grid=(2, 3)), names, 1, unknown)
    write_captions([rows_of], tmp_path / "captions_00.parquet")
    [found] = read_captions([tmp_path / "captions_00.parquet"]).values()
    grid = (2, 3)
    assert found == [Caption("A."), Caption("B.", (1, 5), grid), Caption("A.", (0,), grid), Caption("C.")]


@pytest.mark.parametrize("wrong", ["[6]", "[-1]", "[]", "[true]", "[1.5]", '"1"', "1", "[[1]]"])
def test_patches_that_the_grid_lacks_are_refused(tmp_path: Path, wrong: str) -> None:
    path = tmp_path / "c.jsonl"
    path.write_text(f'{{"file_name": "a.png", "caption": "A.", "of": {wrong}}}\n')
    source = CaptionFile("jsonl", path, patches="of", grid=(2, 3))
    with pytest.raises(UserError, match=r"line 1: of is .*, but must be a list of patches, numbered from 0 to 5"):
        _read(source, _names(["a.png"]), tmp_path / "out")


def _jsonl(text: str) -> Callable[[Path], CaptionSource]:
    def write(folder: Path) -> CaptionSource:
        (folder / "c.jsonl").write_bytes(text.encode("utf-8", "surrogatepass"))
        return CaptionFile("jsonl", folder / "c.jsonl")

    return write


def _folder(content: bytes) -> Callable[[Path], CaptionSource]:
    def write(folder: Path) -> CaptionSource:
        (folder / "a.txt").write_bytes(content)
        return CaptionFolder(folder)

    return write


def _parquet(**columns: list[Any]) -> Callable[[Path], CaptionSource]:
    def write(folder: Path) -> CaptionSource:
        pq.write_table(pa.table(columns), folder / "c.parquet")
        return CaptionFile("parquet", folder / "c.parquet")

    return write


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (_jsonl('{"file_name": "a.png"}\n'), "line 1 has no column 'caption'; it has file_name"),
        (_jsonl('{"file": "a.png", "caption": "A."}\n'), "has no column 'file_name'"),
        (_jsonl('{"file_name": 3, "caption": "A."}\n'), "file_name is 3, not the name of an image"),
        (_jsonl('{"file_name": "a.png", "caption": 3}\n'), "caption is 3, not text"),
        (_jsonl('{"file_name": "a.png", "caption": ["A.", {}]}\n'), "caption is {}, not text"),
        (_jsonl('{"file_name": "a.png", "caption": "A\\ud83d"}\n'), "half of a surrogate pair"),
        (_jsonl('{"file_name": "a.png", "caption": "A\\u0000"}\n'), "NUL"),
        (_jsonl('{"file_name": "a.png", "caption": "' + "a" * 100_001 + '"}\n'), "100,001 characters are no caption"),
        (_jsonl("[1, 2]\n"), "has no column 'file_name'"),
        (_jsonl('{"file_name": "a.png"\n'), "no JSON that can be read"),
        (_jsonl('{"file_name": "A.png", "caption": "A."}\n'), "Is 'A.png' the image 'a.png'?"),
        (_jsonl('{"file_name": "a.png", "caption": " "}\n'), "every caption is empty"),
        (_jsonl("".join(f'{{"file_name": "a.png", "caption": "{n}"}}\n' for n in range(MOST_CAPTIONS + 1))), "1,001"),
        (_folder(b"\xff\xfeA\x00"), "a.txt"),
        (_folder(b"\n \n"), "a.txt for a.png"),
        (_parquet(file_name=["a.png"], text=["A."]), "has no column 'caption'; it has file_name, text"),
        (_parquet(file_name=["a.png"], caption=[b"A."]), "not text"),
        (lambda folder: CaptionFile("parquet", folder / "none.parquet"), "does not exist"),
        (lambda folder: CaptionFile("jsonl", folder / "none.jsonl"), "does not exist"),
    ],
)
def test_what_is_no_caption_is_refused_with_its_place(
    write: Callable[[Path], CaptionSource], said: str, tmp_path: Path
) -> None:
    source = write(tmp_path)
    with pytest.raises(UserError) as raised:
        _read(source, _names(["a.png"]), tmp_path / "out")
    assert said in str(raised.value)


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
@settings(deadline=None)
@given(content=st.binary(max_size=400))
def test_any_bytes_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes, kind: Any) -> None:
    folder = tmp_path_factory.mktemp("any")
    (folder / "c").write_bytes(content)
    with pytest.raises(UserError):
        _read(CaptionFile(kind, folder / "c"), _names(["a.png"]), folder)
