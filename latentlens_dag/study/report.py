"""A study's results as a table for the terminal (pictures are in `figures/contact_sheet.py`).

Note: `concrete` and `interpretable` are different shares of the same tokens, each with its own chance level.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from statistics import fmean
from typing import Any

import pyarrow as pa

from latentlens_dag.inputs.regions import BACKGROUND, OBJECT
from latentlens_dag.schema import lens_order
from latentlens_dag.study.interpretability import ALL, GROUPS, INTERPRETABLE, MEASURES

MEANINGS = {
    INTERPRETABLE: "interpretable (a concrete, abstract or global word)",
    "concrete": "with a concrete word",
    "abstract": "with an abstract word, and none that is concrete",
    "global": "with a word for what is elsewhere in the image only",
}
_SHORT = {INTERPRETABLE: "interp."}
_SHOWN_GROUPS = (ALL, OBJECT, BACKGROUND)
_CELL = "{share:>5} {interval:>9} {chance:>6}"
_WHOLE_CELL = "{:>5} {:<9}"
_EXCESS_CELL = "{:>5} {:<10}"
_WHOLE = (("share", "", _WHOLE_CELL), ("chance", "chance_", _WHOLE_CELL), ("excess", "excess_", _EXCESS_CELL))
"""Columns, the beginning of their intervals' columns, and their cells; an excess may be negative."""
_PART = "{:<12}{:>14}{:>9}{:>17}{:>9}"
_CAPTIONS = "{:<12} {:<10} {:>6} {:>15} {:>7}"
_GAP = "   "
_CELL_WIDTH, _LABEL_WIDTH, _LAYER_WIDTH = 22, 19, 3
_Row = Mapping[str, Any]


def interpretability_lines(
    table: pa.Table, measure: str | None = None, k: int | None = None, diversity: pa.Table | None = None
) -> str:
    """INTERPRETABILITY as text of at most 100 columns: blocks per study and judge.

    Args:
        table: of any studies and judges.
        measure: only this one, with all its figures; by default the share of all, and chance of the main ones.
        k: only verdicts on so many answers; by default, of a measure, on all.
        diversity: DIVERSITY of one study, which is added where neither a measure nor k is given.
    """
    rows = table.to_pylist()
    if not rows:
        return "No judgements yet: the study has no judge, or its judgements are not built.\n"
    lines, main = list[str](), measure is None and k is None
    for study, judge in dict.fromkeys((row["study"], row["judge"]) for row in rows):
        own = [row for row in rows if (row["study"], row["judge"]) == (study, judge)]
        name, every = f"{study}, judge {judge}", answers_judged(own)
        if main:
            lines += [*_main_blocks(name, own, every), *_overview(name, own)]
        else:
            found = [row for row in own if _is_of(row, measure or INTERPRETABLE, k or every)]
            lines += _whole_blocks(f"{name}, {answers_text(k or every)}", found)
    if diversity is not None and len(diversity) and main:
        lines += _distinct_words(diversity)
    return "\n".join([*lines, *_FOOT, *([] if main else [_EXCESS])]) + "\n"


def ablation_lines(table: pa.Table, measure: str | None = None, k: int | None = None) -> str:
    """CORPUS_ABLATION as text: a line per part of the index, with the mean of the visual layers; empty without rows.

    `measure` and `k` as of `interpretability_lines`, by default the paper's measure and all answers.
    """
    rows, lines, measure = table.to_pylist(), list[str](), measure or INTERPRETABLE
    for study, judge in dict.fromkeys((row["study"], row["judge"]) for row in rows):
        own = [row for row in rows if (row["study"], row["judge"]) == (study, judge) and row["patch_group"] == ALL]
        every = k or answers_judged(own)
        found = [row for row in own if _is_of(row, measure, every)]
        lines += [f"{study}, judge {judge}, {answers_text(every)}: % of tokens {MEANINGS[measure]},"]
        lines += ["by LatentLens from a part of the index's sentences, mean of the visual layers", ""]
        lines += [_PART.format("part", "vectors/layer", "share", "lowest-highest", "chance")]
        lines += [_part_line(list(part)) for _, part in groupby(found, key=lambda row: row["fraction"])]
        lines.append("")
    return "\n".join(lines)


def caption_lines(table: pa.Table) -> str:
    """CAPTION_SCORES as text: a line per kind of thing and measure; empty without rows."""
    rows = [row for row in table.to_pylist() if row["share"] is not None]
    if not rows:
        return ""
    lines = [
        "The model's own captions: % of the things in an image that its caption names (recall), and of the things",
        "that a caption names that are in its image (precision); chance: captions of other images",
        "",
        _CAPTIONS.format("things", "measure", "share", "interval", "chance"),
    ]
    for row in rows:
        cells = (_percent(row["share"]), _interval(row["low"], row["high"]), _percent(row["chance"]))
        lines.append(_CAPTIONS.format(row["kind"], row["measure"], *cells))
    return "\n".join([*lines, ""])


