"""Recall of the approximate search on rows of its table, and on the visual states that it is to serve.

    python -m tests.benchmarks.recall_on_states FOLDER

FOLDER is that of `demo_figures`, whose index with 50 contexts per token has the largest tables; they are copied and
indexed. Queries are states of the scenes for choices at visual layers 0, 4 and 7. Figures go to `results/`, with which
docs/search.md is compared.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

import numpy as np

from latentlens_dag.index.approximate import build_approximate_index, measure_recall
from latentlens_dag.index.lance_files import count_rows, matrix_of, open_table
from latentlens_dag.storage.home import Home
from tests.benchmarks.results import write_results

LAYERS = (1, 4, 7)
VISUAL_LAYERS = (0, 4, 7)
_QUERIES = 256
_INDEX, _STUDY = "contexts_50", "contexts_50_sentence"


def main() -> None:
    """Index copies of the tables, measure, and write the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    warehouse = Home(parser.parse_args().folder / "choices" / ".latentlens").warehouse
    states = {}
    for layer in VISUAL_LAYERS:
        found = open_table(warehouse.visual(_STUDY, layer, 0)).to_table(columns=["state"])["state"]
        vectors = matrix_of(found.combine_chunks()).astype(np.float32)
        states[layer] = vectors[np.linspace(0, len(vectors) - 1, _QUERIES).astype(int)]
    rows = []
    for layer in LAYERS:
        with tempfile.TemporaryDirectory() as temporary:
            table = Path(shutil.copytree(warehouse.layer_table(_INDEX, layer), Path(temporary) / "layer.lance"))
            facts = build_approximate_index(table)
            of_states = {visual: measure_recall(queries, table) for visual, queries in states.items()}
            for nprobes, recall in facts.recall.items():
                on_states = {str(visual): round(found[nprobes], 4) for visual, found in of_states.items()}
                rows.append({"layer": layer, "nprobes": nprobes, "rows": round(recall, 4), "states": on_states})
    table_rows = count_rows(warehouse.layer_table(_INDEX, LAYERS[0]))
    write_results("recall_on_states", {"table_rows": table_rows, "queries": _QUERIES, "recall": rows})


if __name__ == "__main__":
    main()
