import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from latentlens_dag.dataset.named_queries import named_queries
from latentlens_dag.errors import UserError
from latentlens_dag.index.contextual_index import ContextualIndex
from latentlens_dag.index.encode import LayerVectors, encode
from latentlens_dag.index.folder import IndexFolder
from latentlens_dag.index.layer_tables import commit_fragments, write_fragments
from latentlens_dag.index.occurrence_lookup import OccurrenceLookup, word_labels
from latentlens_dag.index.occurrences import candidates
from latentlens_dag.index.state_tables import TokenStates
from latentlens_dag.models.hooks import capture_hidden_states
from latentlens_dag.models.language_model import LanguageModel
from latentlens_dag.models.self_checks import noise_image
from latentlens_dag.models.vlm import Vlm
from latentlens_dag.models.vocabulary_parts import VocabularyNeeds, VocabularyParts, load_vocabulary_parts
from latentlens_dag.schema import DECLARED_LENSES, LENSES, SENTENCES
from latentlens_dag.storage.hashing import text_id
from latentlens_dag.storage.parquet import write_parquet
from latentlens_dag.study.lenses import vocabulary
from latentlens_dag.study.lenses.base import Lens, LensInputs, Unique
from latentlens_dag.study.lenses.embeddinglens import EmbeddingLens
from latentlens_dag.study.lenses.latentlens import LatentLens
from latentlens_dag.study.lenses.logitlens import LogitLens
from latentlens_dag.study.lenses.registry import lens_class
from latentlens_dag.study.lenses.vocabulary import VocabularyLens, top_k_lowest_index_first, top_k_of_distinct_labels
from latentlens_dag.testing import SENTENCES as TEXTS


def _states(llava: Vlm, layer: int = 1) -> TokenStates:
    states = llava.visual_states([noise_image(60, 50)], [layer]).states[layer].numpy()
    return TokenStates(["image"] * len(states), np.arange(len(states), dtype=np.int32), states)


def test_logit_lens_after_the_last_block_gives_the_models_own_answer(llava: Vlm) -> None:
    inputs = llava.inputs([noise_image(60, 50)])
    with (
        capture_hidden_states(llava.language_model.decoder, [llava.depth], lambda s: s) as states,
        torch.inference_mode(),
    ):
        own = llava.model(**inputs).logits[0]
    found = LogitLens("study", 3).top_k(llava.language_model, states[llava.depth][0].numpy())
    values, ids = own.topk(3, dim=1)
    assert (found.token_id == ids.numpy()).all()
    assert np.allclose(found.score, values.numpy(), atol=1e-4)


def test_logit_lens_uses_the_models_soft_cap(llava: Vlm) -> None:
    capped = replace(llava.language_model, softcap=2.0)
    states = _states(llava).states
    plain, found = (LogitLens("study", 3).top_k(model, states) for model in (llava.language_model, capped))
    assert np.allclose(found.score, 2 * np.tanh(plain.score / 2), atol=1e-5)


def test_embedding_lens_ranks_by_cosine_to_the_input_embedding(llava: Vlm) -> None:
    states = _states(llava)
    found = EmbeddingLens("study", 5).top_k(llava.language_model, states.states)
    embedding = llava.language_model.embedding.detach()
    for row, state in enumerate(torch.from_numpy(states.states)):
        cosine = torch.cosine_similarity(state[None], embedding, dim=1)
        assert np.allclose(found.score[row], cosine.topk(5).values.numpy(), atol=1e-6)
        assert np.allclose(cosine[found.token_id[row]].numpy(), found.score[row], atol=1e-6)


