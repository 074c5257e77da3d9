"""An image with the words of its patches as an SVG for a paper: 17 cm wide, on white, words as text.

Equal figures give equal bytes.

Note: words and sentences are untrusted text, and an SVG is XML that programs run. All text that is not of this module
goes through `_text` or `xml_text`.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from latentlens_dag.figures.text_layout import hyphenate, kwic, reads_right_to_left, text_width, truncate, xml_text
from latentlens_dag.text.display import SentenceParts

WIDTH_MM = 170
_UNITS = 10  # of the drawing, per mm
_MARGIN, _GAP = 20, 18
FLOW_WIDTH = WIDTH_MM * _UNITS - 2 * _MARGIN
"""Width of the lines of `flow_tokens`, and of everything inside of the margins."""
_TALLEST = 1700
"""Height limit of the image; with legend, neighbors and caption it fits a page of A4."""
_INK, _FAINT, _LINE, _PLATE = "#16191d", "#565d66", "#b6bcc4", "#101418"
_TEXT, _SMALL = 28, 25  # 8 and 7 points
_LEADING, _BOLD = 1.14, 1.1  # line height; width of bold relative to regular letters
_FONTS = "Helvetica, Arial, 'Liberation Sans', 'DejaVu Sans', 'Noto Sans', 'Noto Color Emoji', sans-serif"

Box = tuple[float, float, float, float]


class LetterSizes(NamedTuple):
    """Font sizes of words on cells, in units of the drawing."""

    legible: float
    """At this size or above, a word stays on one line."""
    least: float
    """Below this size, it is truncated."""
    largest: float


_LETTERS = LetterSizes(legible=21, least=14, largest=34)  # 6, 4 and 9.6 points


class Cell(NamedTuple):
    """One token."""

    box: Box
    """x0, y0, x1, y1 in pixels of the original image."""
    word: str
    """Its nearest neighbor."""
    fill: str = ""
    """#rrggbb, or #rrggbbaa for a translucent fill; empty for none."""
    hit: bool = False
    """Whether it matches the search; if any cell does, only hits have words."""
    label: str = ""
    """The token itself, in a study of texts."""


class Legend(NamedTuple):
    """The meaning of the colors."""

    title: str
    entries: Sequence[tuple[str, str]] = ()
    """Color and meaning."""
    ramp: Sequence[str] = ()
    """Colors of a scale from `low` to `high`."""
    low: str = ""
    high: str = ""


class Answer(NamedTuple):
    """One neighbor of the chosen token."""

    rank: int
    word: str
    number: str
    """Its cosine or logit."""
    layer: int | None
    """Contextual layer."""
    sentence: SentenceParts | None


@dataclass(frozen=True)
class Figure:
    """The content of the drawing."""

    picture: bytes | None
    """PNG or JPEG, which every SVG program shows."""
    width: float
    """Of the original image in pixels, as all boxes."""
    height: float
    cells: Sequence[Cell]
    key: Legend
    caption: Sequence[str]
    """Parts; lines break between them."""
    words: bool = True
    """Whether cells show their words."""
    chosen: Cell | None = None
    heading: str = ""
    """Heading of the neighbors."""
    answers: Sequence[Answer] = ()


class _Block(NamedTuple):
    """Elements of SVG and their height."""

    lines: list[str]
    height: float


def figure_svg(figure: Figure) -> str:
    """The figure as SVG: legend, image, neighbors of the chosen token, caption; empty blocks are left out."""
    blocks = [_legend(figure.key), _image(figure), _neighbors(figure), _caption(figure.caption)]
    y, body = float(_MARGIN), list[str]()
    for block in (block for block in blocks if block.lines):
        body += [f'<g transform="translate({_MARGIN} {_n(y)})">', *block.lines, "</g>"]
        y += block.height + _GAP
    width, height = WIDTH_MM * _UNITS, round(y - _GAP + _MARGIN)
    title = xml_text(" · ".join(figure.caption))
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" width="{WIDTH_MM}mm" '
        f'height="{_n(height / _UNITS)}mm" viewBox="0 0 {width} {height}" role="img" font-family="{_FONTS}">'
    )
    paper = f'<rect width="{width}" height="{height}" fill="#ffffff"/>'
    return "\n".join([head, f"<title>{title}</title>", paper, *body, "</svg>"]) + "\n"


def flow_tokens(tokens: Sequence[Cell]) -> tuple[list[Cell], float]:
    """Lay out tokens of a text in lines, each with its word below; return them and the total height."""
    line, gap = 92.0, 8.0
    x, y, placed = 0.0, 0.0, list[Cell]()
    for token in tokens:
        label, word = truncate(token.label, 16), truncate(token.word, 16)
        width = max(text_width(label) * _TEXT, text_width(word) * _SMALL, 24) + 20
        if x + width > FLOW_WIDTH:
            x, y = 0.0, y + line
        placed.append(token._replace(box=(x, y, x + width, y + line - gap), label=label, word=word))
        x += width + gap
    return placed, y + line


