"""English sentences about the things of the demo world, made from patterns.

The patterns are data: patterns.txt says what can be said about an animal, a tool or a background,
words.txt lists people, times and moods, colors.txt the colors a thing plausibly has. This module
knows only agreement: articles, plurals, "is" or "are", and the preposition of a place.

Variety is the point, not truth: the contextual state of a word that always stands in the same phrase
is bound to that phrase, and a patch that shows it is never read.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from latentlens_dag.demo.world import COLORS, Background, Item, World, WorldObject

SYNONYM_SHARE = 0.22
"""How often a sentence calls an item that has synonyms by one of them."""
SLOT = re.compile(r"\{(\w+)\}")
ARTICLE = re.compile(r"\b([Aa]) (?=[aeiou])(?!uni|eu|one |use)")


@dataclass(frozen=True)
class Noun:
    """A word and how it behaves in a sentence."""

    word: str
    plural: bool
    mass: bool

    @property
    def definite(self) -> str:
        """ "the dog"."""
        return f"the {self.word}"

    @property
    def bare(self) -> str:
        """ "snow", "mountains", but "a wall"."""
        return self.word if self.plural or self.mass else f"a {self.word}"


@cache
def data_lines(name: str) -> tuple[str, ...]:
    """The lines of a data file of this package, without comments and blank lines."""
    text = files("latentlens_dag.demo").joinpath(name).read_text(encoding="utf-8")
    return tuple(line for line in text.splitlines() if line.strip() and not line.startswith("#"))


@cache
def sections(name: str) -> dict[str, tuple[str, ...]]:
    """The patterns of a data file by section, such as "animal" or "objects upper"."""
    found: dict[str, list[str]] = {}
    current: list[str] = []
    for line in data_lines(name):
        if line.startswith("["):
            current = found.setdefault(line.strip("[]"), [])
        else:
            current.append(line)
    return {key: tuple(lines) for key, lines in found.items()}


@cache
def word_lists() -> dict[str, tuple[str, ...]]:
    """The lists of words.txt by name."""
    named = (line.split(": ", 1) for line in data_lines("words.txt"))
    return {name: tuple(words.split("; ")) for name, words in named}


@cache
def plausible_colors(name: str) -> tuple[str, ...]:
    """The colors colors.txt gives for a thing; all of them for a thing it does not know."""
    named = (line.split(": ", 1) for line in data_lines("colors.txt"))
    return tuple(color for color, words in named if name in words.split("; ")) or COLORS


@cache
def noun(word: str) -> Noun:
    """How `word` behaves, from its ending and the exceptions of words.txt."""
    lists = word_lists()
    plural = word.endswith("s") and not word.endswith("ss") and word not in lists["singular_in_s"]
    return Noun(word, plural, word in lists["mass"])


@cache
def plural_of(word: str) -> str:
    """ "dogs" for "dog"; words without a plural of their own stay as they are."""
    irregular = dict(pair.split("=") for pair in word_lists()["plurals"])
    if word in irregular:
        return irregular[word]
    if noun(word).plural or noun(word).mass:
        return word
    if word.endswith("y") and word[-2] not in "aeiou":
        return word[:-1] + "ies"
    return word + ("es" if word.endswith(("s", "x", "ch", "sh")) else "s")


@cache
def place_phrase(place: str) -> str:
    """The place with the preposition of places.txt: "on the hill", else "in the garden"."""
    for line in data_lines("places.txt"):
        phrase, words = line.split(": ", 1)
        if place in words.split("; "):
            return phrase.format(place)
    return f"in the {place}"


def finish(text: str) -> str:
    """Put "an" before vowels and a capital at the start of each sentence."""
    text = ARTICLE.sub(r"\1n ", text)
    return re.sub(r'(^|[.!?] |\n)("?)([a-z])', lambda match: match[1] + match[2] + match[3].upper(), text)


def without_article(text: str, nouns: Iterable[Noun]) -> str:
    """ "some bread" for "a bread", where a pattern's own article meets a noun that takes none."""
    for subject in nouns:
        if subject.plural or subject.mass:
            text = re.sub(rf"\b[Aa] ((?:\w+ )?{subject.word})\b", r"some \1", text)
    return text


