"""The generated text: what a caption must name, and how often the corpus says each word."""

from __future__ import annotations

import gzip
import itertools
import random
import re
from collections import Counter
from pathlib import Path

import pytest

from latentlens_dag.demo.corpus import SENTENCES, corpus_sentences, write_corpus
from latentlens_dag.demo.scenes import View, VisibleObject
from latentlens_dag.demo.text import Documents, judged_words
from latentlens_dag.demo.text_captions import LEARNED, _cells, caption, random_view
from latentlens_dag.demo.text_grammar import Sentences, finish, noun, place_phrase, plural_of, sections
from latentlens_dag.demo.world import World, load_world


@pytest.fixture(scope="module")
def world() -> World:
    return load_world()


@pytest.fixture(scope="module")
def corpus(world: World) -> list[str]:
    return corpus_sentences(world)


def words_of(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


@pytest.mark.parametrize("seed", range(200))
def test_a_caption_names_all_that_is_visible_and_nothing_else(world: World, seed: int) -> None:
    rng = random.Random(seed)
    view = random_view(world, rng)
    said = set(words_of(caption(world, view, rng)))
    seen = {item.name for item in view.objects} | {name for name in (view.upper, view.lower) if name}
    colors = {item.color for item in view.objects}
    assert seen <= said
    assert said & set(world.class_names) <= seen | colors


def test_a_view_of_one_background_has_a_caption(world: World) -> None:
    text = caption(world, View(None, "grass", ()), random.Random(0))
    assert "grass" in words_of(text)
    assert text.endswith(".")


def test_a_caption_of_nothing_is_a_sentence(world: World) -> None:
    assert caption(world, View(None, None, ()), random.Random(0)).endswith(".")


def test_an_orange_orange_is_called_an_orange(world: World) -> None:
    view = View(None, None, (VisibleObject("orange", "orange", "small", "left", "top"),))
    texts = [caption(world, view, random.Random(seed)) for seed in range(50)]
    assert not any("orange orange" in text for text in texts)


def test_documents_depend_on_their_seed_alone(world: World) -> None:
    forwards = [Documents(world).document(seed) for seed in range(40)]
    one = Documents(world)
    backwards = [one.document(seed) for seed in reversed(range(40))]
    assert forwards == backwards[::-1]
    assert len(set(forwards)) > 35


def tokens(text: str) -> list[str]:
    return re.findall(r"\w+|[^\w\s]", text.lower())


def test_no_word_that_is_learned_repeats_the_one_before_it(world: World) -> None:
    documents = Documents(world)
    for seed in range(1500):
        first, newline, rest = documents.marked(seed).partition("\n")
        flags = itertools.cycle((False, True)) if newline else (True,)
        words = [(word, flag) for text, flag in zip(LEARNED.split(first), flags, strict=False) for word in tokens(text)]
        told = [(word, True) for word in tokens(rest)]
        pairs = [*itertools.pairwise(words), *itertools.pairwise(told)]
        assert not [word for (before, _), (word, learned) in pairs if learned and word == before], first


def test_the_cells_of_a_passage_show_every_thing_of_the_view_and_nothing_else(world: World) -> None:
    sentences = Sentences(world)
    for seed in range(800):
        rng = random.Random(seed)
        view = random_view(world, rng)
        said = set(words_of(LEARNED.sub(" ", _cells(world, sentences, view, rng))))
        items = [world.object(seen.name) for seen in view.objects]
        grounds = [world.item(name) for name in (view.upper, view.lower) if name]
        assert {item.name for item in items} <= said
        assert said <= {word for item in (*items, *grounds) for word in item.concrete_words}


def test_a_set_asks_for_each_of_its_words_once_in_the_order_in_which_they_came(world: World) -> None:
    documents = Documents(world, "sets")
    bags = [text.split("\n") for text in map(documents.marked, range(200)) if "\n" in text]
    assert len(bags) > 150
    assert any(len(bag.split()) > len(asked.split()) for bag, asked in bags)
    assert all(list(dict.fromkeys(bag.split())) == asked.split() for bag, asked in bags)


def test_every_pattern_can_be_filled_for_every_thing_of_its_kind(world: World) -> None:
    sentences, rng = Sentences(world), random.Random(0)
    grounds = {
        key: [item for item in world.backgrounds if key in (item.half, "background")]
        for key in ("upper", "lower", "background")
    }
    for key, patterns in sections("patterns.txt").items():
        fitting = grounds.get(key) or [item for item in world.objects if item.category == key] or world.objects
        for pattern in patterns:
            for item in fitting:
                filled = sentences.fill(pattern, item, rng)
                assert "{" not in filled and filled[0] not in " a", filled


def test_every_category_and_half_has_patterns_of_its_own(world: World) -> None:
    known = sections("patterns.txt")
    assert {item.category for item in world.objects} <= set(known)
    assert len(known["background"]) >= 28 and len(known["upper"]) >= 20 and len(known["lower"]) >= 20


def test_articles_plurals_and_places_agree() -> None:
    assert finish("a apple and a dog. a owl") == "An apple and a dog. An owl"
    assert [plural_of(word) for word in ("cherry", "fox", "mouse", "bread", "scissors")] == [
        "cherries", "foxes", "mice", "bread", "scissors",
    ]  # fmt: skip
    assert noun("mountains").plural and not noun("bus").plural
    assert (place_phrase("hill"), place_phrase("garden")) == ("on the hill", "in the garden")


def test_the_corpus_has_distinct_sentences_of_natural_length(corpus: list[str]) -> None:
    assert len(corpus) == len(set(corpus)) == SENTENCES
    assert all(4 <= len(words_of(sentence)) <= 17 for sentence in corpus)


def test_the_corpus_says_every_word_in_many_sentences(world: World, corpus: list[str]) -> None:
    counts = Counter(word for sentence in corpus for word in set(words_of(sentence)))
    assert all(counts[item.name] >= 30 for item in world.objects)
    assert all(counts[item.name] >= 150 for item in world.backgrounds)
    assert all(counts[item.category] >= 20 for item in world.objects)
    parts = {part for item in (*world.objects, *world.backgrounds) for part in item.parts}
    assert all(counts[part] >= 12 for part in parts)
    assert all(counts[word] >= 1 for word in judged_words(world))


def test_the_corpus_file_has_the_same_bytes_each_time(world: World, tmp_path: Path) -> None:
    for name in ("one.gz", "two.gz"):
        assert write_corpus(world, tmp_path / name, seed=3, count=500) == 500
    assert (tmp_path / "one.gz").read_bytes() == (tmp_path / "two.gz").read_bytes()
    text = gzip.decompress((tmp_path / "one.gz").read_bytes()).decode("utf-8")
    assert text.splitlines() == corpus_sentences(world, seed=3, count=500)
