"""The public index: what `search` answers, what `open` takes for an index, what `build` writes and keeps."""

import errno
import json
import random
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from latentlens_dag import ContextualIndex, load_language_model
from latentlens_dag.errors import UserError
from latentlens_dag.index import approximate, build, encode, index_search, layer_tables
from latentlens_dag.index.approximate import ApproximateIndex
from latentlens_dag.index.folder import new_index
from latentlens_dag.index.search_result import TooFewNeighborsError
from latentlens_dag.models.vlm import Vlm
from latentlens_dag.storage.hashing import text_id, within_fraction
from latentlens_dag.storage.shapes import IndexShape
from latentlens_dag.testing import SENTENCES, tiny_tokenizer

MORE = ("The old dog sleeps.", "A DOG runs after the dog's ball.", "Snow covers the school.")


def _build(llava: Vlm, path: Path, sentences: Any = SENTENCES, **arguments: Any) -> ContextualIndex:
    given = {"layers": [0, 1, 2], "contexts_per_token": 5, **arguments}
    return ContextualIndex.build(llava.model, llava.processor.tokenizer, sentences, path=path, **given)


@pytest.fixture(scope="module")
def index(llava: Vlm, tmp_path_factory: pytest.TempPathFactory) -> ContextualIndex:
    return _build(llava, tmp_path_factory.mktemp("index") / "words", [*SENTENCES, *MORE])


@pytest.fixture
def states() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(6, 32))


def _rows(index: ContextualIndex, layers: list[int]) -> pl.DataFrame:
    """Every row of the layer tables, with its vector."""
    import lance

    frames = []
    for layer in layers:
        table = lance.dataset(str(index.path / f"layer_{layer:02d}.lance")).to_table()
        frames.append(pl.from_arrow(table).with_columns(pl.lit(layer, pl.Int32).alias("contextual_layer")))
    return pl.concat(frames)


def _slow(rows: pl.DataFrame, query: np.ndarray, k: int, label: str | None = None) -> list[tuple[float, int, str]]:
    """The definition: every cosine in float64, sorted by (cosine, layer, key), the first k (of different labels)."""
    vectors = np.array(rows["vector"].to_list(), np.float64)
    cosine = vectors @ query / np.linalg.norm(vectors, axis=1) / np.linalg.norm(query)
    columns = [rows[name].to_list() for name in ("contextual_layer", "key", label or "key")]
    every = sorted(
        (-c, layer, key, what) for c, layer, key, what in zip(cosine.astype(np.float32), *columns, strict=True)
    )
    found: dict[object, tuple[float, int, str]] = {}
    for number, (negative, layer, key, what) in enumerate(every):
        mark = number if label is None else what.lower()
        found.setdefault(mark, (-negative, layer, key))
    return list(found.values())[:k]


def _found(found: pl.DataFrame, query: int) -> list[tuple[int, str]]:
    mine = found.filter(pl.col("query") == query)
    return list(zip(mine["contextual_layer"], mine["key"], strict=True))


@pytest.mark.parametrize("layers", [None, [2], [2, 0]])
@pytest.mark.parametrize("unique", [None, "word", "sentence"])
def test_a_search_gives_what_the_definition_gives(
    index: ContextualIndex, states: np.ndarray, layers: list[int] | None, unique: Any
) -> None:
    found = index.search(states, k=4, layers=layers, unique=unique)
    frame = found.to_polars()
    label = {None: None, "word": "word", "sentence": "sentence_id"}[unique]
    rows = _rows(index, layers or index.layers)
    for number, query in enumerate(states):
        expected = _slow(rows, query, 4, label)
        assert _found(frame, number) == [(layer, key) for _, layer, key in expected]
        assert np.allclose(found.cosine[number], [cosine for cosine, _, _ in expected], atol=1e-6)
    assert found.cosine.shape == found.contextual_layer.shape == found.key.shape == (6, 4)
    assert frame["rank"].to_list() == [1, 2, 3, 4] * 6


@pytest.mark.parametrize("fraction", [0.3, 0.6])
@pytest.mark.parametrize("unique", [None, "word", "sentence"])
def test_of_a_fraction_only_rows_of_its_sentences_answer(
    index: ContextualIndex, states: np.ndarray, fraction: float, unique: Any
) -> None:
    every = _rows(index, index.layers)
    within = pl.Series([within_fraction(one, fraction) for one in every["sentence_id"]])
    rows = every.filter(within)
    assert 0 < rows["sentence_id"].n_unique() < every["sentence_id"].n_unique()
    k, label = rows["sentence_id"].n_unique(), {None: None, "word": "word", "sentence": "sentence_id"}[unique]
    done: list[tuple[int, int]] = []
    found = index.search(states, k, unique=unique, fraction=fraction, progress=lambda *rows: done.append(rows))
    for number, query in enumerate(states):
        expected = _slow(rows, query, k, label)
        assert _found(found.to_polars(), number) == [(layer, key) for _, layer, key in expected]
    assert done[-1] == (len(rows), len(rows))
    own = [rows["sentence_id"][0], *[None] * 5]
    others = index.search(states[:6], 1, fraction=fraction, sentence_ids=own, exact=False)
    mine = rows.filter(pl.col("sentence_id") != own[0])
    assert _found(others.to_polars(), 0) == [(layer, key) for _, layer, key in _slow(mine, states[0], 1)]
    assert "parts of an index" in others.method


