"""What 100,000 images cost before a model sees them, in CPU time of one core, memory and opened files.

    python tests/benchmarks/images.py [--images 100000] [--batches 96] [--folders 100]

Images of 8 x 8 pixels, all different but for one in a hundred that repeats another's bytes, go through what the assets
of an image set call, in one process: the observation of the folder twice, as two commands observe it, the list of
names, and of each batch its images, their thumbnails and its regions.
"""

# ruff: noqa: T201
import argparse
import resource
import struct
import tempfile
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from latentlens_dag.dag.versions import content_version
from latentlens_dag.inputs.image_tables import check_unique_names
from latentlens_dag.inputs.images import files_of_batch, image_names, image_table, original_files
from latentlens_dag.inputs.regions import read_regions, regions_by_batch
from latentlens_dag.schema import REGIONS
from latentlens_dag.storage.file_hashes import file_hashes
from latentlens_dag.storage.parquet import write_parquet
from latentlens_dag.storage.split_input import SharedInput, split_rows
from latentlens_dag.storage.warehouse import Warehouse
from tests.helpers.opened_files import opened_files

SIDE = 8
SET = "many"


def write_images(folder: Path, count: int, folders: int) -> int:
    """Write so many PNG files below a folder; give the number of different ones."""
    for number in range(folders):
        (folder / f"{number:03d}").mkdir(parents=True)
    for number in range(count):
        content = _png(number - 1 if number % 100 == 99 else number)
        (folder / f"{number % folders:03d}" / f"{number:06d}.png").write_bytes(content)
    return count - count // 100


def _png(number: int) -> bytes:
    pixels = b"".join(b"\0" + struct.pack(">Q", number * SIDE + row) * 3 for row in range(SIDE))
    header = struct.pack(">IIBBBBB", SIDE, SIDE, 8, 2, 0, 0, 0)
    chunks = (b"IHDR", header), (b"IDAT", zlib.compress(pixels, 1)), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


def write_regions_file(names: pa.Table, path: Path) -> None:
    """Two regions of every image."""
    files = [name for name in names["file_name"].to_pylist() for _ in range(2)]
    count = len(files)
    columns = {
        "file_name": files,
        "region_id": [str(number % 2) for number in range(count)],
        "kind": ["object"] * count,
        "name": ["dog"] * count,
        "words": [["dog"]] * count,
        "abstract_words": [["pet"]] * count,
        **{edge: [0.0] * count for edge in ("x0", "y0")},
        **{edge: [4.0] * count for edge in ("x1", "y1")},
        "mask": [[0, SIDE * SIDE]] * count,
    }
    types = {field.name: field.type for field in REGIONS}
    pq.write_table(pa.table({name: pa.array(values, types.get(name)) for name, values in columns.items()}), path)


def observe_and_list(folder: Path, paths: Warehouse) -> pa.Table:
    """The observation, twice, and the list of names."""
    memory = paths.observed(f"images.{SET}.source")
    for _ in range(2):
        content_version(folder, memory, hidden=True)
    names = image_names(folder, file_hashes(folder, memory, hidden=True))
    write_parquet(names, paths.image_names(SET))
    return names


def choose_batches(folder: Path, paths: Warehouse, batches: int) -> int:
    """The images of every batch; give their number."""
    names = lambda: pq.read_table(paths.image_names(SET))  # noqa: E731 - read anew, as every partition does
    return sum(len(original_files(files_of_batch(names(), batch, batches), folder)) for batch in range(batches))


def write_batches(folder: Path, paths: Warehouse, batches: int) -> None:
    """The table of every batch, with thumbnails."""
    for batch in range(batches):
        names = files_of_batch(pq.read_table(paths.image_names(SET)), batch, batches)
        write_parquet(image_table(original_files(names, folder), folder), paths.pictures(SET, batch))


def write_regions(file: Path, paths: Warehouse, batches: int) -> int:
    """The regions of every batch, with the check that names are unique; give their number."""

    def read() -> Iterator:
        names = pq.read_table(paths.image_names(SET))
        check_unique_names(names, "the folder")  # type: ignore[arg-type]
        return regions_by_batch(file, names, batches)

    count = 0
    for batch in range(batches):
        pictures = files_of_batch(pq.read_table(paths.image_names(SET)), batch, batches)
        ids = {row["file_name"]: (row["image_id"], SIDE, SIDE) for row in pictures.to_pylist()}
        with split_rows(SharedInput(read, "1"), paths.split_input("images", SET, "regions"), batch, batches) as rows:
            table = read_regions(file, rows, ids)
        write_parquet(table, paths.regions(SET, batch), REGIONS)
        count += len(table)
    return count


@contextmanager
def measured(step: str) -> Iterator[None]:
    """Print what a step takes."""
    cpu = time.process_time()
    with opened_files() as count:
        yield
    images = sum(opens for file, opens in count.items() if file.endswith(".png"))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"{step:44}{time.process_time() - cpu:7.1f} s  {images:8,} images opened  {peak:5.2f} GiB at most", flush=True
    )


def main() -> None:
    """Print a line per step."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--batches", type=int, default=96)
    parser.add_argument("--folders", type=int, default=100)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder, paths = Path(scratch) / "pictures", Warehouse(Path(scratch) / "warehouse")
        different = write_images(folder, chosen.images, chosen.folders)
        start = time.process_time()
        with measured("first observation"):
            content_version(folder, paths.observed(f"images.{SET}.source"), hidden=True)
        with measured("two more, and names"):
            names = observe_and_list(folder, paths)
        with measured("choice of all batches"):
            assert choose_batches(folder, paths, chosen.batches) == different == len(names)
        together = time.process_time() - start
        write_regions_file(names, Path(scratch) / "regions.parquet")
        start = time.process_time()
        with measured("regions of all batches, unique names"):
            assert write_regions(Path(scratch) / "regions.parquet", paths, chosen.batches) == 2 * different
        print(f"{'together':44}{together + time.process_time() - start:7.1f} s of one core", flush=True)
        with measured("thumbnails of all batches"):
            write_batches(folder, paths, chosen.batches)


if __name__ == "__main__":
    main()
