"""What CONTRIBUTING.md says of the packages and files is so."""

import re
from pathlib import Path

from tests.test_boundaries import FLOORS

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
TASKS = TEXT.partition("## To do X, open Y")[2].partition("\n## ")[0]


def _paths(text: str) -> list[str]:
    """What stands in backticks and begins with a folder of the checkout."""
    return re.findall(r"`((?:latentlens_dag|dashboards|tests|assets|docs)/[\w./-]*)`", text)


def test_the_floors_are_those_that_are_enforced() -> None:
    drawn = re.findall(r"^ *(\d+) +│(.*)│", TEXT, re.MULTILINE)
    assert [int(number) for number, _ in drawn] == list(range(len(FLOORS), 0, -1))
    assert [set(names.split()) for _, names in reversed(drawn)] == [set(floor) for floor in FLOORS]


def test_every_file_that_is_named_is_there() -> None:
    missing = [path for path in _paths(TEXT) if not ((ROOT / path).exists() or (ROOT / f"{path}.py").is_file())]
    assert missing == []


def test_every_task_names_a_file_to_open() -> None:
    rows = [line.split(" | ") for line in TASKS.splitlines() if line.startswith("| ")][1:]
    assert len(rows) >= 10
    assert [row[0] for row in rows if len(row) != 3 or not _paths(row[1])] == []


def test_every_table_of_names_is_in_the_file_that_is_named() -> None:
    named = re.findall(r"`([A-Z_]+)` (?:in|of) `([\w./]+)`", TASKS)
    assert len(named) >= 6
    for name, path in named:
        assert re.search(rf"^{name}(: .*)? = ", (ROOT / path).read_text(encoding="utf-8"), re.MULTILINE), (name, path)


def test_the_changelog_has_the_headings_of_keep_a_changelog() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    versions = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert versions[0] == "[Unreleased]"
    assert all(re.fullmatch(r"\[\d+\.\d+\.\d+\] - (\d{4}-\d\d-\d\d|not released)", version) for version in versions[1:])
    changes = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert set(re.findall(r"^### (.*)$", text, re.MULTILINE)) <= changes
