"""The picture with its patches: what each overlay colors how, and the component that draws it.

Boxes are those of `visual_tokens`, in pixels of the original. Note: the component gets plain data and sets text by
`textContent`; nothing from a dataset may become part of its HTML, CSS or JavaScript.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

import streamlit as st

from latentlens_dag.browse.browser_data import Thumbnail
from latentlens_dag.drawing import VERDICT_COLORS
from latentlens_dag.figures.svg_figure import Box, LetterSizes, extent, word_lines
from latentlens_dag.text.display import clip
from widgets.labels import counted

OVERLAYS = ("none", "words", "similarity", "layer", "judgement", "spotlight")
OVERLAY_NAMES = {
    "none": "Picture",
    "words": "Words",
    "similarity": "Similarity",
    "layer": "Contextual layer",
    "judgement": "Judgement",
    "spotlight": "Word spotlight",
}
SEQUENTIAL = ("#440154", "#3b528b", "#21918c", "#5ec962", "#fde725")
ORDINAL = ("#eff3ff", "#08306b")
_HIGHEST, _HIGHEST_LARGE = 27.5, 44.0
"""Height of a picture in rem: beside its neighbors, with the strip still in sight; and with many small patches."""
_SMALL_PATCHES = 14  # in a row or column
_SHOWN_PX = 500  # approximate width of a picture on the screen
_LEGIBLE, _LEAST, _LARGEST = 9.0, 5.5, 14.0  # of words on patches, in such pixels
_DARKENED = "#080a0ecc"
_ALPHA = {"similarity": 0.55, "layer": 0.6, "judgement": 0.45}
_FOLDER = Path(__file__).parent

_component = st.components.v2.component(
    "latentlens_patch_grid",
    html='<div class="grid"></div>',
    css=(_FOLDER / "patch_grid.css").read_text(encoding="utf-8"),
    js="".join((_FOLDER / name).read_text(encoding="utf-8") for name in ("keys.js", "patch_grid.js")),
)

Row = Mapping[str, Any]


def patch_grid(data: dict[str, Any], key: str, picked: Callable[[int], None]) -> None:
    """Draw the grid; `picked` is called with a token's index when a person picks it."""

    def changed() -> None:
        token = st.session_state[key].picked
        if isinstance(token, int):
            picked(token)

    _component(key=key, data=[data], on_picked_change=changed)  # a list, as in small_pictures.py


class Paint(NamedTuple):
    """How an overlay colors tokens, and what its colors mean."""

    fill: Callable[[Row], str]
    """CSS color of a token, by its row of `patches.sql`; empty for none."""
    legend: dict[str, Any]


def grid_data(
    picture: Thumbnail,
    rows: Sequence[Row],
    shown: Sequence[int],
    overlay: str,
    selected: int | None,
    label: str,
    *,
    layers: Sequence[int] = (),
    texts: Mapping[int, str] | None = None,
    hits: frozenset[int] = frozenset(),
    words: str = "",
) -> dict[str, Any]:
    """What the component draws.

    Args:
        picture: the image, and its size in pixels of the original.
        rows: all tokens of the image (`patches.sql`).
        shown: indices of the tokens of the view; tokens without a box stand apart.
        overlay: one of OVERLAYS.
        selected: the chosen token.
        label: the name of the whole for a screen reader.
        layers: all contextual layers of the study, for the color of one.
        texts: the characters of each token of a text, which flow like one.
        hits: the tokens that the spotlight lights up.
        words: the words of the spotlight, as typed.
    """
    paint = _paint(overlay, rows, layers or contextual_layers(rows), hits, words)
    inside = set(shown)
    patches = [_patch(row, paint, hits) for row in rows if row["token_index"] in inside]
    apart = [{**_patch(row, paint, hits), "label": _label(row, texts or {})} for row in rows if row["x0"] is None]
    frame = extent(picture.width, picture.height, [patch["box"] for patch in patches])
    large = _is_large(overlay, patches, frame)
    if overlay == "words":
        patches = [{**patch, "set": _word_setting(patch, frame)} for patch in patches]
    content: dict[str, Any] = {
        "picture": picture.source,
        "width": picture.width,
        "height": picture.height,
        "frame": frame,
        "highest": _HIGHEST_LARGE if large or frame[3] - frame[1] > 1.6 * (frame[2] - frame[0]) else _HIGHEST,
        "large": large,
        "label": label,
        "patches": patches,
        "apart": apart,
        "words": overlay == "words",
        "dimmed": bool(hits),
        "flowing": texts is not None,
        "legend": paint.legend,
    }
    version = blake2b(repr(content).encode(), digest_size=8).hexdigest()
    return {**content, "version": version, "selected": selected}


def _patch(row: Row, paint: Paint, hits: frozenset[int]) -> dict[str, Any]:
    box = None if row["x0"] is None else [round(row[side], 2) for side in ("x0", "y0", "x1", "y1")]
    return {
        "id": row["token_index"],
        "box": box,
        "row": row["row"] if box else None,
        "col": row["col"] if box else None,
        "word": clip(row["word"] or row["token_str"], 40),
        "said": similarity_text(row),
        "fill": paint.fill(row),
        "hit": row["token_index"] in hits,
    }