def test_a_row_that_no_token_has_is_never_an_answer(llava: Vlm) -> None:
    """Rows that would win everywhere, after the last token: the answers, and their texts, are those without them."""
    model, at = llava.language_model, _states(llava)
    embedding, unembedding = model.embedding.detach(), model.unembedding.weight.detach()
    assert len(model.tokenizer) == len(embedding)
    winning = torch.from_numpy(at.states)
    head = torch.nn.Linear(unembedding.shape[1], len(unembedding) + 2 * len(winning), bias=False)
    head.weight.data = torch.cat([unembedding, 1000 * winning, -1000 * winning])
    padded = replace(model, embedding=torch.cat([embedding, winning]), unembedding=head)
    for lens in (LogitLens("study", 3), EmbeddingLens("study", 3)):
        for labels in (None, word_labels(map(str, range(len(padded.embedding) + len(winning))))):
            found, plain = lens.top_k(padded, at.states, labels), lens.top_k(model, at.states, labels)
            assert (found.token_id == plain.token_id).all()
            assert np.allclose(found.score, plain.score, atol=1e-5)
        table = lens.vocabulary_table(lens.name, 1, at, lens.top_k(padded, at.states), padded)
        assert table["word"].null_count == 0


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**31), width=st.integers(1, 30), k=st.integers(1, 8), levels=st.integers(1, 4))
def test_of_equal_scores_the_lower_column_comes_first(seed: int, width: int, k: int, levels: int) -> None:
    scores = torch.from_numpy(np.random.default_rng(seed).integers(0, levels, (6, width)).astype(np.float32))
    values, columns = top_k_lowest_index_first(scores, k)
    for row in range(6):
        slow = sorted(range(width), key=lambda column: (-scores[row, column].item(), column))[:k]
        assert columns[row].tolist() == slow
        assert values[row].tolist() == scores[row, slow].tolist()


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    width=st.integers(128, 1500),
    k=st.integers(1, 8),
    levels=st.sampled_from([2, 9, 1000]),
    lacking=st.sampled_from([0.0, 0.9, 1.0]),
)
def test_the_best_of_many_columns_are_those_of_a_sort_of_all(
    seed: int, width: int, k: int, levels: int, lacking: float
) -> None:
    """With groups of columns, columns in no group, ties inside and between groups, and columns of minus infinity."""
    random = np.random.default_rng(seed)
    scores = random.integers(0, levels, (6, width)).astype(np.float32)
    scores[:, random.random(width) < lacking] = -np.inf
    values, columns = top_k_lowest_index_first(torch.from_numpy(scores), k)
    slow = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    assert (columns.numpy() == slow).all()
    assert (values.numpy() == np.take_along_axis(scores, slow, 1)).all()


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**31), width=st.integers(1, 60), levels=st.integers(1, 9), different=st.integers(1, 9))
def test_of_columns_with_one_label_only_the_first_is_taken(seed: int, width: int, levels: int, different: int) -> None:
    random = np.random.default_rng(seed)
    scores = random.integers(0, levels, (6, width)).astype(np.float32)
    labels = random.integers(0, different, width)
    k = int(random.integers(1, len(set(labels.tolist())) + 1))
    _, columns = top_k_of_distinct_labels(torch.from_numpy(scores), k, torch.from_numpy(labels))
    for row, found in zip(scores, columns.tolist(), strict=True):
        in_order = sorted(range(width), key=lambda column: (-row[column], column))
        first = {int(labels[column]): column for column in reversed(in_order)}
        assert found == sorted(first.values(), key=in_order.index)[:k]
    with pytest.raises(ValueError, match="not 10 different"):
        top_k_of_distinct_labels(torch.from_numpy(scores), 10, torch.from_numpy(labels))


def test_one_word_in_two_cases_and_with_a_space_has_one_label() -> None:
    assert word_labels(["dog", " Dog", "cat", None, "", "DOG "]).tolist() == [0, 0, 1, 2, 2, 0]


def _tables(
    lens: Lens,
    states: Mapping[int, TokenStates],
    *,
    model: LanguageModel | None = None,
    index: ContextualIndex | None = None,
) -> list[pa.Table]:
    """What the lens says, layer by layer; it may read only what is given here."""

    def given(what: Any) -> Any:
        assert what is not None
        return what

    found = list(lens.neighbors(states, LensInputs(lambda: given(index), lambda needs: given(model))))
    assert [(answers.lens, answers.visual_layer) for answers in found] == [(lens.name, layer) for layer in states]
    return [answers.table for answers in found]


VOCABULARY_LENSES = [name for name in DECLARED_LENSES if issubclass(lens_class(name), VocabularyLens)]


