"""What pictures with text on them share: colors, fonts, plates and sheets.

Colors are after Okabe and Ito, safe for the color-blind.
"""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

Color = tuple[int, int, int]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
INK: Color = (30, 30, 34)
PAPER: Color = (255, 255, 255)
VERDICT_COLORS = {"concrete": "#009e73", "abstract": "#56b4e9", "global": "#e69f00", "none": "#b9b9b9"}
"""Of patches that the picture shines through."""
VERDICT_PLATES: dict[str, Color] = {
    "concrete": (0, 114, 88),
    "abstract": (0, 92, 175),
    "global": (180, 95, 0),
    "none": (64, 64, 68),
}
"""The same, darkened until white text on each has contrast."""


def load_font(size: int) -> Font:
    """Pillow's own font, which needs no file of the system."""
    return ImageFont.load_default(size=size)


def fit_font(text: str, width: float, largest: int, smallest: int) -> Font:
    """The largest font from `largest` to `smallest` in which the text is at most `width` pixels wide, or `smallest`."""
    fonts = (load_font(size) for size in range(largest, smallest, -1))
    return next((font for font in fonts if font.getlength(text) <= width), load_font(smallest))


def draw_plate(
    draw: ImageDraw.ImageDraw,
    box: tuple[float, float, float, float],
    text: str,
    font: Font,
    fill: tuple[int, ...],
    radius: float,
) -> None:
    """White text in the middle of a rounded box x0, y0, x1, y1."""
    draw.rounded_rectangle(box, radius=radius, fill=fill)
    draw.text(((box[0] + box[2]) / 2, (box[1] + box[3]) / 2), text, font=font, fill=PAPER, anchor="mm")


def make_sheet(
    columns: Sequence[Sequence[Image.Image]], margin: int, gap: int, top: int | None = None
) -> tuple[Image.Image, list[int]]:
    """Pictures in columns of equal length on white, the first row at y = `top`; and the left edges of the columns."""
    top = margin if top is None else top
    widths = [max(picture.width for picture in column) for column in columns]
    heights = [max(picture.height for picture in row) for row in zip(*columns, strict=True)]
    lefts = [margin + sum(widths[:number]) + gap * number for number in range(len(widths))]
    tops = [top + sum(heights[:number]) + gap * number for number in range(len(heights))]
    sheet = Image.new("RGB", (lefts[-1] + widths[-1] + margin, tops[-1] + heights[-1] + margin), PAPER)
    for left, column in zip(lefts, columns, strict=True):
        for y, picture in zip(tops, column, strict=True):
            sheet.paste(picture, (left, y))
    return sheet, lefts
