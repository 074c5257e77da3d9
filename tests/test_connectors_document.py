"""docs/connectors.md has the figures of its results."""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.benchmarks.results import read_results

DOCUMENT = Path(__file__).parents[1] / "docs" / "connectors.md"
SHOWN = (0, 1, 4, 7)
"""Layers."""


def _rows(results: dict[str, Any]) -> Iterator[str]:
    for layers in results["studies"].values():
        by_layer = {row["visual_layer"]: row for row in layers}
        cells = [
            f"{row['share']} ({row['low']} to {row['high']}; chance {row['chance']})"
            for row in (by_layer[layer] for layer in SHOWN)
        ]
        yield " | ".join(["", *cells, ""]).strip()


def _sentence(results: dict[str, Any]) -> list[str]:
    parts = results["permuted_by_group"]
    found = {
        group: f"({of['min_share']} to {of['max_share']} %{{}}, chance {of['min_chance']} to {of['max_chance']} %)"
        for group, of in parts.items()
    }
    return [found["object"].format(" of their patches over the layers"), found["background"].format("")]


def _shortfall(results: dict[str, Any]) -> str:
    """By how much connectors of a project have less than the shipped one, over layers and seeds."""
    shipped = results["studies"]["shipped"]
    points = [
        one["share"] - other["share"]
        for study, layers in results["studies"].items()
        if study.startswith("seed")
        for one, other in zip(shipped, layers, strict=True)
    ]
    return f"by {min(points):.1f} to {max(points):.1f} points"


def _says(text: str, results: dict[str, Any]) -> bool:
    flat = " ".join(text.split())
    return all(piece in flat for piece in [*_rows(results), *_sentence(results), _shortfall(results)])


def test_the_table_has_the_figures_that_were_measured_and_no_others() -> None:
    text, results = DOCUMENT.read_text(encoding="utf-8"), read_results("connector_quality")
    assert len(results["studies"]) == 5
    assert _says(text, results)
    assert "the interval of the share overlaps that of chance at every layer" in " ".join(text.split())
    of_whole_scenes = results["studies"]["permuted_whole_1200"]
    assert all(row["low"] <= row["chance_high"] and row["chance_low"] <= row["high"] for row in of_whole_scenes)
    assert f"on {results['scenes']:,} scenes with {results['captions_of_parts']} captions of parts" in text
    assert f"{results['steps']:,} steps in a project" in text
    assert f"on {results['fresh_scenes']} scenes" in text
    for study, layer in ((study, layer) for study in results["studies"] for layer in SHOWN):
        for name in ("share", "low", "high", "chance"):
            other = copy.deepcopy(results)
            next(row for row in other["studies"][study] if row["visual_layer"] == layer)[name] += 0.1
            assert not _says(text, other), (study, layer, name)
