"""The picture with its patches: what each overlay colors how, and the component that draws it.

Boxes are the true ones of `visual_tokens`, in pixels of the original. What a newcomer gets wrong: the component gets
plain data and sets text by `textContent`; nothing from a dataset may become a part of its HTML, CSS or JavaScript.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

import streamlit as st

from latentlens_dag.browse.browser_data import Thumbnail
from latentlens_dag.drawing import VERDICT_COLORS
from latentlens_dag.figures.svg_figure import Box, LetterSizes, extent, word_lines
from latentlens_dag.text.display import clip

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
"""Rem: of a picture beside its neighbors, with the strip still in sight; and where many small patches need room."""
_SMALL_PATCHES = 14  # in a row or column
_SHOWN_PX = 500  # about how wide a picture is on the screen
_LEGIBLE, _LEAST, _LARGEST = 9.0, 5.5, 14.0  # of words on patches, in such pixels
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


def grid_data(
    picture: Thumbnail,
    rows: Sequence[Row],
    shown: Sequence[int],
    overlay: str,
    selected: int | None,
    label: str,
    **more: Any,
) -> dict[str, Any]:
    """What the component draws.

    Args:
        picture: the image, and its size in pixels of the original.
        rows: all tokens of the image (`patches.sql`).
        shown: indices of those of the view; tokens without a box stand apart.
        overlay: one of OVERLAYS.
        selected: the token that is chosen.
        label: what a screen reader says of the whole.
        more: `hits` (indices, for the spotlight), `layers` (all contextual ones), `labels` (text of tokens without a
            box), `flowing`.
    """
    paint = painter(overlay, rows, more.get("hits", frozenset()), more.get("layers", ()))
    labels: Mapping[int, str] = more.get("labels", {})
    inside = set(shown)
    patches = [_patch(row, paint) for row in rows if row["token_index"] in inside]
    apart = [{**_patch(row, paint), "label": _label(row, labels)} for row in rows if row["x0"] is None]
    frame = extent(picture.width, picture.height, [patch["box"] for patch in patches])
    large = _is_large(overlay, patches, frame)
    if overlay == "words":
        patches = [{**patch, "set": _set(patch, frame)} for patch in patches]
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
        "dimmed": bool(more.get("hits")),
        "flowing": bool(more.get("flowing")),
        "legend": legend(overlay, rows, more.get("spotlight", ""), len(more.get("hits", ())), more.get("layers", ())),
    }
    version = blake2b(repr(content).encode(), digest_size=8).hexdigest()
    return {**content, "version": version, "selected": selected}


def _patch(row: Row, paint: Callable[[Row], tuple[str, bool]]) -> dict[str, Any]:
    fill, hit = paint(row)
    box = None if row["x0"] is None else [round(row[side], 2) for side in ("x0", "y0", "x1", "y1")]
    word = clip(row["word"] or row["token_str"], 40)
    said = similarity_text(row)
    place = {"row": row["row"], "col": row["col"]} if box else {"row": None, "col": None}
    return {"id": row["token_index"], "box": box, **place, "word": word, "said": said, "fill": fill, "hit": hit}


def _is_large(overlay: str, patches: Sequence[Row], frame: Box) -> bool:
    """Whether the picture needs more room than its neighbors: for the words of many patches."""
    if overlay != "words" or not patches:
        return False
    x0, y0, x1, y1 = patches[0]["box"]
    return max((frame[2] - frame[0]) / (x1 - x0), (frame[3] - frame[1]) / (y1 - y0)) > _SMALL_PATCHES


def _set(patch: Mapping[str, Any], frame: Box) -> dict[str, Any] | None:
    """How the word of a patch is set on it, in pixels of the original."""
    if not patch["word"]:
        return None
    scale = _SHOWN_PX / (frame[2] - frame[0])
    x0, y0, x1, y1 = patch["box"]
    high = (y1 - y0) * scale
    letters = LetterSizes(_LEGIBLE, _LEAST, min(_LARGEST, max(_LEGIBLE, high * 0.4)))  # short words do not shout
    size, lines = word_lines(patch["word"], (x1 - x0) * scale, high, letters)
    return {"size": round(size / scale, 2), "lines": lines}


def _label(row: Row, labels: Mapping[int, str]) -> str:
    index = row["token_index"]
    return clip(labels[index], 40) if index in labels else f"{clip(row['view'], 20)} {index}"


def similarity_text(row: Row) -> str:
    """The cosine or the logit, named by what it is where it is a logit."""
    if row["cosine"] is not None:
        return f"{row['cosine']:.2f}"
    return "" if row["logit"] is None else f"logit {row['logit']:.1f}"


def painter(
    overlay: str, rows: Sequence[Row], hits: frozenset[int], known: Sequence[int]
) -> Callable[[Row], tuple[str, bool]]:
    """The function that gives a token its color, and whether it is a hit of the spotlight."""
    if overlay == "similarity":
        low, high = similarity_range(rows)
        return lambda row: (_faded(ramp(SEQUENTIAL, _share(_similarity(row), low, high)), overlay), False)
    if overlay == "layer":
        layers = known or contextual_layers(rows)
        return lambda row: (_faded(layer_color(row["contextual_layer"], layers), overlay), False)
    if overlay == "judgement":
        return lambda row: (_faded(VERDICT_COLORS.get(row["verdict"] or "", ""), overlay), False)
    if overlay == "spotlight" and hits:
        return lambda row: ("", True) if row["token_index"] in hits else ("#080a0ecc", False)
    return lambda row: ("", False)


def legend(overlay: str, rows: Sequence[Row], word: str, hits: int, known: Sequence[int]) -> dict[str, Any]:
    """What the colors mean."""
    if overlay == "similarity":
        low, high = similarity_range(rows)
        name = "Logit" if any(row["logit"] is not None for row in rows) else "Cosine"
        return {
            "title": f"{name} of the nearest answer",
            "ramp": SEQUENTIAL,
            "low": f"{low:.2f}",
            "high": f"{high:.2f}",
        }
    if overlay == "layer":
        layers = (known or contextual_layers(rows)) if contextual_layers(rows) else []
        if not layers:
            return {"title": "Answers of this lens come from no contextual layer."}
        return {"title": "Layer of the nearest answer", "entries": [(layer_color(n, layers), str(n)) for n in layers]}
    if overlay == "judgement":
        found = [verdict for verdict in VERDICT_COLORS if any(row["verdict"] == verdict for row in rows)]
        title = "The answers name what is there" if found else "This study has no judgements."
        return {"title": title, "entries": [(VERDICT_COLORS[verdict], verdict) for verdict in found]}
    if overlay == "spotlight":
        text = f"{hits} have {clip(word, 40)!r} among their answers" if word else "Type a word to find it here."
        return {"title": text}
    what = "patch" if any(row["x0"] is not None for row in rows) else "token"
    return {
        "title": f"The nearest word of every {what}"
        if overlay == "words"
        else f"Click a {what}, or move with the arrow keys"
    }


def similarity_range(rows: Sequence[Row]) -> tuple[float, float]:
    """The smallest and the largest similarity; 0 and 1 where there is none."""
    found = [value for row in rows if (value := _similarity(row)) is not None]
    return (min(found), max(found)) if found else (0.0, 1.0)


def contextual_layers(rows: Sequence[Row]) -> list[int]:
    """The contextual layers of the answers, in order."""
    return sorted({row["contextual_layer"] for row in rows if row["contextual_layer"] is not None})


def layer_color(layer: int | None, layers: Sequence[int]) -> str:
    """The color of a contextual layer in a ramp from light (first) to dark (last); none for none."""
    return "" if layer is None else ramp(ORDINAL, _share(layer, layers[0], layers[-1]))


def ramp(colors: Sequence[str], share: float | None) -> str:
    """The color at a share in 0..1 of the way through the colors; none for none."""
    if share is None:
        return ""
    place = min(max(share, 0.0), 1.0) * (len(colors) - 1)
    low = min(int(place), len(colors) - 2)
    ends = [[int(color[at : at + 2], 16) for at in (1, 3, 5)] for color in colors[low : low + 2]]
    return "#" + "".join(f"{round(a + (b - a) * (place - low)):02x}" for a, b in zip(*ends, strict=True))


def _faded(color: str, overlay: str) -> str:
    return f"{color}{round(255 * _ALPHA[overlay]):02x}" if color else ""


def _share(value: float | None, low: float, high: float) -> float | None:
    return None if value is None else (value - low) / (high - low) if high > low else 1.0


def _similarity(row: Row) -> float | None:
    return row["logit"] if row["cosine"] is None else row["cosine"]
