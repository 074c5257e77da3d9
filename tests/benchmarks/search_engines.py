"""One engine on one case, in a process of its own: prints its seconds and memory as JSON.

python -m tests.benchmarks.search_engines ENGINE TABLE QUERIES K
"""

from __future__ import annotations

import itertools
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks.search import measured


def main() -> None:
    """Run one engine."""
    engine, table, queries, k = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])
    import torch

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    work, cosines, note = ENGINES[engine](table, np.load(queries), k)
    seconds, memory_mb, found = measured(work)
    if cosines is not None:
        np.save(queries.with_suffix(f".{engine}.npy"), cosines(found))
    sys.stdout.write(json.dumps({"seconds": seconds, "memory_mb": memory_mb, "note": note}) + "\n")


Prepared = tuple[Callable[[], Any], Callable[[Any], np.ndarray] | None, str]


def _ours(table: Path, queries: np.ndarray, k: int) -> Prepared:
    import latentlens_dag.search.exact  # noqa: F401
    from latentlens_dag.index.table_blocks import blocks
    from latentlens_dag.search.exact import cosine_top_k
    from latentlens_dag.search.prefilter import fastest_arithmetic

    chosen = fastest_arithmetic(len(queries), "cpu")
    cosine_top_k(queries, itertools.islice(blocks(table, 1), 2), k)
    return (lambda: cosine_top_k(queries, blocks(table, 1), k)), (lambda found: found.cosine), chosen


def _reference(table: Path, queries: np.ndarray, k: int) -> Prepared:
    import torch
    from latentlens import ContextualIndex

    rows = torch.from_numpy(_rows(table))
    index = ContextualIndex({1: {"embeddings": rows, "metadata": [{}] * len(rows)}})
    asked = torch.from_numpy(queries)

    def cosines(found: Any) -> np.ndarray:
        return np.array([[one.similarity for one in row] for row in found], np.float32)

    return (lambda: index.search(asked, top_k=k)), cosines, "vectors in memory before the clock starts"


def _faiss(table: Path, queries: np.ndarray, k: int) -> Prepared:
    import faiss

    faiss.omp_set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    index = faiss.IndexFlatIP(queries.shape[1])
    index.add(_rows(table))
    unit = queries / np.linalg.norm(queries, axis=1, keepdims=True)
    return (lambda: index.search(unit, k)), (lambda found: found[0]), "vectors in memory before the clock starts"


def _limit(table: Path, queries: np.ndarray, k: int) -> Prepared:
    """The product alone, in the arithmetic and the blocks of ours."""
    import torch

    from latentlens_dag.index.lance_files import count_rows
    from latentlens_dag.search.prefilter import fastest_arithmetic

    width = queries.shape[1]
    dtype = getattr(torch, fastest_arithmetic(len(queries), "cpu"))
    height = 4096 if width < 4096 else 2048
    rows, asked = torch.randn(height, width).to(dtype), torch.from_numpy(queries[:1024]).to(dtype)
    out = torch.empty(height, len(asked), dtype=dtype)
    times = count_rows(table) / height * len(queries) / len(asked)

    def work() -> None:
        for _ in range(round(times)):
            torch.mm(rows, asked.T, out=out)

    operations = 2 * round(times) * height * width * len(asked)
    return work, None, f"{dtype}, {operations / 1e9:.0f} GFLOP"


def _rows(table: Path) -> np.ndarray:
    import lance

    found = lance.dataset(str(table)).to_table(columns=["vector"])["vector"].combine_chunks()
    rows = found.flatten().to_numpy(zero_copy_only=False).reshape(-1, found.type.list_size).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


ENGINES = {"ours": _ours, "reference": _reference, "faiss": _faiss, "limit": _limit}

if __name__ == "__main__":
    main()
