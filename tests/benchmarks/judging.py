"""The patch truth, the chance patches and the judgements of a large image set: processor time and memory of each step.

    python -m tests.benchmarks.judging FOLDER [--images 5000] [--batches 96] [--side 24] [--words 3]

Images of 336 x 336 pixels with nine random regions, two thirds of them masks; per token three lenses of five answers.
*Memory* is the peak above what the process held before the step; the answers of a batch count as its own.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from latentlens_dag.inputs.regions import encode_mask
from latentlens_dag.schema import DECLARED_LENSES, IMAGES, JUDGEMENTS, NEIGHBORS, PATCH_TRUTH, REGIONS, VISUAL_TOKENS
from latentlens_dag.storage.hashing import hash_bytes
from latentlens_dag.storage.parquet import parquet_rows, write_parquet
from latentlens_dag.storage.warehouse import Warehouse
from latentlens_dag.study.chance_patches import write_chance_patches
from latentlens_dag.study.patch_truth import patch_truth
from latentlens_dag.study.regions_judge import Truth, judge_files
from tests.benchmarks.search import measured

PIXELS, REGIONS_EACH, TOP_K = 336, 9, 5
STEPS = ("truth", "chance", "judge")
WORDS = [f"word{number}" + ("s" if number % 3 else "") for number in range(2000)]


def main() -> None:
    """Draw the set, run each step in a process of its own, and print what it took."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--batches", type=int, default=96)
    parser.add_argument("--side", type=int, default=24, help="patches along each side of an image")
    parser.add_argument("--words", type=int, default=3, help="of each region; the last one is abstract")
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    warehouse = Warehouse(given.folder / "judging")
    if given.step:
        sys.stdout.write(json.dumps(_run(given.step, warehouse, given.batches)) + "\n")
        return
    shutil.rmtree(warehouse.root, ignore_errors=True)
    for batch in range(given.batches):
        _write_batch(warehouse, batch, range(batch, given.images, given.batches), given.side, given.words)
    options = [f"--{name}={value}" for name, value in vars(given).items() if name not in ("folder", "step")]
    for step in STEPS:
        command = [sys.executable, "-m", "tests.benchmarks.judging", str(given.folder), "--step", step, *options]
        found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        sys.stdout.write(
            f"{step:8} {found['rows']:12,} rows {found['cpu_s']:8.1f} s, {1e6 * found['cpu_s'] / found['rows']:6.2f} "
            f"us a row {found['memory_mb']:8.0f} MB of memory {found['file_mb']:8.1f} MB of files\n"
        )
    shutil.rmtree(warehouse.root)


def _run(step: str, warehouse: Warehouse, batches: int) -> dict[str, float]:
    """Run a step: the truth and the chance of all batches, the judgements of the first."""
    truths, chances = ([of("s", n) for n in range(batches)] for of in (warehouse.patch_truth, warehouse.chance_patches))
    work = {
        "truth": lambda: [_write_truth(warehouse, number, file) for number, file in enumerate(truths)],
        "chance": lambda: write_chance_patches(truths, chances),
        "judge": lambda: _judge(warehouse),
    }[step]
    files = {"truth": truths, "chance": chances, "judge": [warehouse.judgements("s", 0, 0)]}[step]
    start = time.process_time()
    _, memory_mb, _ = measured(work, repeats=1)
    return {
        "cpu_s": time.process_time() - start,
        "memory_mb": memory_mb,
        "rows": sum(pq.read_metadata(file).num_rows for file in files),
        "file_mb": sum(file.stat().st_size for file in files) / 1e6,
    }


def _write_truth(warehouse: Warehouse, batch: int, out: Path) -> None:
    tables = warehouse.regions("i", batch), warehouse.visual_tokens("s", batch), warehouse.pictures("i", batch)
    with parquet_rows(out, PATCH_TRUTH) as rows:
        for table in patch_truth(*map(pq.read_table, tables)):
            rows.write(table)


