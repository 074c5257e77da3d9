"""The null of the layer alignment: what states answer whose dimensions are shuffled."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from latentlens_dag.index.contextual_index import ContextualIndex
from latentlens_dag.index.state_tables import read_states, write_states
from latentlens_dag.study import null_answers as module
from latentlens_dag.study.answer_statistics import layer_alignment
from latentlens_dag.study.intervals import shares
from latentlens_dag.study.lenses.base import LensInputs
from latentlens_dag.study.lenses.latentlens import LatentLens
from latentlens_dag.study.null_answers import null_answers
from tests.helpers.planted_index import plant_index, planted_image_id

WIDTH, IMAGES, EACH = 32, 6, 5
LAYERS = (0, 3)
MEANT, EVERYWHERE = 5, 2
"""Contextual layers: of what the visual tokens mean, and of one direction to which all states lean."""


def _states(layer: int) -> np.ndarray:
    return np.random.default_rng(layer).standard_normal((IMAGES * EACH, WIDTH)) + 2


def _write(folder: Path, batches: int) -> dict[int, list[Path]]:
    """The visual tokens of all layers, image by image, in some batches."""
    image = np.repeat(np.arange(IMAGES), EACH)
    token = np.tile(np.arange(EACH, dtype=np.int32), IMAGES)
    found: dict[int, list[Path]] = {}
    for layer in LAYERS:
        for batch in range(batches):
            own = np.flatnonzero(image % batches == batch)
            path = folder / f"{layer}_{batch}_of_{batches}.lance"
            write_states(path, [planted_image_id(n) for n in image[own]], token[own], _states(layer)[own].astype("f4"))
            found.setdefault(layer, []).append(path)
    return found


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> ContextualIndex:
    """One layer has the visual states themselves, the other has states that all lean to one side."""
    meant = np.concatenate([_states(layer) for layer in LAYERS])
    leaning = 1 + 0.1 * np.random.default_rng(9).standard_normal(meant.shape)
    return plant_index(tmp_path_factory.mktemp("index"), {MEANT: meant, EVERYWHERE: leaning})


def _answers(index: ContextualIndex, files: dict[int, list[Path]], k: int = 1) -> pa.Table:
    inputs = LensInputs(lambda: index, lambda needs: pytest.fail(str(needs)))
    return pa.concat_tables(null_answers(LatentLens("s", k), files, inputs))


def test_shuffled_states_have_the_numbers_and_norms_of_the_tokens_in_another_order(tmp_path: Path) -> None:
    files = _write(tmp_path, 2)
    tokens = module._sampled_tokens(files[3])
    shuffled = module._shuffled(3, files[3], tokens)
    assert len(shuffled.states) == IMAGES * EACH
    real = {
        (one, int(token)): state
        for file in files[3]
        for found in [read_states(file)]
        for one, token, state in zip(found.image_ids, found.token_index, found.states, strict=True)
    }
    orders = set()
    for one, token, state in zip(shuffled.image_ids, shuffled.token_index, shuffled.states, strict=True):
        assert sorted(state) == sorted(real[one, int(token)])
        orders.add(tuple(np.argsort(real[one, int(token)])[np.argsort(np.argsort(state))]))
    assert len(orders) == IMAGES * EACH


def test_the_null_does_not_depend_on_how_batches_are_cut(
    index: ContextualIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_TOKENS", 11)
    one, other = (_answers(index, _write(tmp_path, batches)) for batches in (1, 3))
    assert one.equals(other) and len(one) == 11 * len(LAYERS)
    tokens = {(row["image_id"], row["token_index"]) for row in one.to_pylist()}
    assert len(tokens) == 11  # the same at every layer


def test_what_leans_to_one_side_answers_the_null_and_what_is_meant_the_tokens(
    index: ContextualIndex, tmp_path: Path
) -> None:
    files = _write(tmp_path, 2)
    inputs = LensInputs(lambda: index, lambda needs: pytest.fail(str(needs)))
    real = {layer: read_states(paths[0]) for layer, paths in files.items()}
    measured = pa.concat_tables([one.table for one in LatentLens("s", 1).neighbors(real, inputs)])
    found = layer_alignment(measured, _answers(index, files)).to_pylist()
    by_place = {(row["visual_layer"], row["contextual_layer"]): row for row in found}
    for layer in LAYERS:
        assert by_place[layer, MEANT]["share"] == 1 and by_place[layer, MEANT]["null_share"] < 0.2
        assert by_place[layer, EVERYWHERE]["share"] == by_place[layer, EVERYWHERE]["neighbors"] == 0
        assert by_place[layer, EVERYWHERE]["null_low"] > 0.6
        assert by_place[layer, MEANT]["null_tokens"] == IMAGES * EACH


def test_the_nulls_shares_are_their_definition_with_intervals_over_images(
    index: ContextualIndex, tmp_path: Path
) -> None:
    null = _answers(index, _write(tmp_path, 2), k=3)
    found = layer_alignment(null, null).to_pylist()
    rows = null.to_pylist()
    for row in found:
        own = [one for one in rows if one["visual_layer"] == row["visual_layer"]]
        hits = Counter(one["image_id"] for one in own if one["contextual_layer"] == row["contextual_layer"])
        images = sorted({one["image_id"] for one in own})
        expected = shares([hits[one] / 3 for one in images], [EACH] * IMAGES)
        assert row["null_share"] == pytest.approx(row["share"]) == pytest.approx(float(expected.share))
        assert (row["null_low"], row["null_high"]) == pytest.approx((float(expected.low), float(expected.high)))
    assert sum(row["null_share"] for row in found if row["visual_layer"] == 0) == pytest.approx(1)


def test_a_null_of_one_image_has_no_interval_and_no_tokens_have_no_null(index: ContextualIndex, tmp_path: Path) -> None:
    one, nothing = tmp_path / "one.lance", tmp_path / "nothing.lance"
    write_states(one, [planted_image_id(0)] * 2, np.arange(2, dtype=np.int32), _states(0)[:2].astype("f4"))
    write_states(nothing, [], np.empty(0, np.int32), np.empty((0, WIDTH), np.float32))
    null = _answers(index, {0: [nothing, one]})
    assert {(row["null_low"], row["null_high"]) for row in layer_alignment(null, null).to_pylist()} == {(None, None)}
    inputs = LensInputs(lambda: index, lambda needs: pytest.fail(str(needs)))
    assert list(null_answers(LatentLens("s", 1), {0: [nothing]}, inputs)) == []
    assert {row["null_share"] for row in layer_alignment(null).to_pylist()} == {None}