@pytest.mark.parametrize("name", VOCABULARY_LENSES)
@pytest.mark.parametrize("unique", ["none", "word"])
def test_a_vocabulary_lens_says_the_same_by_its_part_of_the_model_and_by_the_whole(
    name: str, unique: Unique, llava: Vlm, llava_folder: Path
) -> None:
    lens, states = lens_class(name)("s", 8, unique), {1: _states(llava)}
    parts: list[VocabularyParts] = []

    def part(needs: VocabularyNeeds) -> VocabularyParts:
        part = load_vocabulary_parts(llava_folder, needs, "cpu")
        assert needs == lens.needs and isinstance(part, VocabularyParts)
        parts.append(part)
        return part

    (found,) = lens.neighbors(states, LensInputs(lambda: pytest.fail("no index is needed"), part))
    (expected,) = _tables(lens, states, model=llava.language_model)
    assert found.table.equals(expected) and len(parts) == 1


@pytest.mark.parametrize("name", VOCABULARY_LENSES)
def test_unique_answers_of_a_vocabulary_lens_are_different_words(llava: Vlm, name: str) -> None:
    uniques: tuple[Unique, ...] = ("none", "word")
    lenses = [lens_class(name)("s", 8, unique) for unique in uniques]
    (plain,), (unique,) = (_tables(lens, {1: _states(llava)}, model=llava.language_model) for lens in lenses)
    words = np.char.lower(np.array(unique["word"].to_pylist())).reshape(-1, 8)
    assert all(len(set(row)) == 8 for row in words.tolist())
    first = pa.compute.equal(plain["rank"], 1)
    assert plain.filter(first) == unique.filter(first)


@pytest.mark.parametrize("name", VOCABULARY_LENSES)
def test_vocabulary_answers_have_rank_token_and_word(llava: Vlm, name: str) -> None:
    at, filled = _states(llava), LENSES[name].score
    empty = ({"cosine", "logit"} - {filled}).pop()
    (table,) = _tables(lens_class(name)("s", 4), {1: at}, model=llava.language_model)
    rows = table.to_pylist()
    assert len(rows) == 4 * len(at.image_ids)
    assert [row["rank"] for row in rows[:4]] == [1, 2, 3, 4]
    assert all(row[filled] is not None and row[empty] is None and row["sentence_id"] is None for row in rows)
    assert all(row["word"] == row["token_str"].strip() for row in rows)


def _index(
    model: LanguageModel, folder: Path
) -> tuple[ContextualIndex, dict[str, str], pa.Table, dict[int, LayerVectors]]:
    """A small index in `folder`, its sentences by id, its occurrences and their vectors by layer."""
    texts = {text_id(text): text for text in sorted(TEXTS, key=text_id)}
    sentences = pa.table([list(texts), list(texts.values())], schema=SENTENCES)
    rows = candidates(model.tokenizer, sentences, "x", 3)
    encoded = encode(model, rows, sentences, [1, 2], folder)
    write_parquet(rows, folder / "occurrences.parquet")
    tables = {}
    for layer, found in encoded.items():
        tables[layer] = folder / f"layer_{layer:02d}.lance"
        write_fragments(tables[layer], folder / f"{layer}.json", rows, *found)
        commit_fragments(tables[layer], [folder / f"{layer}.json"], "a test")
    found = IndexFolder(folder, "x", "", tables, [folder / "occurrences.parquet"], folder / "none.parquet", len(rows))
    return ContextualIndex(found), texts, rows, encoded


