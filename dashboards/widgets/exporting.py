"""The export of what is seen: the figure as SVG and PNG, its tables as CSV and Parquet.

The PNG is made by the browser out of the SVG, so that its words are set in a font that has their letters. What a
newcomer gets wrong: nothing of this is computed before a person asks for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import polars as pl
import streamlit as st

from latentlens_dag.figures.source_image import file_stem
from latentlens_dag.figures.svg_figure import WIDTH_MM, figure_svg
from widgets import permalink
from widgets.downloads import download_buttons
from widgets.figure_export import caption, figure_of
from widgets.image_state import Row, Shown
from widgets.sources import library

_DOTS_PER_INCH = 300
_FOLDER = Path(__file__).parent
_component = st.components.v2.component(
    "latentlens_export",
    html='<div class="export"></div>',
    css=(_FOLDER / "exporting.css").read_text(encoding="utf-8"),
    js=(_FOLDER / "exporting.js").read_text(encoding="utf-8"),
)


def export_button() -> None:
    """The button that opens the export; that it is open is a part of the address."""
    st.button("Export", on_click=lambda: permalink.go(export="yes"), help="This picture and its tables, as files")


def export_if_asked(shown: Shown, answers: Sequence[Row]) -> None:
    """The export, where the address says that it is open."""
    if permalink.here("export"):
        dialog = st.dialog("Export", width="medium", on_dismiss=lambda: permalink.go(export=None))
        dialog(_export)(shown, answers)


def _export(shown: Shown, answers: Sequence[Row]) -> None:
    data = library()
    with st.container(horizontal=True, gap="small"):
        words = permalink.switch("Words", "figure_words")
        neighbors = permalink.switch("Neighbors of the chosen token", "figure_neighbors")
    drawn = figure_of(data, shown, answers, words=words, neighbors=neighbors)
    named = [shown.study.name, Path(shown.picture(data).file_name).stem, shown.lens, f"layer{shown.layer}"]
    width = round(WIDTH_MM / 25.4 * _DOTS_PER_INCH)
    figure = {"svg": figure_svg(drawn), "stem": file_stem(*named), "width": width, "dpi": _DOTS_PER_INCH}
    _component(key="export", data={**figure, "label": ", ".join(caption(data, shown, words))})
    every = data.ask(shown.study.name, "image_answers", image_id=shown.image, lens=shown.lens, layer=shown.layer)
    chosen = every.filter(pl.col("token_index") == shown.token)
    download_buttons(chosen, file_stem(*named, f"token{shown.token}"), "Neighbors of the chosen token")
    download_buttons(every, file_stem(*named, "tokens"), "All tokens at this lens and layer")
