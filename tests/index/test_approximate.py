import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from latentlens_dag.index.approximate import (
    ApproximateIndex,
    MeasuredRecall,
    approximate_top_k,
    build_approximate_index,
    measure_recall,
    measurement_file,
    plan_approximate,
    read_approximate_index,
)
from latentlens_dag.index.lance_files import open_table
from latentlens_dag.index.layer_tables import commit_fragments, write_fragments
from latentlens_dag.index.table_blocks import blocks
from latentlens_dag.schema import OCCURRENCES
from latentlens_dag.search.exact import cosine_top_k

WIDTH = 32


def _table(folder: Path, layer: int, rows: int = 3000) -> Path:
    """A layer table of states in clusters, as those of tokens are."""
    random, states = np.random.default_rng(layer), _states(layer, rows)
    norms = np.linalg.norm(states, axis=1)
    keys = sorted(f"{int(key):016x}" for key in random.integers(0, 2**63, rows))
    occurrences = pa.table({**{f.name: pa.nulls(rows, f.type) for f in OCCURRENCES}, "key": keys}, schema=OCCURRENCES)
    table, record = folder / f"layer_{layer:02d}.lance", folder / f"{layer}.json"
    write_fragments(table, record, occurrences, (states / norms[:, None]).astype(np.float16), norms.astype(np.float32))
    commit_fragments(table, [record], "a test")
    return table


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    folder = tmp_path_factory.mktemp("tables")
    found = {layer: _table(folder, layer) for layer in (1, 2)}
    for table in found.values():
        build_approximate_index(table)
    return found


def _states(layer: int, rows: int, seed: int = 0) -> np.ndarray:
    """States in clusters, as those of tokens are; those of one layer are in the same clusters."""
    random = np.random.default_rng(layer)
    centers = random.standard_normal((100, WIDTH))
    random = np.random.default_rng([layer, seed])
    return centers[random.integers(0, 100, rows)] + 0.3 * random.standard_normal((rows, WIDTH))


def _slow_recall(table: Path, queries: np.ndarray, nprobes: int) -> float:
    indexed, truth = open_table(table), cosine_top_k(queries, blocks(table, 1), 5)
    found = approximate_top_k(queries, {1: indexed}, 5, {1: nprobes})
    hits = sum(len(np.intersect1d(mine, theirs)) for mine, theirs in zip(truth.key, found.key, strict=True))
    return hits / truth.key.size


def test_the_recall_that_is_kept_is_that_of_held_out_states(tables: dict[int, Path]) -> None:
    facts = read_approximate_index(tables[1])
    assert facts is not None
    assert facts.measured_on == "held-out rows"
    queries = _states(1, 300, seed=7)
    for nprobes, recall in facts.recall.items():
        assert _slow_recall(tables[1], queries, nprobes) == pytest.approx(recall, abs=0.04)
    assert list(facts.recall) == sorted(facts.recall)
    assert facts.recall[max(facts.recall)] > 0.97


def test_the_recall_of_given_states_is_the_share_of_true_answers_that_are_found(tables: dict[int, Path]) -> None:
    queries = np.random.default_rng(5).standard_normal((40, WIDTH))
    found = measure_recall(queries, tables[1])
    assert found == {nprobes: pytest.approx(_slow_recall(tables[1], queries, nprobes)) for nprobes in found}
    assert len(found) > 2 and min(found.values()) < 1  # far from all clusters


def test_a_measured_recall_counts_in_place_of_the_one_that_is_stored(tables: dict[int, Path]) -> None:
    measured = MeasuredRecall({1: {4: 0.2, 16: 0.8}}, "9 visual states")
    plan = plan_approximate({1: tables[1]}, 0.7, measured)
    assert plan == ({1: 16}, "IVF_RQ, nprobes 16, recall@5 0.8000, measured on 9 visual states")
    plan = plan_approximate({1: tables[1]}, 0.9, measured)
    assert plan == ({}, "a recall of 0.9 was asked for, the index of layer 1 reached 0.8000 on 9 visual states")
    both = plan_approximate(tables, 0.7, measured)
    assert both.nprobes[1] == 16 and both.description.endswith("measured on 9 visual states and held-out rows")


def test_an_index_of_a_version_that_did_not_say_on_what_it_was_measured_was_on_rows_with_noise(tmp_path: Path) -> None:
    table = _table(tmp_path, 1, 400)
    build_approximate_index(table)
    file = measurement_file(table)
    file.write_text(json.dumps({k: v for k, v in json.loads(file.read_text()).items() if k != "measured_on"}))
    facts = read_approximate_index(table)
    assert facts is not None and facts.measured_on == "rows with noise"


def test_what_is_found_has_the_cosines_and_the_order_of_the_exact_search(tables: dict[int, Path]) -> None:
    queries = np.random.default_rng(1).standard_normal((6, WIDTH))
    opened = {layer: open_table(table) for layer, table in tables.items()}
    found = approximate_top_k(queries, opened, 5, dict.fromkeys(tables, 100))
    exact = cosine_top_k(queries, (block for layer, table in tables.items() for block in blocks(table, layer)), 6000)
    for query in range(6):
        known = dict(
            zip(zip(exact.contextual_layer[query], exact.key[query], strict=True), exact.cosine[query], strict=True)
        )
        answers = zip(found.contextual_layer[query], found.key[query], strict=True)
        assert [known[answer] for answer in answers] == found.cosine[query].tolist()
    assert (np.diff(found.cosine, axis=1) <= 0).all()


def test_an_index_of_an_older_version_is_not_believed(tmp_path: Path) -> None:
    table = _table(tmp_path, 1, 400)
    assert read_approximate_index(table) is None
    build_approximate_index(table)
    assert read_approximate_index(table) is not None
    commit_fragments(table, [tmp_path / "1.json"], "the same rows, without the index")
    assert measurement_file(table).is_file()
    assert read_approximate_index(table) is None


def test_the_fewest_partitions_that_reach_a_recall_are_looked_into() -> None:
    facts = ApproximateIndex(version=1, partitions=64, recall={4: 0.9, 16: 0.99, 64: 0.998}, queries=256)
    assert [facts.nprobes_for(recall) for recall in (0.5, 0.9, 0.95, 0.998, 0.999)] == [4, 4, 16, 64, None]
