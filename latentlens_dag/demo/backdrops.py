"""Procedural textures of the demo world's backgrounds: one function per background.

Each function draws a whole picture [PIXELS, PIXELS, 3] of floats in 0..255 from a random
generator and nothing else, with a palette chosen among several variants, so that no two scenes
share a background pixel for pixel while every background stays itself. Smooth noise comes from a
small random grid scaled up, which costs 0.1 ms where a convolution would cost 5.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

Floats = npt.NDArray[np.floating[Any]]

PIXELS = 192
_ROWS, _COLUMNS = np.mgrid[0:PIXELS, 0:PIXELS].astype(np.float32)


def backdrop(name: str, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Draw the background called `name`: uint8 [PIXELS, PIXELS, 3].

    Raises:
        KeyError: if no texture is known for `name`.
    """
    if name not in _TEXTURES:
        raise KeyError(
            f"No texture for background {name!r}; there are {', '.join(_TEXTURES)}. Add one to backdrops.py."
        )
    return np.clip(_TEXTURES[name](rng), 0, 255).astype(np.uint8)


def _noise(rng: np.random.Generator, cell_height: float, cell_width: float) -> Floats:
    """Smooth noise in about 0..1 whose bumps are `cell_height` x `cell_width` pixels."""
    grid = rng.random((max(2, round(PIXELS / cell_height)), max(2, round(PIXELS / cell_width))), dtype=np.float32)
    return np.asarray(Image.fromarray(grid).resize((PIXELS, PIXELS), Image.Resampling.BILINEAR))


def _mix(amount: Floats, low: tuple[float, ...], high: tuple[float, ...]) -> Floats:
    """Blend two colours: `low` where `amount` is 0, `high` where it is 1."""
    blend = np.clip(amount, 0, 1)[..., None]
    mixed: Floats = np.asarray(low, np.float32) * (1 - blend) + np.asarray(high, np.float32) * blend
    return mixed


def _choose(rng: np.random.Generator, *palettes: tuple[tuple[float, ...], ...]) -> tuple[tuple[float, ...], ...]:
    """One palette, every colour of it shifted by the same few units."""
    shift = rng.uniform(-8, 8, 3)
    return tuple(tuple(np.add(color, shift)) for color in palettes[rng.integers(len(palettes))])


def _sky(rng: np.random.Generator) -> Floats:
    top, bottom = _choose(
        rng, ((70, 140, 225), (165, 210, 250)), ((95, 165, 235), (195, 225, 250)), ((60, 120, 205), (140, 190, 240))
    )
    haze = np.clip(_noise(rng, 18, 40) * 0.7 + _noise(rng, 7, 15) * 0.3 - 0.5, 0, 1)[..., None]
    return _mix(_ROWS / 130, top, bottom) + haze * 130


def _night(rng: np.random.Generator) -> Floats:
    top, bottom = _choose(rng, ((10, 12, 40), (35, 40, 90)), ((15, 10, 35), (50, 35, 85)), ((8, 18, 38), (25, 50, 85)))
    picture = _mix(_ROWS / 120 + _noise(rng, 30, 40) * 0.3, top, bottom)
    rows, columns = rng.integers(0, PIXELS, (2, 260))
    picture[rows, columns] = rng.uniform(130, 255, (260, 1))
    return picture


def _sunset(rng: np.random.Generator) -> Floats:
    top, bottom = _choose(
        rng, ((150, 60, 120), (255, 180, 80)), ((110, 60, 140), (255, 150, 90)), ((200, 70, 80), (255, 205, 110))
    )
    streaks = (_noise(rng, 5, 70) - 0.5) * 0.5
    return _mix(_ROWS / 115 + streaks, top, bottom)