def _is_large(overlay: str, patches: Sequence[Row], frame: Box) -> bool:
    """Whether the picture needs extra room, for the words of many patches."""
    if overlay != "words" or not patches:
        return False
    x0, y0, x1, y1 = patches[0]["box"]
    return max((frame[2] - frame[0]) / (x1 - x0), (frame[3] - frame[1]) / (y1 - y0)) > _SMALL_PATCHES


def _word_setting(patch: Mapping[str, Any], frame: Box) -> dict[str, Any] | None:
    """Size and lines of the word on a patch, in pixels of the original."""
    if not patch["word"]:
        return None
    scale = _SHOWN_PX / (frame[2] - frame[0])
    x0, y0, x1, y1 = patch["box"]
    high = (y1 - y0) * scale
    letters = LetterSizes(_LEGIBLE, _LEAST, min(_LARGEST, max(_LEGIBLE, high * 0.4)))  # short words do not shout
    size, lines = word_lines(patch["word"], (x1 - x0) * scale, high, letters)
    return {"size": round(size / scale, 2), "lines": lines}


def _label(row: Row, texts: Mapping[int, str]) -> str:
    index = row["token_index"]
    return clip(texts[index], 40) if index in texts else f"{clip(row['view'], 20)} {index}"


def similarity_text(row: Row) -> str:
    """The cosine, or the logit under that name."""
    if row["cosine"] is not None:
        return f"{row['cosine']:.2f}"
    return "" if row["logit"] is None else f"logit {row['logit']:.1f}"


def _paint(overlay: str, rows: Sequence[Row], layers: Sequence[int], hits: frozenset[int], words: str) -> Paint:
    if overlay == "similarity":
        return _similarity_paint(rows)
    if overlay == "layer":
        return _layer_paint(rows, layers)
    if overlay == "judgement":
        return _judgement_paint(rows)
    what = "patch" if any(row["x0"] is not None for row in rows) else "token"
    if overlay == "spotlight":
        count = counted(len(hits), what, "patches" if what == "patch" else None)
        title = f"{count} with {clip(words, 40)!r} among the answers" if words else "Type a word to find it here."
        return Paint(lambda row: _DARKENED if hits and row["token_index"] not in hits else "", {"title": title})
    hint = f"The nearest word of every {what}" if overlay == "words" else f"Click a {what}, or move with the arrow keys"
    return Paint(lambda row: "", {"title": hint})


def _similarity_paint(rows: Sequence[Row]) -> Paint:
    values = [value for row in rows if (value := _similarity(row)) is not None]
    low, high = min(values, default=0.0), max(values, default=1.0)
    name = "Logit" if any(row["logit"] is not None for row in rows) else "Cosine"
    legend = {"ramp": SEQUENTIAL, "low": f"{low:.2f}", "high": f"{high:.2f}"}
    fill = lambda row: _faded(ramp(SEQUENTIAL, _share(_similarity(row), low, high)), "similarity")  # noqa: E731
    return Paint(fill, {"title": f"{name} of the nearest answer", **legend})


def _layer_paint(rows: Sequence[Row], layers: Sequence[int]) -> Paint:
    if not contextual_layers(rows):
        return Paint(lambda row: "", {"title": "Answers of this lens come from no contextual layer."})
    entries = [(layer_color(layer, layers), str(layer)) for layer in layers]
    fill = lambda row: _faded(layer_color(row["contextual_layer"], layers), "layer")  # noqa: E731
    return Paint(fill, {"title": "Layer of the nearest answer", "entries": entries})


def _judgement_paint(rows: Sequence[Row]) -> Paint:
    found = {row["verdict"] for row in rows}
    entries = [(color, verdict) for verdict, color in VERDICT_COLORS.items() if verdict in found]
    title = "Verdict on the answers" if entries else "This study has no judgements."
    fill = lambda row: _faded(VERDICT_COLORS.get(row["verdict"] or "", ""), "judgement")  # noqa: E731
    return Paint(fill, {"title": title, "entries": entries})


def contextual_layers(rows: Sequence[Row]) -> list[int]:
    """The contextual layers of the answers, sorted."""
    return sorted({row["contextual_layer"] for row in rows if row["contextual_layer"] is not None})


def layer_color(layer: int | None, layers: Sequence[int]) -> str:
    """The color of a contextual layer in a ramp from light (first) to dark (last); empty without one."""
    return "" if layer is None else ramp(ORDINAL, _share(layer, layers[0], layers[-1]))


def ramp(colors: Sequence[str], share: float | None) -> str:
    """The color at a share in 0..1 of the way through the colors; empty without one."""
    if share is None:
        return ""
    step = min(max(share, 0.0), 1.0) * (len(colors) - 1)
    low = min(int(step), len(colors) - 2)
    ends = [[int(color[at : at + 2], 16) for at in (1, 3, 5)] for color in colors[low : low + 2]]
    return "#" + "".join(f"{round(a + (b - a) * (step - low)):02x}" for a, b in zip(*ends, strict=True))


def _faded(color: str, overlay: str) -> str:
    return f"{color}{round(255 * _ALPHA[overlay]):02x}" if color else ""


def _share(value: float | None, low: float, high: float) -> float | None:
    return None if value is None else (value - low) / (high - low) if high > low else 1.0


def _similarity(row: Row) -> float | None:
    return row["logit"] if row["cosine"] is None else row["cosine"]


def similarity(row: Row) -> float:
    """The cosine or the logit of an answer; 0 if there is none."""
    return float(_similarity(row) or 0)