def test_latent_lens_answers_are_the_nearest_text_states_of_any_layer(llava: Vlm, tmp_path: Path) -> None:
    index, texts, rows, encoded = _index(llava.language_model, tmp_path)
    at = {layer: _states(llava, layer) for layer in (0, 2)}
    answers = dict(zip(at, _tables(LatentLens("s", 3), at, index=index), strict=True))
    keys = rows["key"].to_pylist()
    for layer, table in answers.items():
        for row in table.to_pylist():
            state = at[layer].states[row["token_index"]]
            every = {
                (key, c): float(
                    vector.astype(np.float64)
                    @ state
                    / np.linalg.norm(vector.astype(np.float64))
                    / np.linalg.norm(state)
                )
                for c, found in encoded.items()
                for key, vector in zip(keys, found.vectors, strict=True)
            }
            best = sorted(every.values(), reverse=True)
            assert abs(row["cosine"] - best[row["rank"] - 1]) < 1e-5
            assert abs(every[row["key"], row["contextual_layer"]] - row["cosine"]) < 1e-5
            text = texts[row["sentence_id"]]
            assert text[row["char_start"] : row["char_end"]] == row["word"]


@pytest.mark.parametrize(("unique", "column"), [("word", "word"), ("sentence", "sentence_id")])
def test_unique_answers_differ_and_each_is_the_nearest_of_its_own(
    llava: Vlm, tmp_path: Path, unique: Unique, column: str
) -> None:
    index, *_, rows, _ = _index(llava.language_model, tmp_path)
    at = {1: _states(llava)}
    every = 2 * rows.num_rows  # both contextual layers
    (ordered,) = _tables(LatentLens("s", every), at, index=index)
    (found,) = _tables(LatentLens("s", 4, unique), at, index=index)
    for token in range(len(at[1].states)):
        all_answers = ordered.filter(pa.compute.equal(ordered["token_index"], token)).to_pylist()
        first = {str(row[column]).lower(): row for row in reversed(all_answers)}
        expected = sorted(first.values(), key=lambda row: row["rank"])[:4]
        answers = found.filter(pa.compute.equal(found["token_index"], token)).to_pylist()
        assert [row["rank"] for row in answers] == [1, 2, 3, 4]
        same = ("key", "contextual_layer", "cosine")
        assert [[row[name] for name in same] for row in answers] == [[row[name] for name in same] for row in expected]
    with pytest.raises(UserError, match=f"more answers than its index has different {unique}s"):
        _tables(LatentLens("s", every, unique), at, index=index)


def test_a_key_that_the_index_does_not_list_is_refused() -> None:
    from latentlens_dag.schema import OCCURRENCES

    columns = {field.name: pa.nulls(2, field.type) for field in OCCURRENCES}
    lookup = OccurrenceLookup(pa.table({**columns, "key": [f"{9:016x}", f"{2:016x}"]}, schema=OCCURRENCES))
    assert lookup.rows(np.array([9, 2, 9], np.uint64))["key"].to_pylist() == [f"{k:016x}" for k in (9, 2, 9)]
    for key in (1, 5, 2**64 - 1):  # below, between and above those that there are
        with pytest.raises(ValueError, match="does not list"):
            lookup.rows(np.array([key], np.uint64))
    assert len(lookup.rows(np.array([], np.uint64))) == 0


def test_a_row_of_the_embedding_without_direction_is_never_an_answer(llava: Vlm) -> None:
    embedding = llava.language_model.embedding.detach().clone()
    embedding[[0, 7]] = 0
    states = _states(llava).states
    found = EmbeddingLens("study", len(embedding)).top_k(replace(llava.language_model, embedding=embedding), states)
    assert (found.token_id[:, -2:] == [0, 7]).all()
    assert np.isneginf(found.score[:, -2:]).all()
    assert np.isfinite(found.score[:, :-2]).all()


def test_more_states_than_one_pass_takes_are_all_answered(llava: Vlm, monkeypatch: pytest.MonkeyPatch) -> None:
    states = _states(llava).states
    whole = LogitLens("study", 3).top_k(llava.language_model, states)
    monkeypatch.setattr(vocabulary, "_QUERIES_PER_PASS", 4)
    assert (LogitLens("study", 3).top_k(llava.language_model, states).token_id == whole.token_id).all()