def _wall(rng: np.random.Generator) -> Floats:
    brick, mortar = _choose(
        rng, ((165, 75, 55), (205, 195, 185)), ((150, 90, 70), (190, 185, 180)), ((180, 100, 65), (220, 210, 195))
    )
    height, width = int(rng.integers(9, 13)), int(rng.integers(22, 30))
    course = (_ROWS // height).astype(int)
    shifted = _COLUMNS + (course % 2) * (width // 2)
    tone = rng.uniform(-22, 22, (64, 64)).astype(np.float32)[course, (shifted // width).astype(int)]
    picture = np.asarray(brick, np.float32) + tone[..., None] + (_noise(rng, 2, 2)[..., None] - 0.5) * 24
    joint = (_ROWS % height < 2) | (shifted % width < 2)
    picture[joint] = mortar
    return picture


def _forest(rng: np.random.Generator) -> Floats:
    dark, light = _choose(
        rng, ((15, 50, 25), (70, 125, 50)), ((10, 45, 40), (55, 110, 70)), ((30, 55, 15), (95, 130, 45))
    )
    leaves = _noise(rng, 9, 9) * 0.6 + _noise(rng, 3, 3) * 0.6 - 0.1
    picture = _mix(leaves, dark, light)
    for center in rng.uniform(0, PIXELS, 7):
        half = rng.uniform(2.0, 4.5)
        trunk = (np.abs(_COLUMNS - center) < half) & (leaves < 0.62)
        picture[trunk] = np.asarray((62, 42, 28)) + rng.uniform(-8, 8)
    return picture


def _mountains(rng: np.random.Generator) -> Floats:
    near, far = _choose(
        rng, ((85, 90, 115), (205, 205, 225)), ((105, 95, 105), (220, 210, 215)), ((75, 95, 105), (200, 212, 220))
    )
    picture = _mix(_ROWS / 200, (225, 228, 240), (200, 205, 225))
    for depth, base in enumerate((8, 34, 62)):
        ridge = base + _ridge(rng)
        below = _ROWS - ridge
        rock = _mix(np.full_like(below, depth / 3 + 0.2) + (_noise(rng, 6, 4) - 0.5) * 0.5, far, near)
        snow = below < 7 + 6 * _noise(rng, 4, 6)
        rock[snow] = (245, 246, 252)
        picture = np.where((below > 0)[..., None], rock, picture)
    return picture


def _ridge(rng: np.random.Generator) -> Floats:
    """Height of a jagged ridge per column, [1, PIXELS], 0 at its peaks."""
    knots = rng.uniform(0, 26, 9)
    knots[::2] *= 0.25
    jagged = np.interp(np.arange(PIXELS), np.linspace(0, PIXELS - 1, 9), knots)
    return (jagged + rng.uniform(0, 1.5, PIXELS))[None, :].astype(np.float32)


def _curtain(rng: np.random.Generator) -> Floats:
    dark, light = _choose(
        rng,
        ((95, 10, 25), (200, 45, 60)),
        ((60, 25, 95), (150, 90, 190)),
        ((10, 75, 80), (60, 160, 160)),
        ((120, 20, 75), (220, 95, 150)),
    )
    period = rng.uniform(13, 20)
    sway = 3 * np.sin(_ROWS / rng.uniform(25, 45) + rng.uniform(0, 6))
    fold = 0.5 + 0.5 * np.sin((_COLUMNS + sway) * (2 * np.pi / period)) + (_noise(rng, 90, 10) - 0.5) * 0.4
    return _mix(fold, dark, light)


def _fence(rng: np.random.Generator) -> Floats:
    dark, light = _choose(
        rng, ((110, 75, 45), (180, 135, 90)), ((150, 110, 70), (205, 165, 115)), ((95, 85, 75), (165, 150, 135))
    )
    width = int(rng.integers(13, 19))
    plank = (_COLUMNS // width).astype(int)
    grain = _noise(rng, 40, 1.6) * 0.5 + rng.uniform(0, 0.5, 64).astype(np.float32)[plank]
    picture = _mix(grain, dark, light)
    picture[(_COLUMNS % width) < 2] = (45, 35, 25)
    rail = (np.abs(_ROWS - rng.uniform(18, 30)) < 4) | (np.abs(_ROWS - rng.uniform(62, 76)) < 4)
    picture[rail] *= 0.72
    return picture


def _grass(rng: np.random.Generator) -> Floats:
    dark, light = _choose(
        rng, ((45, 110, 30), (130, 190, 70)), ((60, 130, 40), (150, 205, 80)), ((50, 120, 55), (125, 195, 95))
    )
    return _mix(_noise(rng, 9, 2) * 0.6 + _noise(rng, 4, 1.5) * 0.4 + (_noise(rng, 30, 30) - 0.5) * 0.3, dark, light)


def _sand(rng: np.random.Generator) -> Floats:
    dark, light = _choose(
        rng, ((205, 170, 110), (240, 215, 160)), ((215, 180, 125), (248, 228, 180)), ((200, 160, 105), (235, 200, 145))
    )
    bend = 8 * _noise(rng, 30, 40)
    ripple = 0.5 + 0.3 * np.sin((_ROWS + bend * 2 + _COLUMNS * 0.15) * (2 * np.pi / rng.uniform(9, 14)))
    return _mix(ripple + (_noise(rng, 1.3, 1.3) - 0.5) * 0.5, dark, light)


def _snow(rng: np.random.Generator) -> Floats:
    dark, light = _choose(
        rng, ((205, 220, 240), (252, 253, 255)), ((215, 222, 238), (255, 255, 255)), ((210, 225, 235), (250, 252, 254))
    )
    drifts = _noise(rng, 16, 60) * 0.8 + 0.3 + (_noise(rng, 1.5, 1.5) - 0.5) * 0.25
    return _mix(drifts, dark, light)


def _water(rng: np.random.Generator) -> Floats:
    dark, light = _choose(
        rng, ((15, 80, 150), (95, 170, 215)), ((10, 100, 140), (90, 190, 205)), ((25, 70, 135), (80, 150, 200))
    )
    waves = _noise(rng, 3, 22) * 0.7 + 0.3 * np.sin(_ROWS * (2 * np.pi / 11) + 9 * _noise(rng, 30, 25))
    picture = _mix(waves, dark, light)
    picture[waves > 0.83] = (225, 240, 248)
    return picture


def _road(rng: np.random.Generator) -> Floats:
    dark, light = _choose(
        rng, ((70, 70, 75), (110, 110, 114)), ((85, 85, 85), (125, 125, 125)), ((60, 62, 70), (98, 100, 108))
    )
    picture = _mix(_noise(rng, 1.2, 1.2) * 0.8 + _noise(rng, 20, 30) * 0.3, dark, light)
    paint = ((240, 240, 235), (245, 205, 60))[rng.integers(2)]
    length, offset = rng.uniform(30, 44), rng.uniform(0, 40)
    for middle in (128 + rng.uniform(-6, 6), 166 + rng.uniform(-6, 6)):
        picture[(np.abs(_ROWS - middle) < 2.5) & ((_COLUMNS + offset) % length < length * 0.55)] = paint
    return picture


def _floor(rng: np.random.Generator) -> Floats:
    dark, light = _choose(
        rng, ((60, 60, 62), (232, 230, 225)), ((120, 70, 60), (235, 222, 205)), ((70, 95, 110), (228, 232, 230))
    )
    side = int(rng.integers(11, 15))
    checker = ((_ROWS // side + _COLUMNS // side) % 2).astype(np.float32)
    picture = _mix(checker * 0.9 + _noise(rng, 8, 8) * 0.12, dark, light)
    picture[(_ROWS % side < 1) | (_COLUMNS % side < 1)] = (150, 145, 140)
    return picture


def _carpet(rng: np.random.Generator) -> Floats:
    base, motif = _choose(
        rng,
        ((130, 25, 40), (225, 175, 95)),
        ((75, 35, 100), (215, 170, 205)),
        ((20, 60, 95), (220, 180, 120)),
        ((25, 85, 65), (225, 195, 120)),
    )
    period = rng.uniform(18, 26)
    across, down = (
        np.abs(axis % period - period / 2) for axis in (_COLUMNS + rng.uniform(0, 20), _ROWS + rng.uniform(0, 20))
    )
    diamond = across + down
    ring = (np.abs(diamond - period * 0.32) < 1.6) | (diamond < period * 0.13)
    return _mix(ring * 0.9 + (_noise(rng, 1.2, 1.2) - 0.5) * 0.25, base, motif)


def _soil(rng: np.random.Generator) -> Floats:
    dark, light = _choose(
        rng, ((55, 35, 22), (135, 95, 62)), ((65, 42, 30), (150, 105, 75)), ((48, 34, 26), (120, 88, 64))
    )
    lumps = _noise(rng, 6, 7) * 0.6 + _noise(rng, 2.5, 2.5) * 0.5 - 0.05
    picture = _mix(lumps, dark, light)
    picture[_noise(rng, 4, 5) > 0.9] = (165, 150, 135)
    return picture


_TEXTURES: dict[str, Callable[[np.random.Generator], Floats]] = {
    "sky": _sky,
    "night": _night,
    "sunset": _sunset,
    "wall": _wall,
    "forest": _forest,
    "mountains": _mountains,
    "curtain": _curtain,
    "fence": _fence,
    "grass": _grass,
    "sand": _sand,
    "snow": _snow,
    "water": _water,
    "road": _road,
    "floor": _floor,
    "carpet": _carpet,
    "soil": _soil,
}