def name_or_synonym(item: Item, rng: random.Random) -> str:
    """The item's name, or with SYNONYM_SHARE a synonym."""
    return rng.choice(item.synonyms) if item.synonyms and rng.random() < SYNONYM_SHARE else item.name


class Sentences:
    """Sentences about the things of a world, each drawn from a caller's generator."""

    def __init__(self, world: World) -> None:
        """Sentences about `world`."""
        self.world = world

    def about(self, item: Item, rng: random.Random, others: tuple[WorldObject, ...] = (), called: str = "") -> str:
        """A sentence about `item`; other things it mentions come from `others` (default: the whole world).

        It calls the item `called` (default: its name or a synonym). Half of the sentences use patterns of the
        item's own kind.
        """
        if isinstance(item, Background):
            (key,) = rng.choices((item.half, "background", "part", "place"), (44, 46, 6, 4))
        else:
            general = ("any", "any", "any", "part", "category", "place")
            key = item.category if rng.random() < 0.5 else rng.choice(general)
        return self.fill(self.pattern(key, rng), item, rng, others, called)

    def color(self, rng: random.Random) -> str:
        """A sentence in which a color is the point."""
        return self.fill(self.pattern("color", rng), rng.choice(self.world.objects), rng)

    def of(self, section: str, item: Item, rng: random.Random) -> str:
        """A sentence of one section of patterns.txt, such as part, place or category, about `item`."""
        return self.fill(self.pattern(section, rng), item, rng)

    def pattern(self, key: str, rng: random.Random) -> str:
        """One pattern of a section of patterns.txt; a category without patterns of its own uses those of "any"."""
        known = sections("patterns.txt")
        return rng.choice(known.get(key, known["any"]))

    def fill(
        self, pattern: str, item: Item, rng: random.Random, others: tuple[WorldObject, ...] = (), called: str = ""
    ) -> str:
        """The finished sentence: every slot of `pattern` gets its word."""
        slots = _Slots(self, item, rng, others)
        slots.noun = noun(called) if called else slots.noun
        text = SLOT.sub(lambda match: slots.word(match[1]), pattern)
        return finish(without_article(text, (slots.noun, slots.other_noun)))


class _Slots:
    """The words of one sentence; a slot that occurs twice gets the same word."""

    def __init__(self, sentences: Sentences, item: Item, rng: random.Random, others: tuple[WorldObject, ...]) -> None:
        self.rng = rng
        self.item = item
        pool = tuple(other for other in others if other is not item) or sentences.world.objects
        self.other = rng.choice(pool)
        self.noun = noun(name_or_synonym(item, rng))
        self.other_noun = noun(name_or_synonym(self.other, rng))
        self.part_noun, self.part_noun2 = map(noun, _two_words(item.parts, rng))
        self.colors = _two_colors(item.name, rng)
        self.sentences = sentences
        self._chosen: dict[str, str] = {}

    def word(self, slot: str) -> str:
        """The word for `slot`."""
        if slot not in self._chosen:
            self._chosen[slot] = self._make(slot)
        return self._chosen[slot]

    def _make(self, slot: str) -> str:
        if slot in _AGREEMENT:
            return _AGREEMENT[slot](self)
        lists = word_lists()
        for_adults = {self.item.name, self.other.name} & set(lists["for_adults"])
        choices = lists["adult" if slot.startswith("person") and for_adults else slot.rstrip("2")]
        taken = self._chosen.get(slot.rstrip("2"))
        return self.rng.choice([choice for choice in choices if choice != taken])

    def indefinite(self, subject: Noun, color: str) -> str:
        """ "a dog", "a small red apple", "some bread", "grapes"."""
        word = self.described(subject.word, color)
        if subject.plural or subject.mass:
            return f"some {word}" if self.rng.random() < 0.6 else word
        return f"a {word}"

    def definite(self, subject: Noun, color: str) -> str:
        """ "the dog", now and then with an adjective or "this"."""
        word = self.described(subject.word, color, 0.8)
        first = self.rng.random()
        near, far = ("these", "those") if subject.plural else ("this", "that")
        return f"{'the' if first < 0.86 else near if first < 0.93 else far} {word}"

    def described(self, word: str, color: str, plain: float = 0.62) -> str:
        """`word`, or `word` behind an adjective: a color, a size or a mood."""
        if self.rng.random() < plain:
            return word
        kind = self.rng.choice(("color", "color", "size", "mood", "both"))
        lists = word_lists()
        adjective = {
            "color": color,
            "size": self.rng.choice(("small", "large", "big", "little", "tiny", "huge")),
            "mood": self.rng.choice(lists["mood"]),
            "both": f"{self.rng.choice(('small', 'large', 'big'))} {color}",
        }[kind]
        return f"{adjective} {word}"

    def background(self, slot: str) -> Noun:
        """A background by slot: the sentence's own, or any of a half."""
        groups = {"ground": self.sentences.world.lower, "back": self.sentences.world.upper}
        group = groups.get(slot, tuple(it for it in self.sentences.world.backgrounds if it is not self.item))
        return noun(name_or_synonym(self.rng.choice(group), self.rng))

    @property
    def second(self) -> Noun:
        """Another background than the sentence's own, the same in the whole sentence."""
        if "bg2" not in self._chosen:
            self._chosen["bg2"] = self.background("bg2").word
        return noun(self._chosen["bg2"])


