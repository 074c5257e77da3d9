"""The geometry of a real language model's states, and what a null answers in them: SmolLM2-135M-Instruct."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from latentlens_dag.index.contextual_index import ContextualIndex
from latentlens_dag.index.state_tables import write_states
from latentlens_dag.models.language_model import LanguageModel
from latentlens_dag.study.answer_statistics import layer_alignment
from latentlens_dag.study.lenses.base import LensInputs
from latentlens_dag.study.lenses.latentlens import LatentLens
from latentlens_dag.study.null_answers import null_answers
from latentlens_dag.study.state_statistics import state_statistics
from tests.real.senses import texts_and_corpus

ROOT = Path(__file__).parents[2]
LAYERS = [1, 2, 4, 8, 16, 24, 28, 29]
"""What `auto` gives for the model's 30 blocks."""


@pytest.fixture(scope="module")
def index(model: LanguageModel, tmp_path_factory: pytest.TempPathFactory) -> ContextualIndex:
    """120 sentences: 1,042 occurrences."""
    _, corpus = texts_and_corpus()
    path = tmp_path_factory.mktemp("geometry") / "index"
    return ContextualIndex.build(model, model.tokenizer, corpus, LAYERS, path=path)


@pytest.fixture(scope="module")
def statistics(index: ContextualIndex) -> dict[int, dict[str, float]]:
    """STATE_STATISTICS by contextual layer."""
    tables = {layer: Path(index.path) / f"layer_{layer:02d}.lance" for layer in LAYERS}
    return {row["layer"]: row for row in state_statistics("s", [], tables).to_pylist()}


def test_one_dimension_holds_a_seventh_of_the_length_at_layer_1_and_two_thirds_at_layer_29(
    statistics: dict[int, dict[str, float]],
) -> None:
    assert statistics[1]["top_dimension_share"] == pytest.approx(0.136, abs=0.005)
    assert statistics[29]["top_dimension_share"] == pytest.approx(0.675, abs=0.005)
    assert statistics[1]["top_dimension_share"] > 70 / statistics[1]["dimensions"]


def test_states_of_unrelated_sentences_have_a_cosine_of_a_quarter_at_layer_1_and_of_almost_three_at_layer_29(
    statistics: dict[int, dict[str, float]],
) -> None:
    assert statistics[1]["anisotropy"] == pytest.approx(0.277, abs=0.005)
    assert statistics[29]["anisotropy"] == pytest.approx(0.726, abs=0.005)


def test_the_documented_figures_are_those_of_the_model(statistics: dict[int, dict[str, float]]) -> None:
    text = (ROOT / "docs" / "geometry.md").read_text(encoding="utf-8")
    names = ("norm_median", "norm_max", "sinks", "anisotropy", "top_dimension", "top_dimension_share", "top_10_share")
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]
    told = {int(cells[0]): cells[1:] for cells in lines if len(cells) == len(names) + 1 and cells[0].isdigit()}
    assert list(told) == LAYERS
    for layer, cells in told.items():
        for name, cell in zip(names, cells, strict=True):
            number, last = cell.removesuffix(" %"), len(cell.removesuffix(" %").partition(".")[2])
            value = statistics[layer][name] * (100 if cell.endswith("%") else 1)
            assert value == pytest.approx(float(number), abs=0.6 * 10**-last), (layer, name)


def test_some_early_layers_have_sinks_beyond_the_first_token_and_their_norms_stand_out(
    statistics: dict[int, dict[str, float]],
) -> None:
    assert {layer: row["sinks"] for layer, row in statistics.items() if row["sinks"]} == {4: 38, 8: 36}
    assert statistics[4]["norm_p99"] > 7 * statistics[4]["norm_median"]


def test_states_that_mean_nothing_answer_from_layer_1_in_more_than_a_third_of_the_cases(
    model: LanguageModel, index: ContextualIndex, tmp_path: Path
) -> None:
    seen, files = model.text_states(texts_and_corpus()[0], [1, 16, 29]), {}
    ids, tokens = seen.sentence_ids(), seen.tokens
    place = tokens.select(pl.int_range(pl.len()).over("text_index"))["literal"].cast(pl.Int32).to_numpy()
    for layer, states in seen.states.items():
        write_states(tmp_path / f"{layer}.lance", ids, place, states.numpy())
        files[layer] = [tmp_path / f"{layer}.lance"]
    inputs = LensInputs(lambda: index, lambda needs: pytest.fail(str(needs)))
    null = list(null_answers(LatentLens("s", 5), files, inputs))
    read = {layer: index.search(states, 1, sentence_ids=ids).contextual_layer for layer, states in seen.states.items()}
    found = {
        (row["visual_layer"], row["contextual_layer"]): row["null_share"]
        for row in layer_alignment(null, null).to_pylist()
    }
    for layer in files:
        assert 0.33 < found[layer, 1] < 0.5, found
        assert np.mean(read[layer] == layer) > 0.85  # the tokens themselves answer from their own layer