def _part_line(rows: list[_Row]) -> str:
    """Of the rows of all visual layers for one part."""
    shares, first = [row["share"] for row in rows], rows[0]
    chance = [row["chance"] for row in rows if row["chance"] is not None]
    ends = f"{100 * min(shares):.1f}-{100 * max(shares):.1f}"
    means = (_percent(fmean(values) if values else None) for values in (shares, chance))
    return _PART.format(f"{100 * first['fraction']:g} %", f"{first['occurrences']:,}", next(means), ends, next(means))


def answers_judged(rows: Iterable[_Row]) -> int | None:
    """k of the verdicts on all answers; None where a release of version 0.1 does not say it."""
    return max((row["k"] for row in rows if row["k"] is not None), default=None)


def answers_text(k: int | None) -> str:
    """`by the nearest answer`, `by 5 answers`."""
    return "by the nearest answer" if k == 1 else "by all answers" if k is None else f"by {k} answers"


def unjudged_lines(diversity: pa.Table, alignment: pa.Table) -> str:
    """DIVERSITY and LAYER_ALIGNMENT of a study without a judge as text, a row per layer."""
    lines = [*_distinct_words(diversity), *alignment_lines(alignment)]
    end = "Padding is left out. The study has no judge, so it is not known how many answers fit their patch."
    return "\n".join([*lines, end]) + "\n"


def alignment_lines(alignment: pa.Table) -> Iterator[str]:
    """LAYER_ALIGNMENT of one study as text: a row per visual layer, with the null's shares; nothing without rows."""
    rows = alignment.to_pylist()
    if rows:
        yield from alignment_titles(rows)
        yield ""
        yield from _matrix({(row["visual_layer"], f"L{row['contextual_layer']}"): alignment_text(row) for row in rows})
        yield ""


def alignment_titles(rows: Iterable[_Row]) -> list[str]:
    """What `alignment_text` gives of rows of LAYER_ALIGNMENT, in lines; an older version had no null."""
    title = "% of LatentLens's answers, by the contextual layer that they come from"
    if all(row.get("null_share") is None for row in rows):
        return [title]
    return [f"{title} / of a null's answers,", "which are to states that mean nothing: with their dimensions shuffled"]


def alignment_text(row: _Row) -> str:
    """The share and that of the null of a row of LAYER_ALIGNMENT, in percent: `26.3/11.3`."""
    null = row.get("null_share")
    return f"{100 * row['share']:.1f}" + ("" if null is None else f"/{100 * null:.1f}")


def _distinct_words(diversity: pa.Table) -> Iterator[str]:
    """DIVERSITY, a column per lens."""
    rows = sorted(diversity.to_pylist(), key=lambda row: lens_order(row["lens"]))
    yield "different words among a token's answers (mean, and 95 % interval)"
    yield ""
    yield from _matrix({(row["visual_layer"], row["lens"]): words_text(row) for row in rows})
    yield ""


def words_text(row: _Row) -> str:
    """The distinct words of a row of DIVERSITY: `2.41 [2.35-2.47]`."""
    known = row["low"] is not None and row["high"] is not None
    return f"{row['distinct_words']:.2f}" + (f" [{row['low']:.2f}-{row['high']:.2f}]" if known else "")


def _matrix(cells: Mapping[tuple[int, str], str]) -> Iterator[str]:
    """A row per visual layer, a column per name in order of first occurrence."""
    names = list(dict.fromkeys(name for _, name in cells))
    longest = max(map(len, cells.values()), default=0)
    widths = [max(8, len(name) + 2, longest + 2) for name in names]
    yield "layer" + "".join(f"{name:>{width}}" for name, width in zip(names, widths, strict=True))
    for layer in sorted({layer for layer, _ in cells}):
        row = (f"{cells.get((layer, name), '-'):>{width}}" for name, width in zip(names, widths, strict=True))
        yield f"{layer:>5}" + "".join(row)


_FOOT = (
    "All in percent. 95 %: interval over images. chance: the same answers judged against patches of the",
    "same group in other images. object: at least half covered by objects. Padding is left out of all",
    "figures, sinks of verdicts.",
)
_EXCESS = "excess: (share - chance) / (1 - chance), 0 if answers fit as often as by chance, 100 if always."


