"""Interpretability: shares of verdicts per lens, visual layer, judge and patch group.

A share is a ratio of sums over images, so an image with more tokens weighs more. In its interval the images are the
units (`intervals.py`): the patches of one image are not independent, and a binomial interval over patches would be far
too narrow. A row depends on no other row and no order.

Note: a share says little without `chance`, the share that the same neighbors reach on a patch of the same group in
another image. A lens that says "blue" everywhere is often right.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import polars as pl
import pyarrow as pa

from latentlens_dag.inputs.regions import BACKGROUND, OBJECT
from latentlens_dag.schema import INTERPRETABILITY, SINKS, lens_order
from latentlens_dag.study.intervals import Interval, shares

ALL = "all"
SINK = "sink"
"""The group of attention sinks (`search/sinks.py`), which are in no other group."""
GROUPS = (ALL, OBJECT, BACKGROUND, SINK)
_TOKEN = ["study", "image_id", "token_index", "visual_layer"]
_ROW = ["study", "lens", "visual_layer", "judge", "patch_group"]
_COUNTS = ["tokens", "concrete", "abstract", "global", "judged_by_chance", "chance", "concrete_chance"]


def interpretability(judgements: pa.Table | Iterable[pa.Table], sinks: pa.Table | None = None) -> pa.Table:
    """Shares with their intervals and chance.

    Args:
        judgements: JUDGEMENTS, in one or many tables (one at a time in memory).
        sinks: SINKS; these tokens are a group of their own and count in no other.

    Returns:
        INTERPRETABILITY, ordered by study, lens (as in LENSES), visual layer, judge, patch group (all first).
    """
    counts = _counts(judgements, SINKS.empty_table() if sinks is None else sinks)
    everything = (
        counts.filter(pl.col("patch_group") != SINK)
        .with_columns(patch_group=pl.lit(ALL))
        .group_by(*_ROW, "image_id")
        .agg(pl.col(_COUNTS).sum())
    )
    counts = pl.concat([counts, everything.select(counts.columns)]).sort(*_ROW, "image_id")
    rows = [_row(dict(zip(_ROW, key, strict=True)), part) for key, part in counts.group_by(_ROW, maintain_order=True)]
    rows.sort(key=_place)
    return pa.Table.from_pylist(rows, schema=INTERPRETABILITY)


def _counts(judgements: pa.Table | Iterable[pa.Table], sinks: pa.Table) -> pl.DataFrame:
    """Per row and image: the number of tokens, and of tokens with each verdict."""
    tables = [judgements] if isinstance(judgements, pa.Table) else judgements
    empty = pl.DataFrame(INTERPRETABILITY.empty_table()).select(_ROW).with_columns(image_id=pl.lit(""))
    parts = [_count(empty.with_columns(verdict=pl.lit(""), chance_verdict=pl.lit("")))]
    of_sinks = pl.DataFrame(sinks).select(*_TOKEN, sink_group=pl.lit(SINK))
    group = pl.coalesce("sink_group", "patch_group")
    joined = (pl.DataFrame(table).join(of_sinks, on=_TOKEN, how="left") for table in tables)
    parts += [_count(table.with_columns(patch_group=group)) for table in joined]
    return pl.concat(parts).group_by(*_ROW, "image_id").agg(pl.col(_COUNTS).sum())


def _count(judgements: pl.DataFrame) -> pl.DataFrame:
    verdict, chance = pl.col("verdict"), pl.col("chance_verdict")
    shares = {
        "tokens": pl.len(),
        **{name: (verdict == name).sum() for name in ("concrete", "abstract", "global")},
        "judged_by_chance": chance.is_not_null().sum(),
        "chance": (chance != "none").sum(),
        "concrete_chance": (chance == "concrete").sum(),
    }
    return judgements.group_by(*_ROW, "image_id").agg(**{name: value.cast(pl.Int64) for name, value in shares.items()})


def _row(key: dict[str, object], images: pl.DataFrame) -> dict[str, object]:
    """One row of INTERPRETABILITY from the counts of its images, in order of image_id."""
    total = images.select(_COUNTS).sum().row(0, named=True)
    interpretable = images["concrete"] + images["abstract"] + images["global"]
    found = shares(np.stack([interpretable.to_numpy(), images["concrete"].to_numpy()]), images["tokens"].to_numpy())
    whole, concrete = (Interval.of(low, high) for low, high in zip(found.low, found.high, strict=True))
    share = int(interpretable.sum()) / total["tokens"]
    chance = _share(total["chance"], total["judged_by_chance"])
    return {
        **key,
        "tokens": total["tokens"],
        **{name: total[name] / total["tokens"] for name in ("concrete", "abstract", "global")},
        "interpretable": share,
        "low": whole.low,
        "high": whole.high,
        "chance": chance,
        "excess": excess(share, chance),
        "concrete_chance": _share(total["concrete_chance"], total["judged_by_chance"]),
        "concrete_low": concrete.low,
        "concrete_high": concrete.high,
    }


def excess(share: float, chance: float | None) -> float | None:
    """(share - chance) / (1 - chance): 0 at chance level, 1 if every token is right; null if chance is 1."""
    return None if chance is None or chance == 1 else (share - chance) / (1 - chance)


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _place(row: dict[str, object]) -> tuple[object, ...]:
    lens, group = lens_order(str(row["lens"])), GROUPS.index(str(row["patch_group"]))
    return row["study"], lens, row["visual_layer"], row["judge"], group
