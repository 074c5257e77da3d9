"""What is seen of an image as a figure: from the rows that the page shows to the parts that `figure_svg` draws."""

from __future__ import annotations

import base64
from typing import Any

from latentlens_dag.browse.browser_data import BrowserData
from latentlens_dag.browse.layout import token_views
from latentlens_dag.dataset.provenance import model_label, study_declaration
from latentlens_dag.figures.source_image import figure_image
from latentlens_dag.figures.svg_figure import FLOW_WIDTH, Answer, Cell, Figure, Legend, flow_tokens
from latentlens_dag.storage.home import find_warehouse
from latentlens_dag.text.display import split_at
from widgets.image_state import ImageState
from widgets.labels import counted, lens_name
from widgets.patch_grid import Row, similarity_text

_LONGEST = 60
_PLAIN = ("none", "words")  # overlays that need no legend


def figure_of(data: BrowserData, state: ImageState, *, words: bool, neighbors: bool) -> Figure:
    """The figure.

    Args:
        data: where the picture is.
        state: the image, and how it is shown.
        words: whether each patch has its word.
        neighbors: whether the answers of the chosen token are listed.
    """
    grid = state.grid(data)
    raw = {row["token_index"]: str(row["word"] or row["token_str"] or "")[:_LONGEST] for row in state.rows}
    patches = grid["apart"] if state.study.of_texts else grid["patches"]
    cells = {patch["id"]: _cell(patch, raw[patch["id"]]) for patch in patches}
    width, height = float(grid["width"]), float(grid["height"])
    if state.study.of_texts:
        placed, height = flow_tokens(list(cells.values()))
        cells, width = dict(zip(cells, placed, strict=True)), FLOW_WIDTH
    return Figure(
        picture=None if state.study.of_texts else _picture(data, state),
        width=width,
        height=height,
        cells=list(cells.values()),
        key=_key(state.overlay, grid["legend"]),
        caption=caption(data, state, words),
        words=words,
        chosen=cells.get(state.token) if neighbors else None,
        heading=f"Token {state.token}, {state.position(data)}" if neighbors else "",
        answers=[_answer(row) for row in state.nearest(data)] if neighbors else [],
    )


def caption(data: BrowserData, state: ImageState, words: bool) -> list[str]:
    """What the figure shows, in parts."""
    study = state.study
    model = model_label(study_declaration(data.source, data.dataset(study.name), study.name))
    what = "token" if study.of_texts else "patch"
    unplaced = 0 if study.of_texts else sum(row["x0"] is None for row in state.rows)
    parts = [
        f"Study {study.name}",
        state.title(data)[:80],
        f"view {state.view.name}" if state.view and len(token_views(state.rows)) > 1 else "",
        f"{lens_name(state.lens)}, {'layer' if study.of_texts else 'visual layer'} {state.layer}",
        f"model: {model}" if model else "",
        f"on every {what} its nearest answer" if words else "",
        f"without {counted(unplaced, 'token')} that have no place" if unplaced else "",
    ]
    return [part for part in parts if part]


def _cell(patch: dict[str, Any], word: str) -> Cell:
    box = tuple(patch["box"]) if patch["box"] else (0.0, 0.0, 0.0, 0.0)
    return Cell(box, word, patch["fill"], patch["hit"], patch.get("label", ""))  # type: ignore[arg-type]


def _key(overlay: str, legend: dict[str, Any]) -> Legend:
    if overlay in _PLAIN:
        return Legend("")
    entries, colors = legend.get("entries", ()), legend.get("ramp", ())
    return Legend(legend["title"], entries, colors, legend.get("low", ""), legend.get("high", ""))


def _answer(row: Row) -> Answer:
    sentence = row["sentence"] and split_at(row["sentence"], row["char_start"], row["char_end"])
    word = str(row["word"] or row["token_str"] or "")
    return Answer(row["rank"], word, similarity_text(row), row["contextual_layer"], sentence or None)


def _picture(data: BrowserData, state: ImageState) -> bytes | None:
    thumbnail = base64.b64decode(state.thumbnail(data).source.partition(",")[2])
    return figure_image(find_warehouse(data.source).root, state.image, thumbnail)