@pytest.mark.parametrize("made", [LogitLens, EmbeddingLens])
def test_answers_are_the_same_bytes_for_any_number_of_threads(
    llava: Vlm, monkeypatch: pytest.MonkeyPatch, made: type[VocabularyLens]
) -> None:
    model, states, threads = llava.language_model, np.tile(_states(llava).states, (20, 1)), torch.get_num_threads()
    monkeypatch.setattr(vocabulary, "_QUERIES_PER_PASS", 16)
    found = []
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            assert vocabulary._threads(model, 9) == count
            found.append(made("study", 3).top_k(model, states))
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(threads)
    one, three = found
    assert (one.token_id == three.token_id).all()
    assert (one.score == three.score).all()


def test_while_the_answers_at_a_layer_are_used_those_at_the_next_one_are_computed_and_no_more(
    llava: Vlm, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Counted(LogitLens):
        def _pass(self, states: Any, *others: Any) -> Any:
            begun.release()
            return super()._pass(states, *others)

    begun, layers = threading.Semaphore(0), [_states(llava).states + shift for shift in range(4)]
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr(vocabulary, "_QUERIES_PER_PASS", len(layers[0]) // 2 + 1)  # two passes per layer
    found = Counted("study", 3).top_k_of_each(llava.language_model, layers, [vocabulary.Choice()])
    answers = [next(found)[0]]
    assert all(begun.acquire(timeout=20) for _ in range(4))
    assert not begun.acquire(timeout=0.2)
    answers += [of_layer[0] for of_layer in found]
    monkeypatch.undo()
    for of_layer, states in zip(answers, layers, strict=True):
        assert (of_layer.token_id == LogitLens("study", 3).top_k(llava.language_model, states).token_id).all()


def test_only_passes_over_a_small_vocabulary_are_computed_at_the_same_time(
    llava: Vlm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    assert [vocabulary._threads(llava.language_model, passes) for passes in (0, 1, 2, 9)] == [1, 1, 2, 3]
    monkeypatch.setattr(vocabulary, "_SMALL_VOCABULARY", llava.language_model.vocabulary_size - 1)
    assert vocabulary._threads(llava.language_model, 9) == 1


def test_answers_stand_by_image_token_and_rank(llava: Vlm) -> None:
    at = TokenStates(["a", "a", "b"], np.array([5, 6, 5], np.int32), _states(llava).states[:3])
    (table,) = _tables(LogitLens("s", 2), {2: at}, model=llava.language_model)
    found = [(row["image_id"], row["token_index"], row["rank"]) for row in table.to_pylist()]
    assert found == [(i, t, rank) for i, t in (("a", 5), ("a", 6), ("b", 5)) for rank in (1, 2)]
    best = LogitLens("study", 2).top_k(llava.language_model, at.states)
    assert table["token_id"].to_pylist() == best.token_id.ravel().tolist()
    assert set(table["visual_layer"].to_pylist()) == {2}


def test_the_lenses_keep_their_names_titles_and_scores() -> None:
    assert [(lens.name, lens.title, lens.score, lens.candidates) for lens in LENSES.values()] == [
        ("latentlens", "LatentLens", "cosine", "shared"),
        ("logitlens", "LogitLens", "logit", "all"),
        ("logitlens_shared", "LogitLens (shared)", "logit", "shared"),
        ("embeddinglens", "EmbeddingLens", "cosine", "all"),
        ("embeddinglens_shared", "EmbeddingLens (shared)", "cosine", "shared"),
    ]
    assert [lens_class(name).name for name in LENSES] == [lens.declared or name for name, lens in LENSES.items()]
    assert {name: lens_class(name).needs for name in DECLARED_LENSES} == {
        "latentlens": "index",
        "logitlens": "head",
        "embeddinglens": "embedding",
    }
    assert {lens_class(name).algorithm for name in LENSES} == {1}


def test_the_lenses_on_the_vocabulary_are_those_that_have_all_candidates() -> None:
    assert [lens.name for lens in DECLARED_LENSES.values() if lens.candidates == "all"] == VOCABULARY_LENSES


def test_the_wide_interpretability_query_has_a_share_and_a_chance_of_every_lens() -> None:
    sql = named_queries()["interpretability"].sql
    columns = [(lens, column) for lens in LENSES for column in (lens, f"{lens}_chance")]
    assert all(f"FILTER (lens = '{lens}') AS {column}" in sql for lens, column in columns)
