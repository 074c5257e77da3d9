"""docs/benchmarks.md says what its results say, cell by cell."""

import re

import pytest

from tests.benchmarks.results.document import COMMAND, DOCUMENT, differences, figures, read_recorded, sections, written

TEXT = DOCUMENT.read_text(encoding="utf-8")


def test_the_document_says_what_the_results_say() -> None:
    found = differences(TEXT)
    assert found == [], f"after another run, `{COMMAND} --record` keeps its figures; `{COMMAND}` writes the tables anew"


def test_the_tables_are_those_that_the_results_would_write() -> None:
    assert written(TEXT) == TEXT


def test_every_result_is_of_a_section_and_says_how_it_was_recorded() -> None:
    of_sections = {section.file.name for section in sections(TEXT)}
    for file in sections(TEXT)[0].file.parent.iterdir():
        assert file.name in of_sections, f"{file.name} is of no section"
    assert all(re.search(r"recorded .*on \d{4}-\d\d-\d\d", read_recorded(one)["recorded"]) for one in sections(TEXT))


@pytest.mark.parametrize("title", [section.title for section in sections(TEXT) if section.title != "About"])
def test_another_cell_or_figure_is_found(title: str) -> None:
    before, heading, rest = TEXT.partition(f"## {title}\n")
    part = rest.split("\n## ")[0]
    cells = [found.span(1) for found in re.finditer(r"(?<=\|) ([^|\n]*\d[^|\n]*) (?=\|)", part)]
    assert cells or figures(part)
    for start, end in [*cells, *figures(part)]:
        changed = f"{before}{heading}{rest[:end]}9{rest[end:]}"
        assert differences(changed), rest[start - 20 : end + 20]