def test_a_fraction_with_too_few_rows_sentences_or_words_is_refused(index: ContextualIndex, states: np.ndarray) -> None:
    with pytest.raises(UserError, match=r"there are rows \(0 of 1e-09 of the sentences, over 3 contextual layers\)"):
        index.search(states, 1, fraction=1e-9)
    with pytest.raises(UserError, match=r"than there are rows \(0 of this word of 1e-09 of the sentences, over"):
        index.search(states, 1, word="dog", fraction=1e-9)
    with pytest.raises(UserError, match=r"different sentences \(\d\)"):
        index.search(states, 9, unique="sentence", fraction=0.3)
    for fraction in (0.0, 1.5, float("nan")):
        with pytest.raises(UserError, match=r"`fraction=.*` must be above 0 and at most 1"):
            index.search(states, 1, fraction=fraction)


@pytest.mark.parametrize("unique", [None, "word", "sentence"])
def test_nested_parts_are_answered_as_each_by_itself_and_each_row_is_read_once(
    index: ContextualIndex, states: np.ndarray, unique: Any
) -> None:
    fractions, done, own = [0.3, 0.6, 1.0], list[tuple[int, int]](), [None] * 5
    own_text = [_rows(index, index.layers)["sentence_id"][0], *own]
    options: dict[str, Any] = {"unique": unique, "sentence_ids": own_text}
    k = 1 if unique == "sentence" else 2  # the smallest part has few sentences
    found = index.search_parts(states, fractions, k, progress=lambda *rows: done.append(rows), **options)
    alone = [index.search(states, k, fraction=fraction, **options) for fraction in fractions]
    for part, expected in zip(found, alone, strict=True):
        assert part.to_polars().equals(expected.to_polars())
        assert np.array_equal(part.cosine, expected.cosine)
    assert done[-1] == (len(index.layers) * index.rows,) * 2
    assert not np.array_equal(found[0].key, found[2].key)


def test_parts_that_are_none_or_out_of_order_or_too_small_are_refused(
    index: ContextualIndex, states: np.ndarray
) -> None:
    for fractions in ([], [0.5, 0.5], [0.6, 0.3]):
        with pytest.raises(UserError, match=r"must be ascending, each once, and one at least"):
            index.search_parts(states, fractions, 1)
    with pytest.raises(TooFewNeighborsError) as error:
        index.search_parts(states, [1e-9, 1.0], 1)
    assert error.value.fraction == 1e-9


def test_layers_that_are_not_merged_can_be_merged_later(index: ContextualIndex, states: np.ndarray) -> None:
    frame = index.search(states, k=3, merge=False).to_polars()
    assert frame.height == 6 * 3 * 3
    for number, query in enumerate(states):
        expected = [(layer, key) for at in index.layers for _, layer, key in _slow(_rows(index, [at]), query, 3)]
        assert _found(frame, number) == expected
    assert frame["rank"].to_list() == [1, 2, 3] * 18
    some = frame.filter(pl.col("contextual_layer") > 0)
    merged = some.sort("query", -pl.col("cosine"), "contextual_layer", "key").group_by("query", maintain_order=True)
    again = index.search(states, k=3, layers=[1, 2]).to_polars()
    assert (
        merged.head(3)
        .select("query", "contextual_layer", "key")
        .equals(again.select("query", "contextual_layer", "key"))
    )


@pytest.mark.parametrize("word", ["dog", "DOG", " Dog "])
def test_only_rows_of_the_word_answer_whatever_its_case(index: ContextualIndex, states: np.ndarray, word: str) -> None:
    rows = _rows(index, index.layers)
    mine = rows.filter(pl.col("word").str.to_lowercase() == "dog")
    assert set(mine["word"]) == {"dog", "DOG"}
    frame = index.search(states, k=4, word=word).to_polars()
    for number, query in enumerate(states):
        assert _found(frame, number) == [(layer, key) for _, layer, key in _slow(mine, query, 4)]
    apart = index.search(states, k=2, word=word, merge=False).to_polars()
    assert apart.height == 6 * 2 * 3
    assert set(apart["word"]) <= {"dog", "DOG"}


def test_a_word_is_not_read_as_sql(llava: Vlm, tmp_path: Path, states: np.ndarray) -> None:
    index = _build(llava, tmp_path / "x", ["We saw the dog's \\ ball", "it is ' quoted"], contexts_per_token=50)
    for word in ("dog's", "'", "\\"):
        assert set(index.search(states, k=1, word=word).to_polars()["word"]) == {word}
    with pytest.raises(UserError, match="has the word"):
        index.search(states, k=1, word="x') OR (true")


