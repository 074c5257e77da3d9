"""The recall of the approximate search on stored states: which states ask, and what is kept of it."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from latentlens_dag import ContextualIndex
from latentlens_dag.index import approximate
from latentlens_dag.index.state_tables import write_states
from latentlens_dag.models.vlm import Vlm
from latentlens_dag.storage.hashing import text_id
from latentlens_dag.storage.parquet import write_parquet
from latentlens_dag.storage.warehouse import Warehouse
from latentlens_dag.study import search_recall as module
from latentlens_dag.study.search_recall import SEARCH_RECALL, search_recall, stored_recall
from latentlens_dag.testing import SENTENCES


@pytest.fixture(scope="module")
def index(llava: Vlm, tmp_path_factory: pytest.TempPathFactory) -> ContextualIndex:
    """An index whose tables count as large."""
    folder = tmp_path_factory.mktemp("index")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(approximate, "WORTH_ROWS", 10)
        tokenizer = llava.processor.tokenizer
        return ContextualIndex.build(llava.model, tokenizer, SENTENCES, layers=[1, 2], path=folder / "words")


def _files(folder: Path, image_ids: list[str], states: np.ndarray, parts: int = 2) -> list[Path]:
    files = []
    for part, chosen in enumerate(np.array_split(np.arange(len(states)), parts)):
        files.append(folder / f"{part}.lance")
        write_states(files[-1], [image_ids[i] for i in chosen], chosen.astype(np.int32), states[chosen])
    return files


def test_recall_is_that_of_the_stored_states_at_each_layer(index: ContextualIndex, tmp_path: Path) -> None:
    states = np.random.default_rng(0).standard_normal((9, 32)).astype(np.float32)
    found = search_recall("s", {0: _files(tmp_path, ["a"] * 9, states)}, index)
    assert found.schema == SEARCH_RECALL
    measured = index.measure_recall(states).recall
    assert {(row["contextual_layer"], row["nprobes"]): row["recall"] for row in found.to_pylist()} == {
        (layer, nprobes): recall for layer, of_layer in measured.items() for nprobes, recall in of_layer.items()
    }
    assert {(row["study"], row["visual_layer"], row["queries"]) for row in found.to_pylist()} == {("s", 0, 9)}


def test_of_many_states_some_from_every_file_ask(
    index: ContextualIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "QUERIES", 4)
    states = np.random.default_rng(0).standard_normal((9, 32)).astype(np.float32)
    spread = module._spread(_files(tmp_path, ["a"] * 9, states, 3), index)
    assert np.array_equal(spread, states[[0, 2, 5, 8]])


def test_texts_that_are_sentences_of_the_index_do_not_ask(index: ContextualIndex, tmp_path: Path) -> None:
    states = np.random.default_rng(0).standard_normal((4, 32)).astype(np.float32)
    ids = [text_id(SENTENCES[0]), text_id("Of no corpus."), text_id(SENTENCES[1]), text_id(SENTENCES[2])]
    found = search_recall("s", {1: _files(tmp_path, ids, states)}, index)
    assert set(found["queries"].to_pylist()) == {1}
    (tmp_path / "known").mkdir()
    known = [ids[0], ids[2]]
    assert len(search_recall("s", {1: _files(tmp_path / "known", known, states[:2])}, index)) == 0


def test_what_was_measured_is_read_for_its_layer_alone(tmp_path: Path) -> None:
    warehouse = Warehouse(tmp_path)
    assert stored_recall(warehouse, "s", 4) is None
    rows = [("s", 4, 1, 8, 512, 0.9), ("s", 4, 2, 8, 512, 0.8), ("s", 4, 2, 16, 512, 1.0), ("s", 5, 1, 8, 512, 0.1)]
    table = pa.Table.from_pylist([dict(zip(SEARCH_RECALL.names, row, strict=True)) for row in rows], SEARCH_RECALL)
    write_parquet(table, warehouse.summary("s", "search_recall"), SEARCH_RECALL)
    assert pq.read_table(warehouse.summary("s", "search_recall")).num_rows == 4
    assert stored_recall(warehouse, "s", 4) == (
        {1: {8: 0.9}, 2: {8: 0.8, 16: 1.0}},
        "512 states that s has stored at layer 4",
    )
    assert stored_recall(warehouse, "s", 3) is None
