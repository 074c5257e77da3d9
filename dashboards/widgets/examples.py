"""Examples of a point of a chart: small pictures that open in Explore."""

from __future__ import annotations

from typing import Any

import streamlit as st

from latentlens_dag.browse.browser_data import BrowserData, StudyFacts
from latentlens_dag.text.display import clip
from widgets import permalink, small_pictures
from widgets.labels import lens_name
from widgets.patch_grid import similarity_text

MOST = 24
FIELDS = ("lens", "layer", "context", "low", "high", "other")
"""The parts of a point in the address; a missing one means any."""
POINT = tuple(f"at_{name}" for name in FIELDS)
"""Their names in the address."""
HOW_TO_CHOOSE = "Click a point, a cell or a bar to see examples of it."


def pick(**point: object) -> None:
    """Go to a point, so that examples of it are shown."""
    permalink.update(**{f"at_{name}": point.get(name) for name in FIELDS})


def current_point() -> dict[str, Any]:
    """The parts of the point that the address names."""
    at = {name: permalink.get(f"at_{name}") for name in FIELDS}
    numbers = {"layer": permalink.get_int("at_layer"), "context": permalink.get_int("at_context")}
    ends = {"low": _number(at["low"]), "high": _number(at["high"])}
    return {name: value for name, value in {**at, **numbers, **ends}.items() if value is not None}


def examples(data: BrowserData, study: StudyFacts, patch_group: str = "all") -> None:
    """Patches of the point that the address names; none if it names none."""
    at = current_point()
    lens, layer = at.get("lens") or study.lenses[0], at.get("layer")
    if layer not in study.visual_layers or lens not in study.lenses:  # also where a point of the index was clicked
        st.caption(HOW_TO_CHOOSE)
        return
    limits = {"contextual_layer": at.get("context"), "low": at.get("low"), "high": at.get("high")}
    group = None if patch_group == "all" else patch_group
    rows = data.collect(
        study.name, "examples", lens=lens, layer=layer, top=MOST, patch_group=group, **limits
    ).to_dicts()
    kind = f"{group} patches" if group else "patches"
    if not rows:
        st.info(f"{_point_text(lens, layer, limits)} has no examples among these {kind}.")
        return
    st.markdown(
        f"**{_point_text(lens, layer, limits)}**, {len(rows)} {kind} drawn at random, one of each image in turn"
    )
    _pictures(data, study, rows, lens, layer)


def _point_text(lens: str, layer: int, limits: dict[str, Any]) -> str:
    text = f"{lens_name(lens)} at visual layer {layer}"
    if limits["contextual_layer"] is not None:
        text += f", answers from contextual layer {limits['contextual_layer']}"
    if limits["low"] is not None and limits["high"] is not None:
        text += f", nearest answer from {limits['low']:g} to {limits['high']:g}"
    return text


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        return None


def _pictures(data: BrowserData, study: StudyFacts, rows: list[dict[str, Any]], lens: str, layer: int) -> None:
    entries = []
    for row in rows:
        note = f"{clip(row['word'], 40) or '–'}, {similarity_text(row)}"
        note += f", {row['verdict']}" if row["verdict"] else ""
        boxes = None if row["x0"] is None else [[row[side] for side in ("x0", "y0", "x1", "y1")]]
        entries.append(small_pictures.Entry(row["image_id"], note, boxes))
    tiles = [
        {**tile, "id": f"{row['image_id']} {row['token_index']}"}
        for tile, row in zip(small_pictures.study_tiles(data, study, entries), rows, strict=True)
    ]

    def address(tile: str) -> dict[str, str]:
        image, token = tile.split(" ")
        return {"image": image, "token": token, "lens": lens, "layer": str(layer)}

    small_pictures.explore_links(tiles, "examples", address)
