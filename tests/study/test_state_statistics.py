from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from latentlens_dag.index.state_tables import write_states
from latentlens_dag.schema import STATE_STATISTICS
from latentlens_dag.storage.warehouse import Warehouse
from latentlens_dag.study import state_statistics as module
from latentlens_dag.study.hubs import Hub
from latentlens_dag.study.state_statistics import StateFiles, state_statistics
from tests.helpers.planted_index import plant_index, stored
from tests.helpers.released import write_index
from tests.helpers.released import write_warehouse as write_released

LAYERS, WIDTH = (0, 3, 8), 6
SIZES = (7, 1, 5)


def _states(batch: int, layer: int) -> np.ndarray:
    return np.random.default_rng((batch, layer)).standard_normal((SIZES[batch], WIDTH)).astype(np.float32) * (layer + 1)


def _write(path: Path, states: np.ndarray, first: int = 0, name: str = "image") -> Path:
    ids = [f"{name}{number // 3}" for number in range(first, first + len(states))]
    write_states(path, ids, np.arange(first, first + len(states), dtype=np.int32), states)
    return path


@pytest.fixture
def batches(tmp_path: Path) -> list[StateFiles]:
    return [
        StateFiles(
            {
                layer: _write(tmp_path / f"{batch}_{layer}.lance", _states(batch, layer), name=f"{batch}_")
                for layer in reversed(LAYERS)
            },
            _write(tmp_path / f"{batch}_connector.lance", _states(batch, 99), name=f"{batch}_"),
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


def _slow_directions(layer: int) -> tuple[float, np.ndarray]:
    """Mean cosine of the pairs of different images, and the mean share of each dimension."""
    units, images = [], []
    for batch, size in enumerate(SIZES):
        states = _states(batch, layer).astype(np.float64)
        units += list(states / np.linalg.norm(states, axis=1, keepdims=True))
        images += [(batch, number // 3) for number in range(size)]
    pairs = [(i, j) for i in range(len(units)) for j in range(len(units)) if images[i] != images[j]]
    return float(np.mean([units[i] @ units[j] for i, j in pairs])), np.mean(np.square(units), axis=0)


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
        assert row["norm_p99"] == pytest.approx(np.quantile(norms, 0.99), rel=1e-6)
        assert row["norm_max"] == pytest.approx(max(norms), rel=1e-6)
        assert row["cosine_to_first"] == pytest.approx(_slow_cosine(layer, 0), abs=1e-9)
        anisotropy, shares = _slow_directions(layer)
        assert (row["sinks"], row["directions"], row["dimensions"]) == (0, 13, WIDTH)
        assert row["anisotropy"] == pytest.approx(anisotropy, abs=1e-9)
        assert (row["top_dimension"], row["top_10_share"]) == (int(np.argmax(shares)), pytest.approx(1))
        assert row["top_dimension_share"] == pytest.approx(max(shares))
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


def test_sinks_are_counted_and_their_direction_is_not(tmp_path: Path) -> None:
    usual = np.random.default_rng(0).standard_normal((60, 16))
    sinks = 300 * np.eye(16)[[5]] + 0.01 * np.random.default_rng(1).standard_normal((12, 16))
    both = np.concatenate([usual, sinks]).astype(np.float32)
    plant_index(tmp_path / "index", {3: both})
    files = StateFiles({0: _write(tmp_path / "visual.lance", both)}, None)
    table = Warehouse(tmp_path / "index").layer_table("words", 3)
    for row in state_statistics("s", [files], {3: table}).to_pylist():
        assert (row["states"], row["sinks"], row["directions"]) == (72, 12, 60)
        assert row["norm_max"] > 299 and row["norm_median"] < 6
        assert abs(row["anisotropy"]) < 0.05 and row["top_dimension_share"] < 0.15


def test_of_a_large_contextual_layer_a_sample_is_read_and_all_norms(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    states = np.random.default_rng(0).standard_normal((200, 16)) + 1
    plant_index(tmp_path, {1: states})
    table = Warehouse(tmp_path).layer_table("words", 1)
    (every,) = state_statistics("s", [], {1: table}).to_pylist()
    unit = stored(states)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    sentence = np.arange(200) % 50
    cosines = (unit @ unit.T)[sentence[:, None] != sentence]
    assert every["directions"] == 200 and every["anisotropy"] == pytest.approx(cosines.mean(), abs=1e-6)
    monkeypatch.setattr(module, "_SAMPLE", 50)
    (some,) = state_statistics("s", [], {1: table}).to_pylist()
    assert (some["states"], some["directions"], some["norm_max"]) == (200, 50, every["norm_max"])
    assert some["anisotropy"] == pytest.approx(every["anisotropy"], abs=0.05)


def test_a_hub_stands_in_the_row_of_its_source_and_layer(tmp_path: Path) -> None:
    plant_index(tmp_path, {1: np.eye(4)})
    hubs = {("contextual", 1): Hub(9, 4, 0.5, 2, "k", "w"), ("visual", 1): Hub(1, 1, 1.0, 1, "x", "y")}
    (row,) = state_statistics("s", [], {1: Warehouse(tmp_path).layer_table("words", 1)}, hubs).to_pylist()
    names = ("hub_tokens", "first_answers", "hub_share", "hub_layer", "hub_key", "hub_word")
    assert tuple(row[name] for name in names) == (9, 4, 0.5, 2, "k", "w")
