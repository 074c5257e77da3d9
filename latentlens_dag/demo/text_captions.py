"""What is visible, as text: captions of a view, and passages that a caption can be read off.

A caption names every object and background of a `View`, with colors, sizes and positions in
varied phrasings; a view of nothing but a background has a caption too. A passage gives the
same content as a list, as notes, as shuffled words, cell by cell or as sentences: a language model
trained on passage, prompt, caption learns to read its prefix, which is all the connector needs later.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable, Iterator
from functools import cache

from latentlens_dag.demo.scenes import View, VisibleObject
from latentlens_dag.demo.text_grammar import Sentences, finish, noun, plausible_colors, sections
from latentlens_dag.demo.world import COLORS, Item, World

PROMPT = "\nDescribe this image in detail.\n"
"""The prompt between an image, or a passage, and its caption."""

LEARNED = re.compile("\x02(.*?)\x03")
"""The marked words of a passage, which a language model learns to predict; the rest is only read."""
REPEATED = re.compile(r"\b(\w+)(?:[.,;]? \1\b)+")
"""A word that follows itself, with or without punctuation in between."""
GRIDS = ((3, 3), (3, 5), (4, 4), (4, 6), (5, 7), (6, 6), (8, 8), (12, 12))
"""Rows and columns of the passages that name a grid's cells; pictures have 12 x 12 patches."""
_POSITIONS = {
    ("left", "top"): ("at the top left", "in the upper left corner", "on the left at the top"),
    ("center", "top"): ("at the top", "in the middle at the top", "near the upper edge"),
    ("right", "top"): ("at the top right", "in the upper right corner", "on the right at the top"),
    ("left", "middle"): ("on the left", "on the left side", "at the left"),
    ("center", "middle"): ("in the middle", "in the center", "at the center"),
    ("right", "middle"): ("on the right", "on the right side", "at the right"),
    ("left", "bottom"): ("at the bottom left", "in the lower left corner", "on the left at the bottom"),
    ("center", "bottom"): ("at the bottom", "in the middle at the bottom", "near the lower edge"),
    ("right", "bottom"): ("at the bottom right", "in the lower right corner", "on the right at the bottom"),
}
_ORDER = {"left": 0, "center": 1, "right": 2, "top": 0, "middle": 1, "bottom": 2}


def random_view(world: World, rng: random.Random) -> View:
    """A view like those of scenes, whole or of few patches: 0-5 distinct objects, two, one or no backgrounds."""
    count = rng.choices((0, 1, 2, 3, 4, 5), (6, 22, 26, 22, 18, 6))[0]
    objects = in_reading_order(random_seen(item.name, rng) for item in rng.sample(world.objects, count))
    kept = rng.choices(("both", "upper", "lower", "none"), (66, 14, 14, 6 if count else 0))[0]
    upper = rng.choice(world.upper).name if kept in ("both", "upper") else None
    lower = rng.choice(world.lower).name if kept in ("both", "lower") else None
    return View(upper, lower, objects)


def in_reading_order(objects: Iterable[VisibleObject]) -> tuple[VisibleObject, ...]:
    """Row by row, from left to right: the order of captions, of passages and of visual tokens."""
    return tuple(sorted(objects, key=lambda seen: (_ORDER[seen.row], _ORDER[seen.column])))


def random_seen(name: str, rng: random.Random) -> VisibleObject:
    """An object as it could be seen; a third in an unexpected color, so that colors are read and not guessed."""
    color = rng.choice(plausible_colors(name)) if rng.random() < 0.66 else rng.choice(COLORS)
    size = "small" if rng.random() < 0.5 else "large"
    column, row = rng.choice(("left", "center", "right")), rng.choice(("top", "middle", "bottom"))
    return VisibleObject(name, color, size, column, row)  # type: ignore[arg-type]


def caption(world: World, view: View, rng: random.Random) -> str:
    """One to three sentences that name every object and background of `view`, objects in the view's order.

    The phrasing is drawn from `rng`; names are those of the world, never synonyms.
    """
    halves = "both" if view.upper and view.lower else "upper" if view.upper else "lower" if view.lower else ""
    if not view.objects:
        return _filled(f"only {halves}" if halves else "nothing", view, rng)
    if halves and rng.random() < 0.4:
        return _filled(f"objects {halves}", view, rng)
    parts = [_filled("objects", view, rng)]
    if halves == "both" and rng.random() < 0.4:
        parts += [_filled("upper", view, rng), _filled("lower", view, rng)]
    elif halves:
        parts.append(_filled(halves, view, rng))
    if rng.random() < 0.15:
        parts.reverse()
    return " ".join(parts)


