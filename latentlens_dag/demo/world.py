"""The things of the demo world and the words that name them, read from two CSV files.

A word is concrete for an item when a patch of the item shows what the word says: its name, a
synonym, its category or one of its parts. Places ("farm" for a cow) are abstract: they are
about the item, but not in the picture. Colors are in neither list, because a hand-written table
was wrong for many sprites: `scenes` measures them from the pixels.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

COLORS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white", "gray")
"""The basic color words, in the order of their class index."""


@dataclass(frozen=True)
class _Item:
    """An object or a background."""

    name: str
    synonyms: tuple[str, ...]
    parts: tuple[str, ...]
    places: tuple[str, ...]

    @property
    def concrete_words(self) -> tuple[str, ...]:
        """Name, synonyms, category of an object, and parts, without repetition."""
        category = (self.category,) if isinstance(self, WorldObject) else ()
        return _distinct((self.name, *self.synonyms, *category, *self.parts))

    @property
    def abstract_words(self) -> tuple[str, ...]:
        """Places, without those that are already concrete."""
        return tuple(word for word in _distinct(self.places) if word not in self.concrete_words)


@dataclass(frozen=True)
class WorldObject(_Item):
    """One kind of object: a sprite of the atlas and the words for it."""

    emoji: str
    category: str


@dataclass(frozen=True)
class Background(_Item):
    """One textured background, which fills the upper or the lower half of a scene."""

    half: Literal["upper", "lower"]


Item = WorldObject | Background
_ItemT = TypeVar("_ItemT", bound=Item)


@dataclass(frozen=True)
class World:
    """All objects and backgrounds, in the order of their CSV files."""

    objects: tuple[WorldObject, ...]
    backgrounds: tuple[Background, ...]

    @property
    def upper(self) -> tuple[Background, ...]:
        """The backgrounds of the upper half."""
        return tuple(item for item in self.backgrounds if item.half == "upper")

    @property
    def lower(self) -> tuple[Background, ...]:
        """The backgrounds of the lower half."""
        return tuple(item for item in self.backgrounds if item.half == "lower")

    @property
    def class_names(self) -> tuple[str, ...]:
        """Object names, then background names: the classes of the vision encoder's patch labels."""
        return tuple(item.name for item in self.items)

    @property
    def items(self) -> tuple[Item, ...]:
        """All objects, then all backgrounds."""
        return (*self.objects, *self.backgrounds)

    def item(self, name: str) -> Item:
        """The object or background called `name`."""
        return _named(self.items, name, "objects.csv or backgrounds.csv")

    def object(self, name: str) -> WorldObject:
        """The object called `name`."""
        return _named(self.objects, name, "objects.csv")


def load_world(folder: Path | None = None) -> World:
    """Read objects.csv and backgrounds.csv of `folder` (default: assets/demo/world of the checkout).

    Raises:
        FileNotFoundError: if the folder or one of the files is missing.
        ValueError: if two items of the world share a name, or a background's half is neither upper nor lower.
    """
    folder = folder or world_folder()
    rows = _rows(folder / "objects.csv")
    objects = tuple(WorldObject(**_words(row), emoji=row["emoji"], category=row["category"]) for row in rows)
    world = World(objects, tuple(_background(row) for row in _rows(folder / "backgrounds.csv")))
    names = world.class_names
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"{folder} names {', '.join(repeated)} more than once: every class needs a name of its own.")
    return world


def world_folder() -> Path:
    """The folder assets/demo/world of the checkout this package lies in, or of the current folder."""
    roots = [Path(__file__).resolve().parents[2], Path.cwd()]
    for root in roots:
        if (root / "assets/demo/world/objects.csv").exists():
            return root / "assets/demo/world"
    raise FileNotFoundError(
        f"No assets/demo/world/objects.csv below {' or '.join(map(str, roots))}. The demo world lies in a checkout, "
        "not in the installed package: run from the root of a checkout, or pass the folder."
    )


def _rows(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: is {path.parent} the folder of the demo world?")
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _background(row: dict[str, str]) -> Background:
    half = row["half"]
    if half not in ("upper", "lower"):
        raise ValueError(f"Background {row['name']} has half {half!r} in backgrounds.csv; it is upper or lower.")
    return Background(**_words(row), half="upper" if half == "upper" else "lower")


def _words(row: dict[str, str]) -> dict[str, Any]:
    """The fields that all items have."""
    lists = {column: tuple(filter(None, row[column].split(";"))) for column in ("synonyms", "parts", "places")}
    return {"name": row["name"], **lists}


def _distinct(words: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(words))


def _named(items: tuple[_ItemT, ...], name: str, file: str) -> _ItemT:
    for item in items:
        if item.name == name:
            return item
    raise KeyError(f"The demo world has no {name!r} in {file}.")
