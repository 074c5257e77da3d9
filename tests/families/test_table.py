"""docs/families.md says what the installed transformers, the registry and the builders say, and what was tried."""

import copy
from importlib.metadata import version

import pytest

from latentlens_dag.models.families import registry
from latentlens_dag.models.families.registry import NEED_TORCHVISION
from latentlens_dag.testing.families import BUILDERS
from tests.families import table
from tests.families.table import (
    COMMAND,
    DOCUMENT,
    MAPPED,
    NOT_TRIED,
    REFUSED,
    classes,
    read_trials,
    registry_refusal,
    render,
)

ANEW = f"write docs/families.md anew with `{COMMAND}`, or `{COMMAND} NAME ...` for some families, and look at the diff"
TRIALS = read_trials()["families"]


def _rows(text: str) -> dict[str, list[str]]:
    """`model_type` -> the other cells of its row."""
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| `")]
    return {cells[0].strip("`"): cells[1:] for cells in lines if cells[1] != "class"}


def test_every_class_of_transformers_was_tried_and_no_other() -> None:
    new, gone = sorted(set(classes()) - set(TRIALS)), sorted(set(TRIALS) - set(classes()))
    assert (new, gone) == ([], []), f"transformers {version('transformers')} has other classes: {ANEW}"


def test_the_document_is_what_the_registry_the_builders_and_the_trials_say() -> None:
    assert DOCUMENT.read_text(encoding="utf-8") == render(read_trials()), ANEW


def test_every_family_with_a_builder_was_proved_or_needs_torchvision() -> None:
    ours = {name for name in classes() if name in BUILDERS and registry_refusal(name) is None}
    outdated = sorted(name for name in ours if TRIALS[name].get("made") != "builder")
    assert outdated == [], ANEW
    unproved = {name for name in ours if name in registry._MODULES and TRIALS[name]["outcome"] != "proved"}
    assert unproved <= NEED_TORCHVISION


def test_no_row_is_a_crash_and_every_row_that_is_not_mapped_has_a_reason() -> None:
    rows = _rows(DOCUMENT.read_text(encoding="utf-8"))
    assert list(rows) == list(classes())
    assert {cells[0] for cells in rows.values()} == set(classes().values())
    assert "crash" not in DOCUMENT.read_text(encoding="utf-8").lower()
    assert [name for name, cells in rows.items() if cells[1] in (REFUSED, NOT_TRIED) and not cells[2].strip()] == []


@pytest.mark.parametrize("family", ["llava", "mllama"])
def test_what_is_mapped_and_what_is_refused_is_taken_from_the_registry(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = copy.deepcopy(read_trials())
    stored["families"][family] = {"outcome": "not tried", "reason": "nobody did"}
    assert _rows(render(stored))[family][1] == {"llava": MAPPED, "mllama": REFUSED}[family]
    monkeypatch.delitem({"llava": registry._MODULES, "mllama": registry._REFUSED}[family], family)
    assert _rows(render(stored))[family][1:3] == [NOT_TRIED, "nobody did"]


def test_a_class_that_transformers_adds_is_a_row_that_was_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "classes", lambda: {"llava": "LlavaForConditionalGeneration", "new": "NewModel"})
    rows = _rows(render(read_trials()))
    assert list(rows) == ["llava", "new"]
    assert rows["new"][:3] == ["NewModel", NOT_TRIED, f"`{COMMAND} new` tries it"]


def test_a_table_with_a_crash_is_not_written() -> None:
    stored = copy.deepcopy(read_trials())
    stored["families"]["llava"] = {"outcome": "crashed", "detail": "KeyError: 0"}
    with pytest.raises(ValueError, match="cannot be read: llava"):
        render(stored)
