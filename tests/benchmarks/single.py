"""One interactive query: from the table's IVF_RQ index, against the exact search of the same table.

    python -m tests.benchmarks.single FOLDER [--recall 0.999]

The table is that of real states; queries are 1,024 states that are not in it, with 15 % of noise, one after the other.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np

from tests.benchmarks.states import noisy, real_table


def main() -> None:
    """Index the table, ask it, and write single.json."""
    from latentlens_dag.index.approximate import approximate_top_k, build_approximate_index, read_approximate_index
    from latentlens_dag.index.lance_files import open_table
    from latentlens_dag.index.table_blocks import blocks
    from latentlens_dag.search.exact import cosine_top_k

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--recall", type=float, default=0.999)
    given = parser.parse_args()
    table, held_out = real_table(given.folder)
    start = time.perf_counter()
    facts = read_approximate_index(table) or build_approximate_index(table)
    built_s = time.perf_counter() - start
    nprobes = facts.nprobes_for(given.recall)
    queries = noisy(held_out, 1024, seed=2)
    truth = cosine_top_k(queries, blocks(table, 1), 5)
    results = {
        "built_s": built_s,
        "measured": facts.recall,
        "index_over_vectors": _index_bytes(table) / _raw_bytes(table),
    }
    opened = open_table(table)
    for number in sorted({*facts.recall, *([nprobes] if nprobes else [])}):
        ask = lambda query, number=number: approximate_top_k(query[None], {1: opened}, 5, {1: number})  # noqa: E731
        ask(queries[0])
        times, hits = [], 0
        for query, keys in zip(queries, truth.key, strict=True):
            start = time.perf_counter()
            found = ask(query)
            times.append(time.perf_counter() - start)
            hits += len(np.intersect1d(found.key, keys))
        results[f"nprobes_{number}"] = {"median_ms": 1e3 * float(np.median(times)), "recall": hits / truth.key.size}
    times = []
    for query in queries[:20]:
        start = time.perf_counter()
        cosine_top_k(query[None], blocks(table, 1), 5)
        times.append(time.perf_counter() - start)
    results["exact"] = {"median_ms": 1e3 * float(np.median(times)), "recall": 1.0}
    text = json.dumps(results, indent=1)
    sys.stdout.write(f"the fewest that reached {given.recall}: nprobes {nprobes}\n{text}\n")
    (given.folder / "single.json").write_text(text)


def _index_bytes(table: Path) -> int:
    newest = max((table / "_indices").iterdir(), key=lambda folder: folder.stat().st_mtime)
    return sum(file.stat().st_size for file in newest.rglob("*") if file.is_file())


def _raw_bytes(table: Path) -> int:
    from latentlens_dag.index.lance_files import count_rows
    from latentlens_dag.index.layer_tables import width_of

    return 2 * count_rows(table) * width_of(table)


if __name__ == "__main__":
    main()