def extent(width: float, height: float, boxes: Sequence[Box]) -> Box:
    """The bounding box of an image and its boxes, which go beyond the image where a processor pads."""
    corners = [(0.0, 0.0, width, height), *boxes]
    left, top = (min(box[side] for box in corners) for side in (0, 1))
    return left, top, max(box[2] for box in corners), max(box[3] for box in corners)


def _legend(key: Legend) -> _Block:
    if not key.title:
        return _Block([], 0)
    lines, x, y = [_text(0, _TEXT, key.title, _SMALL, fill=_FAINT)], text_width(key.title) * _SMALL + 30, 0.0
    if key.ramp:
        low, long = text_width(key.low) * _SMALL + 12, 300
        stops = (
            f'<stop offset="{_n(at / (len(key.ramp) - 1))}" stop-color="{color}"/>' for at, color in enumerate(key.ramp)
        )
        lines += [f'<defs><linearGradient id="ramp">{"".join(stops)}</linearGradient></defs>']
        lines += [_text(x, _TEXT, key.low, _SMALL), _rect(x + low, 6, long, 24, 'fill="url(#ramp)"')]
        lines += [_text(x + low + long + 12, _TEXT, key.high, _SMALL)]
    for color, label in key.entries:
        wide = text_width(label) * _SMALL + 64
        if x + wide > FLOW_WIDTH:
            x, y = 0.0, y + 40
        lines += [_rect(x, y + 6, 24, 24, f'fill="{color}" stroke="{_LINE}"'), _text(x + 34, y + _TEXT, label, _SMALL)]
        x += wide
    return _Block(lines, y + 36)


def _image(figure: Figure) -> _Block:
    """The image with its cells."""
    left, top, right, bottom = extent(figure.width, figure.height, [cell.box for cell in figure.cells])
    scale = min(FLOW_WIDTH / (right - left), _TALLEST / (bottom - top))
    if any(cell.label for cell in figure.cells):
        scale = 1.0
    lines = [_rect(0, 0, (right - left) * scale, (bottom - top) * scale, 'fill="#eef0f3"')] if figure.picture else []
    if figure.picture:
        kind = "png" if figure.picture.startswith(b"\x89PNG") else "jpeg"
        data = base64.b64encode(figure.picture).decode("ascii")
        size = f'width="{_n(figure.width * scale)}" height="{_n(figure.height * scale)}"'
        place = f'x="{_n(-left * scale)}" y="{_n(-top * scale)}" {size} preserveAspectRatio="none"'
        lines.append(f'<image {place} xlink:href="data:image/{kind};base64,{data}"/>')

    def scaled(cell: Cell) -> Cell:
        x0, y0, x1, y1 = cell.box
        box = ((x0 - left) * scale, (y0 - top) * scale, (x1 - left) * scale, (y1 - top) * scale)
        return cell._replace(box=box)

    cells = [scaled(cell) for cell in figure.cells]
    lines += [_tile(cell) for cell in cells]
    if figure.words:
        lines += [line for cell in [c for c in cells if c.hit] or cells for line in _cell_word(cell)]
    if figure.chosen is not None:
        box = scaled(figure.chosen).box
        lines += [
            _box(box, f'fill="none" stroke="{color}" stroke-width="{wide}"')
            for color, wide in ((_PLATE, 10), ("#ffd21f", 5))
        ]
    return _Block(lines, (bottom - top) * scale)


def _tile(cell: Cell) -> str:
    stroke = f'stroke="{_LINE}"' if cell.label else 'stroke="#ffffff" stroke-opacity=".35"'
    stroke = 'stroke="#ffd21f" stroke-width="4"' if cell.hit else stroke
    color = cell.fill[:7] or "none"
    opacity = f' fill-opacity="{int(cell.fill[7:9], 16) / 255:.2f}"' if len(cell.fill) == 9 else ""
    return _box(cell.box, f'fill="{color}"{opacity} {stroke}')


def _cell_word(cell: Cell) -> Iterator[str]:
    """The word of a cell on a dark plate, legible on any image; in a text, below the token."""
    x0, y0, x1, y1 = cell.box
    if cell.label:
        yield _text(x0 + 10, y0 + 34, cell.label, _TEXT)
        yield _text(x0 + 10, y0 + 68, cell.word, _SMALL, weight=700, fill="#0b4f8a")
        return
    if not cell.word:
        return
    size, lines = word_lines(cell.word, x1 - x0, y1 - y0)
    wide = min((max(map(text_width, lines)) * _BOLD + 0.4) * size, (x1 - x0) * 0.96)
    high, middle = len(lines) * size * _LEADING + size * 0.14, (y0 + y1) / 2
    plate = f'rx="{_n(size / 4)}" fill="{_PLATE}" fill-opacity=".74"'
    yield _rect((x0 + x1 - wide) / 2, middle - high / 2, wide, high, plate)
    for number, line in enumerate(lines):
        y = middle - high / 2 + size * (0.93 + number * _LEADING)
        yield _text((x0 + x1) / 2, y, line, size, anchor="middle", weight=600, fill="#ffffff")


