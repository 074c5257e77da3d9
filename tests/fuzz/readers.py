"""The readers of outside data: small sound inputs of each, and how one is read.

A reader is given a folder with one input in it, of which some bytes of one file were changed, and may end with an
answer or a `UserError`. Any other exception is a fault of the reader.
"""

from __future__ import annotations

import json
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from latentlens_dag.errors import UserError

TEXTS = [
    "A dog runs.",
    "Ein Hund l\u00e4uft.",
    "\u0939\u093f\u0928\u094d\u0926\u0940",
    "\U0001f600 caf\u0065\u0301 \u05e9\u05b8",
]


class Reader(NamedTuple):
    """A reader of outside data."""

    write: Callable[[Path], None]
    """Write a sound input into an empty folder."""
    read: Callable[[Path, Path, Path], object]
    """Read the input in a folder, whose file was changed; with an empty folder for results."""
    start: Callable[[], object] = lambda: None
    """What is loaded before memory is limited."""


def _write_yaml(folder: Path) -> None:
    from latentlens_dag.testing import tiny_project

    tiny_project(folder / "project", shards=1, batches=1)
    for file in [*folder.rglob("*.safetensors"), *folder.rglob("*.png")]:
        file.unlink()
    text = next(folder.rglob("defs.yaml")).read_text("utf-8")
    examples = Path(__file__).parents[2] / "docs/examples"
    for number, file in enumerate(sorted(examples.rglob("*.yaml"))):
        (folder / f"{number}.defs").write_text(file.read_text("utf-8"), "utf-8")
    (folder / "own.defs").write_text(text, "utf-8")


def _read_yaml(folder: Path, file: Path, work: Path) -> object:
    from latentlens_dag.dag.loading import load_definitions
    from latentlens_dag.storage.home import Home

    if file.suffix != ".defs":
        return None
    shutil.copy(file, next(folder.rglob("defs.yaml")))
    return load_definitions(folder / "project", Home(work / "home"))


def _start_yaml() -> object:
    import latentlens_dag.dag.components
    import latentlens_dag.dag.loading

    return latentlens_dag.dag.loading


def _write_text(folder: Path) -> None:
    import gzip

    text = "\n".join([*TEXTS, *TEXTS]).encode()
    (folder / "a.txt").write_bytes(text)
    (folder / "b.txt").write_bytes(b"\xef\xbb\xbf" + text.replace(b"\n", b"\r\n"))
    (folder / "c.txt.gz").write_bytes(gzip.compress(text))
    (folder / "d.txt").write_bytes(text.replace(b"\n", b"\r"))
    (folder / "e.txt.gz").write_bytes(gzip.compress(b"\n" * 100_000 + text) + gzip.compress(b"") * 100)


def _write_csv(folder: Path) -> None:
    rows = "".join(f'{number},"{text}, ""so""\n{text}"\n' for number, text in enumerate(TEXTS))
    (folder / "a.csv").write_text(f"id,text\n{rows}", "utf-8")
    (folder / "b.csv").write_text(f"id,text\r{rows}".replace("\n", "\r"), "utf-8", newline="")
    (folder / "c.csv").write_text(f"\n\nid,text\n{rows}\n\n\n3,\n", "utf-8")


def _write_jsonl(folder: Path) -> None:
    rows = [{"id": number, "text": text, "x": [{"y": [1.5, None]}]} for number, text in enumerate(TEXTS)]
    (folder / "a.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")


