"""What is kept with an index's layer tables: who made them, and an index for single queries where they are large."""

import json
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest

from latentlens_dag.index import approximate, layer_tables
from latentlens_dag.study.search_recall import SEARCH_RECALL
from tests.dag.conftest import opened
from tests.helpers.command_line import run_command


def _build_again(project: Path, *names: str) -> None:
    with opened(project) as one:
        selection = one.select([], list(names))
        one.observe(selection)
        one.build(selection, force=True)


def _build_tables(project: Path) -> Path:
    """Build the layer table of contextual layer 1 again, whatever is there; give its folder."""
    _build_again(project, "index/words/table/L01")
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


def test_a_study_measures_the_recall_of_large_tables_on_its_states_and_search_goes_by_it(
    built_project: Path, copy_of: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(approximate, "WORTH_ROWS", 10)
    project = copy_of(built_project)
    study = project / ".latentlens" / "warehouse" / "study" / "tiny"
    assert not (study / "search_recall.parquet").exists()  # of small tables
    _build_again(project, "index/words/table/L01", "index/words/table/L02")
    _build_again(project, "study/tiny/state_statistics")
    found = pq.read_table(study / "search_recall.parquet")
    assert found.schema == SEARCH_RECALL
    assert set(found["contextual_layer"].to_pylist()) == {1, 2}
    assert set(found["visual_layer"].to_pylist()) == set(
        pl.read_parquet(study / "state_statistics.parquet").filter(source="visual")["layer"]
    )
    image_id = pl.read_parquet(study / "visual_tokens" / "*.parquet")["image_id"][0]
    token = ("search", "--study", "tiny", "--image-id", image_id, "--token", "1", "--layer", "1", "--recall", "0.01")
    said = run_command(project, *token).stdout.splitlines()[-1]
    queries = found["queries"][0].as_py()
    assert said.endswith(f"measured on {queries} states that tiny has stored at layer 1"), said
