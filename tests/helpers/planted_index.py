"""An index whose states are given, for tests that plant what they look for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa

from latentlens_dag.index.contextual_index import ContextualIndex
from latentlens_dag.index.layer_tables import commit_fragments, write_fragments
from latentlens_dag.schema import OCCURRENCES, SENTENCES
from latentlens_dag.storage.hashing import hash_bytes, text_id
from latentlens_dag.storage.parquet import write_parquet
from latentlens_dag.storage.shapes import IndexShape
from latentlens_dag.storage.warehouse import Warehouse


def plant_index(root: Path, states: Mapping[int, np.ndarray], per_sentence: int = 4) -> ContextualIndex:
    """An index with the given states [N, d] at each layer, of N words in sentences of some words each.

    Row n of a table has the word `wordn`, and is of sentence n modulo the number of sentences.
    """
    warehouse = Warehouse(root)
    rows = len(next(iter(states.values())))
    keys = [f"{number:016x}" for number in range(rows)]
    texts = [f"sentence {number % (rows // per_sentence)}" for number in range(rows)]
    values = [
        ("words", key, n, f"word{n}", f"word{n}", 0, 5, 1, text_id(text))
        for n, (key, text) in enumerate(zip(keys, texts, strict=True))
    ]
    table = pa.Table.from_pylist([dict(zip(OCCURRENCES.names, one, strict=True)) for one in values], OCCURRENCES)
    write_parquet(table, warehouse.occurrences("words", 0), OCCURRENCES)
    ids = sorted({text_id(text): text for text in texts}.items())
    write_parquet(
        pa.Table.from_pylist([dict(zip(SENTENCES.names, one, strict=True)) for one in ids], SENTENCES),
        warehouse.sentences("text"),
        SENTENCES,
    )
    for layer, of_layer in states.items():
        norms = np.linalg.norm(of_layer, axis=1).astype(np.float32)
        unit, record = (of_layer / norms[:, None]).astype(np.float16), warehouse.fragments("words", layer, 0)
        write_fragments(warehouse.layer_table("words", layer), record, table, unit, norms, "these tests")
        commit_fragments(warehouse.layer_table("words", layer), [record], "made for these tests")
    shape = IndexShape(parts=1, layers=sorted(states), language_model="model", corpus="text")
    shape.write(warehouse.shape("index", "words"))
    return ContextualIndex.open(warehouse.index("words").root)


def stored(states: np.ndarray) -> np.ndarray:
    """States as an index holds them: float16 directions times float32 norms, in float64."""
    norms = np.linalg.norm(states, axis=1).astype(np.float32)
    return (states / norms[:, None]).astype(np.float16).astype(np.float64) * norms[:, None]


def planted_image_id(number: int) -> str:
    """The id of an image that is not there."""
    return hash_bytes(f"image {number}".encode())
