"""What pictures with text on them share: colors, fonts, plates and sheets.

Colors are after Okabe and Ito, safe for the color-blind.

Fonts: Pillow's own where it has all characters of a text, which is little more than ASCII; else one of the system, by
fontconfig or by the names of common ones. A text that no font has is never drawn as boxes: `drawable_text` gives the
name of its script in place of it. What no font can have, as it is no character of any script, is another matter: it
stands in the data like this (bytes of half a character become U+FFFD, a token may be a control character), and is drawn
as the sign for that.
"""

from __future__ import annotations

import subprocess
import unicodedata
from collections.abc import Sequence
from functools import cache

import regex
from PIL import Image, ImageDraw, ImageFont, features

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


_COMMON_FONTS = (
    *("DejaVuSans.ttf", "Arial Unicode.ttf", "NotoSansCJK-Regular.ttc", "FreeSans.ttf", "segoeui.ttf", "seguisym.ttf"),
    *("Nirmala.ttc", "Nirmala.ttf", "LeelawUI.ttf", "YuGothR.ttc", "msyh.ttc", "malgun.ttf"),
)
"""Files that Pillow looks for in the folders of the system's fonts, where there is no fontconfig."""
_INVISIBLE = regex.compile(r"[\s\p{Default_Ignorable_Code_Point}]")  # joiners; a shaping library draws nothing for them
_PICTOGRAPH = regex.compile(r"\p{Extended_Pictographic}")
_NO_CHARACTER = regex.compile(r"[\ufffd\p{Cc}\p{Co}\p{Cn}\p{Cs}--\s]", regex.VERSION1)
"""The replacement character, controls, and codes for private use or without a meaning."""
_SIGNS = ("\ufffd", "?")  # for one of them: the first that a font has together with the rest of the text
_MISSING = "\U0010fffe"  # never a character, so that every font draws its sign for a missing one
_TEST_SIZE = 20


def load_font(size: int, text: str = "") -> Font:
    """A font that has the text, if there is one; Pillow's own, which needs no file of the system, where it has it."""
    file = _font_file(_visible(text))
    return ImageFont.truetype(file, size) if file else ImageFont.load_default(size=size)


def fit_font(text: str, width: float, largest: int, smallest: int) -> Font:
    """The largest font from `largest` to `smallest` in which the text is at most `width` pixels wide, or `smallest`."""
    fonts = (load_font(size, text) for size in range(largest, smallest, -1))
    return next((font for font in fonts if font.getlength(text) <= width), load_font(smallest, text))


def has_no_characters(text: str) -> bool:
    """Whether a part of the text is no character of any script, in the data already."""
    return _NO_CHARACTER.search(text) is not None


def missing_script(text: str) -> str | None:
    """The script of the first character of a text that no font here can draw, such as "Thai"; None of other texts."""
    text = _NO_CHARACTER.sub("", text)
    if _font_file(_visible(text)) is not None:
        return None
    own, text = ImageFont.load_default(size=_TEST_SIZE), unicodedata.normalize("NFC", text)
    return _script(next((one for one in text if one in _visible(text) and not _has(own, one)), text))


def drawable_text(text: str) -> str:
    """The text, or the name of its script in parentheses where no font here can draw it.

    What is no character of any script becomes U+FFFD, or a question mark where no font has that.
    """
    if script := missing_script(text):
        return f"({script})"
    signed = (_NO_CHARACTER.sub(sign, text) for sign in _SIGNS)
    return next((one for one in signed if _font_file(_visible(one)) is not None), text)


def _visible(text: str) -> frozenset[str]:
    return frozenset(_INVISIBLE.sub("", text))


def _script(text: str) -> str:
    if _PICTOGRAPH.match(text):
        return "emoji"
    name = unicodedata.name(text[0], "unknown").split()[0]
    return name if name == "CJK" else name.title()


@cache
def _font_file(characters: frozenset[str]) -> str | None:
    """The file of a font with these characters, empty for Pillow's own; None if there is none.

    A font may lack nothing, but be useless: letters that join, change places or run from right to left need a library
    that shapes text, which Pillow has in most of its builds (raqm).
    """
    if all(_has(ImageFont.load_default(size=_TEST_SIZE), one) for one in characters):
        return ""
    if not features.check("raqm") and any(_needs_shaping(one) for one in characters):
        return None
    # A font that has the whole script is the best for any of its letters, so that few fonts are looked for.
    files = (file for one in sorted(characters, reverse=True) for file in _system_fonts(one))
    return next((file for file in files if _has_all(file, characters)), None)


def _needs_shaping(character: str) -> bool:
    return unicodedata.category(character)[0] == "M" or unicodedata.bidirectional(character) in ("R", "AL")


@cache
def _system_fonts(character: str) -> tuple[str, ...]:
    """Fonts of the system that may have the character, the best first."""
    command = ["fc-match", "--format=%{file}", f"sans:charset={ord(character):x}"]  # takes 20 ms
    try:
        return (subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout,)
    except (OSError, ValueError, subprocess.SubprocessError):
        return _COMMON_FONTS


def _has_all(file: str, characters: frozenset[str]) -> bool:
    try:  # without shaping: one sign per character
        font = ImageFont.truetype(file, _TEST_SIZE, layout_engine=ImageFont.Layout.BASIC)
    except OSError:  # no such file, or a font of pictures of one size, as of colored emoji
        return False
    return all(_has(font, one) for one in characters)


def _has(font: Font, character: str) -> bool:
    """Whether the font draws the character, and not the sign for a missing one."""
    one, missing = font.getmask(character), font.getmask(_MISSING)
    return (one.size, bytes(one)) != (missing.size, bytes(missing))


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
