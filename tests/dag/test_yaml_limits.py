"""A defs.yaml of aliases is counted before anything writes them out."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from latentlens_dag.dag.yaml_limits import MOST_VALUES, check_size
from latentlens_dag.errors import UserError

FILE = Path("defs.yaml")


def _levels(count: int) -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    for level in range(1, count):
        lines.append(f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]")
    return "\n".join(lines)


@pytest.mark.parametrize("levels", [8, 60])
def test_aliases_of_aliases_are_refused_without_being_written_out(levels: int) -> None:
    with pytest.raises(UserError, match=r"defs\.yaml has [\d,]+ values where its aliases"):
        check_size(_levels(levels), FILE)


def test_an_alias_of_what_it_is_part_of_is_refused() -> None:
    with pytest.raises(UserError, match="in line 1 repeats what it is part of"):
        check_size("a: &a [1, *a]", FILE)


def test_a_file_of_megabytes_is_refused_unparsed() -> None:
    with pytest.raises(UserError, match="more than 4,194,304 characters"):
        check_size("[" * 5_000_000, FILE)


def _size(value: object) -> int:
    """The slow definition: the values that are written out."""
    parts = [*value.keys(), *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else []
    return 1 + sum(map(_size, parts))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 25), min_size=1, max_size=4))
def test_what_is_counted_is_what_aliases_write_out(repeats: list[int]) -> None:
    lines = ["a0: &a0 [x, {y: z}]"]
    for level, count in enumerate(repeats, 1):
        lines.append(f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * count)}]")
    text = "\n".join(lines)
    values = _size(yaml.safe_load(text))
    if "*" not in text or values <= MOST_VALUES:
        check_size(text, FILE)
    else:
        with pytest.raises(UserError, match=rf"defs\.yaml has {values:,} values"):
            check_size(text, FILE)
