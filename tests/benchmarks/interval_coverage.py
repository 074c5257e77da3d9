"""How often the intervals of shares, differences and excesses cover the truth, in simulations.

    python -m tests.benchmarks.interval_coverage [--draws 4000] [--write docs/intervals.md]

Patches of one image are correlated: an image's share is drawn from a beta distribution with the true mean and a given
correlation of two patches of one image, then its hits from a binomial one. Images have one patch each, 36 each, or from
1 to 31, many of them few. The percentile bootstrap over images stands beside the intervals, in the same draws. The
constants of `study/intervals.py` were chosen with seed 5; the table is of seed 1, its fast test of seed 2.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.stats import beta, norm

from latentlens_dag.study.intervals import differences, excesses, shares, sign_flip_p_values

Counts = npt.NDArray[np.int64]
SHARES = (0.01, 0.03, 0.1, 0.3, 0.5, 0.7, 0.9, 0.97, 0.99)
IMAGES = (4, 8, 16, 64, 256)
DESIGNS = (("one", 0.0), *((size, r) for size in ("36", "1 to 31") for r in (0.05, 0.2, 0.5)))
"""Patches per image, and the correlation of two of one image."""
PAIRS = ((0.5, 0.5), (0.9, 0.5), (0.7, 0.1), (0.97, 0.9), (0.1, 0.03), (0.97, 0.03))
_RESAMPLES = 400


class Cell(NamedTuple):
    """A row of the simulation."""

    size: str
    correlation: float
    images: int


class Draws(NamedTuple):
    """Simulated studies, one per row: patches [R, m] and two kinds of hits [R, m]."""

    patches: Counts
    first: Counts
    second: Counts


def cells() -> Iterator[Cell]:
    """All designs with all numbers of images."""
    for size, correlation in DESIGNS:
        yield from (Cell(size, correlation, images) for images in IMAGES)


def draw(cell: Cell, first: float, second: float, draws: int, seed: int) -> Draws:
    """Hits whose image effects have a normal copula of correlation 0.5, as two lenses on one image have."""
    generator = np.random.default_rng([seed, cell.images, round(1000 * first), round(1000 * second)])
    shape = draws, cell.images
    if cell.size == "one":
        patches = np.ones(shape, np.int64)
    elif cell.size == "36":
        patches = np.full(shape, 36)
    else:
        patches = 1 + generator.binomial(30, generator.beta(0.8, 1.6, shape))
    common, own = generator.normal(size=shape), generator.normal(size=(2, *shape))
    effects = np.sqrt(0.5) * (common + own)
    hits = []
    for share, effect in zip((first, second), effects, strict=True):
        of_image = np.full(shape, share)
        if cell.correlation:
            strength = 1 / cell.correlation - 1
            of_image = beta.ppf(norm.cdf(effect), share * strength, (1 - share) * strength)
        hits.append(generator.binomial(patches, of_image))
    return Draws(patches, *hits)


def covered(low: npt.NDArray[np.float64], high: npt.NDArray[np.float64], truth: float) -> float:
    """The share of the intervals that contain the truth. An excess over a chance of 1 has none, and is left out."""
    exists = ~np.isnan(low)
    return float(((low <= truth + 1e-12) & (truth <= high + 1e-12))[exists].mean())


def share_coverage(cell: Cell, truth: float, draws: int, seed: int) -> float:
    """Of `shares`."""
    drawn = draw(cell, truth, truth, draws, seed)
    found = shares(drawn.first, drawn.patches)
    return covered(found.low, found.high, truth)


def bootstrap_coverage(cell: Cell, truth: float, draws: int, seed: int) -> float:
    """Of the percentile bootstrap over images."""
    drawn = draw(cell, truth, truth, draws, seed)
    generator = np.random.default_rng(seed)
    weights = generator.multinomial(cell.images, [1 / cell.images] * cell.images, size=_RESAMPLES).T.astype(np.float64)
    ratios = (drawn.first @ weights) / (drawn.patches @ weights)
    low, high = np.quantile(ratios, [0.025, 0.975], axis=1)
    return covered(low, high, truth)


def comparison_coverage(cell: Cell, first: float, second: float, draws: int, seed: int) -> tuple[float, float]:
    """Of `differences`, and of `excesses` with the second as chance."""
    drawn = draw(cell, first, second, draws, seed)
    found = differences(drawn.first, drawn.second, drawn.patches)
    excess = excesses(drawn.first, drawn.second, drawn.patches)
    return (
        covered(found.low, found.high, first - second),
        covered(excess.low, excess.high, (first - second) / (1 - second)),
    )


def false_positives(cell: Cell, share: float, draws: int, seed: int) -> float:
    """How often the test finds a difference at 0.05 where the labels are exchanged image by image."""
    drawn = draw(cell, share, share, draws, seed)
    exchanged = np.random.default_rng(seed).integers(2, size=drawn.first.shape, dtype=np.bool_)
    first = np.where(exchanged, drawn.second, drawn.first)
    second = np.where(exchanged, drawn.first, drawn.second)
    return float((sign_flip_p_values(first, second, drawn.patches) <= 0.05).mean())


def tables(draws: int, seed: int) -> Iterator[str]:
    """The lines of the committed tables."""
    yield "## Shares: coverage in percent, by the true share"
    yield from _head("interval", *SHARES)
    for cell in cells():
        for name, coverage in (("ours", share_coverage), ("bootstrap", bootstrap_coverage)):
            yield _line(cell, name, [coverage(cell, truth, draws, seed) for truth in SHARES])
    yield ""
    yield "## Differences and excesses: coverage in percent, by the two true shares"
    yield from _head("interval", *(f"{a} and {b}" for a, b in PAIRS))
    for cell in cells():
        found = [comparison_coverage(cell, a, b, draws, seed) for a, b in PAIRS]
        yield _line(cell, "difference", [pair[0] for pair in found])
        yield _line(cell, "excess", [pair[1] for pair in found])
    yield ""
    yield "## The test of a difference: percent of false positives at 0.05, by the true share of both"
    yield from _head("test", *SHARES)
    for cell in cells():
        yield _line(cell, "sign flips", [false_positives(cell, share, draws // 4, seed) for share in SHARES])


def _head(kind: str, *columns: object) -> Iterator[str]:
    yield ""
    yield f"| patches per image | correlation | images | {kind} | {' | '.join(map(str, columns))} |"
    yield "|---" * (4 + len(columns)) + "|"


def _line(cell: Cell, name: str, found: list[float]) -> str:
    values = " | ".join(f"{100 * value:.1f}" for value in found)
    return f"| {cell.size} | {cell.correlation} | {cell.images} | {name} | {values} |"


def main() -> None:
    """Print the tables, or write them into a document after its line `<!-- tables -->`."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--draws", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--write", type=Path)
    given = parser.parse_args()
    lines = "\n".join(tables(given.draws, given.seed)) + "\n"
    if given.write is None:
        sys.stdout.write(lines)
        return
    text, mark, _ = given.write.read_text("utf-8").partition("<!-- tables -->\n")
    given.write.write_text(text + mark + lines, "utf-8")


if __name__ == "__main__":
    main()
