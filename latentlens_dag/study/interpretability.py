"""Interpretability: shares of verdicts per lens, visual layer, judge and patch group, each beside its chance.

Four measures are shares of the same tokens: `concrete`, `abstract` and `global`, the first of which that holds is a
token's verdict, and `interpretable`, which is all three together and the measure of the paper (arXiv 2602.00462). Each
is a share for k = 1, the nearest answer alone, and for k = `top_k`, all answers of the study.

A share is a ratio of sums over images, so an image with more tokens weighs more. In all intervals the images are the
units (`intervals.py`): the patches of one image are not independent, and a binomial interval over patches would be far
too narrow. A row depends on no other row and no order.

Note: a share says little without `chance`, the share that the same answers reach on patches of the same group in other
images, a mean of several draws (`chance_patches.py`). A lens that says "blue" everywhere is often right.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from latentlens_dag.inputs.regions import BACKGROUND, OBJECT
from latentlens_dag.models.families.token_map import PADDING
from latentlens_dag.schema import INTERPRETABILITY, SINKS, lens_candidates, lens_order
from latentlens_dag.study.intervals import ends_in_single_precision, excesses, shares
from latentlens_dag.study.regions_judge import NONE, VERDICTS

INTERPRETABLE = "interpretable"
_VERDICTS = VERDICTS[: VERDICTS.index(NONE)]
MEASURES = (INTERPRETABLE, *_VERDICTS)
"""In the order of tables and pages."""
ALL = "all"
SINK = "sink"
GROUPS = (ALL, OBJECT, BACKGROUND, PADDING, SINK)
"""`all` is objects and backgrounds. Padding, which shows nothing, and attention sinks (`search/sinks.py`) are groups of
their own; a sink in the padding is padding."""
_TOKEN = ["study", "image_id", "token_index", "visual_layer"]
_ROW = ["study", "lens", "visual_layer", "judge", "patch_group"]
_OF_K = {"first": ("first_verdict", "first_chance_counts"), "every": ("verdict", "chance_counts")}
"""The columns of JUDGEMENTS for the nearest answer alone, and for all of them."""
_PARTS = ("hits", "hits_with_chance", "chance")
_COUNTED = [f"{of}_{part}_{verdict}" for of in _OF_K for part in _PARTS for verdict in _VERDICTS]
_COUNTS = ["tokens", "with_chance", "draws", *_COUNTED]
Floats = npt.NDArray[np.float64]


def interpretability(judgements: pa.Table | Iterable[pa.Table], top_k: int, sinks: pa.Table | None = None) -> pa.Table:
    """Shares with their intervals and chance.

    Args:
        judgements: JUDGEMENTS, in one or many tables (one at a time in memory).
        top_k: how many answers were judged.
        sinks: SINKS; these tokens are a group of their own and count in no other.

    Returns:
        INTERPRETABILITY, ordered by study, lens (as in LENSES), visual layer, judge, patch group (all first), k and
        measure. Padding and sinks have rows where there are any.
    """
    counts = _counts(judgements, SINKS.empty_table() if sinks is None else sinks)
    everything = (
        counts.filter(pl.col("patch_group").is_in((OBJECT, BACKGROUND)))
        .with_columns(patch_group=pl.lit(ALL))
        .group_by(*_ROW, "image_id")
        .agg(pl.col(_COUNTS).sum())
    )
    counts = pl.concat([counts, everything.select(counts.columns)]).sort(*_ROW, "image_id")
    groups = sorted(counts.group_by(_ROW, maintain_order=True), key=lambda group: _place(group[0]))
    ks = {1: "first"} | {top_k: "every"}
    rows = [
        dict(zip(_ROW, key, strict=True)) | {"candidates": lens_candidates(key[1])} | row
        for key, images in groups
        for k in ks
        for row in _rows(images, k, ks[k])
    ]
    return ends_in_single_precision(pa.Table.from_pylist(rows, schema=INTERPRETABILITY))


def _counts(judgements: pa.Table | Iterable[pa.Table], sinks: pa.Table) -> pl.DataFrame:
    """_COUNTS per row and image."""
    tables = [judgements] if isinstance(judgements, pa.Table) else judgements
    empty = pl.DataFrame(schema=dict.fromkeys([*_ROW, "image_id"], pl.String) | dict.fromkeys(_COUNTS, pl.Int64))
    parts = [empty.cast({"visual_layer": pl.Int32})]
    of_sinks = pl.DataFrame(sinks).select(*_TOKEN, sink_group=pl.lit(SINK))
    own, sink = pl.col("patch_group"), pl.col("sink_group")
    group = pl.when(own == PADDING).then(own).otherwise(pl.coalesce(sink, own))
    joined = (pl.DataFrame(table).join(of_sinks, on=_TOKEN, how="left") for table in tables)
    parts += [_count(table.with_columns(patch_group=group)) for table in joined]
    return pl.concat(parts).group_by(*_ROW, "image_id").agg(pl.col(_COUNTS).sum())


def _count(judgements: pl.DataFrame) -> pl.DataFrame:
    """_COUNTS of one table: whole numbers, so that no order changes a sum."""
    has_chance = pl.col("chance_counts").is_not_null()
    found = {"tokens": pl.len(), "with_chance": has_chance.sum(), "draws": pl.col("chance_counts").list.sum().sum()}
    for of, (verdict, counts) in _OF_K.items():
        for level, name in enumerate(_VERDICTS):
            is_hit = pl.col(verdict) == name
            chance = pl.col(counts).list.get(level, null_on_oob=True)
            values = (is_hit.sum(), (is_hit & has_chance).sum(), chance.sum())
            found |= {f"{of}_{part}_{name}": value for part, value in zip(_PARTS, values, strict=True)}
    columns = {name: found[name].cast(pl.Int64) for name in _COUNTS}
    return judgements.group_by(*_ROW, "image_id").agg(**columns)


def _rows(images: pl.DataFrame, k: int, of: str) -> Iterator[dict[str, Any]]:
    """The rows of all measures for one k, from the counts of the images, in order of image_id."""
    hits, paired, chance = (_of_measures(images, f"{of}_{part}") for part in _PARTS)
    tokens, with_chance = (images[name].to_numpy() for name in ("tokens", "with_chance"))
    found, draws = shares(hits, tokens), images["draws"].sum() / max(with_chance.sum(), 1)  # of each patch as many
    by_chance = shares(chance / max(draws, 1), with_chance)
    beyond = excesses(paired, chance / max(draws, 1), with_chance)
    for place, measure in enumerate(MEASURES):
        numbers = {
            "effective_tokens": found.effective,
            "share": found.share,
            "low": found.low,
            "high": found.high,
            "chance": by_chance.share,
            "chance_low": by_chance.low,
            "chance_high": by_chance.high,
            "excess": beyond.value,
            "excess_low": beyond.low,
            "excess_high": beyond.high,
        }
        counted = {"k": k, "measure": measure, "tokens": int(tokens.sum()), "images": len(images)}
        yield counted | {name: _number(values[place]) for name, values in numbers.items()}


def _of_measures(images: pl.DataFrame, prefix: str) -> Floats:
    """[measures, images]: the counts of each measure."""
    of_verdicts = np.stack([images[f"{prefix}_{verdict}"].to_numpy() for verdict in _VERDICTS]).astype(np.float64)
    return np.concatenate([of_verdicts.sum(axis=0, keepdims=True), of_verdicts])


def _number(value: np.float64) -> float | None:
    """Null where there is none: NaN, or a limit without end."""
    return float(value) if math.isfinite(value) else None


def _place(row: tuple[Any, ...]) -> tuple[object, ...]:
    study, lens, layer, judge, group = row
    return study, lens_order(lens), layer, judge, GROUPS.index(group)
