"""95 % intervals of shares, and tests of their differences, with images as the units.

The patches of one image are not independent, so the number of patches says little about how sure a share is. Three
quantities follow from how the hits are spread over the images:

- The *effective number of patches* n_e: so many independent patches would give a share as sure as this one. From the
  variance of a ratio of sums over m images (Cochran, Sampling Techniques, eq. 6.13) follows the correlation r of two
  patches of one image, which gives n_e = 1 / ((1 - r) / N + r S) for N patches, where S is the sum of the squared
  shares of the images in N.
- r is known as well as there are images with the rarer outcome: K images, by their effective number. It is therefore
  shrunk towards 0.4, a high value, by half an image: r = (K r' + 0.2) / (K + 0.5).
- The same K limits the degrees of freedom: 2 K + 0.5, at least 1 and at most m - 1.

The interval of a share is Wilson's (JASA 22, 1927) with n_e, which is reduced by the quotient of the quantiles of the
normal and of the t distribution (Korn and Graubard, Survey Methodology 24(2), 1998). For differences and quotients of
two shares, their intervals are combined (Zou and Donner, Statistics in Medicine 27, 2008; Newcombe, 1998), with the
correlation of the two over the images.

The constants were chosen by a simulation: `tests/benchmarks/interval_coverage.py`, whose table is in docs/intervals.md.
There the percentile bootstrap over images covers far too little for shares near 0 and 1.

All functions take arrays [.., m], one row per share and one column per image. Hits may be fractions, such as means over
draws. Patches of images without any count as nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import pyarrow as pa

Floats = npt.NDArray[np.float64]
_PRIOR_CORRELATION = 0.4
_PRIOR_IMAGES = 0.5
_FREEDOM_PER_IMAGE = 2
_CORRELATION_IMAGES = 2
"""By so many images the correlation of two shares is shrunk towards 0."""
_FLIPS = 9_999
_ALL_FLIPS_TO = 12
"""Images: so many have at most 4,096 ways to change signs, all of which are tried."""
_SIGNS_TO = 1_000
"""Images: of so many, signs are drawn image by image, once for all rows; of more, size by size, which takes less."""
_DRAWN_AT_A_TIME = 128
"""Images, or different sizes of differences, whose signs are in memory together: 10 MB."""
_ROWS_AT_A_TIME = 64
SEED = 20_260_202


class Interval(NamedTuple):
    """A 95 % interval; null for one image only, which says nothing about others."""

    low: float | None
    high: float | None

    @classmethod
    def of(cls, low: float, high: float) -> Interval:
        """From limits of which NaN stands for null."""
        return cls(None, None) if math.isnan(low) else cls(float(low), float(high))


class Shares(NamedTuple):
    """Shares with 95 % intervals, each an array [..]; NaN where there are no patches."""

    share: Floats
    low: Floats
    """NaN for fewer than two images, which say nothing about others."""
    high: Floats
    effective: Floats
    """The effective number of patches; NaN as `low`."""


class Differences(NamedTuple):
    """Differences, or other comparisons, of two shares of the same patches, with 95 % intervals; each [..]."""

    value: Floats
    low: Floats
    high: Floats


def shares(hits: npt.ArrayLike, patches: npt.ArrayLike) -> Shares:
    """The shares sum(hits) / sum(patches).

    Args:
        hits: [.., m], at least 0 and at most `patches`.
        patches: [.., m].
    """
    from scipy.special import ndtri, stdtrit  # of scipy.stats too, whose import takes 0.3 s

    h, n = _both(hits, patches)
    counts = _Counts.of(h, n)
    freedom = np.clip(_FREEDOM_PER_IMAGE * counts.spread + _PRIOR_IMAGES, 1, np.maximum(counts.images - 1, 1))
    normal = float(ndtri(0.975))
    factor = np.where(counts.varies, (normal / stdtrit(freedom, 0.975)) ** 2, 1)
    effective = np.where(counts.images > 1, counts.effective, np.nan)
    low, high = _wilson(counts.share, effective * factor, normal)
    return Shares(counts.share, low, high, effective)


def differences(first: npt.ArrayLike, second: npt.ArrayLike, patches: npt.ArrayLike) -> Differences:
    """The shares of `first` minus those of `second`, both hits [.., m] of the same patches [.., m]."""
    one, two, r = _pairs(first, second, patches)
    value = one.share - two.share
    down, up = (one.share - one.low, one.high - one.share), (two.share - two.low, two.high - two.share)
    low = value - _combined(down[0], up[1], r)
    high = value + _combined(down[1], up[0], r)
    return Differences(value, np.maximum(low, -1), np.minimum(high, 1))


def excesses(hits: npt.ArrayLike, chance: npt.ArrayLike, patches: npt.ArrayLike) -> Differences:
    """(share - chance) / (1 - chance): 0 at chance level, 1 where every patch is a hit; NaN where chance is 1.

    1 minus it is a quotient of two shares, that of the misses and that of the misses by chance.
    """
    h, c, n = np.broadcast_arrays(*(np.asarray(values, np.float64) for values in (hits, chance, patches)))
    misses, by_chance, r = _pairs(n - h, n - c, n)
    with np.errstate(divide="ignore", invalid="ignore"):
        quotient = misses.share / by_chance.share
        low, high = _quotient_interval(misses, by_chance, r)
    known = by_chance.share > 0
    return Differences(*(np.where(known, 1 - values, np.nan) for values in (quotient, high, low)))


def sign_flip_p_values(first: npt.ArrayLike, second: npt.ArrayLike, patches: npt.ArrayLike) -> Floats:
    """How often the shares would differ at least as much if, image by image, the two were exchanged at random.

    A permutation test: all exchanges for up to 12 images with a difference, else 9,999 that a fixed seed draws.

    Args:
        first, second: hits [.., m] of the same patches; multiples of one fraction, so that sums can be equal.
        patches: [.., m].

    Returns:
        p-values [..] of both sides; 1 where no image differs.
    """
    one, two, n = np.broadcast_arrays(*(np.asarray(values, np.float64) for values in (first, second, patches)))
    del n  # the sum of patches is the same for every exchange
    rows = (one - two).reshape(-1, one.shape[-1])
    p_values, differing = np.ones(len(rows)), (rows != 0).sum(-1)
    for few in np.flatnonzero((differing > 0) & (differing <= _ALL_FLIPS_TO)):
        p_values[few] = _all_exchanges(rows[few])
    many = np.flatnonzero(differing > _ALL_FLIPS_TO)
    for start in range(0, len(many), _ROWS_AT_A_TIME):
        part = many[start : start + _ROWS_AT_A_TIME]
        for row, sums in zip(part, _drawn_exchanges(rows[part]), strict=True):
            p_values[row] = (1 + (np.abs(sums) >= _at_least(rows[row])).sum()) / (_FLIPS + 1)
    return p_values.reshape(one.shape[:-1])


def adjusted_p_values(p_values: npt.ArrayLike) -> Floats:
    """p-values [n] adjusted by Benjamini and Hochberg (JRSS B 57, 1995): their false discovery rate."""
    values = np.asarray(p_values, np.float64)
    order = values.argsort()
    scaled = values[order] * (len(values) / np.arange(1, len(values) + 1))
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum.accumulate(scaled[::-1])[::-1]
    return np.minimum(adjusted, 1)


class _Counts(NamedTuple):
    """What the spread of hits over images says; each [..]."""

    share: Floats
    images: Floats
    """With a patch."""
    spread: Floats
    """K: the effective number of images with the rarer outcome."""
    varies: npt.NDArray[np.bool_]
    """Whether both outcomes occur."""
    effective: Floats

    @classmethod
    def of(cls, hits: Floats, patches: Floats) -> _Counts:
        total, images = patches.sum(-1), (patches > 0).sum(-1).astype(np.float64)
        with np.errstate(divide="ignore", invalid="ignore"):
            share = hits.sum(-1) / total
            crowding = (patches**2).sum(-1) / total**2
            residual = hits - share[..., None] * patches
            variance = images / (images - 1) * (residual**2).sum(-1) / total**2
            correlation = (variance / (share * (1 - share)) - 1 / total) / (crowding - 1 / total)
        of_hits, of_misses = _spread(hits), _spread(patches - hits)
        of_half = np.minimum(of_hits, of_misses)  # neither is the rarer one
        spread = np.where(share < 0.5, of_hits, np.where(share > 0.5, of_misses, of_half))
        correlation = np.clip(np.where(np.isfinite(correlation), correlation, _PRIOR_CORRELATION), 0, 1)
        correlation = (spread * correlation + _PRIOR_IMAGES * _PRIOR_CORRELATION) / (spread + _PRIOR_IMAGES)
        with np.errstate(divide="ignore", invalid="ignore"):
            effective = 1 / ((1 - correlation) / total + correlation * crowding)
        return cls(share, images, spread, (share > 0) & (share < 1), effective)


def ends_in_single_precision(table: pa.Table) -> pa.Table:
    """The table with ends of intervals and effective numbers rounded to single precision, still of their type.

    Further digits of them say nothing, and do not compress. Shares stay as they are.
    """
    import pyarrow as pa

    columns = [
        column.cast(pa.float32()).cast(column.type) if name.endswith(_ENDS) else column
        for name, column in zip(table.column_names, table.columns, strict=True)
    ]
    return pa.table(columns, schema=table.schema)


_ENDS = ("low", "high", "effective_tokens")


def _spread(counts: Floats) -> Floats:
    """[..]: over how many images counts [.., m] are spread, by their effective number; 0 without any."""
    squares = (counts**2).sum(-1)
    return np.divide(counts.sum(-1) ** 2, squares, out=np.zeros_like(squares), where=squares > 0)


def _both(hits: npt.ArrayLike, patches: npt.ArrayLike) -> tuple[Floats, Floats]:
    h, n = np.broadcast_arrays(np.asarray(hits, np.float64), np.asarray(patches, np.float64))
    return h, n


def _wilson(share: Floats, patches: Floats, z: float) -> tuple[Floats, Floats]:
    with np.errstate(divide="ignore", invalid="ignore"):
        center = (share + z * z / (2 * patches)) / (1 + z * z / patches)
        half = z / (1 + z * z / patches) * np.sqrt(share * (1 - share) / patches + z * z / (4 * patches**2))
    return np.clip(center - half, 0, share), np.clip(center + half, share, 1)


def _pairs(first: npt.ArrayLike, second: npt.ArrayLike, patches: npt.ArrayLike) -> tuple[Shares, Shares, Floats]:
    """The shares of two, and their correlation over the images, shrunk towards 0."""
    one, two, n = np.broadcast_arrays(*(np.asarray(values, np.float64) for values in (first, second, patches)))
    found = shares(one, n), shares(two, n)
    rest = [hits - which.share[..., None] * n for hits, which in zip((one, two), found, strict=True)]
    product, squares = (rest[0] * rest[1]).sum(-1), (rest[0] ** 2).sum(-1) * (rest[1] ** 2).sum(-1)
    r = np.divide(product, np.sqrt(squares), out=np.zeros_like(product), where=squares > 0)
    images = (n > 0).sum(-1)
    return *found, r * images / (images + _CORRELATION_IMAGES)


def _combined(one: Floats, two: Floats, correlation: Floats) -> Floats:
    """The distance of a difference to its limit, from those of the two to theirs."""
    return np.sqrt(np.maximum(one**2 + two**2 - 2 * correlation * one * two, 0))


def _quotient_interval(above: Shares, below: Shares, r: Floats) -> tuple[Floats, Floats]:
    """The limits of a quotient of two shares (Donner and Zou, Statistics in Medicine 31, 2012, eq. 9)."""
    product = above.share * below.share

    def limit(one: Floats, two: Floats, sign: int) -> Floats:
        mixed = product - r * (above.share - one) * (two - below.share)
        squared = mixed**2 - one * two * (2 * above.share - one) * (2 * below.share - two)
        return (mixed + sign * np.sqrt(np.maximum(squared, 0))) / (two * (2 * below.share - two))

    low, high = limit(above.low, below.high, -1), limit(above.high, below.low, 1)
    unbounded = below.low <= 0
    return np.maximum(low, 0), np.where(unbounded, np.inf, high)


def _all_exchanges(row: Floats) -> float:
    """The p-value of the differences [m] of a few images: the share of all exchanges that differ at least as much."""
    own = row[row != 0]
    signs = 1 - 2 * (np.arange(2 ** len(own))[:, None] >> np.arange(len(own)) & 1)
    return float((np.abs(signs @ own) >= _at_least(row)).mean())


def _at_least(differences: Floats) -> Floats:
    """[..]: what as large a sum as that of the differences [.., m] reaches, but for rounding."""
    return np.abs(differences.sum(-1)) - 1e-9 * np.abs(differences).sum(-1)


def _drawn_exchanges(rows: Floats) -> Iterator[Floats]:
    """The sums of each row of differences [R, m] with random signs, [_FLIPS]."""
    if rows.shape[1] <= _SIGNS_TO:
        yield from _flipped_together(rows)
    else:
        yield from map(_flipped_by_size, rows)


def _flipped_together(rows: Floats) -> Floats:
    """[R, _FLIPS]: the sums of the rows [R, m], all with the same signs. What a row gives depends on no other row."""
    generator, positive = np.random.default_rng(SEED), np.zeros((len(rows), _FLIPS))
    for start in range(0, rows.shape[1], _DRAWN_AT_A_TIME):
        part = rows[:, start : start + _DRAWN_AT_A_TIME]
        random = generator.integers(256, size=(part.shape[1], -(-_FLIPS // 8)), dtype=np.uint8)
        positive += part @ np.unpackbits(random, axis=1, count=_FLIPS).astype(np.float64)
    return 2 * positive - rows.sum(-1, keepdims=True)


def _flipped_by_size(row: Floats) -> Floats:
    """[_FLIPS]: the sums of the row [m].

    Of n equal sizes only how many are positive counts, which is binomial: neither time nor memory grows with the number
    of images, but with that of different sizes, and these are hits of one image.
    """
    generator, sums = np.random.default_rng(SEED), np.zeros(_FLIPS)
    values, counts = np.unique(np.abs(row[row != 0]), return_counts=True)
    for start in range(0, len(values), _DRAWN_AT_A_TIME):
        value, count = values[start : start + _DRAWN_AT_A_TIME], counts[start : start + _DRAWN_AT_A_TIME]
        positive = generator.binomial(count[:, None], 0.5, size=(len(count), _FLIPS))
        sums += value @ (2 * positive - count[:, None])
    return sums
