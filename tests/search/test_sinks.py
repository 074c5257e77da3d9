"""Attention sinks: which states are sinks, and that an index and a study leave them out, count and mark them."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from latentlens_dag.index import approximate
from latentlens_dag.index.approximate import approximate_top_k, build_approximate_index
from latentlens_dag.index.lance_files import count_rows, open_table
from latentlens_dag.index.layer_tables import commit_fragments, write_fragments
from latentlens_dag.index.state_tables import write_states
from latentlens_dag.index.table_blocks import OwnRows, RowFilter, blocks, count_searched_rows, count_sinks
from latentlens_dag.schema import JUDGEMENTS, OCCURRENCES, SINKS
from latentlens_dag.search.exact import cosine_top_k
from latentlens_dag.search.sinks import outlier_norm, sink_norm
from latentlens_dag.study.interpretability import interpretability
from latentlens_dag.study.state_statistics import sink_tokens

SINKS_EVERY = 50


def _sinks(norms: np.ndarray, unit: np.ndarray, parts: int = 1) -> float:
    """The limit of states of these norms and directions, whose rows come in parts."""

    def rows_above(limit: float) -> list[tuple[np.ndarray, np.ndarray]]:
        rows = np.flatnonzero(norms > np.float32(limit))
        return [(norms[some], unit[some] * norms[some, None]) for some in np.array_split(rows, parts)]

    return sink_norm(norms, rows_above)


@given(st.lists(st.floats(0.5, 2.0, width=32), min_size=5, max_size=200), st.floats(7, 1e6, width=32))
def test_an_outlier_is_beyond_two_medians_and_ten_deviations_and_a_norm_far_above_all_others_is_one(
    norms: list[float], far: float
) -> None:
    usual = np.array(norms, np.float32)
    median = np.median(usual)
    slow = max(2 * median, median + 10 * np.median(abs(usual - median)))
    assert outlier_norm(usual) == pytest.approx(slow, rel=1e-6)
    with_sink = np.append(np.repeat(usual, 20), np.float32(20 * far))
    assert with_sink[-1] > outlier_norm(with_sink)


@pytest.mark.parametrize(
    ("norms", "outliers"),
    [
        ([], 0),
        ([5.0], 0),
        ([10.0] * 50 + [10.02], 0),  # many deviations (there are none), but no outlier by length
        ([10.0] * 50 + [21.0], 1),
        ([10.0] * 50 + [19.0], 0),
        ([*range(1, 100), 320], 1),  # 50 + 10 * 25
        ([*range(1, 100), 299], 0),
    ],
)
def test_an_outlier_is_ten_deviations_and_two_medians_off(norms: list[float], outliers: int) -> None:
    found = np.array(norms, np.float32)
    assert (found > outlier_norm(found)).sum() == outliers


@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize("width", [8, 64])
def test_long_states_are_sinks_only_where_they_share_a_direction(width: int, parts: int) -> None:
    random = np.random.default_rng(width)
    unit = random.standard_normal((1000, width))
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    norms = random.uniform(9, 11, 1000).astype(np.float32)
    loud, sinks = np.arange(0, 40), np.arange(40, 60)
    norms[loud] = 45  # long, and each of its own meaning
    assert _sinks(norms, unit, parts) == np.inf
    norms[sinks] = 5000
    unit[sinks] = unit[0] + random.standard_normal((20, width)) / 100
    limit = _sinks(norms, unit, parts)
    assert np.flatnonzero(norms > limit).tolist() == sinks.tolist()
    norms[loud] = 10
    limit = _sinks(norms, unit, parts)
    assert limit == outlier_norm(norms) and np.flatnonzero(norms > limit).tolist() == sinks.tolist()


@pytest.mark.parametrize("width", [8, 64])
@pytest.mark.parametrize(
    ("long", "sinks"),
    [
        ([], []),
        ([40.0], []),
        ([60.0], [60.0]),
        ([30.0, 70.0], [70.0]),
        ([35.0, 40.0, 45.0, 90.0, 130.0], []),  # of different directions, however long the longest is
        ([60.0] * 12, []),
    ],
)
def test_few_long_states_are_sinks_only_where_they_are_far_off_and_of_one_direction(
    long: list[float], sinks: list[float], width: int
) -> None:
    random = np.random.default_rng(width)
    unit = random.standard_normal((500, width))
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    unit[: len(long)] = np.resize(np.eye(width), (len(long), width))
    norms = random.uniform(9, 11, 500).astype(np.float32)
    norms[: len(long)] = long
    assert norms[norms > _sinks(norms, unit)].tolist() == sinks


@pytest.mark.parametrize(
    ("count", "length", "are_sinks"), [(9, 30, False), (10, 30, True), (3, 60, True), (10, 19, False)]
)
def test_states_of_one_direction_are_sinks_where_they_are_many_or_far_off(
    count: int, length: float, are_sinks: bool
) -> None:
    random = np.random.default_rng(0)
    unit = random.standard_normal((500, 16))
    unit[:count] = unit[0] + random.standard_normal((count, 16)) / 50
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    norms = random.uniform(9, 11, 500).astype(np.float32)
    norms[:count] = length
    assert (norms > _sinks(norms, unit)).sum() == (count if are_sinks else 0)


def _table(folder: Path, rows: int, sinks: str = "exclude", shards: int = 2, width: int = 8) -> Path:
    """A layer table in which every 50th row is a sink: one direction, and a hundred times the usual length."""
    random = np.random.default_rng(7)
    states = random.standard_normal((rows, width))
    states[::SINKS_EVERY] = 100 * np.ones(width) + random.standard_normal((len(states[::SINKS_EVERY]), width)) / 100
    norms = np.linalg.norm(states, axis=1)
    columns = {field.name: pa.nulls(rows, field.type) for field in OCCURRENCES}
    columns |= {
        "key": [f"{row:016x}" for row in range(rows)],
        "word": ["odd" if row % 2 else "even" for row in range(rows)],
    }
    occurrences = pa.table(columns, schema=OCCURRENCES)
    table, records = folder / "layer_01.lance", []
    for shard in range(shards):
        part = slice(rows * shard // shards, rows * (shard + 1) // shards)
        record = folder / f"{shard}.json"
        vectors = (states[part] / norms[part, None]).astype(np.float16)
        some = occurrences.slice(part.start, part.stop - part.start)
        write_fragments(table, record, some, vectors, norms[part].astype(np.float32))
        records.append(record)
    assert commit_fragments(table, records, "made by a test", sinks).sinks == (
        -(-rows // SINKS_EVERY) if sinks == "exclude" else 0
    )
    return table


def _nearest(table: Path, query: np.ndarray, k: int, **rows: Any) -> tuple[list[int], list[float]]:
    found = cosine_top_k(query[None], blocks(table, 1, RowFilter(**rows)), k)
    return found.key[0].tolist(), found.cosine[0].tolist()


def _slow(table: Path, query: np.ndarray, k: int, keep: np.ndarray) -> list[int]:
    vectors = np.array(open_table(table).to_table(columns=["vector"])["vector"].to_pylist(), np.float64)
    cosine = (vectors @ query / np.linalg.norm(vectors, axis=1) / np.linalg.norm(query)).astype(np.float32)
    cosine[~keep] = -np.inf
    return np.lexsort((np.arange(len(cosine)), -cosine))[:k].tolist()


@pytest.mark.parametrize("words", [None, ["even"]])
@pytest.mark.parametrize("rows", [200, 9000])
def test_sinks_are_no_answers_unless_they_are_asked_for(tmp_path: Path, rows: int, words: list[str] | None) -> None:
    table = _table(tmp_path, rows)
    query = np.ones(8)  # what every sink is nearest to
    number = np.arange(rows)
    with_word = (number % 2 == 0) if words else np.ones(rows, bool)
    usual = with_word & (number % SINKS_EVERY != 0)
    assert _nearest(table, query, 5, words=words)[0] == _slow(table, query, 5, usual)
    assert _nearest(table, query, 4, words=words, sinks=True)[0] == _slow(table, query, 4, with_word)
    own = OwnRows(np.array(_slow(table, query, 3, usual), np.uint64), np.zeros(3, np.int64))
    assert _nearest(table, query, 5, words=words, own=own)[0] == _slow(table, query, 8, usual)[3:]
    assert (count_rows(table), count_sinks(table)) == (rows, -(-rows // SINKS_EVERY))
    assert count_searched_rows(table, RowFilter(words)) == usual.sum()
    assert count_searched_rows(table, RowFilter(words, sinks=True)) == with_word.sum()


def test_an_index_that_includes_sinks_answers_with_them(tmp_path: Path) -> None:
    table = _table(tmp_path, 200, "include")
    assert count_sinks(table) == 0
    assert _nearest(table, np.ones(8), 4)[0] == _slow(table, np.ones(8), 4, np.ones(200, bool))


def test_the_content_of_a_table_says_whether_it_leaves_sinks_out(tmp_path: Path) -> None:
    contents = []
    for sinks, shards in (("exclude", 1), ("exclude", 2), ("include", 2)):
        _table(folder := tmp_path / f"{sinks}{shards}", 200, sinks, shards)
        records = [folder / f"{shard}.json" for shard in range(shards)]
        contents.append(commit_fragments(folder / "layer_01.lance", records, "again", sinks).content)
    assert len(set(contents)) == 3


def test_an_approximate_search_gives_no_sinks_even_to_a_query_that_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = _table(tmp_path, 4000)
    monkeypatch.setattr(approximate, "_QUERIES", 64)
    measured = build_approximate_index(table)
    for query in (np.ones(8), np.arange(8) - 3.0):
        found = approximate_top_k(query[None], {1: open_table(table)}, 5, {1: measured.partitions})
        assert not (found.key[0] % SINKS_EVERY == 0).any()
        assert len(set(found.key[0].tolist())) == 5 and np.isfinite(found.cosine).all()
    sampled = np.linspace(0, 3999, 64).astype(int)
    assert 0 < (sampled % SINKS_EVERY != 0).sum() == measured.queries < 64  # none of them is a sink


def test_the_sinks_of_a_study_are_found_over_all_its_batches(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    files = []
    for batch in range(2):
        states = random.standard_normal((40, 6)).astype(np.float32)
        states[3 * batch] = 1000 * np.arange(1, 7) + states[3 * batch]
        files.append(tmp_path / f"batch_{batch:02d}.lance")
        write_states(files[-1], [f"image{batch}"] * 40, np.arange(40, dtype=np.int32), states)
    files.append(tmp_path / "batch_02.lance")  # a batch without images
    write_states(files[-1], [], np.empty(0, np.int32), np.empty((0, 6), np.float32))
    quiet = tmp_path / "quiet.lance"
    write_states(quiet, ["image0"] * 40, np.arange(40, dtype=np.int32), np.ones((40, 6), np.float32))
    found = sink_tokens("s", {4: files, 0: [quiet]})
    assert found.schema == SINKS
    rows = [(row["study"], row["image_id"], row["token_index"], row["visual_layer"]) for row in found.to_pylist()]
    assert rows == [("s", "image0", 0, 4), ("s", "image1", 3, 4)]
    assert all(row["norm"] > row["sink_norm"] > 0 for row in found.to_pylist())
    assert sink_tokens("s", {}).equals(SINKS.empty_table())


def test_sinks_are_judged_apart_and_count_in_no_other_group() -> None:
    tokens = [("object", "concrete"), ("object", "none"), ("background", "none"), ("background", "global")] * 5
    rows = [
        {
            "study": "s",
            "image_id": f"image{number % 4}",
            "token_index": number,
            "visual_layer": layer,
            "lens": "latentlens",
            "judge": "regions",
            "verdict": verdict,
            "words": [],
            "patch_group": group,
            "chance_verdict": "none",
            "chance_counts": [0, 0, 0, 4],
            "first_verdict": verdict,
            "first_chance_counts": [0, 0, 0, 4],
        }
        for layer in (1, 2)
        for number, (group, verdict) in enumerate(tokens)
    ]
    judgements = pa.Table.from_pylist(rows, schema=JUDGEMENTS)
    without = interpretability(judgements, 5)
    assert interpretability(judgements, 5, SINKS.empty_table()).equals(without)
    sinks = [0, 2, 4]  # at layer 2 only: two objects that are concrete, and a background
    marked = pa.Table.from_pylist(
        [
            {
                "study": "s",
                "image_id": f"image{n % 4}",
                "token_index": n,
                "visual_layer": 2,
                "norm": 9.0,
                "sink_norm": 1.0,
            }
            for n in sinks
        ],
        schema=SINKS,
    )
    found = pl.from_arrow(interpretability(judgements, 5, marked))
    same = found.filter(visual_layer=1)
    assert same.equals(pl.from_arrow(without).filter(visual_layer=1))
    left = judgements.filter(pa.array([row["visual_layer"] != 2 or row["token_index"] not in sinks for row in rows]))
    others = found.filter(pl.col("patch_group") != "sink")
    assert others.equals(pl.from_arrow(interpretability(left, 5)))
    apart = found.filter(patch_group="sink", measure="concrete", k=5)
    assert apart.select("visual_layer", "tokens", "share").rows() == [(2, 3, 2 / 3)]
