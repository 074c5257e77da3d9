"""Basic color words measured from pixels.

A pixel is classified in OKLCh (lightness, chroma, hue of the perceptual space OKLab), where the
eleven basic words are simple boxes; RGB or HSV boxes call every dark orange "orange" and no brown
"brown". Five bits per channel are enough, so the classes are a table of 32,768 entries.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt

from latentlens_dag.demo.world import COLORS

MIN_SHARE = 0.20
"""A color word belongs to a region when it covers at least this share of its visible pixels."""


def color_shares(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """Share of each word of COLORS among `pixels` (uint8 [N, 3], N >= 1): float [11], sums to 1."""
    reduced = (pixels >> 3).astype(np.int64)
    classes = _table()[reduced[:, 0] << 10 | reduced[:, 1] << 5 | reduced[:, 2]]
    return np.bincount(classes, minlength=len(COLORS)) / len(pixels)


def color_words(shares: npt.NDArray[np.float64]) -> tuple[str, ...]:
    """The words whose share is at least MIN_SHARE, the most common first."""
    order = np.argsort(-shares, kind="stable")
    return tuple(COLORS[index] for index in order if shares[index] >= MIN_SHARE)


def dominant_color(shares: npt.NDArray[np.float64]) -> str:
    """The word with the largest share."""
    return COLORS[int(np.argmax(shares))]


@cache
def _table() -> npt.NDArray[np.uint8]:
    """Class of every color of five bits per channel, index r << 10 | g << 5 | b."""
    levels = (np.arange(32) * 8 + 4) / 255
    red, green, blue = np.meshgrid(levels, levels, levels, indexing="ij")
    lightness, chroma, hue = _oklch(np.stack([red, green, blue], axis=-1).reshape(-1, 3))
    return _classes(lightness, chroma, hue)


def _oklch(rgb: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], ...]:
    """Lightness 0..1, chroma 0..0.32 and hue 0..360 of sRGB values in 0..1 (Ottosson 2020)."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    cones = linear @ np.array(
        [
            [0.4122214708, 0.2119034982, 0.0883024619],
            [0.5363325363, 0.6806995451, 0.2817188376],
            [0.0514459929, 0.1073969566, 0.6299787005],
        ]
    )
    lab = np.cbrt(cones) @ np.array(
        [
            [0.2104542553, 1.9779984951, 0.0259040371],
            [0.7936177850, -2.4285922050, 0.7827717662],
            [-0.0040720468, 0.4505937099, -0.8086757660],
        ]
    )
    return lab[:, 0], np.hypot(lab[:, 1], lab[:, 2]), np.degrees(np.arctan2(lab[:, 2], lab[:, 1])) % 360


def _classes(
    lightness: npt.NDArray[np.float64], chroma: npt.NDArray[np.float64], hue: npt.NDArray[np.float64]
) -> npt.NDArray[np.uint8]:
    """Index into COLORS for each pixel; the first rule that holds decides."""
    pale_warm = (chroma < 0.075) & (hue >= 40) & (hue < 105)
    rules = [
        ("black", (lightness < 0.30) & (chroma < 0.10)),
        ("white", (lightness > 0.93) & (chroma < 0.045)),
        ("white", (lightness > 0.88) & (chroma < 0.03)),
        ("black", (lightness < 0.42) & (chroma < 0.03)),
        ("gray", chroma < 0.03),
        ("white", pale_warm & (lightness > 0.92)),
        ("pink", pale_warm & (lightness > 0.75) & (hue < 55)),
        ("brown", pale_warm),
        ("pink", (hue < 40) & (lightness > 0.72) & (chroma < 0.16)),
        ("brown", (hue >= 8) & (hue < 40) & (lightness < 0.56) & (chroma < 0.125)),
        ("red", (hue >= 8) & (hue < 40)),
        ("brown", (hue >= 40) & (hue < 90) & ((lightness < 0.64) | (chroma < 0.10)) & (lightness < 0.8)),
        ("red", (hue >= 40) & (hue < 42)),
        ("orange", (hue >= 40) & (hue < 74)),
        ("yellow", (hue >= 74) & (hue < 111.5)),
        ("green", (hue >= 111.5) & (hue < 188)),
        ("blue", (hue >= 188) & (hue < 277)),
        ("purple", (hue >= 277) & (hue < 330)),
        ("pink", lightness > 0.58),
        ("red", hue < 8),
        ("purple", np.ones_like(hue, dtype=bool)),
    ]
    chosen = np.select([rule for _, rule in rules], [COLORS.index(word) for word, _ in rules])
    return chosen.astype(np.uint8)
