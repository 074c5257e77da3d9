"""Storing vectors: a layer table against `numpy.save` and the reference library's `save`; what they take on disk.

    python -m tests.benchmarks.ingest FOLDER [--rows 100000] [--width 1024]

The same unit float16 vectors, with the metadata of occurrences where the format has some. *Memory* is the peak above
what the process held with the vectors.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks.search import measured


def main() -> None:
    """Write with each engine in a process of its own, and print what it took."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--run", choices=list(ENGINES), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.run:
        sys.stdout.write(json.dumps(_measured(given.run, given.folder, given.rows, given.width)) + "\n")
        return
    given.folder.mkdir(parents=True, exist_ok=True)
    results = {}
    for engine in ENGINES:
        command = [sys.executable, "-m", "tests.benchmarks.ingest", str(given.folder), "--run", engine]
        command += ["--rows", str(given.rows), "--width", str(given.width)]
        found = subprocess.run(command, capture_output=True, text=True, check=False)
        if found.returncode:
            raise SystemExit(f"{engine} failed:\n{found.stderr}")
        facts = results[engine] = json.loads(found.stdout.splitlines()[-1])
        sys.stdout.write(
            f"{engine:10} {facts['seconds']:7.2f} s  {facts['memory_mb']:6.0f} MB  {facts['size']:.4f} of the vectors\n"
        )
    (given.folder / "ingest.json").write_text(json.dumps({**vars(given), **results}, indent=1, default=str))


def _measured(engine: str, folder: Path, rows: int, width: int) -> dict[str, Any]:
    vectors = np.random.default_rng(0).standard_normal((rows, width), np.float32)
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)
    target = folder / "ingest"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    work = ENGINES[engine](target, vectors)
    seconds, memory_mb, _ = measured(work, repeats=1)
    size = sum(file.stat().st_size for file in target.rglob("*") if file.is_file())
    shutil.rmtree(target)
    return {"seconds": seconds, "memory_mb": memory_mb, "size": size / vectors.nbytes}


def _occurrences(rows: int) -> Any:
    """Rows as a corpus has them: ids are hashes, words repeat."""
    import pyarrow as pa

    from latentlens_dag.schema import OCCURRENCES
    from latentlens_dag.storage.hashing import hash_bytes

    random = np.random.default_rng(0)
    token = random.zipf(1.3, rows).clip(max=30_000).astype(np.int32)
    words = [f"word{number}" for number in token.tolist()]
    start = random.integers(0, 80, rows).astype(np.int32)
    sentences = random.integers(0, rows // 4, rows).tolist()
    columns: dict[str, Any] = {
        "index": ["benchmark"] * rows,
        "key": sorted(hash_bytes(number.to_bytes(8, "little")) for number in range(rows)),
        "token_id": token,
        "token_str": [f" {word}" for word in words],
        "word": words,
        "char_start": start,
        "char_end": start + 6,
        "position": (start // 5).astype(np.int32),
        "sentence_id": [hash_bytes(number.to_bytes(9, "little")) for number in sentences],
    }
    return pa.table(columns).select(OCCURRENCES.names).cast(OCCURRENCES)


def _ours(target: Path, vectors: np.ndarray) -> Any:
    from latentlens_dag.index.layer_tables import commit_fragments, write_fragments

    occurrences, norms = _occurrences(len(vectors)), np.ones(len(vectors), np.float32)
    table, record = target / "layer_01.lance", target / "record.json"
    warm, small = target / "warm.lance", slice(0, 10)
    write_fragments(warm, record, occurrences.slice(0, 10), vectors[small], norms[small])  # the library is loaded
    commit_fragments(warm, [record], "benchmark")
    shutil.rmtree(warm)

    def work() -> None:
        write_fragments(table, record, occurrences, vectors, norms)
        commit_fragments(table, [record], "benchmark")

    return work


def _numpy(target: Path, vectors: np.ndarray) -> Any:
    return lambda: np.save(target / "vectors.npy", vectors)


def _reference(target: Path, vectors: np.ndarray) -> Any:
    import torch
    from latentlens import ContextualIndex

    rows = _occurrences(len(vectors)).to_pylist()
    metadata = [{"token_str": r["token_str"], "token_id": r["token_id"], "caption": "", "position": 0} for r in rows]
    index = ContextualIndex({1: {"embeddings": torch.from_numpy(vectors).float(), "metadata": metadata}})
    return lambda: index.save(target)


ENGINES = {"ours": _ours, "numpy": _numpy, "reference": _reference}

if __name__ == "__main__":
    main()
