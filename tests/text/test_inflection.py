from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latentlens_dag.text.inflection import base_forms, distinct, plain_word

SAME = """apples:apple cherries:cherry cookies:cookie boxes:box buses:bus glasses:glass dishes:dish houses:house
leaves:leaf leaves:leave wolves:wolf knives:knife lives:life gloves:glove tomatoes:tomato heroes:hero shoes:shoe
women:woman firemen:fireman children:child feet:foot mice:mouse running:run making:make flying:fly falling:fall
adding:add eating:eat playing:play snowing:snow visiting:visit striped:stripe dotted:dot painted:paint dried:dry
tied:tie baked:bake ran:run flown:fly grey:gray colours:color taxis:taxi menus:menu Dog's:dog dogs':dog DOG:dog
"dog",:dog dog’s:dogs running:runs"""
DIFFERENT = """glass:glas grass:gras bus:bu news:new lens:len caring:car staring:star striped:strip rating:rat
toes:to string:str thing:th red:r need:ne caves:cafe does:doe evening:even earring:ear cloudy:cloud flower:flow
his:hi yes:ye wing:w king:k sun:son cat:car 3:4"""


def same_word(first: str, second: str) -> bool:
    """The definition: two words match if they share a base form."""
    return not base_forms(first).isdisjoint(base_forms(second))


def pairs(text: str) -> list[tuple[str, ...]]:
    return [tuple(pair.split(":")) for pair in text.split()]


@pytest.mark.parametrize(("first", "second"), pairs(SAME))
def test_inflections_of_one_word_match(first: str, second: str) -> None:
    assert same_word(first, second) and same_word(second, first)


@pytest.mark.parametrize(("first", "second"), pairs(DIFFERENT))
def test_false_friends_do_not_match(first: str, second: str) -> None:
    assert not same_word(first, second)


@pytest.mark.parametrize("word", ["", "3", ",", "...", "'", "\N{RIGHT SINGLE QUOTATION MARK}", "_"])
def test_what_has_no_letter_matches_nothing_not_even_itself(word: str) -> None:
    assert base_forms(word) == frozenset()
    assert not same_word(word, word)


@given(st.text())
def test_a_word_is_its_own_base_form_and_its_ends_are_letters(word: str) -> None:
    plain = plain_word(word)
    assert (plain in base_forms(word)) == bool(plain)
    letters = "".join(sign for sign in plain if not unicodedata.category(sign).startswith("M"))  # without their marks
    assert not plain or (plain[0].isalpha() and letters[-1].isalpha())


HINDI, TAMIL = "\u0939\u093f\u0928\u094d\u0926\u0940", "\u0ba4\u0bae\u0bbf\u0bb4\u0bcd"


@pytest.mark.parametrize("word", [HINDI, TAMIL])
def test_the_marks_of_the_last_letter_belong_to_the_word(word: str) -> None:
    assert plain_word(f"\u201c{word}\u201d.") == word
    assert not same_word(word, word[:-1])


def test_a_word_matches_itself_however_its_marks_are_stored() -> None:
    assert plain_word("CAFE\u0301") == "caf\u00e9"
    assert same_word("cafe\u0301s", "caf\u00e9") and not same_word("caf\u00e9", "cafe")


def test_distinct_keeps_the_first_of_each() -> None:
    assert distinct(["b", "a", "b", "c", "a"]) == ("b", "a", "c")
