"""The tables and figures of docs/benchmarks.md, kept in `results/recorded`, one file a section.

    python -m tests.benchmarks.results.document            # write the tables of the files into the document
    python -m tests.benchmarks.results.document --record   # after a run: read the document into the files, by hand

Raw results of the runs before these files are not to be had any more: they were read out of the document, and say so.
"""

from __future__ import annotations

import argparse
import datetime
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tests.benchmarks.results import FOLDER

DOCUMENT = Path(__file__).parents[3] / "docs" / "benchmarks.md"
RECORDED = FOLDER / "recorded"
COMMAND = "python -m tests.benchmarks.results.document"
_FIGURE = re.compile(r"(?<![\w`./-])\d[\d,]*(?:\.\d+)?(?:e-?\d+)?(?![\w`/-]*[`/_])")

Table = list[list[str]]
"""Rows of cells; the first is the head."""


class Section(NamedTuple):
    """What one section says."""

    title: str
    tables: list[Table]
    figures: list[str]
    """In the order of its text."""

    @property
    def file(self) -> Path:
        """Where it is kept."""
        return RECORDED / f"{re.sub(r'[^a-z0-9]+', '_', self.title.lower()).strip('_')}.json"


def sections(text: str) -> list[Section]:
    """The sections of a document, what comes before the first one as `About`."""
    parts = re.split(r"^## (.*)\n", text, flags=re.MULTILINE)
    titles = ["About", *parts[1::2]]
    return [Section(title, *_contents(part)) for title, part in zip(titles, parts[::2], strict=True)]


def _contents(text: str) -> tuple[list[Table], list[str]]:
    return list(tables(text.splitlines())), [text[start:end] for start, end in figures(text)]


def figures(text: str) -> list[tuple[int, int]]:
    """Where the figures of a text stand: outside of tables and code."""
    prose = re.sub(r"`[^`]*`|^\|.*$", lambda found: " " * len(found[0]), text, flags=re.MULTILINE)
    return [found.span() for found in _FIGURE.finditer(prose)]


def tables(lines: Sequence[str]) -> Iterator[Table]:
    """The Markdown tables of some lines, without the rows of dashes."""
    table: Table = []
    for line in [*lines, ""]:
        if line.startswith("|"):
            table.append([cell.strip() for cell in line.strip().removeprefix("|").removesuffix("|").split("|")])
        elif table:
            yield [table[0], *table[2:]]
            table = []


def read_recorded(section: Section) -> dict[str, Any]:
    """The file of a section.

    Raises:
        FileNotFoundError: where the section is new.
    """
    found: dict[str, Any] = json.loads(section.file.read_text(encoding="utf-8"))
    return found


def differences(text: str) -> list[str]:
    """What a document says otherwise than the files, section by section."""
    found = []
    for section in sections(text):
        if not section.file.is_file():
            found.append(f"{section.title}: {section.file.name} is missing")
            continue
        kept = read_recorded(section)
        found += [f"{section.title}: {name}" for name in ("tables", "figures") if kept[name] != getattr(section, name)]
    return found


def written(text: str) -> str:
    """The document with the tables of the files."""
    for section in sections(text):
        for old, new in zip(section.tables, read_recorded(section)["tables"], strict=True):
            for before, after in zip(old, new, strict=True):
                text = text.replace(_line(before), _line(after), 1)
    return text


def _line(cells: Sequence[str]) -> str:
    return "|" + "|".join(f" {cell} " if cell else " " for cell in cells) + "|"


def record(text: str, today: datetime.date) -> None:
    """Keep what a document says; files that say the same stay as they are."""
    RECORDED.mkdir(exist_ok=True)
    for section in sections(text):
        said = {"tables": section.tables, "figures": section.figures}
        if section.file.is_file() and read_recorded(section).items() >= said.items():
            continue
        how = f"recorded by hand on {today}, out of docs/benchmarks.md, which names machine and load"
        section.file.write_text(json.dumps({"recorded": how, **said}, indent=1, ensure_ascii=False) + "\n", "utf-8")


def main() -> None:
    """Write the document, or the files."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--record", action="store_true", help="from the document into the files")
    text = DOCUMENT.read_text(encoding="utf-8")
    if parser.parse_args().record:
        record(text, datetime.datetime.now(datetime.UTC).date())
    else:
        DOCUMENT.write_text(written(text), encoding="utf-8")


if __name__ == "__main__":
    main()
