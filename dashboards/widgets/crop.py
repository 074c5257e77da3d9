"""A picture with a patch outlined, and the surroundings of the patch, as plain HTML."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from latentlens_dag.browse.browser_data import Thumbnail

AROUND = 3
"""Side of the crop, in patches: the box that the paper's judge saw."""


def outlined_html(picture: Thumbnail, box: Sequence[float]) -> str:
    """The whole picture and its part around a box (pixels of the original), with the box outlined in both."""
    whole = (0.0, 0.0, float(picture.width), float(picture.height))
    near = around(box, picture.width, picture.height)
    return (
        '<div class="ll-seen">'
        + _figure(picture, whole, box, "The image")
        + _figure(picture, near, box, f"The crop: {AROUND} × {AROUND} patches")
        + "</div>"
    )


def around(box: Sequence[float], width: int, height: int) -> tuple[float, float, float, float]:
    """AROUND times the box in each direction, moved to lie inside the picture; never more than all of it."""
    x0, x1 = _side(box[0], box[2], width)
    y0, y1 = _side(box[1], box[3], height)
    return x0, y0, x1, y1


def _side(low: float, high: float, most: int) -> tuple[float, float]:
    length = min((high - low) * AROUND, float(most))
    start = min(max((low + high - length) / 2, 0.0), most - length)
    return start, start + length


def _figure(picture: Thumbnail, shown: tuple[float, float, float, float], box: Sequence[float], caption: str) -> str:
    x0, y0, x1, y1 = shown
    across, down = x1 - x0, y1 - y0
    image = _place(-x0 / across, -y0 / down, picture.width / across, picture.height / down)
    outline = _place((box[0] - x0) / across, (box[1] - y0) / down, (box[2] - box[0]) / across, (box[3] - box[1]) / down)
    label = f"{caption}, a patch outlined"
    drawn = f'<img src="{escape(picture.source)}" alt="{label}" style="{image}">' if picture.source else ""
    window = f'<div class="ll-window" style="aspect-ratio:{across:.2f}/{down:.2f}">'
    return (
        f'<figure>{window}{drawn}<span class="ll-outline" style="{outline}"></span></div>'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def _place(left: float, top: float, width: float, height: float) -> str:
    return f"left:{left:.4%};top:{top:.4%};width:{width:.4%};height:{height:.4%}"