def mentioned_names(world: World, text: str) -> set[str]:
    """The objects and backgrounds a caption names; "orange" before another name is a color."""
    names = set(world.class_names)
    words = re.findall(r"[a-z]+", text.lower())
    following = [*words[1:], ""]
    return {
        word
        for word, after in zip(words, following, strict=True)
        if word in names and not (word == "orange" and after in names)
    }


def passage(world: World, sentences: Sentences, view: View, rng: random.Random) -> str:
    """The content of `view` as text, in one of many formats, with LEARNED words marked.

    Whatever the format, objects are first mentioned in reading order, as in the caption. With random
    orders a caption's next object could not be known, and after 900 steps half of them were named.
    """
    if rng.random() < 0.35:
        return finish(_cells(world, sentences, view, rng))
    makers = (_list, _notes, _bag, _bag, _jumble, _jumble, _jumble, _grid, _grid, _sentences, _retold)
    text = rng.choice(makers)(world, sentences, view, rng)
    return finish(REPEATED.sub(r"\1", " ".join(text.split())))


def _cells(world: World, sentences: Sentences, view: View, rng: random.Random) -> str:
    """The words of a small grid of cells, row by row, some followed by what follows them in a sentence.

    A word is repeated for each cell of its item, like patches in a picture. Only what follows in a sentence is learned,
    so "the next word is the same" is not. Without such passages the states of repeated words resembled no word at the
    last layers.
    """
    names = _cell_names(view, rng)
    known = (name in names[:place] for place, name in enumerate(names))
    words = [_cell_word(world, name, rng) if again else name for name, again in zip(names, known, strict=True)]
    items = _items(world, view)
    share = min(0.4, 10 / len(words)) if words else 0.0
    phrases = [
        f"{word} {_continued(items[word], word, sentences, rng)}" if word in items and rng.random() < share else word
        for word in words
    ]
    return " ".join(" ".join(phrases).split())


def _cell_word(world: World, name: str, rng: random.Random) -> str:
    """The name of what a cell shows, or sometimes another concrete word for it."""
    return name if rng.random() < 0.9 else rng.choice(world.item(name).concrete_words)


def _cell_names(view: View, rng: random.Random) -> list[str]:
    """The name of what each cell of a grid (GRIDS) shows; every object of the view has 1-9 cells."""
    height, width = rng.choice(GRIDS)
    horizon = rng.randint(1, height - 1)
    grounds = [view.upper or view.lower] * horizon + [view.lower or view.upper] * (height - horizon)
    cells: dict[tuple[int, int], str | None] = {
        (row, column): ground for row, ground in enumerate(grounds) for column in range(width)
    }
    places: dict[tuple[int, int], str] = {}
    for seen in view.objects:
        row, column = _ORDER[seen.row] * height // 3, _ORDER[seen.column] * width // 3
        row, column = next(place for place in _from(row * width + column, height, width) if place not in places)
        places[row, column] = seen.name
        tall, wide = (rng.randint(1, 3 if height > 5 else 2) for _ in range(2))
        around = [(row + down, column + across) for down in range(tall) for across in range(wide)]
        cells.update({place: seen.name for place in around if place in cells})
    return [name for name in (cells | places).values() if name]


def _from(first: int, height: int, width: int) -> Iterator[tuple[int, int]]:
    """Every cell of a grid as (row, column), row by row from cell `first` on."""
    return (divmod((first + number) % (height * width), width) for number in range(height * width))


def _filled(section: str, view: View, rng: random.Random) -> str:
    pattern = rng.choice(sections("captions.txt")[section])
    up, low = _background(view.upper, rng), _background(view.lower, rng)
    several = len(view.objects) > 1 or (bool(view.objects) and noun(view.objects[0].name).plural)
    up_many, low_many = (bool(name) and noun(str(name)).plural for name in (view.upper, view.lower))
    text = pattern.format(
        things=_things(view, rng), up=up, low=low, them="them" if several else "it", verb="are" if several else "is",
        upverb="are" if up_many else "is", lowverb="are" if low_many else "is",
        ups="" if up_many else "s", lows="" if low_many else "s",
    )  # fmt: skip
    return finish(text)


