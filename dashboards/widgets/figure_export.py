"""What is seen of an image as a figure: from the rows that the page shows to the parts that `figure_svg` draws."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

from latentlens_dag.browse.browser_data import BrowserData
from latentlens_dag.dataset.provenance import model_label, root_of, study_declaration
from latentlens_dag.figures.source_image import figure_image
from latentlens_dag.figures.svg_figure import FLOW_WIDTH, Answer, Cell, Figure, Legend, flow_tokens
from latentlens_dag.text.display import split_at
from widgets.image_state import Row, Shown
from widgets.labels import counted, lens_name
from widgets.patch_grid import similarity_text

_LONGEST = 60
_PLAIN = ("none", "words")  # overlays that need no legend


def figure_of(data: BrowserData, shown: Shown, answers: Sequence[Row], *, words: bool, neighbors: bool) -> Figure:
    """The figure.

    Args:
        data: where the picture is.
        shown: what is seen.
        answers: those of the chosen token at the lens and layer, nearest first.
        words: whether each patch has its word.
        neighbors: whether the answers of the chosen token are listed.
    """
    drawn = shown.drawn(data)
    raw = {row["token_index"]: str(row["word"] or row["token_str"] or "")[:_LONGEST] for row in shown.rows}
    patches = drawn["apart"] if shown.study.of_texts else drawn["patches"]
    cells = {patch["id"]: _cell(patch, raw[patch["id"]]) for patch in patches}
    width, height = float(drawn["width"]), float(drawn["height"])
    if shown.study.of_texts:
        placed, height = flow_tokens(list(cells.values()))
        cells, width = dict(zip(cells, placed, strict=True)), FLOW_WIDTH
    return Figure(
        picture=None if shown.study.of_texts else _picture(data, shown),
        width=width,
        height=height,
        cells=list(cells.values()),
        key=_key(shown.overlay, drawn["legend"]),
        caption=caption(data, shown, words),
        words=words,
        chosen=cells.get(shown.token) if neighbors else None,
        heading=f"Token {shown.token}, {shown.place(data)}" if neighbors else "",
        answers=[_answer(row) for row in answers] if neighbors else [],
    )


def caption(data: BrowserData, shown: Shown, words: bool) -> list[str]:
    """What the figure shows, in parts."""
    study = shown.study
    model = model_label(study_declaration(data.source, data.dataset(study.name), study.name))
    what = "token" if study.of_texts else "patch"
    apart = 0 if study.of_texts else sum(row["x0"] is None for row in shown.rows)
    parts = [
        f"Study {study.name}",
        shown.title(data)[:80],
        f"view {shown.view.name}" if shown.view and shown.views > 1 else "",
        f"{lens_name(shown.lens)}, {'layer' if study.of_texts else 'visual layer'} {shown.layer}",
        f"model: {model}" if model else "",
        f"on every {what} its nearest answer" if words else "",
        f"without {counted(apart, 'token')} that have no place" if apart else "",
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


def _picture(data: BrowserData, shown: Shown) -> bytes | None:
    thumbnail = base64.b64decode(shown.picture(data).source.partition(",")[2])
    return figure_image(root_of(data.source), shown.image, thumbnail)
