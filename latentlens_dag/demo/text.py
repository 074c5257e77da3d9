"""The text the demo's language model learns from: a stream of short documents.

Four kinds, because each was found to matter: stories about one thing (what the words mean),
backgrounds as ordinary nouns (in one fixed phrase they cannot be read later), copies (the later
part repeats the earlier one) and passages with their caption (the prefix is read). With fluent
text alone a caption recalled 29 % of the objects of its passage, with copies 87 % (an earlier trial).

Repetitions of one word, like those of a picture's patches, are read but never learned: that would teach "the next
word is the same", which inflates LogitLens.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Literal

from latentlens_dag.demo.text_captions import LEARNED, PROMPT, caption, passage, random_view
from latentlens_dag.demo.text_grammar import Sentences, data_lines, finish, noun, word_lists
from latentlens_dag.demo.world import COLORS, Item, World


def judged_words(world: World) -> tuple[str, ...]:
    """Every word the judge may ask for, sorted: names, synonyms, categories, parts, places and colors."""
    words = {word for item in world.items for word in (*item.concrete_words, *item.abstract_words)}
    return tuple(sorted(words | set(COLORS)))


def hand_written_sentences() -> tuple[str, ...]:
    """The hand-written sentences of sentences.txt."""
    return data_lines("sentences.txt")


Lesson = Literal["lists", "sets", "copies", "all"]


class Documents:
    """Documents about a world; document `seed` is the same wherever and whenever it is made.

    A model that starts with all kinds at once learns late to read its prefix: after 800 steps it repeated
    nothing, while lists that are given twice taught it in fifty. Hence lessons: "lists" are only such lists; "sets"
    repeat words in any order and then give each once, as a caption names every object once however many patches
    show it; "copies" are mostly sentences with a list that is given twice; "all" is everything.
    """

    def __init__(self, world: World, lesson: Lesson = "all") -> None:
        """Documents of `lesson` about `world`."""
        self.world = world
        self._longest_list = 6 if lesson == "all" else 8
        self.sentences = Sentences(world)
        self._shares: dict[Callable[[random.Random], str], float] = {
            make: shares[("lists", "sets", "copies", "all").index(lesson)]
            for make, shares in {
                self._list: (1.0, 0.10, 0.10, 0.01),
                self._set: (0.0, 0.90, 0.15, 0.05),
                self._copy: (0.0, 0.0, 0.25, 0.05),
                self.captioned: (0.0, 0.0, 0.30, 0.42),
                self._story: (0.0, 0.0, 0.10, 0.20),
                self._mixed: (0.0, 0.0, 0.03, 0.08),
                self._backgrounds: (0.0, 0.0, 0.05, 0.12),
                self._hand_written: (0.0, 0.0, 0.02, 0.07),
            }.items()
        }

    def document(self, seed: int) -> str:
        """The document of `seed`, one or several lines."""
        return LEARNED.sub(r"\1", self.marked(seed))

    def marked(self, seed: int) -> str:
        """The document of `seed`, with the words of its passage that are LEARNED marked."""
        rng = random.Random(seed)
        (make,) = rng.choices(tuple(self._shares), tuple(self._shares.values()))
        return make(rng)

    def captioned(self, rng: random.Random) -> str:
        """A passage, marked, the prompt and the caption."""
        view = random_view(self.world, rng)
        return passage(self.world, self.sentences, view, rng) + PROMPT + caption(self.world, view, rng)

    def _story(self, rng: random.Random) -> str:
        """Sentences about one or two objects, which mention each other."""
        objects = tuple(rng.sample(self.world.objects, rng.choice((1, 2, 2))))
        return self._joined(lambda: self.sentences.about(rng.choice(objects), rng, objects), rng)

    def _mixed(self, rng: random.Random) -> str:
        """Sentences about colors, parts, places and things that have nothing to do with each other."""
        makers = (
            self.sentences.color,
            lambda r: self.sentences.of(r.choice(("part", "part", "place")), r.choice(self.world.items), r),
            lambda r: self.sentences.about(r.choice(self.world.objects), r),
        )
        return self._joined(lambda: rng.choice(makers)(rng), rng)

    def _backgrounds(self, rng: random.Random) -> str:
        """Backgrounds as ordinary nouns, with an object in between."""
        grounds = rng.sample(self.world.backgrounds, 2)

        def thing() -> Item:
            return rng.choice(self.world.objects) if rng.random() < 0.2 else rng.choice(grounds)

        return self._joined(lambda: self.sentences.about(thing(), rng), rng)

    def _hand_written(self, rng: random.Random) -> str:
        """Hand-written sentences."""
        return self._joined(lambda: rng.choice(hand_written_sentences()), rng)

    def _list(self, rng: random.Random) -> str:
        """A few names, given twice, half of the time in another order: a fixed order teaches only a distance."""
        words = rng.sample(self.world.class_names, rng.randint(2, 7))
        return f"{' '.join(words)}. {' '.join(reordered(words, 0.5, rng))}"

    def _set(self, rng: random.Random) -> str:
        """Names, each several times in any order, then each once in the order in which they came first."""
        names = rng.sample(self.world.class_names, rng.randint(1, 6))
        most = rng.choice((1, 2, 4))
        bag = [name for name in names for _ in range(rng.randint(1, most))]
        rng.shuffle(bag)
        return f"{' '.join(bag)}\n{' '.join(dict.fromkeys(bag))}"

    def _copy(self, rng: random.Random) -> str:
        """Sentences with a list of things that is given twice."""
        words = list(dict.fromkeys(self._listed(rng) for _ in range(rng.randint(2, self._longest_list))))
        again = reordered(words, 0.35, rng)
        person, person2 = rng.sample(word_lists()["person"], 2)
        slots = {"person": person, "person2": person2, "Person": capital(person), "Person2": capital(person2)}
        slots |= {"words": " ".join(words), "words2": " ".join(again)}
        slots |= {"list": self._enumerated(words), "list2": self._enumerated(again)}
        return finish(rng.choice(data_lines("copies.txt")).format(**slots))

    def _enumerated(self, words: list[str]) -> str:
        """ "a duck, some bread and a key", in the words' order."""
        phrases = [self._with_article(word) for word in words]
        return f"{', '.join(phrases[:-1])} and {phrases[-1]}" if len(phrases) > 1 else phrases[0]

    def _listed(self, rng: random.Random) -> str:
        items: tuple[Item, ...] = self.world.objects if rng.random() < 0.75 else self.world.backgrounds
        item = rng.choice(items)
        word = item.name if rng.random() < 0.75 else rng.choice((*item.concrete_words, *item.places))
        return f"{rng.choice(COLORS)} {word}" if rng.random() < 0.2 else word

    def _with_article(self, phrase: str) -> str:
        spoken = noun(phrase.split()[-1])
        return phrase if spoken.plural or spoken.mass else f"a {phrase}"

    def _joined(self, make: Callable[[], str], rng: random.Random) -> str:
        count = rng.choice((1, 2, 3, 4, 5))
        return " ".join(dict.fromkeys(make() for _ in range(count)))


def reordered(words: list[str], share: float, rng: random.Random) -> list[str]:
    """A copy of `words`, shuffled in `share` of all cases."""
    return rng.sample(words, len(words)) if rng.random() < share else list(words)


def capital(text: str) -> str:
    """`text` with a capital at its start."""
    return text[0].upper() + text[1:]
