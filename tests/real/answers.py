"""The answers of SmolLM2 that README and the example's own README have in their tables."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple


class ToldAnswer(NamedTuple):
    """A cell: what it says is the nearest neighbor of a text's word at a layer."""

    text: str
    layer: str
    cosine: float
    parts: list[str]
    """Of the sentence, in order."""


def told_answers(document: str) -> Iterator[ToldAnswer]:
    """All cells of the tables of a README."""
    for line in document.splitlines():
        if not re.match(r"\| .*\*\*\w+\*\*.* \|", line):
            continue
        text, *cells = [cell.strip() for cell in line.strip("|").split("|")]
        for layer, cell in zip(("1", "24"), cells, strict=True):
            cosine, sentence = cell.removeprefix("wrong: ").split(" ", 1)
            parts = [part.strip() for part in sentence.split("...") if part.strip()]
            yield ToldAnswer(text.replace("**", ""), layer, float(cosine), parts)


def wrongly_told(document: str, answers: Iterable[Mapping[str, str]], apart: float = 0.0) -> list[ToldAnswer]:
    """The cells that are not what was answered: rows of text, layer, cosine and nearest.

    Cosines are compared to three digits, and may be `apart`: another machine adds in another order.
    """
    found = {(row["text"], row["layer"]): row for row in answers}
    return [
        told
        for told in told_answers(document)
        if abs(float(found[told.text, told.layer]["cosine"]) - told.cosine) > apart + 1e-9
        or not all(part in found[told.text, told.layer]["nearest"] for part in told.parts)
    ]
