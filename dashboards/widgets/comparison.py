"""The two sides of a comparison: which ones the address names, and the color of their disagreement."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

import streamlit as st

from latentlens_dag.browse.browser_data import BrowserData
from latentlens_dag.browse.disagreement import PatchDisagreement, Side, StudyRegistry
from latentlens_dag.models.layers import middle_layer
from widgets import permalink
from widgets.labels import lens_name, percent
from widgets.sources import browser_data, other_browser_data

DISAGREEMENT_COLOR = "#d1007a"
"""Few pictures have this color; where the two sides agree, they show through it."""
_MOST_ALPHA = 0.75


def study_registry() -> StudyRegistry:
    """The studies of all sources that the browser was started with."""
    sources = tuple(data for data in (browser_data(), other_browser_data()) if data is not None)
    return _registry(tuple(map(id, sources)), sources)


@st.cache_resource(show_spinner=False, max_entries=2)
def _registry(ids: tuple[int, ...], _sources: tuple[BrowserData, ...]) -> StudyRegistry:
    return StudyRegistry(*_sources)


def choose_side(registry: StudyRegistry, letter: str, suffix: str, study: str, lens_number: int) -> Side:
    """Ask for the study, the lens and the visual layer of a side.

    Args:
        registry: the studies to choose from.
        letter: the name of the side.
        suffix: ends the side's names in the address.
        study: label of the study if the address names none.
        lens_number: number of the study's lens if the address names none.
    """
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        if len(registry.entries) > 1:
            labels = list(registry.entries)
            study = permalink.choice(f"Study {letter}", f"study{suffix}", labels, study, dropdown=True, width=220)
        entry = registry.entries[study]
        lenses, layers = entry.facts.lenses, entry.facts.visual_layers
        lens = permalink.choice(
            f"Lens {letter}",
            f"lens{suffix}",
            lenses,
            lenses[min(lens_number, len(lenses) - 1)],
            format_func=lens_name,
            dropdown=True,
            width=160,
        )
        middle = middle_layer(layers)
        layer = permalink.choice(f"Visual layer {letter}", f"layer{suffix}", layers, middle, dropdown=True, width=110)
    return Side(entry, lens, layer)


def with_disagreement(grid: dict[str, Any], disagreements: Mapping[int, PatchDisagreement]) -> dict[str, Any]:
    """Color the patches of a grid without an overlay by their disagreement; those that are not compared stay as is."""
    shares = {token: patch.disagreement for token, patch in disagreements.items()}
    low, high = min(shares.values(), default=0.0), max(shares.values(), default=1.0)
    title = "Share of the words that only one side has"
    legend = {"title": title, "ramp": [_color(0.0), _color(1.0)], "low": percent(low), "high": percent(high)}
    tokens = {part: [_colored(token, shares, low, high) for token in grid[part]] for part in ("patches", "apart")}
    version = blake2b(repr((grid["version"], sorted(shares.items()))).encode(), digest_size=8).hexdigest()
    return {**grid, **tokens, "legend": legend, "version": version}


def _colored(token: dict[str, Any], shares: Mapping[int, float], low: float, high: float) -> dict[str, Any]:
    value = shares.get(token["id"])
    if value is None:
        return token
    fill = _color((value - low) / (high - low) if high > low else value)
    return {**token, "fill": fill, "said": f"{token['said']}, {percent(value)} disagreement"}


def _color(share: float) -> str:
    return f"{DISAGREEMENT_COLOR}{round(255 * _MOST_ALPHA * share):02x}"
