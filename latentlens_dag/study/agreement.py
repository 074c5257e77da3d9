"""How far judges agree: percent agreement and Cohen's kappa of every two of them, people or machines.

Kappa is agreement beyond what two judges would reach by chance if each kept their own shares of the categories:
(p_o - p_e) / (1 - p_e), 1 for perfect agreement and 0 for chance (Cohen, "A coefficient of agreement for nominal
scales", Educational and Psychological Measurement 20(1), 1960, p. 40).

What a newcomer gets wrong: judgements on the patches of one image are not independent, so the interval is a bootstrap
over *images*, as everywhere here (`interpretability.py`); and high agreement may be low kappa where nearly all is one
category.
"""

from __future__ import annotations

from itertools import combinations
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from latentlens_dag.study.interpretability import ALL, Interval, resampled_images
from latentlens_dag.study.regions_judge import NONE, VERDICTS

INTERPRETABLE = "interpretable"
_ITEM = ["image_id", "token_index", "visual_layer", "lens"]
RATINGS = ["rater", *_ITEM, "verdict"]
"""The columns that are read: one row per judge and item."""


class Agreement(NamedTuple):
    """What two judges said of the items that both judged."""

    one: str
    other: str
    lens: str
    """`all`, or one of them."""
    common: int
    """Items that both judged."""
    images: int
    """Of which these items are."""
    agreement: float
    """The share of items with the same verdict, in 0..1."""
    kappa: float | None
    """None where both gave one and the same verdict to everything: then chance explains it all."""
    interval: Interval
    """Of kappa, 95 %."""
    categories: tuple[str, ...]
    table: tuple[tuple[int, ...], ...]
    """How often `one` said the category of the row and `other` that of the column."""


def agreements(ratings: pl.DataFrame, *, two_categories: bool = False) -> list[Agreement]:
    """The agreement of every two judges, over all lenses and lens by lens; pairs without a common item are left out.

    Args:
        ratings: RATINGS.
        two_categories: whether verdicts count as interpretable (concrete, abstract, global) or none only.
    """
    categories = (INTERPRETABLE, NONE) if two_categories else VERDICTS
    rated = ratings.select(RATINGS)
    if two_categories:
        plain = pl.when(pl.col("verdict") == NONE).then(pl.lit(NONE)).otherwise(pl.lit(INTERPRETABLE))
        rated = rated.with_columns(plain.alias("verdict"))
    found = []
    for one, other in combinations(sorted(rated["rater"].unique()), 2):
        mine, theirs = (rated.filter(pl.col("rater") == rater).drop("rater") for rater in (one, other))
        both = mine.join(theirs, on=_ITEM, suffix="_other")
        lenses = sorted(both["lens"].unique())
        for lens in [ALL, *lenses] if lenses else []:
            part = both if lens == ALL else both.filter(pl.col("lens") == lens)
            found.append(_agreement(one, other, lens, part, categories))
    return found


def _agreement(one: str, other: str, lens: str, both: pl.DataFrame, categories: tuple[str, ...]) -> Agreement:
    counts = _counts(both, categories)
    total = counts.sum(axis=0)
    table = tuple(tuple(int(count) for count in row) for row in total)
    share = float(np.trace(total) / total.sum())
    return Agreement(
        one, other, lens, len(both), len(counts), share, cohen_kappa(total), kappa_interval(counts), categories, table
    )


def cohen_kappa(table: npt.NDArray[np.int64]) -> float | None:
    """Cohen's kappa of a square table of counts; None where it is not defined: one category only, or no item."""
    found = float(_kappas(table[None].astype(np.float64))[0])
    return found if np.isfinite(found) else None


def kappa_interval(counts: npt.NDArray[np.int64]) -> Interval:
    """The 95 % bootstrap interval of kappa over images; null where there is one image only, or never a kappa.

    Args:
        counts: [images, K, K], the table of every image, in order of image_id. Draws of images in which kappa is not
            defined are left out.
    """
    if len(counts) < 2:
        return Interval(None, None)
    flat = counts.reshape(len(counts), -1).astype(np.float64)
    tables = np.concatenate([weights @ flat for weights in resampled_images(len(counts))])
    kappas = _kappas(tables.reshape(-1, *counts.shape[1:]))
    kappas = kappas[np.isfinite(kappas)]
    if not len(kappas):
        return Interval(None, None)
    low, high = np.quantile(kappas, [0.025, 0.975])
    return Interval(float(low), float(high))


def _kappas(tables: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Kappa of each table of [N, K, K]; not a number where it is not defined."""
    items = tables.sum(axis=(1, 2))
    same = np.trace(tables, axis1=1, axis2=2)
    # Whole numbers below 2**53 all the way to one division, so that 1 and 0 are exact.
    by_chance = (tables.sum(axis=2) * tables.sum(axis=1)).sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (same * items - by_chance) / (items * items - by_chance)


def _counts(both: pl.DataFrame, categories: tuple[str, ...]) -> npt.NDArray[np.int64]:
    """[images, K, K]: how often each pair of verdicts came, image by image in order of id."""
    images = both["image_id"].unique().sort()
    places = {category: place for place, category in enumerate(categories)}
    counts = np.zeros((len(images), len(categories), len(categories)), np.int64)
    numbers = both["image_id"].replace_strict(images, range(len(images)), return_dtype=pl.Int64)
    for number, mine, theirs in zip(numbers, both["verdict"], both["verdict_other"], strict=True):
        counts[number, places[mine], places[theirs]] += 1
    return counts
