"""The corpus of the demo's index: distinct sentences of natural length, one per line.

The index describes a patch by words in context, so every word that names a thing of the world
stands in many different sentences here, and backgrounds as ordinary nouns most of all: with fewer
than about thirty patterns for them "snow" and "carpet" were never read. Captions and prompts are
not in it; the model's own task would only describe itself.
"""

from __future__ import annotations

import gzip
import random
import re
from collections.abc import Callable, Iterator
from functools import partial
from itertools import repeat
from pathlib import Path

from latentlens_dag.demo.text import hand_written_sentences, judged_words
from latentlens_dag.demo.text_grammar import Sentences, plural_of
from latentlens_dag.demo.world import COLORS, World
from latentlens_dag.storage.files import atomic_path

SENTENCES = 28_000
PER_BACKGROUND = 5
"""Sentences of a background in a round; an object gets two."""
WORDS = re.compile(r"\w+")
MIN_WORDS, MAX_WORDS = 4, 16


def corpus_sentences(world: World, seed: int = 0, count: int = SENTENCES) -> list[str]:
    """`count` distinct sentences of 4 to 16 words in random order; the same seed gives the same list."""
    rng = random.Random(seed)
    found = dict.fromkeys(hand_written_sentences())
    plurals = _plurals(world)
    for make in _rounds(Sentences(world), world, rng):
        sentence = make()
        words = WORDS.findall(sentence.lower())
        if MIN_WORDS <= len(words) <= MAX_WORDS and plurals.isdisjoint(words):
            found[sentence] = None
        if len(found) >= count:
            break
    sentences = list(found)
    rng.shuffle(sentences)
    return sentences


def write_corpus(world: World, path: Path, seed: int = 0, count: int = SENTENCES) -> int:
    """Write the corpus gzipped, the same bytes for the same seed, and return its number of sentences."""
    sentences = corpus_sentences(world, seed, count)
    text = "".join(f"{sentence}\n" for sentence in sentences)
    with atomic_path(path) as partial_path:
        partial_path.write_bytes(gzip.compress(text.encode("utf-8"), compresslevel=9, mtime=0))
    return len(sentences)


def _plurals(world: World) -> set[str]:
    """Plurals that no judge asks for.

    Each is so rare that its states are learned badly and lie near everything: at the last layers a quarter of all
    wrong words were "carpets", "snowmen" and three more.
    """
    return {plural_of(word) for item in world.items for word in (item.name, *item.synonyms)} - set(judged_words(world))


def _rounds(sentences: Sentences, world: World, rng: random.Random) -> Iterator[Callable[[], str]]:
    """Functions that make a sentence, without end: in each round every item and category has its turn."""
    synonyms = [(item, word) for item in world.items for word in item.synonyms]
    while True:
        for thing in world.objects:
            yield from repeat(partial(sentences.about, thing, rng), 2)
        for ground in world.backgrounds:
            yield from repeat(partial(sentences.about, ground, rng), PER_BACKGROUND)
        for category in dict.fromkeys(thing.category for thing in world.objects):
            members = [thing for thing in world.objects if thing.category == category]
            yield partial(sentences.of, "category", rng.choice(members), rng)
        for item in world.items:
            yield partial(sentences.of, "part", item, rng)
        for item in rng.sample(world.items, len(world.items) // 3):
            yield partial(sentences.of, "place", item, rng)
        for item, word in rng.sample(synonyms, len(synonyms) // 4):
            yield partial(sentences.about, item, rng, called=word)
        yield from repeat(partial(sentences.color, rng), len(COLORS))
