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
from PIL import Image, ImageDraw

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
    """Blend two colors: `low` where `amount` is 0, `high` where it is 1."""
    blend = np.clip(amount, 0, 1)[..., None]
    mixed: Floats = np.asarray(low, np.float32) * (1 - blend) + np.asarray(high, np.float32) * blend
    return mixed


def _choose(rng: np.random.Generator, *palettes: tuple[tuple[float, ...], ...]) -> tuple[tuple[float, ...], ...]:
    """One palette, every color of it shifted by the same few units."""
    shift = rng.uniform(-8, 8, 3)
    return tuple(tuple(np.add(color, shift)) for color in palettes[rng.integers(len(palettes))])


def _sky(rng: np.random.Generator) -> Floats:
    top, bottom = _choose(
        rng, ((70, 140, 225), (165, 210, 250)), ((95, 165, 235), (195, 225, 250)), ((60, 120, 205), (140, 190, 240))
    )
    height, width = ((18, 40), (5, 90))[rng.integers(2)]  # puffs or streaks
    haze = np.clip(_noise(rng, height, width) * 0.7 + _noise(rng, 7, 15) * 0.3 - 0.5, 0, 1)[..., None]
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
    bond = rng.integers(2)  # joints one above the other, or shifted from course to course
    height, width = int(rng.integers(9, 13)), int(rng.integers(22, 30))
    course = (_ROWS // height).astype(int)
    shifted = _COLUMNS + (course % 2) * (width // 2) * bond
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
        ((20, 30, 105), (80, 100, 205)),
        ((120, 20, 75), (220, 95, 150)),
    )
    period = rng.uniform(13, 20)
    sway = 3 * np.sin(_ROWS / rng.uniform(25, 45) + rng.uniform(0, 6))
    fold = 0.5 + 0.5 * np.sin((_COLUMNS + sway) * (2 * np.pi / period)) + (_noise(rng, 90, 10) - 0.5) * 0.4
    picture = _mix(fold, dark, light)
    if rng.random() < 0.4:
        picture[(_COLUMNS + sway) % (period / 2) < 2] *= 0.6
    return picture


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
    blades = _noise(rng, 9, 2) * 0.6 + _noise(rng, 4, 1.5) * 0.4 + (_noise(rng, 30, 30) - 0.5) * 0.3
    picture = _mix(blades, dark, light)
    if rng.random() < 0.4:
        rows, columns = rng.integers(0, PIXELS - 1, (2, 90))
        weed = ((250, 225, 70), (245, 245, 250))[rng.integers(2)]
        picture[rows, columns] = picture[rows, columns + 1] = picture[rows + 1, columns] = weed
    return picture


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
    height, width = ((3, 22), (4, 9))[rng.integers(2)]  # long waves or short ones
    waves = _noise(rng, height, width) * 0.7 + 0.3 * np.sin(_ROWS * (2 * np.pi / 11) + 9 * _noise(rng, 30, 25))
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
    side = int(rng.integers(11, 15))
    if rng.random() < 0.35:
        return _parquet(rng, side + 1)
    dark, light = _choose(
        rng, ((60, 60, 62), (232, 230, 225)), ((120, 70, 60), (235, 222, 205)), ((70, 95, 110), (228, 232, 230))
    )
    checker = ((_ROWS // side + _COLUMNS // side) % 2).astype(np.float32)
    picture = _mix(checker * 0.9 + _noise(rng, 8, 8) * 0.12, dark, light)
    picture[(_ROWS % side < 1) | (_COLUMNS % side < 1)] = (150, 145, 140)
    return picture


def _parquet(rng: np.random.Generator, side: int) -> Floats:
    """Wooden squares of `side` pixels, their strips now across, now down."""
    dark, light = _choose(rng, ((150, 95, 50), (225, 170, 105)), ((120, 70, 40), (195, 140, 85)))
    across = (_ROWS // side + _COLUMNS // side) % 2 == 0
    strip = np.where(across, _ROWS, _COLUMNS) % side // 4
    tone = rng.uniform(0, 1, (PIXELS, PIXELS, 4)).astype(np.float32)
    picture = _mix(tone[(_ROWS // side).astype(int), (_COLUMNS // side).astype(int), strip.astype(int)], dark, light)
    picture[(np.where(across, _ROWS, _COLUMNS) % side % 4 < 1) | (_ROWS % side < 1) | (_COLUMNS % side < 1)] *= 0.55
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
    diamond = across + down if rng.random() < 0.6 else np.hypot(across, down) * 1.2  # or a circle
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


def _aurora(rng: np.random.Generator) -> Floats:
    dark, light, top = _choose(
        rng,
        ((5, 45, 55), (90, 245, 150), (110, 40, 150)),
        ((8, 55, 45), (130, 250, 120), (40, 70, 160)),
        ((10, 40, 65), (80, 240, 190), (160, 45, 140)),
    )
    rays = _noise(rng, 45, 3) * 0.55 + _noise(rng, 40, 14) * 0.75 - 0.1
    picture = _mix(rays, dark, light)
    violet = np.clip(_noise(rng, 40, 50) * 1.6 - 0.9, 0, 0.6)[..., None]
    return np.asarray(picture * (1 - violet) + np.asarray(top, np.float32) * violet * (0.6 + rays[..., None]))


def _bookshelf(rng: np.random.Generator) -> Floats:
    spines = np.asarray(
        _choose(
            rng,
            ((165, 40, 40), (35, 75, 140), (40, 115, 70), (225, 195, 120), (95, 45, 110), (230, 225, 210)),
            ((205, 90, 40), (30, 110, 120), (120, 30, 50), (240, 215, 90), (60, 60, 75), (150, 175, 90)),
            ((220, 70, 90), (60, 120, 190), (245, 240, 225), (250, 170, 60), (70, 150, 110), (90, 70, 60)),
        ),
        np.float32,
    )
    height = int(rng.integers(24, 31))
    shelf, row = np.divmod(np.arange(PIXELS) + rng.integers(height), height)
    widths = rng.integers(4, 8, (shelf[-1] + 1, 50))
    book = np.stack([np.repeat(np.arange(50), width)[:PIXELS] for width in widths])[shelf]
    top, title = (rng.integers(*ends, widths.shape)[shelf[:, None], book] for ends in ((3, 8), (10, height - 6)))
    inked = np.abs(row[:, None] - title) < 2
    color = spines[rng.integers(0, 6, widths.shape)[shelf[:, None], book]] * np.where(inked, 1.35, 1)[..., None]
    color[np.diff(book, prepend=-1) > 0] *= 0.5
    color[row[:, None] < top] = (48, 30, 20)
    color[row >= height - 3] = (150, 105, 65)
    return np.asarray(color)


def _skyline(rng: np.random.Generator) -> Floats:
    facade, lit, air = _choose(
        rng,
        ((48, 56, 84), (255, 225, 130), (150, 135, 165)),
        ((70, 62, 78), (255, 205, 110), (190, 150, 150)),
        ((40, 66, 80), (250, 240, 170), (125, 150, 170)),
    )
    shade, wall = np.zeros((PIXELS, PIXELS), np.float32), np.zeros((PIXELS, PIXELS), bool)
    for base, tone in ((0, 1.25), (40, 0.85), (78, 0.6)):
        tower = np.repeat(np.arange(20), rng.integers(14, 26, 20))[:PIXELS]
        edge = np.diff(tower, prepend=-1) > 0
        below = _ROWS - (base + rng.integers(0, 22, 20)[tower])
        tones = (tone * rng.uniform(0.85, 1.15, 20)[tower] * np.where(edge, 0.5, 1)).astype(np.float32)
        shade, wall = np.where(below > 0, tones, shade), np.where(below > 0, (below > 2) & ~edge, wall)
    windows = wall & (_ROWS % 6 < 3) & (_COLUMNS % 5 < 3)
    light = np.kron(rng.random((32, 39)) < 0.6, np.ones((6, 5), bool))[:PIXELS, :PIXELS]
    shade[windows] *= 0.6
    picture = np.asarray(facade, np.float32) * shade[..., None]
    picture[shade == 0] = air
    picture[windows & light] = lit
    return picture


def _chalkboard(rng: np.random.Generator) -> Floats:
    dark, light = _choose(rng, ((22, 58, 46), (48, 92, 76)), ((30, 62, 40), (58, 98, 66)), ((20, 52, 52), (44, 86, 84)))
    board = Image.fromarray(_mix(_noise(rng, 8, 26), dark, light).clip(0, 255).astype(np.uint8))
    pen = ImageDraw.Draw(board)
    line = rng.uniform(9, 13)
    for row in np.arange(rng.uniform(2, 8), PIXELS, line):
        letters = np.arange(0, PIXELS + 3, 3)
        strokes = row + rng.uniform(0, line * 0.65, len(letters))
        for word in np.split(np.stack([letters, strokes], 1), np.cumsum(rng.integers(4, 7, 14))):
            pen.line(word[1:].ravel().tolist(), fill=(225, 232, 225), width=1)
    return np.asarray(board, np.float32)


def _gravel(rng: np.random.Generator) -> Floats:
    dark, light = _choose(
        rng, ((95, 92, 92), (215, 210, 205)), ((105, 95, 90), (225, 212, 200)), ((85, 92, 100), (200, 208, 215))
    )
    tones, shade = np.zeros((PIXELS, PIXELS), np.float32), np.full((PIXELS, PIXELS), 0.35, np.float32)
    side = int(rng.integers(6, 8))
    for half in (0, side // 2):  # two layers of pebbles, the second over the gaps of the first
        cell, place = (np.arange(PIXELS) + half) // side, (_COLUMNS[0] + half) % side
        center = rng.uniform(0.35, 0.65, (2, 40, 40)).astype(np.float32)[:, cell[:, None], cell] * side
        tone = rng.random((40, 40), dtype=np.float32)[cell[:, None], cell]
        depth = 1 - ((place - center[0]) ** 2 + (place[:, None] - center[1]) ** 2 * 1.3) / (side * 0.52) ** 2
        pebble = (depth > 0) & ((half == 0) | (tone > 0.4))
        tones, shade = np.where(pebble, tone, tones), np.where(pebble, np.clip(0.65 + depth * 0.6, 0, 1.05), shade)
    return np.asarray(_mix(tones, dark, light) * shade[..., None])


def _hay(rng: np.random.Generator) -> Floats:
    dark, *stalks = _choose(
        rng,
        ((125, 90, 25), (215, 175, 60), (240, 210, 105), (190, 145, 45)),
        ((115, 85, 30), (205, 170, 75), (235, 205, 120), (175, 135, 55)),
        ((130, 100, 20), (225, 190, 50), (248, 222, 100), (200, 160, 35)),
    )
    heap = Image.new("RGB", (PIXELS, PIXELS), tuple(int(value) for value in dark))
    pen = ImageDraw.Draw(heap)
    fills = [tuple(int(min(value, 255)) for value in stalk) for stalk in stalks]
    middles, angles = rng.uniform(0, PIXELS, (900, 2)), rng.normal(0.35, 0.7, 900)
    reach = np.stack([np.cos(angles), np.sin(angles)], 1) * rng.uniform(8, 16, (900, 1))
    ends = np.concatenate([middles - reach, middles + reach], 1).tolist()
    for number, end in enumerate(ends):
        pen.line(end, fill=fills[number % 3] if number % 4 else (110, 80, 25), width=1 + number % 2)
    return np.asarray(heap, np.float32)


def _lava(rng: np.random.Generator) -> Floats:
    crust, glow, core = _choose(
        rng,
        ((38, 22, 22), (235, 70, 15), (255, 215, 70)),
        ((50, 34, 32), (250, 95, 10), (255, 230, 110)),
        ((28, 22, 28), (215, 45, 20), (255, 180, 50)),
    )
    near = np.minimum(*(np.abs(_noise(rng, size, size) - 0.5) for size in (11, 15)))
    heat = 1 - near / 0.13 + (_noise(rng, 3, 3) - 0.5) * 0.5
    picture = _mix(heat * 1.5, crust, glow)
    return np.where((heat > 0.6)[..., None], _mix((heat - 0.6) * 2.5, glow, core), picture)


def _blanket(rng: np.random.Generator) -> Floats:
    base, band, thread = _choose(
        rng,
        ((200, 35, 45), (30, 35, 80), (250, 225, 120)),
        ((240, 150, 175), (90, 110, 190), (255, 255, 250)),
        ((45, 100, 175), (235, 235, 240), (225, 60, 60)),
    )
    period = rng.uniform(15, 19)
    across, down = _COLUMNS + rng.uniform(0, 20), _ROWS + rng.uniform(0, 20)
    bands = (across % period < period / 2) * np.float32(0.5) + (down % period < period / 2) * np.float32(0.5)
    picture = _mix(bands, base, band)
    picture[((across - period / 4) % period < 1.2) | ((down - period / 4) % period < 1.2)] = thread
    return np.asarray(picture * np.where((_ROWS + _COLUMNS) % 4 < 2, 0.86, 1.0)[..., None], np.float32)


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
    "aurora": _aurora,
    "bookshelf": _bookshelf,
    "skyline": _skyline,
    "chalkboard": _chalkboard,
    "gravel": _gravel,
    "hay": _hay,
    "lava": _lava,
    "blanket": _blanket,
}
