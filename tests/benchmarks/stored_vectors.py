"""By how much the answers of an exact search differ between vectors as a model gives them and as an index stores them.

    python -m tests.benchmarks.stored_vectors

Rows are the states of the distinct prefixes of the sentences of docs/examples/smollm2 in SmolLM2-135M-Instruct, in
float32 and rounded to float16, as layer tables have them. Queries are the states of every sixth sentence, which is no
row. Cosines are compared in float64. Figures go to `results/`; docs/search.md is compared with them. The model and the
sentences come from the cache, or from PyPI.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from latentlens_dag.models.loading import load_language_model
from latentlens_dag.models.text_states import text_states
from tests.benchmarks.results import write_results
from tests.benchmarks.smollm2 import EXAMPLE
from tests.real.models import smollm2
from tests.real.sentences import chosen_sentences

LAYERS = (1, 8, 16, 24, 29)
_HELD_OUT = 6
_K = 5
_AT_ONCE = 512

Vectors = NDArray[np.float64]


def main() -> None:
    """Measure and write the results."""
    argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0]).parse_args()
    sentences = chosen_sentences((EXAMPLE / "words.txt").read_text().split())
    model = load_language_model(smollm2(), device="cpu")
    found = text_states(model, sentences, LAYERS)
    rows, queries = _rows_and_queries(found.tokens)
    layers = {}
    for layer in LAYERS:
        states = found.states[layer].double().numpy()
        states /= np.linalg.norm(states, axis=1, keepdims=True)
        layers[str(layer)] = compare_stored(states[queries], states[rows])
    write_results("stored_vectors", {"sentences": len(sentences), "rows": len(rows), "layers": layers})


def _rows_and_queries(tokens: pl.DataFrame) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The tokens that are rows, one for each prefix, and those that are queries; the first of a text is neither."""
    rows: dict[tuple[int, ...], int] = {}
    queries, prefix = [], ()
    for number, (text, position, token) in enumerate(tokens.select("text_index", "position", "token_id").iter_rows()):
        prefix = (*prefix, token) if position else (token,)
        if position and text % _HELD_OUT == 0:
            queries.append(number)
        elif position:
            rows.setdefault(prefix, number)
    return np.array(list(rows.values())), np.array(queries)


def compare_stored(queries: Vectors, rows: Vectors) -> dict[str, Any]:
    """Compare the answers by unit rows [N, d] and by the same rows in float16, for unit queries [Q, d].

    Gives the number of `queries` and, of each way to store, what `_compared` says: the rows alone (`rows`), the rows
    and the queries (`rows_and_queries`, as where rows of one index are asked of another), and, to compare, the rows
    alone where their lengths after the rounding are taken for 1 (`rows_taken_for_unit`), which no search here does.
    """
    rounded, asked = (vectors.astype(np.float16).astype(np.float64) for vectors in (rows, queries))
    stored = rounded / np.linalg.norm(rounded, axis=1, keepdims=True)
    return {
        "queries": len(queries),
        "rows": _compared(queries, rows, queries, stored),
        "rows_and_queries": _compared(queries, rows, asked, stored),
        "rows_taken_for_unit": _compared(queries, rows, queries, rounded),
    }


def _compared(queries: Vectors, rows: Vectors, asked: Vectors, stored: Vectors) -> dict[str, float]:
    """The share of queries whose first answer is another row, and of those the mean and the largest regret.

    The regret is by how much the true cosine of the answer is below the best one. Also the mean share of the five
    answers that stay.
    """
    regrets, kept = [], []
    for start in range(0, len(queries), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        true, mine = queries[part] @ rows.T, asked[part] @ stored.T
        best, found = (np.argpartition(-cosines, _K, axis=1)[:, :_K] for cosines in (true, mine))
        kept += [len(np.intersect1d(one, other)) / _K for one, other in zip(best, found, strict=True)]
        regrets.append(true.max(axis=1) - true[np.arange(len(true)), mine.argmax(axis=1)])
    regret = np.concatenate(regrets)
    changed = regret[regret > 0]
    return {
        "changed": round(len(changed) / len(queries), 4),
        "mean_regret": float(f"{changed.mean() if len(changed) else 0:.2g}"),
        "largest_regret": float(f"{regret.max():.2g}"),
        "kept_of_5": round(float(np.mean(kept)), 4),
    }


if __name__ == "__main__":
    main()
