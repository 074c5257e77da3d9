"""95 % intervals of shares, and tests of their differences, with images as the units.

The patches of one image are not independent, so the number of patches says little about how sure a share is. The
variance of a share p is p (1 - p) u, where u = (1 - r) / N + r S for N patches, r is the correlation of two patches of
one image, and S is the sum of the squared shares of the images in N. How well r is known depends on how the hits are
spread over the images:

- Before any hit, r is one of 256 values that are equally likely, the quantiles of the beta distribution (0.3, 0.4):
  most of it lies near 0 and near 1, since both occur, and the mean is 0.43.
- The variance of a ratio of sums over images (Cochran, Sampling Techniques, eq. 6.13) estimates u, with 1 / S - 1
  degrees of freedom, and with no more than 1.5 K, where K is the effective number of images with the rarer outcome. By
  the density of chi-squared it gives each r its weight. Without any rare outcome the weights stay equal.
- The *effective number of patches* is 1 / u with the mean r: so many independent patches would give a share as sure.
- The error of a share is a mixture of normal distributions, one for each r. The quantile c of 97.5 % of this mixture
  stands for 1.96 standard errors: n = (1.96 / c)^2 patches would give an interval as wide if they were independent and
  r were known. For many images this is the effective number; for few it is less, as with the quantiles of t.

Each limit is then that of n independent patches: towards 1/2 Wilson's (JASA 22, 1927) with 2 in the place of 1.96, as
Agresti and Coull have it (The American Statistician 52, 1998), and towards the nearer of 0 and 1 the quantile of
Jeffreys's posterior, since there Wilson's covers too little (Brown, Cai and DasGupta, Statistical Science 16, 2001).
For differences and quotients of two shares, their intervals are combined (Zou and Donner, Statistics in Medicine 27,
2008; Newcombe, 1998), with the correlation of the two over the images.

The constants were chosen by a simulation: `tests/benchmarks/interval_coverage.py`, whose table is in docs/intervals.md.
There the percentile bootstrap over images covers far too little for shares near 0 and 1.

All functions take arrays [.., m], one row per share and one column per image. Hits may be fractions, such as means over
draws. Patches of images without any count as nothing.
"""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import pyarrow as pa

