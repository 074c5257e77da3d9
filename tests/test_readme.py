"""README's other figures are those of the documents and results that they come from."""

import re
from collections.abc import Sequence
from pathlib import Path

from tests.benchmarks.results.document import DOCUMENT, Table, sections, tables
from tests.families.table import DOCUMENT as FAMILIES

README = re.sub(r"\s+", " ", (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8"))
BROWSER = next(one for one in sections(DOCUMENT.read_text(encoding="utf-8")) if one.title == "The browser").tables[0]
STATUSES = next(tables(FAMILIES.read_text(encoding="utf-8").splitlines()))


def _of_the_browser(table: Table) -> str:
    """Of its release, in seconds: while the catalog is made, and with it."""
    rows = {row[0]: row[1:] for row in table[1:]}
    worst = rows["the same, worst"]
    started, with_catalog = (
        rows["first view of a server that has just started"][2],
        rows["first view, median of five"][3],
    )
    first, second, word, word_then = map(_seconds, (started, with_catalog, worst[2], worst[3]))
    return f"its first view took {first} s, and a frequent word {word} s (with a catalog {second} and {word_then} s)"


def _seconds(milliseconds: str) -> str:
    return f"{int(milliseconds.replace(',', '')) / 1000:.1f}"


def _of_families(table: Sequence[Sequence[str]]) -> str:
    counts = {row[0]: int(row[1]) for row in table[1:]}
    mapped = sum(count for status, count in counts.items() if status.startswith("mapped"))
    return f"{mapped} of the {sum(counts.values())} image-text-to-text families"


def test_the_readme_says_of_the_browser_and_of_families_what_their_tables_say() -> None:
    assert _of_the_browser(BROWSER) in README
    assert _of_families(STATUSES) in README


def test_another_cell_is_not_what_the_readme_says() -> None:
    for name, column in (
        ("first view of a server that has just started", 3),
        ("first view, median of five", 4),
        ("the same, worst", 3),
        ("the same, worst", 4),
    ):
        changed = [[*row] for row in BROWSER]
        row = next(row for row in changed if row[0] == name)
        row[column] = f"{int(row[column].replace(',', '')) + 100:,}"
        assert _of_the_browser(changed) not in README, name
    for number in range(1, len(STATUSES)):
        statuses = [[*row] for row in STATUSES]
        statuses[number][1] = str(int(statuses[number][1]) + 1)
        assert _of_families(statuses) not in README