def _write_parquet(folder: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    moments = pa.array([2**62] * 40, pa.timestamp("us", "Foo/Bar"))
    table = pa.table({"id": moments, "text": [*TEXTS] * 10, "x": [[{"y": 1}]] * 40})
    pq.write_table(table.select(["id"]).rename_columns(["text"]), folder / "moments.parquet")
    for number, options in enumerate(
        ({}, {"use_dictionary": False}, {"compression": "zstd", "data_page_version": "2.0"})
    ):
        pq.write_table(table, folder / f"{number}.parquet", row_group_size=15, write_page_index=True, **options)


def _read_texts(kind: str) -> Callable[[Path, Path, Path], object]:
    def read(_: Path, file: Path, work: Path) -> object:
        from latentlens_dag.inputs.texts import TextFile, write_sentences

        column = None if kind == "lines" else "text"
        return write_sentences(TextFile(kind, file, column), work / "out.parquet")  # type: ignore[arg-type]

    return read


def _write_images(folder: Path) -> None:
    import numpy as np
    from PIL import Image, PngImagePlugin

    pixels = np.random.default_rng(0).integers(0, 256, (9, 12, 4), dtype=np.uint8)
    image = Image.fromarray(pixels, "RGBA")
    text = PngImagePlugin.PngInfo()
    text.add_text("note", "x" * 3000, zip=True)
    text.add_itxt("title", "caf\u00e9", zip=True)
    exif = Image.Exif()
    exif[0x112], exif[0x131] = 6, "program"
    image.save(folder / "a.png", pnginfo=text, exif=exif)
    image.convert("P").save(folder / "b.png", transparency=3)
    image.convert("RGB").save(folder / "c.jpg", exif=exif, dpi=(72, 72))
    image.convert("RGB").save(folder / "d.jpg", progressive=True)
    image.convert("CMYK").save(folder / "e.jpg")
    for number, compression in enumerate(("raw", "tiff_lzw", "tiff_deflate", "jpeg", "packbits")):
        image.convert("RGB").save(folder / f"f{number}.tif", compression=compression)
    image.save(folder / "g.webp", exif=exif)
    image.convert("RGB").save(folder / "h.bmp")
    image.convert("P").save(folder / "i.gif", save_all=True, append_images=[image.convert("P").rotate(90)])


def _read_image(_: Path, file: Path, work: Path) -> object:
    from latentlens_dag.inputs.images import ImageFile, image_table
    from latentlens_dag.storage.hashing import hash_bytes

    return image_table([ImageFile(hash_bytes(file.read_bytes()), file)], file.parent)


def _write_checkpoint(folder: Path) -> None:
    from latentlens_dag.testing import tiny_llava

    tiny_llava(folder / "model")


def _read_checkpoint(folder: Path, file: Path, work: Path) -> object:
    from PIL import Image

    from latentlens_dag.models.loading import load_vlm

    return load_vlm(folder / "model", device="cpu").visual_states([Image.new("RGB", (40, 30))], [0])


def _start_checkpoint() -> object:
    import torch
    import transformers

    return torch.ones(2) @ torch.ones(2), transformers.AutoModelForImageTextToText


def _write_index(folder: Path) -> None:
    import torch

    captions = ["a dog runs", "two dogs, two dogs"]
    rows = [
        {"token_str": word, "token_id": number, "caption": caption, "position": number}
        for caption in captions
        for number, word in enumerate(caption.split())
    ]
    for layer in (1, 2):
        (folder / f"theirs/layer_{layer}").mkdir(parents=True)
        content = {"embeddings": torch.rand(len(rows), 8).half(), "metadata": rows}
        torch.save(content, folder / f"theirs/layer_{layer}/embeddings_cache.pt")
    (folder / "theirs/metadata.json").write_text('{"layers": [1, 2]}')


def _read_index(folder: Path, file: Path, work: Path) -> object:
    from latentlens_dag.index.reference_import import import_index

    return import_index(str(folder / "theirs"), work / "ours")


def _write_regions(folder: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    row = {"file_name": "a.png", "kind": "object", "name": "dog", "words": ["dog", "animal"], "abstract_words": ["pet"]}
    box = {"x0": 1.0, "y0": 1.0, "x1": 5.0, "y1": 4.5}
    rows = [
        {**row, **box, "region_id": str(number), "mask": [10, 20, 18] if number % 2 else None} for number in range(6)
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / "regions.parquet")


def _read_regions(_: Path, file: Path, work: Path) -> object:
    from latentlens_dag.inputs.regions import patch_coverage, read_regions, region_rows

    regions = read_regions(file, region_rows(file), {"a.png": ("0" * 16, 8, 6)})
    import numpy as np

    return patch_coverage(regions, np.array([[0, 0, 4, 4]], np.float32), 8, 6)


def _write_release(folder: Path) -> None:
    from tests.helpers.small_release import write_release

    write_release(folder / "release")


def _read_manifest(folder: Path, file: Path, work: Path) -> object:
    from latentlens_dag.dataset.dataset import open_dataset
    from latentlens_dag.release.manifest import MANIFEST, read_manifest

    read_manifest(folder / "release" / MANIFEST)
    with open_dataset(folder / "release") as opened:
        return opened.collect("FROM diversity LIMIT 1")


def _read_release(folder: Path, file: Path, work: Path) -> object:
    """Open a release whose manifest says of the changed file what its author would, and read all tables."""
    import duckdb

    from latentlens_dag.dataset.dataset import open_dataset
    from latentlens_dag.release.manifest import MANIFEST, file_sha256

    manifest = folder / "release" / MANIFEST
    if file != manifest:
        facts = json.loads(manifest.read_text("utf-8"))
        entry = facts["files"][file.relative_to(manifest.parent).as_posix()]
        entry |= {"size": file.stat().st_size, "sha256": file_sha256(file)}
        manifest.write_text(json.dumps(facts), "utf-8")
    try:
        with open_dataset(folder / "release") as opened:
            return [opened.collect(f"FROM {name}") for (name,) in opened.sql("SHOW TABLES").fetchall()]
    except duckdb.Error as error:  # which the command line turns into one line
        raise UserError(str(error)) from error


_SQL_VALUES = r"""
NULL
'éहि "quoted", text'
'\xff\x00'::BLOB
[1, NULL]
[[], NULL]
{'a': [1], 'b': NULL}
map([1], ['x'])
INTERVAL 3 MONTH
'infinity'::DATE
'-infinity'::TIMESTAMP
'nan'::DOUBLE
'inf'::FLOAT
1e38::HUGEINT
12.30::DECIMAL(38, 2)
'12:00:00+02'::TIMETZ
'24:00:00'::TIME
now()
union_value(n := 1)
map([{'a': 1}, {'a': NULL}], [[1], []])
map([[1, 2]], [map([[1]], ['x'])])
map([1::VARIANT, '1'::VARIANT], [1, 2])
'infinity'::TIMESTAMP_NS
['2020-01-01 00:00:00.123456789'::TIMESTAMP_NS]
(-170141183460469231731687303715884105728)::HUGEINT
array_value('a'::ENUM ('a', 'b'), NULL)
42::VARIANT
'POINT (1 2)'::GEOMETRY
CAST('é日' AS BIT)
'101'::BIT
'a'::ENUM ('a', 'b')
uuid()
array_value(1, 2)
chr(0)
repeat('x', 200)
"""
"""A value of every type, a line each."""


def _write_sql(folder: Path) -> None:
    _write_release(folder)
    (folder / "query.sql").write_text(_SQL_VALUES, "utf-8")


def _read_sql(folder: Path, file: Path, work: Path) -> object:
    """Print a value of the file in every format."""
    from click.testing import CliRunner

    from latentlens_dag.cli.main import cli

    if file.suffix != ".sql":
        return None
    lines = file.read_bytes().decode(errors="replace").strip().splitlines() or [""]
    at = zlib.crc32(file.read_bytes())
    for form in ("table", "csv", "json"):
        sql = f"SELECT {lines[at % len(lines)]} AS x, {lines[struct.pack('I', at)[0] % len(lines)]} AS y"
        command = ["query", sql, "--format", form, "--home", str(folder / "release")]
        result = CliRunner().invoke(cli, command)
        error = result.exception
        if error is not None and not isinstance(error, SystemExit | UserError):
            raise error
    return None


READERS = {
    "yaml": Reader(_write_yaml, _read_yaml, _start_yaml),
    "text": Reader(_write_text, _read_texts("lines")),
    "csv": Reader(_write_csv, _read_texts("csv")),
    "jsonl": Reader(_write_jsonl, _read_texts("jsonl")),
    "parquet": Reader(_write_parquet, _read_texts("parquet")),
    "images": Reader(_write_images, _read_image),
    "checkpoint": Reader(_write_checkpoint, _read_checkpoint, _start_checkpoint),
    "index": Reader(_write_index, _read_index, _start_checkpoint),
    "regions": Reader(_write_regions, _read_regions),
    "manifest": Reader(_write_release, _read_manifest),
    "release": Reader(_write_release, _read_release),
    "sql": Reader(_write_sql, _read_sql),
}
CHANGED = {"manifest": "**/manifest.json", "sql": "*.sql", "yaml": "*.defs", "release": "**/*.parquet"}
"""Which files of the input are changed; by default all."""
