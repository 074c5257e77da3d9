"""Examples of what a point of a chart stands for: small pictures that open in Explore."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import streamlit as st

from latentlens_dag.browse.browser_data import BrowserData, StudyFacts, Thumbnail
from latentlens_dag.text.display import clip
from widgets import permalink, small_pictures
from widgets.labels import lens_name
from widgets.patch_grid import similarity_text

MOST = 24
EXPLORE = Path(__file__).parents[1] / "app_pages" / "explore.py"
FIELDS = ("lens", "layer", "context", "low", "high")
"""What the address says of a point: all that is not said is any."""


POINT = tuple(f"at_{name}" for name in FIELDS)
"""The same, as the address has them."""


def pick(**point: object) -> None:
    """Go to a point: examples of it are shown."""
    permalink.go(**{f"at_{name}": point.get(name) for name in FIELDS})


def point_here() -> dict[str, Any]:
    """What the address says of the point whose examples are shown, without what it does not say."""
    at = {name: permalink.here(f"at_{name}") for name in FIELDS}
    numbers = {"layer": permalink.number_here("at_layer"), "context": permalink.number_here("at_context")}
    ends = {"low": _number(at["low"]), "high": _number(at["high"])}
    return {name: value for name, value in {**at, **numbers, **ends}.items() if value is not None}


def examples(data: BrowserData, study: StudyFacts, patch_group: str = "all") -> None:
    """Patches of the point that the address names; nothing where it names none."""
    at = point_here()
    lens, layer = at.get("lens") or study.lenses[0], at.get("layer")
    if layer not in study.visual_layers or lens not in study.lenses:  # also where a point of the index was clicked
        st.caption("Click a point, a cell or a bar to see examples of it.")
        return
    asked = {"contextual_layer": at.get("context"), "low": at.get("low"), "high": at.get("high")}
    group = None if patch_group == "all" else patch_group
    rows = data.ask(study.name, "examples", lens=lens, layer=layer, top=MOST, patch_group=group, **asked).to_dicts()
    kind = f"{group} patches" if group else "patches"
    if not rows:
        st.info(f"{_said(lens, layer, asked)} has no example among {kind}.")
        return
    st.markdown(f"**{_said(lens, layer, asked)}**, {len(rows)} {kind} drawn by chance, one of each image in turn")
    _pictures(data, study, rows, lens, layer)


def _said(lens: str, layer: int, asked: dict[str, Any]) -> str:
    text = f"{lens_name(lens)} at visual layer {layer}"
    if asked["contextual_layer"] is not None:
        text += f", answers from contextual layer {asked['contextual_layer']}"
    if asked["low"] is not None and asked["high"] is not None:
        text += f", nearest answer from {asked['low']:g} to {asked['high']:g}"
    return text


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        return None


def _pictures(data: BrowserData, study: StudyFacts, rows: list[dict[str, Any]], lens: str, layer: int) -> None:
    ids = tuple(row["image_id"] for row in rows)
    pictures = data.pictures(study.name, ids)
    texts = data.texts(study.name, ids) if study.of_texts else {}
    tiles = []
    for row in rows:
        picture = pictures.get(row["image_id"]) or Thumbnail(row["image_id"], row["image_id"], 1, 1, "")
        note = f"{clip(row['word'], 40) or '–'}, {similarity_text(row)}"
        note += f", {row['verdict']}" if row["verdict"] else ""
        boxes = None if row["x0"] is None else [[row[side] for side in ("x0", "y0", "x1", "y1")]]
        tile = small_pictures.tile(picture, note, boxes, texts.get(row["image_id"]))
        tiles.append({**tile, "id": f"{row['image_id']} {row['token_index']}"})

    def opened(tile: str) -> None:
        image, token = tile.split(" ")
        st.session_state["example-opened"] = {"image": image, "token": token, "lens": lens, "layer": str(layer)}

    small_pictures.small_pictures(tiles, "examples", opened)
    if to := st.session_state.pop("example-opened", None):
        # The way back leads over an address of this page with the new parameters: with its own, too, it shows the same.
        st.switch_page(EXPLORE, query_params={**st.query_params.to_dict(), **to})