def test_every_answer_comes_with_its_sentence_and_the_place_of_its_word(
    index: ContextualIndex, states: np.ndarray
) -> None:
    frame = index.search(states, k=5).to_polars()
    assert frame.columns == [
        *("query", "rank", "word", "sentence", "token_id", "token_str", "char_start", "char_end", "position"),
        *("sentence_id", "key", "contextual_layer", "cosine"),
    ]
    for row in frame.to_dicts():
        assert row["sentence"] in (*SENTENCES, *MORE)
        assert row["sentence_id"] == text_id(row["sentence"])
        assert row["sentence"][row["char_start"] : row["char_end"]] == row["word"]
        assert row["token_str"].strip() in row["word"]


def test_a_state_finds_itself(index: ContextualIndex, llava: Vlm) -> None:
    ids = llava.processor.tokenizer(SENTENCES[0], return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        hidden = llava.language_model.decoder(input_ids=ids, output_hidden_states=True).hidden_states
    frame = index.search(hidden[2][0, 3:6], k=1, layers=[2]).to_polars()
    assert (frame["cosine"] > 0.999).all()
    assert frame["position"].to_list() == [2, 3, 4]
    assert set(frame["sentence"]) == {SENTENCES[0]}


def test_a_text_asks_with_every_token_and_is_not_answered_from_itself(
    index: ContextualIndex, llava_folder: Path
) -> None:
    model = load_language_model(llava_folder, device="cpu")
    texts = [SENTENCES[0], "An elephant sleeps.", f" {MORE[0]} "]
    seen = model.text_states(texts, [2])
    rows, found = _rows(index, [1, 2]), index.search(seen, k=4, layers=[1, 2]).to_polars()
    for query, (text, state) in enumerate(zip(seen.tokens["text_index"], seen.states[2].numpy(), strict=True)):
        others = rows.filter(pl.col("sentence_id") != text_id(texts[text].strip()))
        assert _found(found, query) == [(layer, key) for _, layer, key in _slow(others, state, 4)]
    states = seen.states[2]
    with_itself = index.search(seen, k=4, layers=[1, 2], own_sentence=True)
    assert with_itself.key.tolist() == index.search(states, k=4, layers=[1, 2]).key.tolist()
    ids = [text_id(texts[number].strip()) for number in seen.tokens["text_index"]]
    assert index.search(states, k=4, layers=[1, 2], sentence_ids=ids).to_polars().equals(found)
    assert index.search(seen, k=4, layers=[1, 2], exact=False).to_polars().equals(found)
    assert "different words" not in str(found) and set(found["query"]) == set(range(len(states)))


def test_a_language_model_as_it_is_loaded_makes_an_index(llava: Vlm, llava_folder: Path, tmp_path: Path) -> None:
    model = load_language_model(llava_folder, device="cpu")
    found = ContextualIndex.build(model, model.tokenizer, SENTENCES, [1], path=tmp_path / "x")
    same = _build(llava, tmp_path / "y", SENTENCES, layers=[1], contexts_per_token=50)
    assert _rows(found, [1]).drop("sentence_id").equals(_rows(same, [1]).drop("sentence_id"))


def test_a_wrong_question_of_texts_is_told(index: ContextualIndex, llava_folder: Path) -> None:
    seen = load_language_model(llava_folder, device="cpu").text_states(["A dog."], [1, 2])
    with pytest.raises(UserError, match=r"of the layers \[1, 2\]: ask an index with those of one"):
        index.search(seen)
    with pytest.raises(UserError, match=r"`texts` is one text, 'A dog.': give a list"):
        load_language_model(llava_folder, device="cpu").text_states("A dog.", [1])
    with pytest.raises(UserError, match=r"names 1 texts, but there are \d+ queries"):
        index.search(seen.states[1], sentence_ids=["0" * 16])


def test_a_sentence_beyond_the_models_positions_is_read_up_to_there_and_named(llava: Vlm, tmp_path: Path) -> None:
    long = "dog " * 300
    with pytest.warns(
        UserWarning, match=rf"than the 256 positions of .*: 1\. They are read up to .*{text_id(long.strip())}"
    ):
        found = _build(llava, tmp_path / "x", [*SENTENCES, long], contexts_per_token=400)
    positions = found.occurrences.rows(
        np.unique(_rows(found, [1])["key"].cast(pl.String).map_elements(lambda k: int(k, 16), pl.UInt64).to_numpy())
    )
    assert max(positions["position"].to_pylist()) == 254  # <bos> takes the first of 256


def test_sinks_are_counted_and_may_be_included(llava: Vlm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        layer_tables, "sink_norm", lambda norms, rows_above: float(np.sort(norms)[-4])
    )  # the three longest rows
    found = _build(llava, tmp_path / "without")
    assert found.sink_counts == {0: 3, 1: 3, 2: 3}
    every = _rows(found, [1])
    longest = every.sort("norm", descending=True).head(3)
    state = np.array(longest["vector"][0].to_list())
    (nearest, *_) = found.search(state[None], k=1, layers=[1], sinks=True).to_polars().to_dicts()
    assert nearest["key"] == longest["key"][0]
    answers = found.search(state[None], k=every.height - 3, layers=[1]).to_polars()
    assert not set(answers["key"]) & set(longest["key"])
    with pytest.raises(UserError, match="asks for more answers than there are rows"):
        found.search(state[None], k=every.height - 2, layers=[1])
    assert _build(llava, tmp_path / "with", sinks="include").sink_counts == {0: 0, 1: 0, 2: 0}
    with pytest.raises(UserError, match=r"`sinks='x'` must be 'exclude' or 'include'"):
        _build(llava, tmp_path / "wrong", sinks="x")


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
def test_states_may_be_of_any_floating_type_and_need_not_be_normalized(
    index: ContextualIndex, states: np.ndarray, dtype: str
) -> None:
    given = torch.from_numpy(10 * states).to(getattr(torch, dtype)).requires_grad_()
    found = index.search(given, k=3)
    expected = index.search(given.detach().double().numpy(), k=3)
    assert (found.key == expected.key).all()
    assert (found.cosine == expected.cosine).all()


def test_no_queries_have_no_answers(index: ContextualIndex) -> None:
    found = index.search(np.empty((0, 32)), k=3)
    assert found.cosine.shape == (0, 3)
    assert found.to_polars().height == 0


@pytest.mark.parametrize(
    ("shape", "arguments", "words"),
    [
        ((2, 31), {}, ["31", "32"]),
        ((32,), {}, ["(32,)", "state[None]"]),
        ((2, 32), {"layers": [1, 7]}, ["contextual layer 7", "0, 1, 2"]),
        ((2, 32), {"layers": []}, ["one layer at least"]),
        ((2, 32), {"k": 0}, ["`k` must be a whole number of at least 1, not 0"]),
        ((2, 32), {"k": 2.5}, ["not 2.5"]),
        ((2, 32), {"k": "5"}, ["not '5'"]),
        ((2, 32), {"layers": 2}, ["`layers=2`", "a list"]),
        ((2, 32), {"layers": "auto"}, ["`layers='auto'`", "a list"]),
        ((2, 32), {"layers": [1.5]}, ["whole numbers"]),
        ((2, 32), {"k": 10_000}, ["`k=10000`", "rows"]),
        ((2, 32), {"k": 90, "unique": "word"}, ["different words"]),
        ((2, 32), {"k": 3, "merge": False, "word": "yellow"}, ["`k=3`", "rows (2 of this word"]),
        ((2, 32), {"k": 2, "word": "dog", "unique": "word"}, ["different words (1)"]),
        ((2, 32), {"word": "do"}, ["'do'"]),
        ((2, 32), {"unique": "letter"}, ["'letter'"]),
    ],
)
def test_a_wrong_search_is_told(
    index: ContextualIndex, shape: tuple[int, ...], arguments: dict[str, Any], words: list[str]
) -> None:
    with pytest.raises(UserError) as error:
        index.search(np.ones(shape), **arguments)
    assert all(word in str(error.value) for word in words), error.value


def test_an_error_of_the_device_is_not_told_as_a_damaged_index(
    index: ContextualIndex, states: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    def out_of_memory(*args: object) -> None:
        raise RuntimeError("CUDA out of memory.")

    monkeypatch.setattr(index_search, "nested_top_k", out_of_memory)
    with pytest.raises(RuntimeError, match="CUDA out of memory"):
        index.search(states)


def test_a_part_of_the_queries_has_its_part_of_the_answers(index: ContextualIndex, states: np.ndarray) -> None:
    part = index.search(states, k=3)[2:4].to_polars()
    assert part.equals(index.search(states[2:4], k=3).to_polars())


def test_progress_ends_at_the_rows_that_were_read_where_sinks_are_left_out_or_a_word_is_asked_for(
    llava: Vlm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layer_tables, "sink_norm", lambda norms, rows_above: float(np.sort(norms)[-4]))
    index = _build(llava, tmp_path / "x")
    for options in ({}, {"merge": False}, {"word": "dog", "k": 1}):
        told: list[tuple[int, int]] = []
        index.search(np.ones((1, 32)), progress=lambda done, total: told.append((done, total)), **options)  # noqa: B023
        assert [done for done, _ in told] == sorted({done for done, _ in told})
        assert {total for _, total in told} == {told[-1][0]}


@pytest.mark.parametrize("bad", [0.0, np.nan, np.inf])
def test_a_query_without_direction_is_refused(index: ContextualIndex, states: np.ndarray, bad: float) -> None:
    states[3] = bad
    with pytest.raises(ValueError, match="row 3"):
        index.search(states)


@pytest.fixture(scope="module")
def indexed(llava: Vlm, tmp_path_factory: pytest.TempPathFactory) -> ContextualIndex:
    """An index whose tables count as large."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(approximate, "WORTH_ROWS", 10)
        return _build(llava, tmp_path_factory.mktemp("indexed") / "words", [*SENTENCES, *MORE])


def test_an_index_is_asked_where_it_reached_the_recall_and_says_so(
    indexed: ContextualIndex, states: np.ndarray
) -> None:
    found = indexed.search(states, k=3, exact=False, recall=0.5)
    assert re.fullmatch(r"IVF_RQ, nprobes \d+, recall@5 [01]\.\d{4}, measured on held-out rows", found.method)
    exact = indexed.search(states, k=3)
    assert exact.method == "exact"
    assert len(np.intersect1d(found.key, exact.key)) > 0.7 * len(np.unique(exact.key))
    assert (np.diff(found.cosine, axis=1) <= 0).all()


def test_a_recall_measured_on_given_states_is_used_and_said(indexed: ContextualIndex, states: np.ndarray) -> None:
    measured = indexed.measure_recall(states)
    assert list(measured.recall) == indexed.layers
    found = indexed.search(states, k=5, exact=False, recall=0.1, measured=measured)
    assert found.method.endswith("measured on 6 given states")


def test_small_tables_have_no_recall(index: ContextualIndex, states: np.ndarray) -> None:
    assert index.measure_recall(states).recall == {}


def test_a_recall_that_no_index_reached_is_answered_exactly_and_said(
    indexed: ContextualIndex, states: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    poor = ApproximateIndex(version=1, partitions=1, recall={1: 0.9}, queries=9)
    monkeypatch.setattr(approximate, "read_approximate_index", lambda _: poor)
    found = indexed.search(states, exact=False, recall=0.95)
    assert (
        found.method == "exact: a recall of 0.95 was asked for, the index of layer 0 reached 0.9000 on rows with noise"
    )
    assert (found.key == indexed.search(states).key).all()


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ({"unique": "word"}, "are exact"),
        ({"word": "dog", "k": 1}, "are exact"),
        ({"merge": False}, "are exact"),
        ({"k": 6}, "at most 5 answers"),
    ],
)
def test_what_an_index_cannot_answer_is_answered_exactly_and_said(
    indexed: ContextualIndex, states: np.ndarray, arguments: dict[str, Any], why: str
) -> None:
    found = indexed.search(states, exact=False, **arguments)
    assert found.method.startswith("exact: ")
    assert why in found.method
    assert (found.key == indexed.search(states, **arguments).key).all()


def test_small_tables_have_no_index_and_an_impossible_recall_is_refused(
    index: ContextualIndex, indexed: ContextualIndex, states: np.ndarray
) -> None:
    assert "has no index" in index.search(states, exact=False).method
    with pytest.raises(UserError, match=r"`recall=1.5` must be above 0 and at most 1"):
        indexed.search(states, exact=False, recall=1.5)


def test_an_index_says_what_it_is(index: ContextualIndex, llava_folder: Path) -> None:
    assert index.layers == [0, 1, 2]
    assert index.width == 32
    assert index.rows == _rows(index, [1]).height > 50
    assert index.language_model == llava_folder.name
    assert "layers=[0, 1, 2]" in repr(index)


def test_opening_and_searching_writes_nothing(index: ContextualIndex, states: np.ndarray) -> None:
    def content() -> dict[Path, float]:
        return {path: path.stat().st_mtime_ns for path in index.path.rglob("*")}

    before = content()
    ContextualIndex.open(index.path).search(states, word="dog", k=2).to_polars()
    assert content() == before


def _bytes(path: Path) -> dict[str, bytes]:
    found = [path / "sentences.parquet", path / "shape.json", *(path / "occurrences").iterdir()]
    return {file.name: file.read_bytes() for file in found}


@pytest.mark.parametrize("per_part", [100_000, 3])
def test_the_order_of_the_sentences_changes_no_byte(
    llava: Vlm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, per_part: int
) -> None:
    monkeypatch.setattr(build, "_SENTENCES_PER_PART", per_part)
    mixed = [*SENTENCES, *MORE, *SENTENCES[:3], "", "  "]
    random.Random(0).shuffle(mixed)
    first = _build(llava, tmp_path / "a", [*SENTENCES, *MORE])
    second = _build(llava, tmp_path / "b", iter(mixed))
    assert _bytes(tmp_path / "a") == _bytes(tmp_path / "b")
    assert len(list((tmp_path / "a" / "occurrences").iterdir())) == (1 if per_part > 3 else 4)
    assert _rows(first, [2]).equals(_rows(second, [2]))


def test_the_number_of_parts_changes_no_answer(
    llava: Vlm, tmp_path: Path, index: ContextualIndex, states: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "_SENTENCES_PER_PART", 2)
    other = _build(llava, tmp_path / "x", [*SENTENCES, *MORE])
    assert (other.search(states).key == index.search(states).key).all()


def test_building_again_reads_only_what_is_new(llava: Vlm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    real = encode.encode
    monkeypatch.setattr(
        encode, "encode", lambda m, rows, *a, **kw: (read.append(len(rows)), real(m, rows, *a, **kw))[1]
    )
    first = _build(llava, tmp_path / "x", contexts_per_token=50)
    second = _build(llava, tmp_path / "x", [*MORE, *SENTENCES], contexts_per_token=50)
    again = _build(llava, tmp_path / "x", [*SENTENCES, *MORE], contexts_per_token=50)
    assert read == [first.rows, second.rows - first.rows]
    assert 0 < first.rows < second.rows == again.rows
    fresh = _build(llava, tmp_path / "fresh", [*SENTENCES, *MORE], contexts_per_token=50)
    assert read[2:] == [second.rows]
    mine, theirs = _rows(again, [1]), _rows(fresh, [1])
    assert mine["key"].equals(theirs["key"])
    assert np.allclose(np.array(mine["vector"].to_list()), np.array(theirs["vector"].to_list()), atol=1e-3)
    assert [path.name for path in tmp_path.iterdir() if path.name not in {"x", "fresh"}] == []


def test_vectors_of_another_model_or_type_are_not_taken(
    llava: Vlm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import LlamaForCausalLM

    _build(llava, tmp_path / "x")
    read: list[int] = []
    real = encode.encode
    monkeypatch.setattr(
        encode, "encode", lambda m, rows, *a, **kw: (read.append(len(rows)), real(m, rows, *a, **kw))[1]
    )
    torch.manual_seed(1)
    other = LlamaForCausalLM(llava.model.config.text_config)
    for dtype in (torch.float32, torch.float64):
        found = ContextualIndex.build(
            other.to(dtype), llava.processor.tokenizer, SENTENCES, [0, 1, 2], 5, path=tmp_path / "x"
        )
    assert read == [found.rows, found.rows]
    assert found.language_model == "LlamaForCausalLM"


def test_dropout_is_off_while_an_index_is_built(llava: Vlm, tmp_path: Path) -> None:
    from transformers import LlamaForCausalLM

    config = llava.model.config.text_config.to_dict() | {"attention_dropout": 0.9}
    torch.manual_seed(1)
    model = LlamaForCausalLM(type(llava.model.config.text_config)(**config))
    given = (llava.processor.tokenizer, SENTENCES, [2], 5)
    quiet = ContextualIndex.build(model.eval(), *given, path=tmp_path / "quiet")
    dropping = ContextualIndex.build(model.train(), *given, path=tmp_path / "dropping")
    assert _rows(quiet, [2]).equals(_rows(dropping, [2]))
    assert all(module.training for module in model.modules())


def test_a_vlm_and_the_default_layers_will_do(llava: Vlm, tmp_path: Path, states: np.ndarray) -> None:
    index = ContextualIndex.build(llava, llava.processor.tokenizer, SENTENCES, path=tmp_path / "x")
    assert index.layers == [1, 2]
    assert index.search(states, k=2).key.shape == (6, 2)


def test_progress_counts_the_rows_to_the_whole(llava: Vlm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "_SENTENCES_PER_PART", 3)
    told: list[tuple[int, int]] = []
    index = _build(llava, tmp_path / "x", progress=lambda done, total: told.append((done, total)))
    assert told == sorted(told)
    assert told[-1] == (index.rows, index.rows)
    searched: list[tuple[int, int]] = []
    index.search(np.ones((1, 32)), merge=False, progress=lambda done, total: searched.append((done, total)))
    assert searched == sorted(searched)
    assert searched[-1] == (3 * index.rows, 3 * index.rows)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"sentences": "one text"}, "is one text"),
        ({"sentences": ["a", 3]}, "Sentence 1 (from 0) is 3"),
        ({"sentences": ["a" * 100_001]}, "100,001 characters"),
        ({"sentences": ["half \ud83d of it"]}, "surrogate"),
        ({"sentences": ["", " "]}, "not one sentence"),
        ({"sentences": ["a b"], "min_position": 9}, "`min_position`"),
        ({"layers": [3]}, "Layer 3"),
        ({"layers": []}, "names no layer"),
        ({"contexts_per_token": 0}, "`contexts_per_token=0`"),
        ({"min_position": -1}, "`min_position=-1`"),
        ({"fraction": 0.0}, "`fraction=0.0`"),
    ],
)
def test_a_wrong_build_is_told_and_leaves_nothing(
    llava: Vlm, tmp_path: Path, arguments: dict[str, Any], words: str
) -> None:
    with pytest.raises(UserError) as error:
        _build(llava, tmp_path / "x", **arguments)
    assert words in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_a_tokenizer_without_offsets_and_a_model_without_blocks_are_refused(llava: Vlm, tmp_path: Path) -> None:
    class Slow:
        is_fast = False

    with pytest.raises(UserError, match="not a fast one"):
        ContextualIndex.build(llava.model, Slow(), SENTENCES, path=tmp_path / "x")
    with pytest.raises(UserError, match="Linear, a Linear, cannot be read"):
        ContextualIndex.build(torch.nn.Linear(1, 1), tiny_tokenizer(), SENTENCES, path=tmp_path / "x")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_disk_that_cannot_be_written_is_told_and_the_old_index_stays(
    llava: Vlm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    old = _build(llava, tmp_path / "x")
    before = _bytes(tmp_path / "x")

    def full(*_: object) -> None:
        raise OSError(number, "the disk's own words")

    monkeypatch.setattr(build, "write_fragments", full)
    with pytest.raises(UserError, match="the disk's own words"):
        _build(llava, tmp_path / "x", MORE)
    assert _bytes(tmp_path / "x") == before
    assert ContextualIndex.open(tmp_path / "x").rows == old.rows
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_lances_word_for_a_full_disk_is_understood_and_other_errors_are_not_dressed_up(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No space left"), new_index(tmp_path / "x", ""):
        raise OSError("LanceError(IO): External error: No space left on device (os error 28)")
    with pytest.raises(OSError, match="something else"), new_index(tmp_path / "x", ""):
        raise OSError("something else")


def test_a_path_below_a_file_is_told(llava: Vlm, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        _build(llava, tmp_path / "file" / "x")


def test_a_folder_that_is_no_index_is_never_replaced(llava: Vlm, tmp_path: Path) -> None:
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="is no index"):
        _build(llava, tmp_path / "letters")
    assert (tmp_path / "letters" / "mine.txt").read_text() == "mine"
    (tmp_path / "empty").mkdir()
    assert _build(llava, tmp_path / "empty").rows


STEPS = {
    "sentences": (build, "write_texts"),
    "occurrences": (build, "write_parquet"),
    "states": (build, "encode_missing"),
    "fragments": (build, "write_fragments"),
    "commit": (build, "commit_fragments"),
    "shape": (IndexShape, "write"),
}


@pytest.mark.parametrize(("owner", "step"), STEPS.values(), ids=STEPS)
def test_an_interrupted_build_leaves_the_old_index_or_none(
    llava: Vlm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: Any, step: str
) -> None:
    for before in (None, _bytes):
        real = getattr(owner, step)

        def interrupted(*given: object, real: Any = real, **options: object) -> None:
            real(*given, **options)
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(owner, step, interrupted)
            with pytest.raises(KeyboardInterrupt):
                _build(llava, tmp_path / "x", MORE)
        if before is None:
            with pytest.raises(UserError, match="no index"):
                ContextualIndex.open(tmp_path / "x")
            _build(llava, tmp_path / "x")
        else:
            assert set(ContextualIndex.open(tmp_path / "x").sentences([text_id(t) for t in SENTENCES])["text"]) == set(
                SENTENCES
            )


def test_a_killed_build_leaves_the_old_index_or_none(llava_folder: Path, tmp_path: Path) -> None:
    code = """if True:
        import os, signal, sys
        from latentlens_dag import ContextualIndex, load_vlm
        vlm = load_vlm(sys.argv[1], device="cpu")
        def killed(done, total):
            os.kill(os.getpid(), signal.SIGKILL)
        for progress in (killed,) if sys.argv[3] == "first" else (lambda done, total: None, killed):
            sentences = ["the dog sleeps"] if progress is not killed else ["the dog runs far away"]
            ContextualIndex.build(vlm, vlm.processor.tokenizer, sentences, path=sys.argv[2], progress=progress)
    """
    for name in ("first", "second"):
        path = tmp_path / name
        run = subprocess.run([sys.executable, "-c", code, str(llava_folder), str(path), name], capture_output=True)
        assert run.returncode == -signal.SIGKILL, run.stderr
        if name == "first":
            with pytest.raises(UserError, match="no such folder"):
                ContextualIndex.open(path)
        else:
            found = ContextualIndex.open(path).search(np.ones((1, 32)), k=1, word="sleeps").to_polars()
            assert found["sentence"].to_list() == ["the dog sleeps"]


@pytest.fixture
def copy(index: ContextualIndex, tmp_path: Path) -> Path:
    shutil.copytree(index.path, tmp_path / "copy")
    return tmp_path / "copy"


def _shape(folder: Path, **changes: Any) -> None:
    shape = json.loads((folder / "shape.json").read_text()) | changes
    (folder / "shape.json").write_text(json.dumps({name: value for name, value in shape.items() if value is not None}))


def test_the_shape_says_in_which_dtype_the_states_are_and_may_lack_it(copy: Path) -> None:
    assert json.loads((copy / "shape.json").read_text())["dtype"] == "float32"
    _shape(copy, dtype=None)  # as of an index of 0.1
    assert ContextualIndex.open(copy).dtype == "float32"


def test_layers_that_the_shape_does_not_list_are_left_out(copy: Path, states: np.ndarray) -> None:
    _shape(copy, layers=[0, 2])
    opened = ContextualIndex.open(copy)
    assert opened.layers == [0, 2]
    assert set(opened.search(states).contextual_layer.ravel().tolist()) <= {0, 2}


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda folder: shutil.rmtree(folder), "no such folder"),
        (lambda folder: (folder / "shape.json").unlink(), "it has no shape.json"),
        (lambda folder: (folder / "shape.json").write_text("{"), "is damaged"),
        (lambda folder: (folder / "shape.json").write_text("[]"), "is damaged"),
        (lambda folder: (folder / "shape.json").write_text('{"parts": 1}'), "older version"),
        (lambda folder: _shape(folder, format=2), "format 2"),
        (lambda folder: _shape(folder, parts="many"), "is damaged"),
        (lambda folder: _shape(folder, language_model=None), "is damaged"),
        (lambda folder: _shape(folder, corpus="../../secret"), "is damaged"),
        (lambda folder: _shape(folder, layers=[]), "every layer is missing"),
        (lambda folder: _shape(folder, layers=[0, 5]), "layer_05.lance is missing"),
        (lambda folder: shutil.rmtree(folder / "layer_01.lance"), "layer_01.lance is missing"),
        (lambda folder: shutil.rmtree(folder / "layer_01.lance" / "_versions"), "layer_01.lance is missing"),
        (lambda folder: (folder / "sentences.parquet").unlink(), "sentences.parquet is missing"),
        (lambda folder: _shape(folder, parts=2), "shard_01.parquet is missing"),
        (lambda folder: _shape(folder, rows={"0": 5, "1": 5, "2": 5}), "half-built"),
    ],
)
def test_what_is_no_whole_index_is_refused(copy: Path, damage: Any, words: str) -> None:
    damage(copy)
    with pytest.raises(UserError) as error:
        ContextualIndex.open(copy)
    assert words in str(error.value)


def test_tables_of_different_models_are_refused(copy: Path, llava: Vlm, tmp_path: Path) -> None:
    from transformers import LlamaForCausalLM

    torch.manual_seed(1)
    other = LlamaForCausalLM(llava.model.config.text_config)
    given = (other, llava.processor.tokenizer, [*SENTENCES, *MORE], [1], 5)
    theirs = ContextualIndex.build(*given, path=tmp_path / "theirs")
    shutil.rmtree(copy / "layer_01.lance")
    shutil.copytree(theirs.path / "layer_01.lance", copy / "layer_01.lance")
    with pytest.raises(UserError, match="mixes models: contextual layer 0"):
        ContextualIndex.open(copy)


def test_an_index_in_a_warehouse_has_the_sentences_of_its_corpus(
    copy: Path, index: ContextualIndex, tmp_path: Path, states: np.ndarray, llava: Vlm
) -> None:
    inside = tmp_path / "home" / "warehouse" / "index" / "words"
    shutil.copytree(copy, inside)
    _shape(inside, corpus="text", rows=None)
    (tmp_path / "home" / "warehouse" / "corpus" / "text").mkdir(parents=True)
    (inside / "sentences.parquet").rename(tmp_path / "home" / "warehouse" / "corpus" / "text" / "sentences.parquet")
    assert ContextualIndex.open(inside).search(states).to_polars().equals(index.search(states).to_polars())
    with pytest.raises(UserError, match="index/words"):
        ContextualIndex.open(tmp_path / "home")
    with pytest.raises(UserError, match="belongs to a warehouse"):
        _build(llava, inside)


def test_a_model_that_reads_in_both_directions_is_indexed_by_whole_sentences(
    bidirectional: Vlm, tmp_path: Path
) -> None:
    built = _build(bidirectional, tmp_path / "words")
    model, tokenizer = bidirectional.language_model, bidirectional.processor.tokenizer
    texts = {text_id(text): text for text in SENTENCES}
    rows = _rows(built, [1]).to_dicts()
    assert len(rows) > 20
    for row in rows:
        ids = tokenizer(texts[row["sentence_id"]], return_tensors="pt")["input_ids"]
        with torch.inference_mode():
            state = model.decoder(input_ids=ids, output_hidden_states=True).hidden_states[1][0, row["position"] + 1]
        assert np.allclose(row["vector"], (state / state.norm()).numpy(), atol=2e-3)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("damaged", ["layer_02.lance/data/*.lance", "occurrences/shard_00.parquet"])
def test_a_damaged_file_is_told_and_how_to_mend_it(copy: Path, states: np.ndarray, damaged: str) -> None:
    for file in copy.glob(damaged):
        _cut(file)
    with pytest.raises(UserError, match=r"is damaged .* Build or import the index again") as raised:
        ContextualIndex.open(copy).search(states)
    assert str(copy) in str(raised.value)


def test_lost_data_of_a_table_is_told_even_after_it_was_opened(copy: Path, states: np.ndarray) -> None:
    opened = ContextualIndex.open(copy)
    for file in (copy / "layer_01.lance" / "data").iterdir():
        file.unlink()
    with pytest.raises(UserError, match="is damaged"):
        opened.search(states)


def test_a_file_and_an_unknown_format_are_no_index(copy: Path) -> None:
    with pytest.raises(UserError, match="it is a file"):
        ContextualIndex.open(copy / "shape.json")
    _shape(copy, format=0)
    with pytest.raises(UserError, match="format 0, which no version"):
        ContextualIndex.open(copy)


def test_a_processor_will_do_for_a_tokenizer_and_a_path_for_no_model(llava: Vlm, tmp_path: Path) -> None:
    built = ContextualIndex.build(llava, llava.processor, SENTENCES, path=tmp_path / "x")
    assert built.rows > 0
    with pytest.raises(UserError, match="load it first"):
        ContextualIndex.build("some/model", llava.processor.tokenizer, SENTENCES, path=tmp_path / "y")
    with pytest.raises(UserError, match=r"contexts_per_token=2.5` must be a whole number"):
        _build(llava, tmp_path / "y", contexts_per_token=2.5)
