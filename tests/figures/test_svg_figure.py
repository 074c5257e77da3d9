"""Figures: equal parts give equal bytes, anybody's text stays text, and words fit where they are set."""

from __future__ import annotations

import base64
import random
import re
import struct
import zlib
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

from latentlens_dag.figures.svg_figure import (
    FLOW_WIDTH,
    Answer,
    Cell,
    Figure,
    Legend,
    figure_svg,
    flow_tokens,
    word_lines,
)
from latentlens_dag.figures.text_layout import hyphenate, kwic, text_width, truncate
from latentlens_dag.text.display import bracket_word, clip, excerpt, split_at

GOLDEN = Path(__file__).parent / "golden" / "figure.svg"
HOSTILE = "<img src=x onerror=alert(1)>&\x07\x00\u202e\ud800\uffff]]>"
ARABIC, FAMILY = "شجرة كبيرة", "👩‍👩‍👧"
SENTENCE = "A brown dog sleeps on the warm carpet near the door."


def _png() -> bytes:
    """A red picture of one pixel, written out so that no library decides its bytes."""
    size = struct.pack(">2I5B", 1, 1, 8, 2, 0, 0, 0)
    parts = (b"IHDR", size), (b"IDAT", zlib.compress(b"\0\xff\0\0", 0)), (b"IEND", b"")
    chunks = (struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


FIGURE = Figure(
    picture=_png(),
    width=64,
    height=32,
    cells=[
        Cell((0, 0, 32, 32), "dog", "#44015480"),
        Cell((32, 0, 35, 4), "bookshelf"),
        Cell((35, 0, 37, 4), "electroencephalographically"),
        Cell((37, 0, 70, 32), "", "#fde725"),
    ],
    key=Legend("Cosine", ramp=("#440154", "#fde725"), low="0.1", high="0.9"),
    caption=["Study demo", "dog.png", "LatentLens, visual layer 4"],
    chosen=Cell((0, 0, 32, 32), "dog"),
    heading="Token 0",
    answers=[Answer(1, "dog", "0.87", 2, split_at(SENTENCE, 8, 11)), Answer(2, "lawn", "0.50", None, None)],
)


def _texts(svg: str) -> list[str]:
    root = ElementTree.fromstring(svg)
    return ["".join(node.itertext()) for node in root.iter("{http://www.w3.org/2000/svg}text")]


def test_a_figure_is_drawn_as_it_was_looked_at_once() -> None:
    """To accept a new drawing, look at it and write it to the golden file."""
    assert figure_svg(FIGURE) == GOLDEN.read_text(encoding="utf-8")


def test_markup_is_text_controls_are_gone_and_letters_of_any_script_stay() -> None:
    sentence = split_at(f"{ARABIC} {HOSTILE} {FAMILY}", len(ARABIC) + 1, len(ARABIC) + 5)
    hostile = replace(
        FIGURE,
        cells=[Cell((0, 0, 32, 32), HOSTILE), Cell((32, 0, 64, 32), ARABIC), Cell((0, 0, 32, 32), "x", label=FAMILY)],
        key=Legend(HOSTILE, entries=[("#ffffff", HOSTILE)]),
        caption=[HOSTILE, FAMILY, "y" * 10_000],
        heading=HOSTILE,
        answers=[Answer(1, HOSTILE, HOSTILE, 3, sentence)],
    )
    svg = figure_svg(hostile)
    found = "\n".join(_texts(svg))
    names = {node.tag.rpartition("}")[2] for node in ElementTree.fromstring(svg.encode()).iter()}
    assert names == {"svg", "title", "rect", "g", "text", "tspan", "image"}
    assert "<img src=x onerror=alert(1)>&" in found
    assert ARABIC in found and FAMILY in found and "y" * 50 in found and len(svg) < 20_000
    assert not set(svg) & {"\x07", "\x00", "\u202e", "\ud800", "\uffff"}


def test_a_sentence_written_from_right_to_left_begins_at_the_same_place() -> None:
    answer = Answer(1, ARABIC, "0.9", 1, split_at(ARABIC, 0, 4))
    root = ElementTree.fromstring(figure_svg(replace(FIGURE, answers=[answer])))
    lines = [node for node in root.iter("{http://www.w3.org/2000/svg}text") if "".join(node.itertext()) == ARABIC]
    assert [(node.get("direction"), node.get("text-anchor")) for node in lines] == [("rtl", "end")] * 2


def test_words_keep_to_their_cells_and_are_legible_where_there_is_room() -> None:
    draw = random.Random(5)
    for _ in range(500):
        word = "".join(draw.choice("abcdefghijklmnopqrstuvwxyzABWÄé日") for _ in range(draw.randrange(1, 30)))
        width, height = draw.uniform(40, 300), draw.uniform(40, 300)
        size, lines = word_lines(word, width, height)
        assert max(map(text_width, lines)) * size <= width and size * len(lines) * 1.1 <= height
        assert size >= 14 and "".join(lines).replace("-", "").startswith(word[:1])
    assert word_lines("bookshelf", 160, 82)[1] == ["bookshelf"] and word_lines("bookshelf", 82, 82)[1] == [
        "book-",
        "shelf",
    ]


LETTERS = ("\u0939\u093f", "\u0bae\u0bbf", "e\u0301", "\u05e9\u05b8\u05c1", "\u0e17\u0e35\u0e48")
"""Letters with their vowels and marks."""


def test_nothing_that_belongs_together_is_cut_apart() -> None:
    assert hyphenate("bookshelf", 2) == ["book-", "shelf"]
    assert hyphenate(ARABIC, 2) == [ARABIC] and hyphenate(FAMILY * 4, 2) == [FAMILY * 4]
    for width in range(1, 12):
        cuts = [truncate(FAMILY * 5, width).rstrip("…"), kwic(FAMILY * 5, "dog", FAMILY * 5, width)[0].lstrip("…")]
        assert all(set(one.split(FAMILY)) <= {""} for one in cuts)
        for letter in LETTERS:
            text = letter * 9
            cuts = [truncate(text, width), *kwic(text, "dog", text, width), clip(text, width + 2)]
            cuts += excerpt(text + "dog" + text, len(text), len(text) + 3, width)
            cuts.append(bracket_word(text + "dog" + text, len(text), len(text) + 3, width + 5))
            assert all(set(re.sub(r"[…\[\]dog]", "", one).split(letter)) <= {""} for one in cuts if not one.isascii())
    head, word, tail = kwic("a" * 90, "dog", "b" * 90, 40)
    assert word == "dog" and head.startswith("…") and tail.endswith("…") and text_width(head + word + tail) <= 40
    assert kwic("", "dog", " is here", 40) == ("", "dog", " is here")


def test_tokens_of_a_text_lie_side_by_side_in_their_order() -> None:
    tokens = [Cell((0, 0, 0, 0), f"word{n}", label=f"token{n}") for n in range(100)]
    placed, height = flow_tokens(tokens)
    assert [cell.label for cell in placed] == [cell.label for cell in tokens]
    for before, after in pairwise(placed):
        same_line = before.box[1] == after.box[1]
        assert after.box[0] > before.box[2] if same_line else after.box[1] >= before.box[3] and after.box[0] == 0
    assert max(cell.box[2] for cell in placed) <= FLOW_WIDTH and max(cell.box[3] for cell in placed) <= height


def test_the_picture_is_inside_the_file() -> None:
    assert base64.b64encode(_png()).decode() in figure_svg(FIGURE)
    assert "<image" not in figure_svg(replace(FIGURE, picture=None))