def _two_words(words: Iterable[str], rng: random.Random) -> tuple[str, str]:
    """Two words in random order; one word twice where there is no other."""
    found = list(words)
    rng.shuffle(found)
    return found[0], found[-1]


def _two_colors(name: str, rng: random.Random) -> tuple[str, str]:
    """A plausible color and any other."""
    first = rng.choice(plausible_colors(name))
    return first, rng.choice([color for color in COLORS if color != first])


def _number(subject: Noun, singular: str, plural: str) -> str:
    return plural if subject.plural else singular


def _category(item: Item) -> str:
    return item.category if isinstance(item, WorldObject) else "place"


_AGREEMENT: dict[str, Callable[[_Slots], str]] = {
    "a": lambda s: s.indefinite(s.noun, s.colors[0]),
    "the": lambda s: s.definite(s.noun, s.colors[0]),
    "name": lambda s: s.noun.word,
    "many": lambda s: plural_of(s.noun.word),
    "it": lambda s: _number(s.noun, "it", "them"),
    "its": lambda s: _number(s.noun, "its", "their"),
    "is": lambda s: _number(s.noun, "is", "are"),
    "was": lambda s: _number(s.noun, "was", "were"),
    "has": lambda s: _number(s.noun, "has", "have"),
    "other": lambda s: s.indefinite(s.other_noun, s.rng.choice(plausible_colors(s.other.name))),
    "theother": lambda s: s.definite(s.other_noun, s.rng.choice(plausible_colors(s.other.name))),
    "othername": lambda s: s.other_noun.word,
    "othermany": lambda s: plural_of(s.other_noun.word),
    "part": lambda s: s.part_noun.word,
    "apart": lambda s: s.part_noun.bare,
    "acpart": lambda s: _number(s.part_noun, "a ", "") * (not s.part_noun.mass) + f"{s.colors[0]} {s.part_noun.word}",
    "part2": lambda s: s.part_noun2.word,
    "pwas": lambda s: _number(s.part_noun, "was", "were"),
    "pis": lambda s: _number(s.part_noun, "is", "are"),
    "place": lambda s: s.rng.choice(s.item.places),
    "aplace": lambda s: noun(s.rng.choice(s.item.places)).bare,
    "in": lambda s: place_phrase(s.rng.choice(s.item.places)),
    "kind": lambda s: _category(s.item),
    "kinds": lambda s: plural_of(_category(s.item)),
    "kinda": lambda s: noun(_category(s.item)).bare,
    "color": lambda s: s.colors[0],
    "color2": lambda s: s.colors[1],
    "ground": lambda s: s.background("ground").word,
    "back": lambda s: s.background("back").word,
    "bg": lambda s: s.noun.word,
    "sbg": lambda s: s.noun.bare,
    "bg2": lambda s: s.second.word,
    "sbg2": lambda s: s.second.bare,
    "bwas": lambda s: _number(s.noun, "was", "were"),
    "b2was": lambda s: _number(s.second, "was", "were"),
    "bis": lambda s: _number(s.noun, "is", "are"),
    "bhas": lambda s: _number(s.noun, "has", "have"),
}
"""What each slot that is not a list of words.txt says."""