def word_lines(word: str, width: float, height: float, letters: LetterSizes = _LETTERS) -> tuple[float, list[str]]:
    """Font size and lines of a word in a cell: one line if legible, else up to three, else truncated."""
    layouts = []
    for count in (1, 2, 3):
        lines = hyphenate(word, count)
        widest = max(map(text_width, lines))
        size = min(width * 0.94 / (widest * _BOLD + 0.4), height * 0.95 / (len(lines) * _LEADING), letters.largest)
        layouts.append((size, lines))
        if size >= letters.legible or len(lines) < count:
            break
    size, lines = max(layouts, key=lambda layout: layout[0])
    if size >= letters.least:
        return size, lines
    size = min(letters.least, height * 0.8)
    return size, [truncate(word, (width * 0.94 / size - 0.4) / _BOLD)]


def _neighbors(figure: Figure) -> _Block:
    """The neighbors of the chosen token, one per line: rank, word, score, layer, sentence."""
    if not figure.answers:
        return _Block([], 0)
    lines, y = [_text(0, _TEXT, truncate(figure.heading, FLOW_WIDTH / _TEXT), _TEXT, weight=700)], 42
    for answer in figure.answers:
        base = y + _TEXT
        lines += [_text(0, base, str(answer.rank), _SMALL, fill=_FAINT)]
        lines += [_text(34, base, truncate(answer.word, 13), _SMALL, weight=700)]
        lines += [_text(500, base, answer.number, _SMALL, anchor="end")]
        if answer.layer is not None:
            lines.append(_text(520, base, f"layer {answer.layer}", _SMALL, fill=_FAINT))
        if answer.sentence is not None:
            lines.append(_sentence(650, base, answer.sentence, FLOW_WIDTH - 650))
        y += 40
    return _Block(lines, y)


def _sentence(x: float, y: float, sentence: SentenceParts, width: float) -> str:
    """A sentence on one line, shortened around its word."""
    before, word, after = kwic(sentence.before, sentence.word, sentence.after, width / _SMALL)
    bold = f'<tspan font-weight="700" text-decoration="underline">{xml_text(word)}</tspan>' if word else ""
    place = f'x="{_n(x)}" y="{_n(y)}" font-size="{_SMALL}" fill="{_INK}"{_side(before + word + after)}'
    return f"<text {place}>{xml_text(before)}{bold}{xml_text(after)}</text>"


def _caption(parts: Sequence[str]) -> _Block:
    """The caption, on as many lines as needed."""
    rows, width = [""], FLOW_WIDTH / _SMALL
    for part in parts:
        part = truncate(part, width)
        longer = f"{rows[-1]} · {part}" if rows[-1] else part
        rows = [*rows[:-1], longer] if text_width(longer) <= width else [*rows, part]
    lines = [_text(0, _SMALL + 34 * number, row, _SMALL, fill=_FAINT) for number, row in enumerate(rows) if row]
    return _Block(lines, 34 * len(rows))


def _box(box: Box, more: str) -> str:
    x0, y0, x1, y1 = box
    return _rect(x0, y0, x1 - x0, y1 - y0, more)


def _rect(x: float, y: float, width: float, height: float, more: str) -> str:
    return f'<rect x="{_n(x)}" y="{_n(y)}" width="{_n(width)}" height="{_n(height)}" {more}/>'


def _text(
    x: float, y: float, text: str, size: float, *, anchor: str = "start", weight: int = 400, fill: str = _INK
) -> str:
    """A line of untrusted text."""
    anchored = _side(text) if anchor == "start" else f' text-anchor="{anchor}"'
    bold = f' font-weight="{weight}"' if weight != 400 else ""
    place = f'x="{_n(x)}" y="{_n(y)}" font-size="{_n(size)}" fill="{fill}"'
    return f"<text {place}{bold}{anchored}>{xml_text(text)}</text>"


def _side(text: str) -> str:
    """Attributes for a line written from right to left, so that its left end is at x."""
    return ' direction="rtl" text-anchor="end"' if reads_right_to_left(text) else ""


def _n(number: float) -> str:
    """A number with at most two decimals."""
    return f"{number + 0.0:.2f}".rstrip("0").rstrip(".")
