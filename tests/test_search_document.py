"""docs/search.md has the figures of its results."""

import copy
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.benchmarks.results import read_results

DOCUMENT = Path(__file__).parents[1] / "docs" / "search.md"


def _pieces(stored: dict[str, Any], recall: dict[str, Any]) -> list[str]:
    layers = stored["layers"]
    first = next(iter(layers.values()))
    taken = first["rows_taken_for_unit"]
    return [
        f"{stored['rows']:,} rows (the distinct prefixes of {stored['sentences']:,} sentences",
        f"as queries {first['queries']:,} states",
        *_table_of_storage(layers),
        f"{100 * taken['changed']:.1f} % of the first answers change at layer 1, with a regret of up to "
        f"{taken['largest_regret']:.0e}",
        f"tables of {recall['table_rows']:,} rows: recall at 5 in percent, of {recall['queries']} visual states",
        *_table_of_recall(recall["recall"]),
        _example(recall["recall"]),
    ]


def _example(rows: list[dict[str, Any]]) -> str:
    """The row in which the two are furthest apart with 16 partitions."""
    row = max((row for row in rows if row["nprobes"] == 16), key=lambda row: row["rows"] - min(row["states"].values()))
    states = sorted(row["states"].values())
    return (
        f"At contextual layer {row['layer']}, {row['nprobes']} partitions find {100 * row['rows']:.1f} % for rows, and "
        f"{100 * states[0]:.1f} to {100 * states[-1]:.1f} % for visual states."
    )


def _table_of_storage(layers: dict[str, Any]) -> Iterator[str]:
    for layer, figures in layers.items():
        rows = figures["rows"]
        shares = f"{100 * rows['changed']:.2f} % | {100 * rows['kept_of_5']:.2f} %"
        yield f"| {layer} | {shares} | {rows['largest_regret']:.0e} |"


def _table_of_recall(rows: list[dict[str, Any]]) -> Iterator[str]:
    for row in rows:
        states = " | ".join(f"{100 * share:.1f}" for share in row["states"].values())
        yield f"| {row['layer']} | {row['nprobes']} | {100 * row['rows']:.1f} | {states} |"


def _says(text: str, stored: dict[str, Any], recall: dict[str, Any]) -> bool:
    flat = re.sub(r"\s+", " ", text)
    return all(piece in flat for piece in _pieces(stored, recall))


def _leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if isinstance(value, (int, float)):
        yield path
    elif isinstance(value, (dict, list)):
        for key, one in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _leaves(one, (*path, key))


def _changed(figures: dict[str, Any], path: tuple[Any, ...]) -> dict[str, Any]:
    changed = place = copy.deepcopy(figures)
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = place[path[-1]] * 2 + 1
    return changed


def test_the_document_says_what_the_results_say_and_another_cell_is_found() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    stored, recall = read_results("stored_vectors"), read_results("recall_on_states")
    flat = re.sub(r"\s+", " ", text)
    assert [piece for piece in _pieces(stored, recall) if piece not in flat] == []
    for path in _leaves(recall):
        assert not _says(text, stored, _changed(recall, path)), path
    shown = {"queries": ["1"], "changed": list(stored["layers"]), "largest_regret": list(stored["layers"])}
    for path in _leaves(stored):
        table = "rows" in path and path[-1] in ("changed", "largest_regret", "kept_of_5")
        if table or (path[-1] == "queries" and path[1] in shown["queries"]) or len(path) == 1:
            assert not _says(text, _changed(stored, path), recall), path
