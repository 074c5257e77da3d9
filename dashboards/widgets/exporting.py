"""The export of a view of an image: the figure as SVG and PNG, its tables as CSV and Parquet.

The browser makes the PNG from the SVG, so that its words are set in a font that has their letters. Nothing is computed
before a person asks for it.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl
import streamlit as st

from latentlens_dag.figures.source_image import file_stem
from latentlens_dag.figures.svg_figure import WIDTH_MM, figure_svg
from widgets import permalink
from widgets.downloads import download_buttons
from widgets.figure_export import caption, figure_of
from widgets.image_state import ImageState
from widgets.sources import browser_data

_DOTS_PER_INCH = 300
_FOLDER = Path(__file__).parent
_component = st.components.v2.component(
    "latentlens_export",
    html='<div class="export"></div>',
    css=(_FOLDER / "exporting.css").read_text(encoding="utf-8"),
    js=(_FOLDER / "exporting.js").read_text(encoding="utf-8"),
)


def export_if_requested(state: ImageState) -> None:
    """The export, if the address says that it is open."""
    if permalink.get("export"):
        dialog = st.dialog("Export", width="medium", on_dismiss=lambda: permalink.update(export=None))
        dialog(_export)(state)


def _export(state: ImageState) -> None:
    data = browser_data()
    with st.container(horizontal=True, gap="small"):
        words = permalink.toggle("Words", "figure_words")
        neighbors = permalink.toggle("Neighbors of the chosen token", "figure_neighbors")
    figure = figure_of(data, state, words=words, neighbors=neighbors)
    named = [state.study.name, Path(state.thumbnail(data).file_name).stem, state.lens, f"layer{state.layer}"]
    width = round(WIDTH_MM / 25.4 * _DOTS_PER_INCH)
    files = {"svg": figure_svg(figure), "stem": file_stem(*named), "width": width, "dpi": _DOTS_PER_INCH}
    _component(key="export", data={**files, "label": ", ".join(caption(data, state, words))})
    every = data.collect(state.study.name, "image_answers", image_id=state.image, lens=state.lens, layer=state.layer)
    chosen = every.filter(pl.col("token_index") == state.token)
    download_buttons(chosen, file_stem(*named, f"token{state.token}"), "Neighbors of the chosen token")
    download_buttons(every, file_stem(*named, "tokens"), "All tokens at this lens and layer")
