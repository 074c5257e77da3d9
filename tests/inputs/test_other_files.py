"""Every reader is fed the files of all others: each is read, or refused by a message that names the file."""

import contextlib
import gzip
import io
import json
import sqlite3
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file

from latentlens_dag.dag.loading import load_definitions
from latentlens_dag.errors import UserError
from latentlens_dag.index.reference_import import import_index
from latentlens_dag.inputs.image_tables import ImageColumn, read_image_rows
from latentlens_dag.inputs.images import image_names, image_table, open_image, original_files
from latentlens_dag.inputs.regions import read_regions, region_rows
from latentlens_dag.inputs.texts import TextFile, read_texts
from latentlens_dag.models.configs import read_config
from latentlens_dag.release.reader import read_release
from latentlens_dag.schema import IMAGES
from latentlens_dag.storage.file_hashes import file_hashes
from latentlens_dag.storage.home import Home
from tests.helpers.small_dataset import region

ROWS = [{"text": "A dog, and \u00e9.", "image": b"x", "file_name": "a.png"}, {"text": "Two.", "image": None}]


def _image(kind: str) -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (9, 7), "red").save(content, kind)
    return content.getvalue()


def _parquet(rows: list[dict[str, Any]], schema: pa.Schema | None = None) -> bytes:
    content = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema), content)
    return content.getvalue()


def _regions() -> bytes:
    row = {name: value for name, value in region("i", "r", "object", ["w"], []).items() if name != "image_id"}
    return _parquet([{"file_name": "a.png", **row}])


def _written(write: Callable[[Path], Any], folder: Path) -> bytes:
    file = folder / "written"
    file.unlink(missing_ok=True)
    write(file)
    return file.read_bytes()


