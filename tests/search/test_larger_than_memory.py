"""A table four times as large as the memory that a search may take is searched exactly."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from latentlens_dag.index.layer_tables import commit_fragments, write_fragments
from latentlens_dag.schema import OCCURRENCES

WIDTH, ROWS, SHARDS = 2048, 160_000, 8

_SEARCH = """
import json, resource, sys
from pathlib import Path
import numpy as np
from latentlens_dag.search.exact import cosine_top_k
from latentlens_dag.index.table_blocks import blocks

def data_bytes():
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith("VmData")))

large, small, queries, limit = Path(sys.argv[1]), Path(sys.argv[2]), np.load(sys.argv[3]), int(sys.argv[4])
cosine_top_k(queries, blocks(small, 1), 5)  # libraries and their threads are there before the limit is
resource.setrlimit(resource.RLIMIT_DATA, (data_bytes() + limit, resource.RLIM_INFINITY))
if len(sys.argv) > 5:  # the test can fail: what holds the whole table is stopped
    rows = [np.array(block.vectors) for block in blocks(large, 1)]
found = cosine_top_k(queries, blocks(large, 1), 5)
print(json.dumps({"cosine": found.cosine.tolist(), "key": found.key.tolist()}))
"""


def _vectors(shard: int) -> np.ndarray:
    random = np.random.default_rng(shard)
    states = random.standard_normal((ROWS // SHARDS, WIDTH), np.float32)
    return (states / np.linalg.norm(states, axis=1, keepdims=True)).astype(np.float16)


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows.astype(np.float64) / np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)


def _table(folder: Path, name: str, shards: int, rows: int) -> Path:
    table, records = folder / f"{name}.lance", []
    for shard in range(shards):
        numbers = np.arange(rows, dtype=np.int64) * shards + shard
        keys = [f"{number:016x}" for number in numbers.tolist()]
        columns = {**{field.name: pa.nulls(rows, field.type) for field in OCCURRENCES}, "key": keys}
        records.append(folder / f"{name}_{shard}.json")
        occurrences = pa.table(columns, schema=OCCURRENCES)
        write_fragments(table, records[-1], occurrences, _vectors(shard)[:rows], np.ones(rows, np.float32))
    commit_fragments(table, records, "a test")
    return table


def _run(folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    limit = 2 * ROWS * WIDTH // 4
    command = [sys.executable, "-c", _SEARCH, *(str(folder / n) for n in ("large.lance", "small.lance", "q.npy"))]
    # The stacks that Lance's threads reserve, dozens now and then, count though hardly any of them is used.
    variables = {**os.environ, "RUST_MIN_STACK": str(1 << 18)}
    return subprocess.run([*command, str(limit), *more], capture_output=True, text=True, check=False, env=variables)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("large")
    _table(folder, "large", SHARDS, ROWS // SHARDS)
    _table(folder, "small", 1, 5000)
    np.save(folder / "q.npy", np.random.default_rng(9).standard_normal((40, WIDTH), np.float32))
    return folder


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits anonymous memory by RLIMIT_DATA")
def test_a_table_of_four_times_the_memory_is_searched_exactly(folder: Path) -> None:
    found = _run(folder)
    assert found.returncode == 0, found.stderr
    answers = json.loads(found.stdout.splitlines()[-1])
    queries = _unit(np.load(folder / "q.npy"))
    best: list[list[tuple[float, int]]] = [[] for _ in queries]
    for shard in range(SHARDS):
        rows = _vectors(shard).astype(np.float64)
        cosine = (queries / np.linalg.norm(queries, axis=1, keepdims=True)) @ (
            rows / np.linalg.norm(rows, axis=1, keepdims=True)
        ).T
        for query, scores in enumerate(cosine.astype(np.float32)):
            top = np.argsort(-scores, kind="stable")[:5]
            best[query] = sorted([*best[query], *((-float(scores[row]), int(row) * SHARDS + shard) for row in top)])[:5]
    assert answers["key"] == [[key for _, key in row] for row in best]
    assert np.allclose(answers["cosine"], [[-cosine for cosine, _ in row] for row in best], atol=1e-6)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits anonymous memory by RLIMIT_DATA")
def test_under_the_same_limit_a_table_cannot_be_held(folder: Path) -> None:
    assert _run(folder, "hold it").returncode != 0
