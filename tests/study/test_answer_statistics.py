from __future__ import annotations

from collections import Counter
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latentlens_dag.schema import DIVERSITY, LAYER_ALIGNMENT, NEIGHBORS
from latentlens_dag.study.answer_statistics import diversity, layer_alignment
from latentlens_dag.study.intervals import shares
from tests.helpers.small_dataset import answer
from tests.text.test_inflection import same_word


def table(rows: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=NEIGHBORS)


def from_layer(visual_layer: int, contextual_layer: int, lens: str = "latentlens", study: str = "s") -> dict[str, Any]:
    return {**answer(study, "i", 0, visual_layer, lens, 1, "dog"), "contextual_layer": contextual_layer}


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("st"), st.integers(0, 2), st.integers(1, 3)), max_size=30), st.integers(1, 3))
def test_alignment_is_the_share_of_each_contextual_layer_however_the_answers_are_cut(
    drawn: list[tuple[str, int, int]], parts: int
) -> None:
    rows = [from_layer(visual, contextual, study=study) for study, visual, contextual in drawn]
    found = layer_alignment([table(rows[part::parts]) for part in range(parts)])
    assert found.schema == LAYER_ALIGNMENT
    counts, totals = Counter(drawn), Counter((study, visual) for study, visual, _ in drawn)
    expected = [(*place, count, count / totals[place[:2]]) for place, count in sorted(counts.items())]
    assert [tuple(row.values()) for row in found.to_pylist()] == expected


def test_answers_of_other_lenses_have_no_contextual_layer_and_do_not_count() -> None:
    rows = [from_layer(0, 4), {**from_layer(0, 4, "logitlens"), "contextual_layer": None}]
    assert layer_alignment(table(rows)).column("share").to_pylist() == [1.0]


def slow_distinct(words: list[str | None]) -> int:
    """The definition: an answer counts if no nearer one matches it."""
    letters = [word for word in words if word and any(character.isalpha() for character in word)]
    return sum(not any(same_word(word, nearer) for nearer in letters[:place]) for place, word in enumerate(letters))


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.lists(st.sampled_from(["dog", "Dogs", "leaves", "leaf", "leave", "roses", "rose", "3", None]), max_size=5),
        min_size=1,
        max_size=5,
    )
)
def test_diversity_is_the_mean_number_of_answers_that_match_no_nearer_one(tokens: list[list[str | None]]) -> None:
    tokens = [words for words in tokens if words]
    rows = [
        answer("s", "i", token, 0, "logitlens", rank, word)
        for token, words in enumerate(tokens)
        for rank, word in enumerate(words, start=1)
    ]
    found = diversity(table(rows[::-1])).to_pylist()
    if not tokens:
        assert found == []
        return
    assert [row["tokens"] for row in found] == [len(tokens)]
    assert found[0]["distinct_words"] == pytest.approx(sum(map(slow_distinct, tokens)) / len(tokens))


def test_diversity_is_per_lens_and_layer_in_their_order_and_sums_over_tables() -> None:
    def part(token: int, second: str) -> pa.Table:
        words = enumerate(("dog", second), start=1)
        return table(
            [answer("s", "i", token, layer, lens, rank, word) for rank, word in words for layer, lens in PLACES]
        )

    found = diversity([part(0, "dogs"), part(1, "cat")])
    assert found.schema == DIVERSITY
    assert [tuple(row.values()) for row in found.to_pylist()] == [
        ("s", "latentlens", "shared", 0, 2, 1, 1.5, None, None),  # one image says nothing about others
        ("s", "latentlens", "shared", 8, 2, 1, 1.5, None, None),
        ("s", "logitlens", "all", 8, 2, 1, 1.5, None, None),
    ]


def test_the_interval_of_distinct_words_is_that_of_their_share_among_all_answers_over_images() -> None:
    words = {"i": ["dog dogs", "cat owl"], "j": ["dog cat", "owl fox"], "k": ["sky sky"]}
    rows = [
        answer("s", image, token, 4, "logitlens", rank, word)
        for image, tokens in words.items()
        for token, said in enumerate(tokens)
        for rank, word in enumerate(said.split(), start=1)
    ]
    (row,) = diversity([table(rows[:4]), table(rows[4:])]).to_pylist()
    found = shares([3, 4, 1], [4, 4, 2])  # per image: answers that match no nearer one, and all
    assert (row["tokens"], row["images"], row["distinct_words"]) == (5, 3, 8 / 5)
    assert [row["low"], row["high"]] == pytest.approx([2 * float(found.low), 2 * float(found.high)])
    assert 0 < row["low"] < row["distinct_words"] < row["high"] < 2


PLACES = ((8, "logitlens"), (8, "latentlens"), (0, "latentlens"))


def test_no_answers_give_empty_tables() -> None:
    assert layer_alignment([]).equals(LAYER_ALIGNMENT.empty_table())
    assert diversity(NEIGHBORS.empty_table()).equals(DIVERSITY.empty_table())
