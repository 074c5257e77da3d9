from pathlib import Path

import pytest

from latentlens_dag.demo.atlas import CELL, load_atlas
from latentlens_dag.demo.world import World, load_world, world_folder


@pytest.fixture(scope="module")
def world() -> World:
    return load_world()


def test_every_word_is_single_and_lower_case(world: World) -> None:
    words = {
        word for item in (*world.objects, *world.backgrounds) for word in (*item.concrete_words, *item.abstract_words)
    }
    assert [word for word in words if not (word.isalpha() and word.isascii() and word.islower())] == []


def test_no_synonym_is_the_name_of_another_thing(world: World) -> None:
    synonyms = {word for item in (*world.objects, *world.backgrounds) for word in item.synonyms}
    assert synonyms & set(world.class_names) == set()


def test_concrete_words_start_with_the_name_and_hold_no_place(world: World) -> None:
    for item in (*world.objects, *world.backgrounds):
        assert item.concrete_words[0] == item.name
        assert set(item.concrete_words) & set(item.abstract_words) == set()


def test_backgrounds_fill_both_halves(world: World) -> None:
    assert len(world.upper) >= 6
    assert len(world.lower) >= 6
    assert len(world.class_names) == len(set(world.class_names)) == len(world.objects) + len(world.backgrounds)


def test_the_atlas_has_a_picture_of_every_object(world: World) -> None:
    atlas = load_atlas(world)
    assert list(atlas.sprites) == [item.name for item in world.objects]
    for name, sprite in atlas.sprites.items():
        box = sprite.getchannel("A").getbbox()
        assert sprite.size == (CELL, CELL), name
        assert box is not None and max(box[2] - box[0], box[3] - box[1]) >= CELL - 2, name


def test_an_atlas_of_another_world_is_refused(world: World) -> None:
    smaller = World(world.objects[:5], world.backgrounds)
    with pytest.raises(ValueError, match="render it again"):
        load_atlas(smaller, world_folder() / "atlas.webp")


def test_a_name_used_twice_is_refused(tmp_path: Path) -> None:
    header = "name,emoji,category,synonyms,parts,places\n"
    (tmp_path / "objects.csv").write_text(header + "sky,x,thing,,,\n", encoding="utf-8")
    (tmp_path / "backgrounds.csv").write_text("name,half,synonyms,parts,places\nsky,upper,,,\n", encoding="utf-8")
    with pytest.raises(ValueError, match="sky more than once"):
        load_world(tmp_path)
