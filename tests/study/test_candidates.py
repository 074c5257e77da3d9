"""Shared candidates: the vocabulary lenses with the tokens that the index has, against masks made by hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from latentlens_dag.errors import UserError
from latentlens_dag.index.occurrence_lookup import word_labels
from latentlens_dag.index.state_tables import TokenStates
from latentlens_dag.models.language_model import LanguageModel
from latentlens_dag.models.self_checks import noise_image
from latentlens_dag.models.tokenization import token_texts
from latentlens_dag.models.vlm import Vlm
from latentlens_dag.schema import CANDIDATES, OCCURRENCES, Candidates
from latentlens_dag.storage.parquet import write_parquet
from latentlens_dag.study.candidates import candidates, tokens_of
from latentlens_dag.study.lenses.base import LensInputs, Unique
from latentlens_dag.study.lenses.embeddinglens import EmbeddingLens
from latentlens_dag.study.lenses.logitlens import LogitLens
from latentlens_dag.study.lenses.vocabulary import VocabularyLens

LENSES = (LogitLens, EmbeddingLens)
BOTH: tuple[Candidates, ...] = ("all", "shared")


@pytest.fixture(scope="module")
def states(llava: Vlm) -> dict[int, TokenStates]:
    """Two layers of one picture."""
    found = llava.visual_states([noise_image(60, 50)], [1, 2]).states
    ids = np.arange(len(found[1]), dtype=np.int32)
    return {layer: TokenStates(["image"] * len(ids), ids, one.numpy()) for layer, one in found.items()}


def answers(
    lens: VocabularyLens, states: Mapping[int, TokenStates], model: LanguageModel, ids: np.ndarray
) -> dict[tuple[str, int], pa.Table]:
    inputs = LensInputs(lambda: pytest.fail("no index is needed"), lambda _: model, shared_candidates=lambda: ids)
    return {(one.lens, one.visual_layer): one.table for one in lens.neighbors(states, inputs)}


def tokens(model: LanguageModel) -> np.ndarray:
    return np.array(sorted(set(model.tokenizer.get_vocab().values())), np.int32)


def slow(lens: VocabularyLens, model: LanguageModel, at: TokenStates, ids: np.ndarray) -> list[list[tuple[int, float]]]:
    """The k best of each state: every score, all but those of the candidates struck out, all of them sorted."""
    with torch.inference_mode():
        scores = lens.scorer(model)(torch.from_numpy(at.states.copy())).numpy()
    scores[:, np.setdiff1d(np.arange(scores.shape[1]), ids)] = -np.inf
    order = np.lexsort((np.broadcast_to(np.arange(scores.shape[1]), scores.shape), -scores))
    labels = word_labels(token_texts(model.tokenizer, range(scores.shape[1])).values())
    found = []
    for row, columns in enumerate(order.tolist()):
        seen: list[int] = []
        for column in columns:
            if lens.unique == "none" or labels[column] not in labels[seen]:
                seen.append(column)
            if len(seen) == lens.k:
                break
        found.append([(column, float(scores[row, column])) for column in seen])
    return found


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**31), count=st.integers(4, 90), unique=st.sampled_from(["none", "word"]))
@pytest.mark.parametrize("made", LENSES)
def test_the_answers_are_the_best_of_the_scores_where_all_other_tokens_are_struck_out(
    llava: Vlm, states: dict[int, TokenStates], made: type[VocabularyLens], seed: int, count: int, unique: Unique
) -> None:
    model, drawn = llava.language_model, np.random.default_rng(seed)
    ids = np.sort(drawn.choice(tokens(model), count, replace=False))
    different = len(set(word_labels(token_texts(model.tokenizer, ids.tolist()).values()).tolist()))
    lens = made("s", min(4, different if unique == "word" else count), unique, candidates=("shared",))
    for (name, layer), table in answers(lens, states, model, ids).items():
        assert name == f"{made.name}_shared" and set(table["lens"].to_pylist()) == {name}
        expected = [one for row in slow(lens, model, states[layer], ids) for one in row]
        assert table["token_id"].to_pylist() == [column for column, _ in expected]
        score = table["logit" if made is LogitLens else "cosine"]
        assert score.to_pylist() == [np.float32(one) for _, one in expected]


@pytest.mark.parametrize("made", LENSES)
@pytest.mark.parametrize("unique", ["none", "word"])
def test_both_sets_of_candidates_together_give_the_same_bytes_as_each_alone(
    llava: Vlm, states: dict[int, TokenStates], made: type[VocabularyLens], unique: Unique
) -> None:
    model, ids = llava.language_model, tokens(llava.language_model)[::2]
    together = answers(made("s", 4, unique, candidates=BOTH), states, model, ids)
    apart: dict[tuple[str, int], pa.Table] = {}
    for one in BOTH:
        apart |= answers(made("s", 4, unique, candidates=(one,)), states, model, ids)
    assert (
        together.keys() == apart.keys() == {(f"{made.name}{end}", layer) for end in ("", "_shared") for layer in (1, 2)}
    )
    assert all(together[place].equals(apart[place]) for place in together)
    assert not together[made.name, 1]["token_id"].equals(together[f"{made.name}_shared", 1]["token_id"])


@pytest.mark.parametrize("made", LENSES)
@pytest.mark.parametrize("unique", ["none", "word"])
def test_an_index_with_all_tokens_makes_shared_candidates_all_candidates(
    llava: Vlm, states: dict[int, TokenStates], made: type[VocabularyLens], unique: Unique
) -> None:
    model = llava.language_model
    found = answers(made("s", 5, unique, candidates=BOTH), states, model, tokens(model))
    for layer in states:
        one, other = found[made.name, layer], found[f"{made.name}_shared", layer]
        assert one.drop("lens").equals(other.drop("lens"))


@pytest.mark.parametrize("made", LENSES)
def test_a_state_is_scored_once_for_both_sets_of_candidates(
    llava: Vlm, states: dict[int, TokenStates], made: type[VocabularyLens], monkeypatch: pytest.MonkeyPatch
) -> None:
    scored: list[int] = []
    scorer: Callable[..., Any] = made.scorer

    def counted(lens: VocabularyLens, model: LanguageModel) -> Callable[[torch.Tensor], torch.Tensor]:
        own = scorer(lens, model)

        def scores(rows: torch.Tensor) -> torch.Tensor:
            scored.append(len(rows))
            return own(rows)

        return scores

    monkeypatch.setattr(made, "scorer", counted)
    answers(made("s", 3, candidates=BOTH), states, llava.language_model, tokens(llava.language_model)[:50])
    assert scored == [len(at.states) for at in states.values()]


def test_fewer_tokens_than_answers_are_refused_with_both_numbers(llava: Vlm, states: dict[int, TokenStates]) -> None:
    lens = LogitLens("s", 4, candidates=("shared",))
    with pytest.raises(
        UserError, match=r"`top_k: 4` and `candidates: shared` of Study s .* tokens \(3\): ask for fewer"
    ):
        answers(lens, states, llava.language_model, tokens(llava.language_model)[:3])


def test_fewer_different_words_than_answers_are_refused(llava: Vlm, states: dict[int, TokenStates]) -> None:
    model = llava.language_model
    texts = token_texts(model.tokenizer, tokens(model).tolist())
    labels = word_labels(texts.values())
    _, of_label, counts = np.unique(labels, return_inverse=True, return_counts=True)
    twice = tokens(model)[counts[of_label] > 1]
    ids = twice[np.isin(labels[counts[of_label] > 1], labels[counts[of_label] > 1][:1])]
    assert len(ids) >= 2  # one word in two spellings
    with pytest.raises(
        UserError, match=r"than its index, whose tokens are shared candidates, has different words \(1\)"
    ):
        answers(EmbeddingLens("s", 2, "word", candidates=("shared",)), states, model, ids)


def test_tokens_that_the_vocabulary_does_not_have_are_named(llava: Vlm, states: dict[int, TokenStates]) -> None:
    model = llava.language_model
    ids = np.append(tokens(model)[:9], [model.vocabulary_size + 3]).astype(np.int32)
    with pytest.raises(UserError, match=rf"has no token {model.vocabulary_size + 3}: the index was made with another"):
        answers(LogitLens("s", 4, candidates=BOTH), states, model, ids)


def occurrences(path: Path, ids: list[int]) -> Path:
    columns = {field.name: pa.nulls(len(ids), field.type) for field in OCCURRENCES}
    write_parquet(pa.table({**columns, "token_id": ids}).cast(OCCURRENCES), path, OCCURRENCES)
    return path


def test_the_candidates_of_latentlens_and_of_shared_lenses_are_the_tokens_of_all_occurrences(tmp_path: Path) -> None:
    files = [occurrences(tmp_path / "[0].parquet", [9, 4, 9]), occurrences(tmp_path / "1.parquet", [7, 4])]
    found = candidates("s", ["embeddinglens_shared", "embeddinglens", "latentlens"], 3, files)
    assert found.schema == CANDIDATES
    lenses = ("latentlens", "embeddinglens_shared")
    assert [tuple(row.values()) for row in found.to_pylist()] == [("s", lens, i) for lens in lenses for i in (4, 7, 9)]
    assert tokens_of(found, "embeddinglens_shared").tolist() == [4, 7, 9]
    assert tokens_of(found, "embeddinglens").tolist() == []
    with pytest.raises(UserError, match=r"`top_k: 4` and `candidates: shared` of Study s .* different tokens \(3\)"):
        candidates("s", ["logitlens_shared"], 4, files)
