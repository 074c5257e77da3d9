"""The neighbors of one visual token, and the annotated regions that its patch shows."""

from __future__ import annotations

import streamlit as st

from latentlens_dag.browse.browser_data import BrowserData
from latentlens_dag.errors import UserError
from widgets import patch_grid, token_html
from widgets.image_state import ImageState
from widgets.labels import lens_name


def draw_neighbors(data: BrowserData, state: ImageState, name: str, ground_truth: str = "") -> None:
    """What the lens says of the chosen token, under a line that calls it `name`, and HTML of its ground truth."""
    row, nearest = state.row, state.nearest(data)
    head = (
        f"<b>{name} {state.token}</b> · {token_html.safe(state.position(data))} · "
        f"{lens_name(state.lens)}, layer {state.layer}"
    )
    if verdict := token_html.verdict_html(row["verdict"]):
        head += f" · {verdict}"
    layers = data.contextual_layers(state.study.name) or patch_grid.contextual_layers(nearest)
    facts = "<br>".join(part for part in (head, ground_truth) if part)
    st.html(f'<p class="ll-facts">{facts}</p>{token_html.neighbors_html(nearest, layers)}')


def ground_truth_html(data: BrowserData, state: ImageState) -> str:
    """The annotated regions that the patch of the chosen token shows; empty if there are none."""
    try:
        truth = data.ground_truth(state.study.name, state.image)
    except UserError as error:
        return token_html.safe(str(error), 200)
    return token_html.truth_html(truth.get(-1 if state.token is None else state.token, ()))
