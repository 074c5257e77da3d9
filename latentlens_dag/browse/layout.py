"""Where the tokens of an image are drawn: its views, the regions under a token, the picture itself."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple


class TokenView(NamedTuple):
    """Tokens whose boxes can be drawn on one picture without hiding each other."""

    name: str
    tokens: tuple[int, ...]


def token_views(tokens: Sequence[Mapping[str, Any]]) -> list[TokenView]:
    """The views of an image's tokens: as the model names them, cut by tile where the tiles of one lie on each other.

    Args:
        tokens: rows with view, tile, token_index and box; those without a box belong to no view.
    """
    placed: dict[str, dict[int, list[Mapping[str, Any]]]] = {}
    for token in tokens:
        if token["x0"] is not None:
            placed.setdefault(token["view"], {}).setdefault(token["tile"] or 0, []).append(token)
    views = []
    for name, tiles in placed.items():
        if _overlap([_bounds(rows) for rows in tiles.values()]):
            views += [TokenView(f"{name} {tile}", _indices(rows)) for tile, rows in tiles.items()]
        else:
            views.append(TokenView(name, _indices([row for rows in tiles.values() for row in rows])))
    return views


def _indices(rows: Sequence[Mapping[str, Any]]) -> tuple[int, ...]:
    return tuple(row["token_index"] for row in rows)


def _bounds(rows: Sequence[Mapping[str, Any]]) -> tuple[float, float, float, float]:
    left, top = (min(row[side] for row in rows) for side in ("x0", "y0"))
    right, bottom = (max(row[side] for row in rows) for side in ("x1", "y1"))
    return left, top, right, bottom


def _overlap(boxes: Sequence[tuple[float, float, float, float]]) -> bool:
    """Whether two boxes share more than a seam (a tenth of the smaller side)."""
    for number, (ax0, ay0, ax1, ay1) in enumerate(boxes):
        for bx0, by0, bx1, by1 in boxes[number + 1 :]:
            seam = min(ax1 - ax0, ay1 - ay0, bx1 - bx0, by1 - by0) / 10
            if min(ax1, bx1) - max(ax0, bx0) > seam and min(ay1, by1) - max(ay0, by0) > seam:
                return True
    return False


def regions_in_box(regions: Sequence[Mapping[str, Any]], box: Sequence[float], width: int) -> list[Mapping[str, Any]]:
    """The regions of which a box has a pixel, those that cover most of it first; objects before backgrounds.

    Args:
        regions: rows of REGIONS of one image.
        box: x0, y0, x1, y1 in pixels of the original.
        width: of the original, in pixels, by which masks are unrolled.
    """
    shares = [(_covered(region, box, width), region) for region in regions]
    return [
        region
        for share, region in sorted(shares, key=lambda pair: (pair[1]["kind"] != "object", -pair[0]))
        if share > 0
    ]


def _covered(region: Mapping[str, Any], box: Sequence[float], width: int) -> float:
    x0, y0, x1, y1 = box
    if not region["mask"]:
        across = min(x1, region["x1"]) - max(x0, region["x0"])
        return max(across, 0) * max(min(y1, region["y1"]) - max(y0, region["y0"]), 0)
    place, inside, covered = 0, False, 0
    for length in region["mask"]:
        if inside:
            covered += _run_in_box(place, length, box, width)
        place, inside = place + length, not inside
    return covered


def _run_in_box(start: int, length: int, box: Sequence[float], width: int) -> int:
    """How many pixels of a run of a mask, which may span several rows, lie in the box (by their centers)."""
    x0, y0, x1, y1 = box
    count = 0
    for row in range(max(start // width, int(y0)), min((start + length - 1) // width, int(y1)) + 1):
        if y0 <= row + 0.5 < y1:
            low, high = max(start - row * width, 0), min(start + length - row * width, width)
            count += max(0, round(min(high, x1)) - round(max(low, x0)))
    return count


def data_uri(picture: bytes | None) -> str:
    """The bytes of a picture as an address that needs no request; empty for what is no picture."""
    kinds = {b"RIFF": "webp", b"\x89PNG": "png", b"\xff\xd8\xff": "jpeg"}
    kind = next((name for start, name in kinds.items() if (picture or b"").startswith(start)), None)
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode()}" if picture and kind else ""
