"""Agreement of judges, people or machines: percent agreement and Cohen's kappa of every pair.

Kappa is agreement beyond what two judges would reach by chance, each with their own shares of the categories:
(p_o - p_e) / (1 - p_e), 1 for perfect agreement and 0 for chance (Cohen, "A coefficient of agreement for nominal
scales", Educational and Psychological Measurement 20(1), 1960, p. 40).

Note: judgements on the patches of one image are not independent, so the interval is a bootstrap over *images*. High
agreement may come with low kappa if nearly all verdicts are of one category.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import combinations
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from latentlens_dag.study.interpretability import ALL
from latentlens_dag.study.intervals import SEED, Interval
from latentlens_dag.study.regions_judge import NONE, VERDICTS

INTERPRETABLE = "interpretable"
RESAMPLES = 1_000
_ITEM = ["image_id", "token_index", "visual_layer", "lens"]
RATINGS = ["rater", *_ITEM, "verdict"]
"""The columns of ratings: one row per judge and item."""


class Agreement(NamedTuple):
    """The verdicts of two judges on the items that both judged."""

    first: str
    second: str
    lens: str
    """A lens, or `all`."""
    common: int
    """Items that both judged."""
    images: int
    """Images with such an item."""
    agreement: float
    """The share of items with the same verdict, in 0..1."""
    kappa: float | None
    """None if both gave the same verdict to everything: then chance explains it all."""
    interval: Interval
    """Of kappa, 95 %."""
    categories: tuple[str, ...]
    table: tuple[tuple[int, ...], ...]
    """How often `first` gave the category of the row and `second` that of the column."""


def agreements(ratings: pl.DataFrame, *, two_categories: bool = False) -> list[Agreement]:
    """The agreement of every pair of judges with a common item, over all lenses and lens by lens.

    Args:
        ratings: RATINGS.
        two_categories: whether to compare only interpretable (concrete, abstract, global) with none.
    """
    categories = (INTERPRETABLE, NONE) if two_categories else VERDICTS
    rated = ratings.select(RATINGS)
    if two_categories:
        plain = pl.when(pl.col("verdict") == NONE).then(pl.lit(NONE)).otherwise(pl.lit(INTERPRETABLE))
        rated = rated.with_columns(plain.alias("verdict"))
    found = []
    for first, second in combinations(sorted(rated["rater"].unique()), 2):
        ratings_of_first, ratings_of_second = (rated.filter(rater=rater).drop("rater") for rater in (first, second))
        both = ratings_of_first.join(ratings_of_second, on=_ITEM, suffix="_second")
        lenses = sorted(both["lens"].unique())
        for lens in [ALL, *lenses] if lenses else []:
            part = both if lens == ALL else both.filter(pl.col("lens") == lens)
            found.append(_agreement(first, second, lens, part, categories))
    return found


def _agreement(first: str, second: str, lens: str, both: pl.DataFrame, categories: tuple[str, ...]) -> Agreement:
    counts = _counts(both, categories)
    total = counts.sum(axis=0)
    table = tuple(tuple(int(count) for count in row) for row in total)
    share, kappa, images = float(np.trace(total) / total.sum()), cohen_kappa(total), len(counts)
    interval = kappa_interval(counts)
    return Agreement(first, second, lens, len(both), images, share, kappa, interval, categories, table)


def cohen_kappa(table: npt.NDArray[np.int64]) -> float | None:
    """Cohen's kappa of a square table of counts; None if undefined: one category only, or no item."""
    kappa = float(_kappas(table[None].astype(np.float64))[0])
    return kappa if np.isfinite(kappa) else None


def kappa_interval(counts: npt.NDArray[np.int64]) -> Interval:
    """The 95 % bootstrap interval of kappa over images; null for one image only, or without a defined kappa.

    Args:
        counts: [images, K, K], the table of every image, in order of image_id. Resamples with undefined kappa are
            left out.
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


@lru_cache(maxsize=4)
def resampled_images(images: int) -> tuple[npt.NDArray[np.uint16], ...]:
    """How often each image is drawn: RESAMPLES rows of `images` columns, in blocks of 100; 2 bytes per count."""
    generator = np.random.default_rng(SEED)
    draws = (np.bincount(generator.integers(images, size=images), minlength=images) for _ in range(RESAMPLES))
    rows = [draw.astype(np.uint16) for draw in draws]
    return tuple(np.stack(rows[start : start + 100]) for start in range(0, RESAMPLES, 100))


def _kappas(tables: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Kappa of each table of [N, K, K]; NaN where undefined."""
    items = tables.sum(axis=(1, 2))
    same = np.trace(tables, axis1=1, axis2=2)
    # Integers below 2**53 up to the one division, so that 1 and 0 are exact.
    by_chance = (tables.sum(axis=2) * tables.sum(axis=1)).sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (same * items - by_chance) / (items * items - by_chance)


def _counts(both: pl.DataFrame, categories: tuple[str, ...]) -> npt.NDArray[np.int64]:
    """[images, K, K]: how often each pair of verdicts occurs, per image in order of id."""
    images = both["image_id"].unique().sort()
    index = {category: i for i, category in enumerate(categories)}
    counts = np.zeros((len(images), len(categories), len(categories)), np.int64)
    numbers = both["image_id"].replace_strict(images, range(len(images)), return_dtype=pl.Int64)
    for number, first, second in zip(numbers, both["verdict"], both["verdict_second"], strict=True):
        counts[number, index[first], index[second]] += 1
    return counts
