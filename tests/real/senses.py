"""Sentences of our own that end in an ambiguous word, by the sense it has there (senses.txt)."""

import re
from pathlib import Path

TEXTS_PER_SENSE = 2
"""The first so many sentences of each sense are the texts that are read; the others are the corpus."""


def sentences_by_sense() -> dict[tuple[str, str], list[str]]:
    """(word, sense) -> its sentences."""
    found: dict[tuple[str, str], list[str]] = {}
    for line in (Path(__file__).parent / "senses.txt").read_text(encoding="utf-8").splitlines():
        if heading := re.fullmatch(r"(\w+), (\w+)", line):
            mine = found.setdefault((heading[1], heading[2]), [])
        else:
            mine.append(line)
    return found


def texts_and_corpus() -> tuple[list[str], list[str]]:
    """40 texts and 120 sentences."""
    sentences = sentences_by_sense().values()
    texts = [one for of_sense in sentences for one in of_sense[:TEXTS_PER_SENSE]]
    return texts, [one for of_sense in sentences for one in of_sense[TEXTS_PER_SENSE:]]
