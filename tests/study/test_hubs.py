from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from latentlens_dag.schema import NEIGHBORS, SINKS
from latentlens_dag.storage.warehouse import Warehouse
from latentlens_dag.study import hubs as module
from latentlens_dag.study.hubs import Hub, text_hubs, visual_hubs
from tests.helpers.planted_index import plant_index, stored
from tests.helpers.small_dataset import answer

LAYERS = (1, 4)


def _answers(rows: list[tuple[int, int, int, str]]) -> pa.Table:
    """NEIGHBORS of (token, rank, contextual layer, key)."""
    made = [
        answer("s", "i", token, 2, "latentlens", rank, f"w{key}") | {"contextual_layer": layer, "key": key}
        for token, rank, layer, key in rows
    ]
    return pa.Table.from_pylist(made, schema=NEIGHBORS)


def _sinks(*tokens: int) -> pa.Table:
    rows = [dict(zip(SINKS.names, ("s", "i", token, 2, 9.0, 3.0), strict=True)) for token in tokens]
    return pa.Table.from_pylist(rows, schema=SINKS)


def test_the_hub_is_the_most_frequent_first_answer_however_the_answers_are_cut() -> None:
    first = [(0, 1, 1, "a"), (1, 1, 4, "a"), (2, 1, 1, "a"), (3, 1, 1, "b"), (0, 2, 4, "a"), (3, 2, 4, "a")]
    expected = {2: Hub(4, 3, 0.5, 1, "a", "wa")}
    assert visual_hubs([_answers(first)], _sinks()) == expected
    assert visual_hubs([_answers([row]) for row in reversed(first)], _sinks()) == expected


def test_other_lenses_and_sinks_do_not_count_and_the_lower_key_wins() -> None:
    table = _answers([(0, 1, 1, "b"), (1, 1, 1, "a"), (2, 1, 1, "c"), (3, 1, 1, "c")])
    other = pa.Table.from_pylist([answer("s", "i", 9, 2, "logitlens", 1, "x")], schema=NEIGHBORS)
    assert visual_hubs([table, other], _sinks(2, 3)) == {2: Hub(2, 2, 0.5, 1, "a", "wa")}
    assert visual_hubs([], _sinks()) == {}


def _slow(states: dict[int, np.ndarray], layer: int, rows: list[int], sentences: int) -> Counter[tuple[int, int]]:
    """Row by row: the nearest row of another sentence, over all layers."""
    found: Counter[tuple[int, int]] = Counter()
    for row in rows:
        query, best = stored(states[layer])[row], (-2.0, 0, 0)
        for other, every in states.items():
            for number, state in enumerate(stored(every)):
                if number % sentences != row % sentences:
                    cosine = float(np.float32(query @ state / np.linalg.norm(query) / np.linalg.norm(state)))
                    best = max(best, (cosine, -other, -number))
        found[-best[1], -best[2]] += 1
    return found


def test_a_hub_of_the_indexs_text_is_found_as_by_the_definition(tmp_path: Path) -> None:
    source = np.random.default_rng(0)
    states = {layer: source.standard_normal((40, 24)) for layer in LAYERS}
    states[4] += 1.5
    states[4][7] = 1.5  # the middle of all others
    index = plant_index(tmp_path, states)
    found = text_hubs(index, {layer: Warehouse(tmp_path).layer_table("words", layer) for layer in LAYERS})
    for layer in LAYERS:
        expected = _slow(states, layer, list(range(40)), 10)
        (contextual, row), count = min(expected.items(), key=lambda one: (-one[1], one[0]))
        hub = found[layer]
        assert (hub.tokens, hub.first_answers, hub.share) == (40, len(expected), count / 40)
        assert (hub.contextual_layer, hub.key, hub.word) == (contextual, f"{row:016x}", f"word{row}")
    assert found[4].word == "word7" and found[4].share > 0.4


def test_sinks_do_not_ask_and_a_sample_is_of_the_stated_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    states = np.random.default_rng(1).standard_normal((60, 16))
    states[:12] = 100 * np.ones(16) + 0.1 * states[:12]  # of one direction
    index = plant_index(tmp_path, {1: states})
    tables = {1: Warehouse(tmp_path).layer_table("words", 1)}
    assert text_hubs(index, tables)[1].tokens == 48
    monkeypatch.setattr(module, "_TEXT_TOKENS", 10)
    assert text_hubs(index, tables)[1].tokens == 10


def test_rows_of_one_sentence_have_no_hub(tmp_path: Path) -> None:
    index = plant_index(tmp_path, {1: np.eye(4)}, per_sentence=4)
    assert text_hubs(index, {1: Warehouse(tmp_path).layer_table("words", 1)}) == {}
