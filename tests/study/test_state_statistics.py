from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from latentlens_dag.index.state_tables import write_states
from latentlens_dag.schema import STATE_STATISTICS
from latentlens_dag.study import state_statistics as module
from latentlens_dag.study.state_statistics import StateFiles, state_statistics
from tests.helpers.released import write_index
from tests.helpers.released import write_warehouse as write_released

LAYERS, WIDTH = (0, 3, 8), 6
SIZES = (7, 1, 5)


def _states(batch: int, layer: int) -> np.ndarray:
    return np.random.default_rng((batch, layer)).standard_normal((SIZES[batch], WIDTH)).astype(np.float32) * (layer + 1)


def _write(path: Path, states: np.ndarray, first: int = 0) -> Path:
    ids = [f"image{number // 3}" for number in range(first, first + len(states))]
    write_states(path, ids, np.arange(first, first + len(states), dtype=np.int32), states)
    return path


@pytest.fixture
def batches(tmp_path: Path) -> list[StateFiles]:
    return [
        StateFiles(
            {layer: _write(tmp_path / f"{batch}_{layer}.lance", _states(batch, layer)) for layer in reversed(LAYERS)},
            _write(tmp_path / f"{batch}_connector.lance", _states(batch, 99)),
        )
        for batch in range(len(SIZES))
    ]


def _slow_cosine(layer: int, other: int) -> float:
    """The definition: token by token."""
    found = []
    for batch, size in enumerate(SIZES):
        for token in range(size):
            one, two = (_states(batch, at)[token].astype(np.float64) for at in (layer, other))
            found.append(sum(a * b for a, b in zip(one, two, strict=True)) / np.sqrt((one**2).sum() * (two**2).sum()))
    return float(np.mean(found))


def _slow_norms(layer: int) -> list[float]:
    return [float(np.sqrt((row.astype(np.float64) ** 2).sum())) for b in range(len(SIZES)) for row in _states(b, layer)]


@pytest.mark.parametrize("rows", [2, 3, 1000])
def test_lengths_and_drift_are_their_definitions_however_the_states_are_read(
    batches: list[StateFiles], rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_ROWS", rows)
    table = state_statistics("s", batches, {})
    assert table.schema == STATE_STATISTICS
    found = table.to_pylist()
    assert [(row["study"], row["source"], row["layer"], row["states"]) for row in found] == [
        ("s", "visual", 0, 13),
        ("s", "visual", 3, 13),
        ("s", "visual", 8, 13),
        ("s", "connector", None, 13),
    ]
    for row, layer in zip(found, (*LAYERS, 99), strict=True):
        norms = _slow_norms(layer)
        assert row["norm_mean"] == pytest.approx(np.mean(norms), rel=1e-6)
        quantiles = [row["norm_low"], row["norm_median"], row["norm_high"]]
        assert quantiles == pytest.approx(np.quantile(norms, [0.05, 0.5, 0.95]), rel=1e-6)
        assert row["cosine_to_first"] == pytest.approx(_slow_cosine(layer, 0), abs=1e-9)
    previous = [row["cosine_to_previous"] for row in found]
    assert previous[1:3] == pytest.approx([_slow_cosine(3, 0), _slow_cosine(8, 3)], abs=1e-9)
    assert previous[0] is None and previous[3] is None


def test_the_indexs_states_have_lengths_and_no_drift(tmp_path: Path) -> None:
    warehouse = write_released(tmp_path)
    write_index(warehouse, rows=51)
    found = state_statistics("s", [], {layer: warehouse.layer_table("words", layer) for layer in (2, 1)}).to_pylist()
    assert [(row["source"], row["layer"], row["states"]) for row in found] == [
        ("contextual", 1, 51),
        ("contextual", 2, 51),
    ]
    norms = np.concatenate(
        [
            np.linalg.norm(np.random.default_rng((2, shard)).standard_normal((size, 32)).astype(np.float32), axis=1)
            for shard, size in enumerate((26, 25))
        ]
    )
    assert found[1]["norm_mean"] == pytest.approx(norms.mean(), rel=1e-6)
    assert found[1]["norm_median"] == pytest.approx(np.median(norms), rel=1e-6)
    assert found[1]["cosine_to_previous"] is found[1]["cosine_to_first"] is None


def test_layers_of_other_tokens_are_refused(batches: list[StateFiles], tmp_path: Path) -> None:
    other = _write(tmp_path / "other.lance", _states(0, 3), first=1)
    mixed = batches[0]._replace(visual={**batches[0].visual, 3: other})
    with pytest.raises(ValueError, match=r"other\.lance is not of the tokens"):
        state_statistics("s", [mixed], {})


def test_no_states_give_an_empty_table(tmp_path: Path) -> None:
    empty = _write(tmp_path / "empty.lance", np.empty((0, WIDTH), np.float32))
    assert state_statistics("s", [StateFiles({0: empty}, None)], {}).equals(STATE_STATISTICS.empty_table())