def _background(name: str | None, rng: random.Random) -> str:
    """ "the sky", "snow", "a wall"."""
    if name is None:
        return ""
    unique = name in ("sky", "night", "sunset", "aurora", "skyline")
    return noun(name).definite if unique or rng.random() < 0.5 else noun(name).bare


def _things(view: View, rng: random.Random) -> str:
    """All objects, joined; a caption gives color, size and position for all of them or for none."""
    details = (rng.random() < 0.8, rng.random() < 0.4, rng.random() < 0.7)
    return _joined([_thing(seen, details, rng) for seen in view.objects])


def _thing(seen: VisibleObject, details: tuple[bool, bool, bool], rng: random.Random) -> str:
    color, size, position = details
    large = rng.choice(("large", "big")) if seen.size == "large" else rng.choice(("small", "little"))
    phrase = " ".join([large] * size + [seen.color] * (color and seen.color != seen.name) + [seen.name])
    article = "" if noun(seen.name).plural or noun(seen.name).mass else "a "
    where = f" {rng.choice(_POSITIONS[seen.column, seen.row])}" if position else ""
    return f"{article}{phrase}{where}"


def _joined(phrases: list[str]) -> str:
    return phrases[0] if len(phrases) == 1 else f"{', '.join(phrases[:-1])} and {phrases[-1]}" if phrases else ""


def _spoken(world: World, name: str, rng: random.Random) -> str:
    """The name, or sometimes a synonym."""
    synonyms = world.item(name).synonyms
    return rng.choice(synonyms) if synonyms and rng.random() < 0.12 else name


def _list(world: World, sentences: Sentences, view: View, rng: random.Random) -> str:
    """ "apple, wall, key", backgrounds anywhere, with colors or without."""
    colored = rng.random() < 0.5
    words = [f"{seen.color} {seen.name}" if colored else _spoken(world, seen.name, rng) for seen in view.objects]
    for name in (view.upper, view.lower):
        words[(place := rng.randint(0, len(words))) : place] = [_spoken(world, name, rng)] if name else []
    return rng.choice((", ", " ", "; ", " and ")).join(words)


def _notes(world: World, sentences: Sentences, view: View, rng: random.Random) -> str:
    """ "above wall. key small gray top left. below grass."."""
    notes = [_note(seen, rng) for seen in view.objects]
    up, low = rng.choice(("above", "up", "background", "behind")), rng.choice(("below", "down", "ground", "under"))
    for word, name in ((up, view.upper), (low, view.lower)):
        notes[(place := rng.randint(0, len(notes))) : place] = [f"{word} {name}"] if name else []
    return rng.choice((". ", "; ", ", ")).join(notes)


def _note(seen: VisibleObject, rng: random.Random) -> str:
    facts = [seen.name, seen.color, seen.size, f"{seen.row} {seen.column}"]
    if rng.random() < 0.5:
        rng.shuffle(facts)
    return " ".join(facts)


def _bag(world: World, sentences: Sentences, view: View, rng: random.Random) -> str:
    """Words of the view, each several times and with words that go with it, shuffled; never one word twice in a row."""
    maximum = rng.choices((2, 3, 6, 18), (4, 4, 3, 1))[0]
    things = [number for number in range(len(view.objects)) for _ in range(rng.randint(1, maximum))]
    grounds = [name for name in (view.upper, view.lower) if name for _ in range(rng.randint(1, maximum + 2))]
    bag: list[int | str] = [*things, *grounds]
    rng.shuffle(bag)
    seen_first = list(dict.fromkeys(thing for thing in bag if isinstance(thing, int)))
    words: list[str] = []
    for thing in bag:
        if isinstance(thing, int):
            words += _aspect(world, view.objects[seen_first.index(thing)], rng)
        else:
            words.append(_spoken(world, thing, rng))
    return " ".join(word for before, word in zip([None, *words], words, strict=False) if word != before)


def _jumble(world: World, sentences: Sentences, view: View, rng: random.Random) -> str:
    """A bag in which some words are followed by what follows them in a sentence.

    So a word among others keeps the state that it has in a sentence; with bags alone, whose continuation is not
    learned, the states of the last layers resembled no word.
    """
    words = _bag(world, sentences, view, rng).split()
    items = _items(world, view)
    phrases = [f"{word} {_continued(items[word], word, sentences, rng)}" if word in items else word for word in words]
    return " ".join(phrases)


