"""One visual token through all layers and lenses, in one strip; a click goes to the lens and layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import streamlit as st

from latentlens_dag.drawing import VERDICT_COLORS
from latentlens_dag.text.display import clip
from widgets.labels import lens_name
from widgets.patch_grid import similarity_text

_FOLDER = Path(__file__).parent
_component = st.components.v2.component(
    "latentlens_strip",
    html='<div class="strip"></div>',
    css=(_FOLDER / "layer_strip.css").read_text(encoding="utf-8"),
    js="".join((_FOLDER / name).read_text(encoding="utf-8") for name in ("keys.js", "layer_strip.js")),
)


def strip(data: dict[str, Any], key: str, opened: Callable[[str, int], None]) -> None:
    """Draw the strip; `opened` gets the lens and the visual layer that a person chooses."""

    def changed() -> None:
        place = st.session_state[key].opened
        if isinstance(place, list | tuple) and len(place) == 2:
            opened(str(place[0]), int(place[1]))

    _component(key=key, data=[data], on_opened_change=changed)  # a list, as in small_pictures.py


def strip_data(
    answers: Sequence[Mapping[str, Any]], lenses: Sequence[str], layers: Sequence[int], lens: str, layer: int
) -> dict[str, Any]:
    """The data of the component, from the answers of one token (`token.sql`)."""
    first = {(row["lens"], row["visual_layer"]): row for row in answers if row["rank"] == 1}
    rows = [
        {"name": lens_name(one), "entries": [_entry(first.get((one, at)), one, at, (lens, layer)) for at in layers]}
        for one in lenses
    ]
    return {"layers": list(layers), "rows": rows}


def _entry(row: Mapping[str, Any] | None, lens: str, layer: int, current: tuple[str, int]) -> dict[str, Any] | None:
    if row is None:
        return None
    word, said = clip(row["word"] or row["token_str"], 40), similarity_text(row).removeprefix("logit ")
    title = f"{lens_name(lens)}, layer {layer}: {word}, {similarity_text(row)}"
    title += f", judged {row['verdict']}" if row["verdict"] else ""
    color = VERDICT_COLORS.get(row["verdict"] or "", "")
    place = {"lens": lens, "layer": layer, "current": (lens, layer) == current}
    return {**place, "word": word, "said": said, "title": title, "color": color}