def _database(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE text (text)")
        database.commit()


def _archive(path: Path) -> None:
    with tarfile.open(path, "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("defs.yaml"))


def _zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data.pkl", b"")


FILES: dict[str, Callable[[Path], bytes]] = {
    "nothing": lambda _: b"",
    "a line": lambda _: b"A dog.\n",
    "a line without end": lambda _: b"text",
    "csv": lambda _: b'id,text\n1,"A dog, and more."\n2,Two.\n',
    "csv with semicolons": lambda _: b"id;text\n1;A dog.\n",
    "json": lambda _: json.dumps(ROWS[1:] * 3, default=str).encode(),
    "jsonl": lambda _: b'{"text": "A dog."}\n{"text": "Two."}\n',
    "yaml": lambda _: b"type: latentlens_dag.dag.components.Corpus\nattributes: {name: a, source: {lines: b}}\n",
    "deep json": lambda _: b"[" * 5000 + b"]" * 5000,
    "a config": lambda _: b'{"model_type": "llama", "hidden_size": 8}',
    "parquet of texts": lambda _: _parquet(ROWS),
    "parquet of pictures": lambda _: _parquet([{"image_id": "0" * 16, "thumbnail": b"x"}], IMAGES),
    "parquet of regions": lambda _: _regions(),
    "parquet without rows": lambda _: _parquet([], pa.schema([("text", pa.string()), ("image", pa.binary())])),
    "half a parquet": lambda _: _parquet(ROWS)[:-20],
    "feather": lambda folder: _written(
        lambda file: pyarrow.feather.write_feather(pa.table({"text": ["a"]}), file), folder
    ),
    **{kind: lambda _, kind=kind: _image(kind) for kind in ("PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP", "EPS", "PDF")},
    "half a picture": lambda _: _image("PNG")[:40],
    "svg": lambda _: b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    "torch": lambda folder: _written(lambda file: torch.save({"embeddings": torch.ones(2, 3)}, file), folder),
    "safetensors": lambda folder: _written(lambda file: save_file({"a": torch.ones(2)}, file), folder),
    "sqlite": lambda folder: _written(_database, folder),
    "gzip": lambda _: gzip.compress(b"A dog.\n", mtime=0),
    "half a gzip": lambda _: gzip.compress(b"A dog.\n" * 99, mtime=0)[:-9],
    "tar": lambda folder: _written(_archive, folder),
    "zip": lambda folder: _written(_zip, folder),
    "utf-16": lambda _: "A dog.\n".encode("utf-16"),
    "latin-1": lambda _: "Caf\u00e9.\n".encode("latin-1"),
    "zeros": lambda _: bytes(4096),
    "all bytes": lambda _: bytes(range(256)) * 16,
}


@pytest.fixture(scope="module")
def contents(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("contents")
    return {name: make(folder) for name, make in FILES.items()}


Kind = Literal["lines", "csv", "jsonl", "parquet"]


def _text_reader(kind: Kind) -> Callable[[Path], Any]:
    return lambda file: list(read_texts(TextFile(kind, file, None if kind == "lines" else "text")))


def _read_folder(file: Path) -> Any:
    names = image_names(file.parent, file_hashes(file.parent, file.parent.parent / "memory.json"))
    return image_table(original_files(names, file.parent), file.parent)


def _read_definitions(file: Path) -> Any:
    project = file.parents[2]
    (project / "workspace.yaml").write_text("load_from: []\n")
    return load_definitions(project, Home(project / "home"))


def _read_release(file: Path) -> Any:
    return read_release(file.parent, "user/name")


def _import(file: Path) -> Any:
    return import_index(str(file.parent.parent), file.parents[2] / "ours")


READERS: dict[str, tuple[str, Callable[[Path], Any]]] = {  # where the file lies, and what reads it
    "defs.yaml": ("assets/a/defs.yaml", _read_definitions),
    "lines": ("a.txt", _text_reader("lines")),
    "packed lines": ("a.txt.gz", _text_reader("lines")),
    "csv": ("a.csv", _text_reader("csv")),
    "packed csv": ("a.csv.gz", _text_reader("csv")),
    "jsonl": ("a.jsonl", _text_reader("jsonl")),
    "packed jsonl": ("a.jsonl.gz", _text_reader("jsonl")),
    "parquet": ("a.parquet", _text_reader("parquet")),
    "picture": ("a.png", open_image),
    "folder of pictures": ("pictures/a.jpg", _read_folder),
    "table of pictures": ("a.parquet", lambda file: list(read_image_rows(ImageColumn(file, "image", "text")))),
    "regions": ("a.parquet", lambda file: read_regions(file, list(region_rows(file)), {"a.png": ("i", 6, 4)})),
    "config": ("model/config.json", lambda file: read_config(file.parent)),
    "release": ("release/manifest.json", _read_release),
    "imported index": ("theirs/layer_1/embeddings_cache.pt", _import),
}


def _files(contents: dict[str, bytes], file: Path) -> Iterator[str]:
    """The name of each content, while it lies at the place."""
    for name, content in contents.items():
        file.write_bytes(content)
        yield name


@pytest.mark.parametrize("reader", READERS)
def test_every_reader_reads_the_files_of_the_others_or_refuses_them_by_name(
    contents: dict[str, bytes], tmp_path: Path, reader: str
) -> None:
    place, read = READERS[reader]
    file = tmp_path / place
    file.parent.mkdir(parents=True, exist_ok=True)
    refused = 0
    for name in _files(contents, file):
        try:
            read(file)
        except UserError as error:
            refused += 1
            assert file.name in str(error) or str(file.parent) in str(error), name
            assert len(str(error)) < 2000, name
    assert refused >= 20  # most are not of its kind


def test_each_kind_of_file_has_a_reader_that_takes_it(contents: dict[str, bytes], tmp_path: Path) -> None:
    taken = {"lines": "a line", "csv": "csv", "jsonl": "jsonl", "parquet": "parquet of texts", "picture": "PNG"}
    taken |= {
        "folder of pictures": "JPEG",
        "regions": "parquet of regions",
        "packed lines": "gzip",
        "config": "a config",
    }
    for reader, name in taken.items():
        place, read = READERS[reader]
        (tmp_path / reader / place).parent.mkdir(parents=True)
        (tmp_path / reader / place).write_bytes(contents[name])
        assert read(tmp_path / reader / place) is not None
    assert yaml.safe_load(contents["yaml"])["attributes"]["name"] == "a"