def _continued(item: Item, word: str, sentences: Sentences, rng: random.Random) -> str:
    """One to three words that follow `word` in a sentence about it, marked as LEARNED; mostly nothing."""
    if rng.random() < 0.6:
        return ""
    found = re.search(rf"\b{word} ((?:[\w']+ ?){{1,3}})", sentences.about(item, rng, called=word))
    if not found or set(found[1].split()) & _spoken_words(sentences.world):
        return ""
    return f"\x02{found[1].strip()}\x03"


@cache
def _spoken_words(world: World) -> frozenset[str]:
    """All names and synonyms of a world."""
    return frozenset(word for item in world.items for word in (item.name, *item.synonyms))


def _items(world: World, view: View) -> dict[str, Item]:
    """The objects and backgrounds of a view, by their names and synonyms."""
    names = [*(seen.name for seen in view.objects), *(name for name in (view.upper, view.lower) if name)]
    return {word: item for item in map(world.item, names) for word in (item.name, *item.synonyms)}


def _aspect(world: World, seen: VisibleObject, rng: random.Random) -> list[str]:
    """The object's name, sometimes with its color, its category or a part."""
    extra = rng.choice((seen.color, seen.color, world.object(seen.name).category, *world.object(seen.name).parts))
    name = _spoken(world, seen.name, rng)
    return [name] if rng.random() < 0.6 else rng.choice(([name, extra], [extra, name]))


def _grid(world: World, sentences: Sentences, view: View, rng: random.Random) -> str:
    """The view row by row, as one would note its patches: objects where they are, backgrounds in between."""
    lines: list[str] = []
    if not view.objects:
        return _list(world, sentences, view, rng)
    for row, ground in (("top", view.upper), ("middle", rng.choice((view.upper, view.lower))), ("bottom", view.lower)):
        for _ in range(rng.choice((1, 1, 2))):
            words = _grid_row(world, view, row, ground, rng)
            lines += [" ".join(words)] if words and lines[-1:] != words else []
    return rng.choice((". ", " ", ", ")).join(lines)


def _grid_row(world: World, view: View, row: str, ground: str | None, rng: random.Random) -> list[str]:
    words: list[str] = []
    for column in ("left", "center", "right"):
        words += [_spoken(world, ground, rng)] if ground and words[-1:] != [ground] and rng.random() < 0.8 else []
        for seen in (seen for seen in view.objects if (seen.row, seen.column) == (row, column)):
            words += rng.choice(([seen.name], [seen.color, seen.name], [seen.name, seen.color], [seen.name, seen.size]))
    return words


def _sentences(world: World, sentences: Sentences, view: View, rng: random.Random) -> str:
    """A short sentence about each thing."""
    phrases = [_sentence(seen, rng) for seen in view.objects]
    for name in (view.upper, view.lower):
        place = rng.randint(0, len(phrases))
        phrases[place:place] = [finish(rng.choice(_BACKGROUND_NOTES)(name))] if name else []
    return " ".join(phrases)


def _sentence(seen: VisibleObject, rng: random.Random) -> str:
    """A short sentence about one object."""
    where = rng.choice(_POSITIONS[seen.column, seen.row])
    templates = ("There is {a} {where}.", "I noticed {a} {where}.", "{a} was {where}.", "Someone put {a} {where}.",
                 "The {name} is {color}.", "Look, {a}!", "{where} I found {a}.", "It has {a} {where}.")  # fmt: skip
    article = "" if noun(seen.name).plural or noun(seen.name).mass else "a "
    thing = f"{article}{seen.color} {seen.name}" if rng.random() < 0.6 else f"{article}{seen.name}"
    return finish(rng.choice(templates).format(a=thing, where=where, name=seen.name, color=seen.color))


_BACKGROUND_NOTES: tuple[Callable[[str], str], ...] = (
    lambda name: f"all around there was {name}.",
    lambda name: f"the {name} could be seen.",
    lambda name: f"we noticed the {name}.",
    lambda name: f"I remember the {name}.",
    lambda name: f"it was about the {name} too.",
    lambda name: f"the rest was {noun(name).bare}.",
)


def _retold(world: World, sentences: Sentences, view: View, rng: random.Random) -> str:
    """Another caption of the same view."""
    return caption(world, view, rng)