def _main_blocks(name: str, rows: list[_Row], k: int | None) -> Iterator[str]:
    """Share, interval and chance of the paper's measure and of `concrete`, by k answers, side by side by group."""
    tokens = {row["patch_group"]: row["tokens"] for row in reversed(rows)}
    groups = [group for group in _SHOWN_GROUPS if group in tokens]
    for measure in (INTERPRETABLE, "concrete"):
        yield f"{name}, {answers_text(k)}: % of tokens {MEANINGS[measure]}"
        yield ""
        titles = (f"{group}, n={tokens[group]:,}" for group in groups)
        label = _label_width(rows)
        yield " " * (label + 1) + "".join(f"{title:<{_CELL_WIDTH + len(_GAP)}}" for title in titles).rstrip()
        heads = [_CELL.format(share="share", interval="95 %", chance="chance")] * len(groups)
        yield _label("lens", "layer", label) + _GAP.join(heads)
        cells = {(*_place(row), row["patch_group"]): _cell(row) for row in rows if _is_of(row, measure, k)}
        found = {place: [cells.get((*place, one), "") for one in groups] for place in map(_place, rows)}
        yield from _lens_lines(found, label)


def _overview(name: str, rows: list[_Row]) -> Iterator[str]:
    """The shares of every measure among all patches, by the nearest answer and by all."""
    every = [row for row in rows if row["patch_group"] == ALL]
    if not every:
        return
    ks = sorted({row["k"] for row in every}, key=lambda k: k or 0)
    yield f"{name}: % of tokens by every measure"
    yield ""
    head = "".join(f"{_SHORT.get(measure, measure):>9}" for measure in MEASURES)
    label = _label_width(every)
    yield " " * (label + 1) + _GAP.join(f"{answers_text(k):<{len(head)}}" for k in ks).rstrip()
    yield _label("lens", "layer", label) + _GAP.join([head] * len(ks))
    cells = {(*_place(row), row["k"], row["measure"]): _percent(row["share"]) for row in every}
    lines = {
        place: ["".join(f"{cells.get((*place, k, measure), '-'):>9}" for measure in MEASURES) for k in ks]
        for place in map(_place, every)
    }
    yield from _lens_lines(lines, label)


def _whole_blocks(heading: str, rows: list[_Row]) -> Iterator[str]:
    """All figures of one measure, a block per patch group."""
    for group in (group for group in GROUPS if any(row["patch_group"] == group for row in rows)):
        own = [row for row in rows if row["patch_group"] == group]
        yield f"{heading}, patches {group}: % of tokens {MEANINGS[own[0]['measure']]}"
        yield ""
        heads = (f"{name:>5} 95 %".ljust(len(cell.format("", ""))) for name, _, cell in _WHOLE)
        label = _label_width(rows)
        yield _label("lens", "layer", label) + " ".join(heads) + f"{'tokens':>10} {'images':>6} {'effective':>9}"
        yield from _lens_lines({_place(row): [_whole_cells(row)] for row in own}, label)


def _label_width(rows: Iterable[_Row]) -> int:
    """The columns of lens and layer; only the longest lenses need more than the usual ones."""
    return max(_LABEL_WIDTH, max((len(row["lens"]) for row in rows), default=0) + _LAYER_WIDTH)


def _label(lens: str, layer: object, width: int) -> str:
    return f"{lens}{layer:>{width - len(lens)}} "


def _lens_lines(cells: Mapping[tuple[str, int], list[str]], label: int) -> Iterator[str]:
    """A line per lens and layer, with the lens on its first line; a blank line after each lens."""
    for lens, places in groupby(cells, key=lambda place: place[0]):
        for number, (_, layer) in enumerate(places):
            line = _GAP.join(f"{cell:<{_CELL_WIDTH}}" for cell in cells[lens, layer])
            yield (_label(lens if number == 0 else "", layer, label) + line).rstrip()
        yield ""


def _place(row: _Row) -> tuple[str, int]:
    return row["lens"], row["visual_layer"]


def _is_of(row: _Row, measure: str, k: int | None) -> bool:
    return (row["measure"], row["k"]) == (measure, k)


def _cell(row: _Row) -> str:
    interval = _interval(row["low"], row["high"])
    return _CELL.format(share=_percent(row["share"]), interval=interval, chance=_percent(row["chance"]))


def _whole_cells(row: _Row) -> str:
    cells = [
        cell.format(_percent(row[name]), _interval(row[f"{ends}low"], row[f"{ends}high"]))
        for name, ends, cell in _WHOLE
    ]
    images = "-" if row["images"] is None else f"{row['images']:,}"
    effective = "-" if row["effective_tokens"] is None else f"{row['effective_tokens']:,.0f}"
    return " ".join(cells) + f"{row['tokens']:>10,} {images:>6} {effective:>9}"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f}"


def _interval(low: float | None, high: float | None) -> str:
    """Without brackets, which three columns of decimals have no room for; 100 has no decimal."""
    ends = [_percent(end).replace("100.0", "100") for end in (low, high) if end is not None]
    return "-".join(ends) if len(ends) == 2 else ""