Floats = npt.NDArray[np.float64]
_LIKELY_CORRELATIONS = 0.3, 0.4
"""The parameters of the beta distribution."""
_CORRELATIONS = 256
_FREEDOM_PER_IMAGE = 1.5
_WILSON = 2.0
_CORRELATION_IMAGES = 2
"""By so many images the correlation of two shares is shrunk towards 0."""
_BITS = 13
"""Of exchanges: 8,192 of them, in memory for 64 rows at a time (4 MB)."""
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
    h, n = _both(hits, patches)
    counts = _Counts.of(h, n)
    low, high = _limits(counts.share, counts.independent)
    return Shares(counts.share, low, high, counts.effective)


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

    A permutation test whose level is exact: under any exchange of labels, at most a share a of p-values is a or less.
    The smallest p-value is 2 / 2^n for n up to 13 images with a difference (so 5 images can never give 0.05 or less),
    and 1 / 8,192 for more.

    Args:
        first, second: hits [.., m] of the same patches; multiples of one fraction, so that sums can be equal.
        patches: [.., m].

    Returns:
        p-values [..] of both sides; 1 where no image differs.
    """
    one, two, n = np.broadcast_arrays(*(np.asarray(values, np.float64) for values in (first, second, patches)))
    del n  # the sum of patches is the same for every exchange
    rows = (one - two).reshape(-1, one.shape[-1])
    p_values = [
        (sums >= _at_least(sums[..., :1], part)).mean(-1)
        for part in np.split(rows, range(_ROWS_AT_A_TIME, len(rows), _ROWS_AT_A_TIME))
        for sums in [np.abs(exchanged_sums(part))]
    ]
    return np.concatenate(p_values).reshape(one.shape[:-1])


def exchanged_sums(differences: Floats) -> Floats:
    """[R, 8192]: the sums of differences [R, m] under the exchanges that the test compares; first the one as it is.

    Any two of these exchanges, one after the other, are again one of them. Therefore the test is exact although it
    does not try all (Hemerik and Goeman, TEST 27, 2018, theorem 1), whatever the exchanges are; they are also pairwise
    independent for up to 8,191 images, so that the sums have the variance of those of all exchanges. Each image has a
    13-bit code, and exchange g flips it if its code and g have an odd number of bits in common. So all sums are one
    Walsh-Hadamard transform of the differences by code. The first 13 images have one bit each: of so few, all
    exchanges are there. Images without a difference have no code, and change nothing.
    """
    sums = np.zeros((len(differences), 2**_BITS))
    for row, of_row in zip(sums, differences, strict=True):
        own = of_row[of_row != 0]
        np.add.at(row, np.resize(_codes(), len(own)), own)
    half = 1
    while half < sums.shape[1]:
        pairs = sums.reshape(len(sums), 2**_BITS // (2 * half), 2, half)
        sums = np.stack([pairs[:, :, 0] + pairs[:, :, 1], pairs[:, :, 0] - pairs[:, :, 1]], axis=2)
        sums, half = sums.reshape(len(sums), 2**_BITS), 2 * half
    return sums


def adjusted_p_values(p_values: npt.ArrayLike) -> Floats:
    """p-values [n] adjusted by Benjamini and Hochberg (JRSS B 57, 1995): their false discovery rate."""
    values = np.asarray(p_values, np.float64)
    order = values.argsort()
    scaled = values[order] * (len(values) / np.arange(1, len(values) + 1))
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum.accumulate(scaled[::-1])[::-1]
    return np.minimum(adjusted, 1)


class _Counts(NamedTuple):
    """What the spread of hits over images says; each [..], and NaN but for the share with fewer than two images."""

    share: Floats
    effective: Floats
    independent: Floats
    """n: so many independent patches would give an interval as wide."""

    @classmethod
    def of(cls, hits: Floats, patches: Floats) -> _Counts:
        total, images = patches.sum(-1), (patches > 0).sum(-1)
        with np.errstate(divide="ignore", invalid="ignore"):
            share = hits.sum(-1) / total
            crowding = (patches**2).sum(-1) / total**2
            residual = hits - share[..., None] * patches
            estimate = (residual**2).sum(-1) / total**2 / (1 - crowding) / (share * (1 - share))
            r = _correlations()
            variances = (1 - r) / total[..., None] + r * crowding[..., None]
        varies = (share > 0) & (share < 1) & (images > 1)
        freedom = np.where(varies, np.minimum(_FREEDOM_PER_IMAGE * _rarer(hits, patches, share), 1 / crowding - 1), 0)
        weights = _weights(variances, np.where(varies, estimate, 0), freedom)
        known = np.where(images > 1, 1, np.nan)
        quantile = _mixture_quantile(variances, weights)
        return cls(share, known / (weights * variances).sum(-1), known * (_normal_quantile() / quantile) ** 2)


def _rarer(hits: Floats, patches: Floats, share: Floats) -> Floats:
    """[..]: K, the effective number of images with the rarer outcome."""
    of_hits, of_misses = _spread(hits), _spread(patches - hits)
    of_half = np.minimum(of_hits, of_misses)  # neither is the rarer one
    return np.where(share < 0.5, of_hits, np.where(share > 0.5, of_misses, of_half))


@cache
def _correlations() -> Floats:
    """[256], equally likely."""
    from scipy.special import betaincinv  # of scipy.stats too, whose import takes 0.3 s

    return np.asarray(betaincinv(*_LIKELY_CORRELATIONS, (np.arange(_CORRELATIONS) + 0.5) / _CORRELATIONS))


def _weights(variances: Floats, estimate: Floats, freedom: Floats) -> Floats:
    """[.., 256]: how likely each of the variances [.., 256] is, after an estimate with some degrees of freedom [..]."""
    logarithm = -freedom[..., None] / 2 * (np.log(variances) + estimate[..., None] / variances)
    weights = np.exp(logarithm - logarithm.max(-1, keepdims=True))
    return np.asarray(weights / weights.sum(-1, keepdims=True))


def _normal_quantile() -> float:
    from scipy.special import ndtri

    return float(ndtri(0.975))


def _mixture_quantile(variances: Floats, weights: Floats) -> Floats:
    """[..]: what a mixture of normal distributions around 0, with variances and weights [.., 256], is below in 97.5 %.

    By Newton's method, from below: there the distribution function is concave, so that no step goes too far.
    """
    from scipy.special import ndtr

    deviations = np.sqrt(variances)
    found = _normal_quantile() * deviations.min(-1)
    for _ in range(_STEPS):
        scaled = found[..., None] / deviations
        density = (weights * np.exp(-(scaled**2) / 2) / deviations).sum(-1) / math.sqrt(2 * math.pi)
        step = (0.975 - (weights * ndtr(scaled)).sum(-1)) / density
        found = found + step
        if not (step > 1e-12 * found).any():
            break
    return np.asarray(found)


_STEPS = 50
"""At most; about 8 are taken."""


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


def _limits(share: Floats, patches: Floats) -> tuple[Floats, Floats]:
    """Of an interval of a share of independent patches, each [..]."""
    from scipy.special import betaincinv

    of_hits, of_misses = share * patches + 0.5, (1 - share) * patches + 0.5
    low, high = _wilson(share, patches)
    low = np.where(share < 0.5, betaincinv(of_hits, of_misses, 0.025), low)
    high = np.where(share > 0.5, betaincinv(of_hits, of_misses, 0.975), high)
    low, high = np.where(share > 0, low, 0 * patches), np.where(share < 1, high, 1 + 0 * patches)
    return np.clip(low, 0, share), np.clip(high, share, 1)


def _wilson(share: Floats, patches: Floats) -> tuple[Floats, Floats]:
    z = _WILSON
    with np.errstate(divide="ignore", invalid="ignore"):
        center = (share + z * z / (2 * patches)) / (1 + z * z / patches)
        half = z / (1 + z * z / patches) * np.sqrt(share * (1 - share) / patches + z * z / (4 * patches**2))
    return center - half, center + half


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


@cache
def _codes() -> npt.NDArray[np.int64]:
    """[8191]: all codes but 0, those of one bit first."""
    one_bit = 2 ** np.arange(_BITS)
    others = np.setdiff1d(np.arange(1, 2**_BITS), one_bit)
    return np.concatenate([one_bit, np.random.default_rng(SEED).permutation(others)])


def _at_least(sums: Floats, differences: Floats) -> Floats:
    """[R, 1]: what as large a sum as `sums` [R, 1] of the differences [R, m] reaches, but for rounding."""
    return sums - 1e-9 * np.abs(differences).sum(-1, keepdims=True)