def _judge(warehouse: Warehouse) -> None:
    truth = Truth.of(warehouse.patch_truth("s", 0), warehouse.chance_patches("s", 0))
    files = [warehouse.neighbors("s", lens, 0, 0) for lens in sorted(DECLARED_LENSES)]
    with parquet_rows(warehouse.judgements("s", 0, 0), JUDGEMENTS) as rows:
        for table in judge_files(files, truth):
            rows.write(table)


def _write_batch(warehouse: Warehouse, batch: int, numbers: range, side: int, words: int) -> None:
    """The images of a batch, their regions and tokens; of the first batch also answers."""
    random = np.random.default_rng(batch)
    ids = sorted(hash_bytes(str(number).encode()) for number in numbers)
    pictures = [
        {"image_id": one, "file_name": one, "width": PIXELS, "height": PIXELS, "thumbnail": None} for one in ids
    ]
    regions = [_region(one, number, words, random) for one in ids for number in range(REGIONS_EACH)]
    write_parquet(pa.Table.from_pylist(pictures, IMAGES), warehouse.pictures("i", batch))
    write_parquet(pa.Table.from_pylist(regions, REGIONS), warehouse.regions("i", batch))
    write_parquet(_tokens(ids, side), warehouse.visual_tokens("s", batch))
    if batch == 0:
        for lens in DECLARED_LENSES:
            write_parquet(_answers(ids, side, lens, random), warehouse.neighbors("s", lens, 0, 0))


def _region(image_id: str, number: int, count: int, random: np.random.Generator) -> dict[str, object]:
    x, y = (int(at) for at in random.integers(0, PIXELS - 20, 2))
    width, height = (int(size) for size in random.integers(20, 200, 2))
    inside = np.zeros((PIXELS, PIXELS), np.bool_)
    inside[y : y + height, x : x + width] = True
    words = [WORDS[at] for at in random.integers(0, len(WORDS), count)]
    return {
        "image_id": image_id,
        "region_id": str(number),
        "kind": "object" if number < 5 else "background",
        "name": words[0],
        "words": words[:-1],
        "abstract_words": words[-1:],
        "x0": x,
        "y0": y,
        "x1": x + width + 0.5,
        "y1": y + height + 0.25,
        "mask": encode_mask(inside) if number % 3 else None,
    }


def _tokens(ids: list[str], side: int) -> pa.Table:
    number = np.tile(np.arange(side * side, dtype=np.int32), len(ids))
    row, col = number // side, number % side
    edges = [(at * (PIXELS / side)).astype(np.float32) for at in (col, row, col + 1, row + 1)]
    names = (pa.array(np.repeat(values, side * side)) for values in (["s"] * len(ids), ids, ["global"] * len(ids)))
    study, image_id, view = names
    return pa.table([study, image_id, number, view, np.zeros_like(number), row, col, *edges], schema=VISUAL_TOKENS)


def _answers(ids: list[str], side: int, lens: str, random: np.random.Generator) -> pa.Table:
    each = side * side * TOP_K
    count = len(ids) * each
    columns = {field.name: pa.nulls(count, field.type) for field in NEIGHBORS}
    columns |= {
        "study": pa.array(["s"] * count),
        "image_id": pa.array(np.repeat(ids, each)),
        "token_index": pa.array(np.tile(np.repeat(np.arange(side * side), TOP_K), len(ids)), pa.int32()),
        "visual_layer": pa.array(np.zeros(count, np.int32)),
        "lens": pa.array([lens] * count),
        "rank": pa.array(np.tile(np.arange(1, TOP_K + 1), len(ids) * side * side), pa.int32()),
        "word": pa.array(np.array(WORDS)[random.integers(0, len(WORDS), count)]),
    }
    return pa.table(columns, schema=NEIGHBORS)


if __name__ == "__main__":
    main()
