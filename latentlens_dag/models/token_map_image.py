"""An image with the boxes of its visual tokens, one panel per view.

Views overlap in the image, so each has a panel and a color of its own.

Note: pale areas are in no token of the view (crops, unpadding, a tile's last pixels). A grid may go beyond the image
where a processor pads; tokens of padding only are gray. Separators are not drawn.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw

from latentlens_dag.drawing import INK, PAPER, Color, draw_plate, fit_font, load_font, make_sheet
from latentlens_dag.models.families.token_map import PADDING, WITHOUT_BOX, TokenMap, grid_view
from latentlens_dag.storage.files import atomic_path

if TYPE_CHECKING:
    from numpy.typing import NDArray

COLORS = {"global": (180, 95, 0), "tile": (0, 114, 178), PADDING: (90, 90, 96), "unmapped": (90, 90, 96)}
"""After Okabe and Ito, safe for the color-blind; dark enough for white numbers."""
_NEWLINE = (196, 30, 58)
_SHORT, _LONG = 1200, 2400  # pixels of a panel's longer side: longer if boxes would be small
_BOX, _MARGIN, _LEAST_FONT, _LARGEST_FONT = 40, 24, 9, 22


def draw_token_map(image: Image.Image, token_map: TokenMap, path: Path) -> None:
    """Write a PNG atomically: per view the image with the boxes of its tokens, and their numbers where they fit.

    `image` is the model's input.
    """
    views = [name for name in dict.fromkeys(_grids(token_map).tolist()) if name not in ("newline", "separator")]
    panels = [_panel(image.convert("RGB"), token_map, view) for view in views]
    is_wide = panels[0].width >= panels[0].height
    sheet, _ = make_sheet([panels] if is_wide else [[panel] for panel in panels], _MARGIN, _MARGIN)
    with atomic_path(path) as temporary:
        sheet.save(temporary, "PNG")


def _panel(image: Image.Image, token_map: TokenMap, view: str) -> Image.Image:
    """The enlarged image with the tokens of one view, below a line of text."""
    owners, boxes = _grids(token_map), _with_bars(token_map)
    # Newline tokens end the rows of tiles, or of the only view.
    newlines = (owners == "newline") & (view == _with_newlines(owners.tolist()))
    tokens = np.flatnonzero(((owners == view) | newlines) & (boxes[:, 3] > boxes[:, 1]))  # whose place is known
    boxes = boxes[tokens]
    left, top = np.floor(boxes[:, :2].min(axis=0, initial=0))
    right, bottom = (np.ceil(boxes[:, 2 + i].max(initial=image.size[i])) for i in (0, 1))
    scale = _scale(boxes, max(right - left, bottom - top))
    head = 40
    width, height = round((right - left) * scale), round((bottom - top) * scale) + head
    panel = Image.new("RGB", (width, height), PAPER)
    shown = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))))
    corner = (round(-left * scale), round(-top * scale) + head)
    panel.paste(_faded(shown, boxes * scale), corner)
    draw = ImageDraw.Draw(panel)
    drawn = boxes * scale + [*corner, *corner]
    for number, box in zip(tokens, drawn, strict=True):
        own = token_map.view[number]
        _token(draw, box, int(number), _NEWLINE if own == "newline" else COLORS.get(own, INK))
    _title(draw, view, token_map, owners, width)
    return panel


def _grids(token_map: TokenMap) -> NDArray[np.str_]:
    """The view [T] in whose grid each token lies."""
    return np.array(list(map(grid_view, token_map.view, token_map.tile)))


def _with_bars(token_map: TokenMap) -> NDArray[np.float64]:
    """The boxes [T, 4]; a newline's is the right edge of the previous token, with zero width."""
    boxes = token_map.boxes.astype(np.float64)
    for token in np.flatnonzero(np.array(token_map.view) == "newline"):
        boxes[token] = boxes[token - 1][[2, 1, 2, 3]]
    return boxes


def _with_newlines(view: list[str]) -> str:
    """The view whose rows end with newlines."""
    return next((before for before, name in pairwise(view) if name == "newline"), "")


def _scale(boxes: NDArray[np.float64], extent: float) -> float:
    side = float(np.median(boxes[:, 3] - boxes[:, 1])) if len(boxes) else extent
    return min(max(_SHORT / extent, _BOX / side), _LONG / extent)


def _faded(image: Image.Image, boxes: NDArray[np.float64]) -> Image.Image:
    """The image, pale outside of the boxes."""
    mask = Image.new("L", image.size, 0)
    draw = ImageDraw.Draw(mask)
    for x0, y0, x1, y1 in boxes:
        if x1 > x0:
            draw.rectangle([x0, y0, x1, y1], fill=255)
    return Image.composite(image, Image.blend(image, Image.new("RGB", image.size, PAPER), 0.7), mask)


def _token(draw: ImageDraw.ImageDraw, box: NDArray[np.float64], number: int, color: Color) -> None:
    """A box with its number on a plate; a newline, which has no width, as a bar."""
    x0, y0, x1, y1 = (float(value) for value in box)
    if x1 - x0 < 1:
        draw.rectangle([x0 - 6, y0 + 2, x0 - 1, y1 - 2], fill=color)
        return
    draw.rectangle([x0, y0, max(x1 - 1, x0), max(y1 - 1, y0)], outline=PAPER, width=3)
    draw.rectangle([x0 + 1, y0 + 1, max(x1 - 2, x0 + 1), max(y1 - 2, y0 + 1)], outline=color, width=2)
    size = int(min(_LARGEST_FONT, (y1 - y0) * 0.25))
    font = load_font(max(size, _LEAST_FONT))
    width = font.getlength(str(number))
    if size >= _LEAST_FONT and width + 12 <= x1 - x0:
        draw_plate(draw, (x0 + 2, y0 + 2, x0 + width + 10, y0 + size * 1.35 + 3), str(number), font, color, 3)


def _title(draw: ImageDraw.ImageDraw, view: str, token_map: TokenMap, owners: NDArray[np.str_], width: int) -> None:
    in_view = owners == view
    tiles, rows, columns = (len(np.unique(part[in_view])) for part in (token_map.tile, token_map.row, token_map.col))
    has_place = view not in WITHOUT_BOX
    text = f"{view}: {int(in_view.sum())} tokens" + (f", {rows} x {columns}" if has_place else "")
    text += f", in {tiles} tiles" if view == "tile" else ""
    padding = int((np.array(token_map.view)[in_view] == PADDING).sum())
    text += f"; {padding} in padding (gray)" if padding else ""
    newlines = int((owners == "newline").sum())
    text += f"; {newlines} newlines (bars)" if newlines and view == _with_newlines(owners.tolist()) else ""
    text += "; pale: in none of them" if has_place else ", whose place is not known"
    draw.text((0, 18), text, font=fit_font(text, width, 22, 9), fill=COLORS.get(view, INK), anchor="lm")
