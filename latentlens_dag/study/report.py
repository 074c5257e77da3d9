"""A study's results as a table for the terminal (pictures are in `figures/contact_sheet.py`).

Note: `concrete` and `interpretable` are different shares of the same tokens, each with its own chance level.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa

from latentlens_dag.study.interpretability import GROUPS

_MEASURES = {
    "with a concrete word": ("concrete", "concrete_low", "concrete_high", "concrete_chance"),
    "interpretable (a concrete, abstract or global word)": ("interpretable", "low", "high", "chance"),
}
_CELL = "{share:>5} {interval:>9} {chance:>6}"
_GAP = "   "
_CELL_WIDTH, _LABEL_WIDTH = 22, 20
_Row = Mapping[str, Any]


def interpretability_lines(table: pa.Table) -> str:
    """INTERPRETABILITY as text of at most 100 columns: a block per study, judge and measure."""
    rows = table.to_pylist()
    if not rows:
        return "No judgements yet: the study has no judge, or its judgements are not built.\n"
    blocks = list(dict.fromkeys((row["study"], row["judge"]) for row in rows))
    lines = [line for block in blocks for line in _block(block, [r for r in rows if (r["study"], r["judge"]) == block])]
    return "\n".join([*lines, *_FOOT]) + "\n"


def unjudged_lines(diversity: pa.Table, alignment: pa.Table) -> str:
    """DIVERSITY and LAYER_ALIGNMENT of a study without a judge as text, a row per layer."""
    words = {(row["visual_layer"], row["lens"]): f"{row['distinct_words']:.2f}" for row in diversity.to_pylist()}
    shares = {
        (row["visual_layer"], f"L{row['contextual_layer']}"): f"{100 * row['share']:.1f}"
        for row in alignment.to_pylist()
    }
    lines = ["different words among a token's answers (mean)", "", *_matrix(words), ""]
    if shares:
        lines += ["% of LatentLens's answers, by the contextual layer that they come from", "", *_matrix(shares), ""]
    return "\n".join([*lines, "The study has no judge, so it is not known how many answers fit their patch."]) + "\n"


def _matrix(cells: Mapping[tuple[int, str], str]) -> Iterator[str]:
    """A row per visual layer, a column per name in order of first occurrence."""
    names = list(dict.fromkeys(name for _, name in cells))
    widths = [max(8, len(name) + 2) for name in names]
    yield "layer" + "".join(f"{name:>{width}}" for name, width in zip(names, widths, strict=True))
    for layer in sorted({layer for layer, _ in cells}):
        row = (f"{cells.get((layer, name), '-'):>{width}}" for name, width in zip(names, widths, strict=True))
        yield f"{layer:>5}" + "".join(row)


_FOOT = (
    "n: visual tokens. [..]: 95 % interval over images. chance: the same answers judged",
    "against a patch of the same group in another image. object: at least half covered by objects.",
)


def _block(block: tuple[str, str], rows: list[_Row]) -> Iterator[str]:
    study, judge = block
    tokens = {row["patch_group"]: row["tokens"] for row in reversed(rows)}
    groups = [group for group in GROUPS if group in tokens]
    for measure, columns in _MEASURES.items():
        yield f"{study}, judge {judge}: % of visual tokens {measure}"
        yield ""
        titles = (f"{group}, n={tokens[group]:,}" for group in groups)
        yield " " * _LABEL_WIDTH + "".join(f"{title:<{_CELL_WIDTH + len(_GAP)}}" for title in titles).rstrip()
        heads = [_CELL.format(share="share", interval="95 %", chance="chance")] * len(groups)
        yield f"{'lens':<14}{'layer':<{_LABEL_WIDTH - 14}}" + _GAP.join(heads)
        yield from _lens_lines(rows, groups, columns)


def _lens_lines(rows: list[_Row], groups: list[str], columns: tuple[str, ...]) -> Iterator[str]:
    """A line per lens and layer, with the lens on its first line; a blank line after each lens."""
    cells = {(row["lens"], row["visual_layer"], row["patch_group"]): _cell(row, columns) for row in rows}
    for lens in dict.fromkeys(row["lens"] for row in rows):
        layers = dict.fromkeys(row["visual_layer"] for row in rows if row["lens"] == lens)
        for number, layer in enumerate(layers):
            line = _GAP.join(cells.get((lens, layer, group), " " * _CELL_WIDTH) for group in groups)
            yield f"{lens if number == 0 else '':<14}{layer:>5} " + line.rstrip()
        yield ""


def _cell(row: _Row, columns: tuple[str, ...]) -> str:
    share, low, high, chance = (row[column] for column in columns)
    interval = "" if low is None else f"[{100 * low:.0f}-{100 * high:.0f}]"
    by_chance = "-" if chance is None else f"{100 * chance:.1f}"
    return _CELL.format(share=f"{100 * share:.1f}", interval=interval, chance=by_chance)
