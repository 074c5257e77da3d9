"""Base forms of English words: `apples` matches `apple`, `Dog's` matches `dog`, `running` matches `run`.

A word has one or more possible base forms, and two words match if they share one. Only inflection is undone (plural,
possessive, -ing, -ed, a short list of irregular forms), never derivation: `cloudy` is not `cloud`, `flower` is not
`flow`. The rules are few and our own, so that a verdict is the same on every machine and in every year; a dictionary
library would bring megabytes of data that change with its version.

Note: a base form need not be a word. `houses` has the base forms `house` and `hous`, which is harmless because no other
word has `hous`. A rule is wrong only if two *real* words share a base form by it (`news` and `new`, `caring` and
`car`); such words are listed or excluded below.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from functools import cache, lru_cache

# -ves is a closed class: as a rule it would make `caves` match `cafe`.
_F_PLURALS = "leaf loaf wolf calf half shelf self elf thief sheaf hoof scarf dwarf wharf knife wife life"
_IRREGULAR_OF = """
man: men | woman: women | child: children | person: people | foot: feet | tooth: teeth | goose: geese | mouse: mice
louse: lice | ox: oxen | die: dice | cactus: cacti | fungus: fungi | run: ran | fly: flew flown | swim: swam swum
sit: sat | stand: stood | eat: ate eaten | wear: worn | drive: drove driven | ride: rode ridden | hold: held
sleep: slept | write: written | gray: grey greys | color: colour colours
"""
# Each looks like an inflected form of another word and is not one.
_NOT_INFLECTED = """
news lens does hers ours yours theirs besides shorts goods means mars
evening earring herring outing bearing during wicked rugged hundred
"""
_SIBILANT_ES = ("ses", "xes", "zes", "ches", "shes")
_VOWELS = "aeiouy"
_SHORT_STEM = re.compile(r"[^aeiouy]*[aeiouy][^aeiouywx]")  # ends in one vowel and one consonant: car, bak, strip


@cache
def _irregular() -> dict[str, str]:
    """Irregular form to base form."""
    entries = (entry.split(": ") for entry in re.split(r" \| |\n", _IRREGULAR_OF.strip()))
    plurals = {re.sub("fe?$", "ves", word): word for word in _F_PLURALS.split()}
    return {**plurals, **{form: base for base, forms in entries for form in forms.split()}}


@lru_cache(maxsize=1 << 20)
def base_forms(word: str) -> frozenset[str]:
    """Every form the word may be an inflection of, itself included, as `plain_word`; empty if it has no letter."""
    plain = plain_word(word)
    if len(plain) < 4 or plain in _NOT_INFLECTED.split():
        forms = {plain}
    else:
        forms = {plain, *_singulars(plain), *_stems_of_ing(plain), *_stems_of_ed(plain)}
    return frozenset({*forms, *(_irregular()[form] for form in forms if form in _irregular())} - {""})


def plain_word(word: str) -> str:
    """The word case-folded and composed (NFC), without non-letters at its ends and without a possessive `'s`."""
    folded = unicodedata.normalize("NFC", word.casefold()).replace("\u2019", "'")
    letters = [i for i, character in enumerate(folded) if character.isalpha()]
    if not letters:
        return ""
    end = letters[-1] + 1
    while unicodedata.category(folded[end : end + 1] or " ").startswith("M"):  # a mark of the last letter, as in Hindi
        end += 1
    return folded[letters[0] : end].removesuffix("'s")


def distinct(words: Iterable[str]) -> tuple[str, ...]:
    """The words without repetition, in order of their first occurrence."""
    return tuple(dict.fromkeys(words))


def _singulars(word: str) -> Iterable[str]:
    """Candidates for the singular; `-us` and `-is` words give non-words (`viru`), which match nothing."""
    if word.endswith("men") and len(word) > 4:
        yield word[:-2] + "an"
    if not word.endswith("s") or word.endswith("ss"):
        return
    yield word[:-1]
    if word.endswith("ies") and len(word) > 4:
        yield word[:-3] + "y"
    # With a stem of four letters (potato, hero), so that `toes` does not match `to`.
    if word.endswith(_SIBILANT_ES) or (word.endswith("oes") and len(word) > 5):
        yield word[:-2]


def _stems_of_ing(word: str) -> Iterable[str]:
    return _stems(word[:-3]) if word.endswith("ing") else ()


def _stems_of_ed(word: str) -> Iterable[str]:
    if not word.endswith("ed") or word.endswith("eed"):
        return ()
    if word.endswith("ied"):
        return (word[:-3] + "y", word[:-1])
    return _stems(word[:-2])


def _stems(stem: str) -> Iterable[str]:
    """Base forms that `stem` + -ing or -ed may come from: bak -> bake, runn -> run, fall -> fall, eat -> eat."""
    if len(stem) < 3 or not any(letter in _VOWELS for letter in stem):
        return
    # A short stem would have doubled its last letter (running), so it has lost an e: caring is never car.
    if _SHORT_STEM.fullmatch(stem):
        yield stem + "e"
        return
    doubled = stem[-1] == stem[-2] and stem[-1] not in _VOWELS
    if doubled and len(stem) > 3 and stem[-1] not in "lsfz":
        yield stem[:-1]
    else:
        yield from (stem, stem + "e")
