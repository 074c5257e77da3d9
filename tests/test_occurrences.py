import random
from collections import defaultdict
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latentlens_dag.identity import digest, part_of, text_id
from latentlens_dag.occurrences import candidates, kept_rows, prefix_keys, select, token_texts, tokenize, word_span
from latentlens_dag.schema import OCCURRENCES, SENTENCES
from latentlens_dag.testing import SENTENCES as TEXTS
from latentlens_dag.testing import tiny_tokenizer
from latentlens_dag.warehouse import write_parquet

TOKENIZER = tiny_tokenizer()
MANY = [f"{a} {b}" for a in TEXTS for b in TEXTS] + [f"The dog {text.lower()}" for text in TEXTS]


def _table(texts: list[str]) -> pa.Table:
    rows = sorted((text_id(text), text) for text in set(texts))
    return pa.table([[i for i, _ in rows], [t for _, t in rows]], schema=SENTENCES)


def _kept(tmp_path: Path, texts: list[str], shards: int, cap: int, **options: float) -> list[dict]:
    files = []
    for shard in range(shards):
        mine = [text for text in texts if part_of(text_id(text), shards) == shard]
        file = tmp_path / f"{shards}_{shard}.parquet"
        write_parquet(candidates(TOKENIZER, _table(mine), "x", cap, **options), file, OCCURRENCES)
        files.append(file)
    write_parquet(select(files, cap), tmp_path / "selection.parquet")
    rows = [row for file in files for row in kept_rows(file, tmp_path / "selection.parquet").to_pylist()]
    return sorted(rows, key=lambda row: row["key"])


def _slow_definition(texts: list[str], cap: int, min_position: int = 1) -> set[tuple[str, str]]:
    """Per token the `cap` smallest keys, each with the smallest sentence that has the prefix."""
    owners: dict[str, str] = {}
    tokens: dict[str, int] = {}
    for text in texts:
        (sentence,) = tokenize(TOKENIZER, [text])
        for place, key in enumerate(prefix_keys(sentence.ids)):
            if not sentence.special[place] and place - 1 >= min_position:  # one special, at the beginning
                owners[key] = min(owners.get(key, "g"), text_id(text))
                tokens[key] = sentence.ids[place]
    by_token: dict[int, list[str]] = defaultdict(list)
    for key in sorted(owners):
        by_token[tokens[key]].append(key)
    return {(key, owners[key]) for keys in by_token.values() for key in keys[:cap]}


@pytest.mark.parametrize("shards", [1, 2, 5])
@pytest.mark.parametrize("cap", [1, 3, 50])
def test_the_kept_occurrences_are_those_of_the_slow_definition(tmp_path: Path, shards: int, cap: int) -> None:
    found = {(row["key"], row["sentence_id"]) for row in _kept(tmp_path, MANY, shards, cap)}
    assert found == _slow_definition(MANY, cap)


@settings(max_examples=10, deadline=None)
@given(order=st.randoms(use_true_random=False), shards=st.integers(1, 6), cap=st.integers(1, 4))
def test_order_and_shards_do_not_change_what_is_kept(
    tmp_path_factory: pytest.TempPathFactory, order: random.Random, shards: int, cap: int
) -> None:
    texts = MANY[:20]
    shuffled = order.sample(texts, len(texts))
    one = _kept(tmp_path_factory.mktemp("a"), texts, 1, cap)
    assert _kept(tmp_path_factory.mktemp("b"), shuffled, shards, cap) == one


def test_a_tenth_is_inside_the_whole_where_the_cap_does_not_bind(tmp_path: Path) -> None:
    part = {row["key"] for row in _kept(tmp_path, MANY, 2, 10_000, fraction=0.3)}
    whole = {row["key"] for row in _kept(tmp_path, MANY, 2, 10_000)}
    assert part < whole


@pytest.mark.parametrize("min_position", [0, 1, 2])
def test_positions_are_counted_in_real_tokens_from_min_position(tmp_path: Path, min_position: int) -> None:
    rows = _kept(tmp_path, MANY, 1, 10_000, min_position=min_position)
    assert min(row["position"] for row in rows) == min_position


def test_specials_are_never_kept(tmp_path: Path) -> None:
    ids = {row["token_id"] for row in _kept(tmp_path, MANY, 1, 10_000, min_position=0)}
    assert not ids & set(TOKENIZER.all_special_ids)


def test_the_word_is_the_one_around_the_token_in_its_sentence(tmp_path: Path) -> None:
    texts = {text_id(text): text for text in MANY}
    for row in _kept(tmp_path, MANY, 1, 10_000):
        assert texts[row["sentence_id"]][row["char_start"] : row["char_end"]] == row["word"]
    rows = [row for row in _kept(tmp_path, ["She put an apple there."], 1, 9) if row["word"] == "apple"]
    assert len(rows) > 1  # a word of several tokens: each carries the whole word
    assert {(row["char_start"], row["char_end"]) for row in rows} == {(11, 16)}


@pytest.mark.parametrize(
    ("text", "token", "word"),
    [
        ("that hat is a hat", (12, 13), "a"),  # not the "a" of "that"
        ("a well-known dog's tail", (2, 6), "well-known"),
        ("a well-known dog's tail", (16, 18), "dog's"),
        ("wait, what", (4, 5), ","),
        (" spaced out", (0, 7), "spaced"),
        ("naïve café", (6, 9), "café"),
        ("他看见狗了", (3, 4), "狗"),
        ("end.", (3, 4), "."),
        ("end. Go", (0, 4), "end."),  # a token that is more than its word
        ("go on ", (2, 6), "on"),
        ("a dog’s tail", (2, 5), "dog’s"),
    ],
)
def test_whole_words_are_found_from_character_spans(text: str, token: tuple[int, int], word: str) -> None:
    start, end = word_span(text, *token)
    assert text[start:end] == word


def test_a_piece_of_a_character_has_a_text_that_tells_it_from_others() -> None:
    ids = TOKENIZER("日本", add_special_tokens=False)["input_ids"]
    texts = token_texts(TOKENIZER, ids)
    assert len(set(texts.values())) == len(set(ids))
    assert not any("\ufffd" in text for text in texts.values())


def test_an_empty_shard_offers_nothing() -> None:
    assert candidates(TOKENIZER, _table([]), "x", 5).num_rows == 0


def test_a_token_without_text_is_given_as_the_tokenizer_writes_it() -> None:
    class Silent:
        def decode(self, ids: list[int], **options: bool) -> str:
            return "" if ids == [1] else "dog"

        def convert_ids_to_tokens(self, token_id: int) -> str:
            return f"<{token_id}>"

    assert token_texts(Silent(), [1, 2]) == {1: "<1>", 2: "dog"}


def test_a_key_is_the_hash_of_the_token_ids_up_to_and_with_its_own() -> None:
    assert prefix_keys([1, 70_000]) == [digest(bytes([1, 0, 0, 0])), digest(bytes([1, 0, 0, 0, 0x70, 0x11, 1, 0]))]
