"""The two sides that are compared: what the address says of them, and the color of their disagreement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any

import streamlit as st

from latentlens_dag.browse.browser_data import BrowserData
from latentlens_dag.browse.disagreement import PatchDisagreement, Side, StudyRegistry
from latentlens_dag.browse.layout import TokenView, token_views
from latentlens_dag.models.layers import middle_layer
from widgets import permalink
from widgets.labels import lens_name, percent
from widgets.sources import library, other_library

APART = "#d1007a"
"""Few pictures have this color; where two sides agree, they show through it."""
_MOST_ALPHA = 0.75

Row = Mapping[str, Any]


def shelf() -> StudyRegistry:
    """The studies of all that the browser was started with."""
    libraries = tuple(one for one in (library(), other_library()) if one is not None)
    return _shelf(tuple(map(id, libraries)), libraries)


@st.cache_resource(show_spinner=False, max_entries=2)
def _shelf(ids: tuple[int, ...], _libraries: tuple[BrowserData, ...]) -> StudyRegistry:
    return StudyRegistry(*_libraries)


def chosen_side(shelf: StudyRegistry, letter: str, suffix: str, study: str, lens_number: int) -> Side:
    """Ask for the study, the lens and the visual layer of a side.

    Args:
        shelf: the studies to choose from.
        letter: what the side is called.
        suffix: of its names in the address.
        study: the label of the study where the address names none.
        lens_number: which of the study's lenses it is where the address names none.
    """
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        if len(shelf.studies) > 1:
            names = list(shelf.studies)
            study = permalink.choice(f"Study {letter}", f"study{suffix}", names, study, wide=True, width=220)
        of = shelf.studies[study]
        lenses, layers = of.facts.lenses, of.facts.visual_layers
        first = lenses[min(lens_number, len(lenses) - 1)]
        lens = permalink.choice(f"Lens {letter}", f"lens{suffix}", lenses, first, shown=lens_name, wide=True, width=160)
        middle = middle_layer(layers)
        layer = permalink.choice(f"Visual layer {letter}", f"layer{suffix}", layers, middle, wide=True, width=110)
    return Side(of, lens, layer)


def chosen_view(rows: Sequence[Row], token: int | None, letter: str, suffix: str) -> TokenView | None:
    """The view that the address names, else that of the token; asks where an image has several."""
    views = token_views(rows)
    if len(views) < 2:
        return views[0] if views else None
    here = next((one for one in views if token in one.tokens), views[0])
    name = permalink.choice(
        f"View {letter}", f"view{suffix}", [one.name for one in views], here.name, wide=True, width=130
    )
    return next(one for one in views if one.name == name)


def with_disagreement(drawn: dict[str, Any], apart: Mapping[int, PatchDisagreement]) -> dict[str, Any]:
    """What the patch grid draws, each patch colored by its disagreement.

    Args:
        drawn: `patch_grid.grid_data` without an overlay.
        apart: how far apart the sides are, by token; tokens that are not compared stay as they are.
    """
    shares = {token: one.disagreement for token, one in apart.items()}
    low, high = min(shares.values(), default=0.0), max(shares.values(), default=1.0)
    title = "Share of the words that only one side has"
    legend = {"title": title, "ramp": [_color(0.0), _color(1.0)], "low": percent(low), "high": percent(high)}
    tokens = {part: [_colored(token, shares, low, high) for token in drawn[part]] for part in ("patches", "apart")}
    version = blake2b(repr((drawn["version"], sorted(shares.items()))).encode(), digest_size=8).hexdigest()
    return {**drawn, **tokens, "legend": legend, "version": version}


def _colored(token: dict[str, Any], shares: Mapping[int, float], low: float, high: float) -> dict[str, Any]:
    value = shares.get(token["id"])
    if value is None:
        return token
    fill = _color((value - low) / (high - low) if high > low else value)
    return {**token, "fill": fill, "said": f"{token['said']}, {percent(value)} apart"}


def _color(share: float) -> str:
    return f"{APART}{round(255 * _MOST_ALPHA * share):02x}"
