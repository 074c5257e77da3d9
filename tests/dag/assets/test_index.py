"""What is kept with an index's layer tables: who made them, and an index for single queries where they are large."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from latentlens_dag.index import approximate, layer_tables
from tests.dag.conftest import opened


def _build_tables(project: Path) -> Path:
    """Build the layer table of contextual layer 1 again, whatever is there; give its folder."""
    with opened(project) as one:
        selection = one.select([], ["index/words/table/L01"])
        one.observe(selection)
        one.build(selection, force=True)
    return project / ".latentlens" / "warehouse" / "index" / "words" / "layer_01.lance"


def test_a_table_says_which_run_and_which_versions_made_it(
    built_project: Path, copy_of: Callable[[Path], Path]
) -> None:
    table = _build_tables(copy_of(built_project))
    said = json.loads(layer_tables.provenance_of(table))
    assert said["index"] == "words"
    assert len(said["run"]) == 36
    assert set(said["versions"]) - {"torchvision"} == {"latentlens-dag", "torch", "transformers", "pylance", "pillow"}
    assert approximate.read_approximate_index(table) is None  # a small table needs none


def test_a_large_table_is_indexed_for_single_queries_with_its_recall(
    built_project: Path, copy_of: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(approximate, "WORTH_ROWS", 10)
    table = _build_tables(copy_of(built_project))
    facts = approximate.read_approximate_index(table)
    assert facts is not None
    assert max(facts.recall.values()) > 0.9
    assert json.loads(layer_tables.provenance_of(table))["index"] == "words"
