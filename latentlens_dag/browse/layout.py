"""Where the tokens of an image are drawn: its views, the regions under a token, the picture itself."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from latentlens_dag.errors import UserError
from latentlens_dag.models.families.token_map import grid_view

if TYPE_CHECKING:
    import numpy as np
    import polars as pl
    from numpy.typing import NDArray

_MOST_PIXELS = 1 << 24
"""Of an image whose masks are unrolled, at 32 bytes a pixel; a release may claim any size."""


class TokenView(NamedTuple):
    """Tokens whose boxes can be drawn on one picture without hiding each other."""

    name: str
    tokens: tuple[int, ...]


def token_views(tokens: Sequence[Mapping[str, Any]]) -> list[TokenView]:
    """The views of an image's tokens: as the model names them, cut by tile where the tiles of one lie on each other.

    Padding is in the view whose grid it fills up.

    Args:
        tokens: rows with view, tile, token_index and box; those without a box belong to no view.
    """
    placed: dict[str, dict[int, list[Mapping[str, Any]]]] = {}
    for token in tokens:
        if token["x0"] is not None:
            name = grid_view(token["view"], token["tile"])
            placed.setdefault(name, {}).setdefault(token["tile"] or 0, []).append(token)
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


def shown_regions(
    regions: pl.DataFrame, boxes: NDArray[np.float32], width: int, height: int
) -> list[list[dict[str, Any]]]:
    """The annotated regions that each patch shows, as the judge decides it: objects first, then by the area covered.

    Args:
        regions: rows of REGIONS of one image.
        boxes: [T, 4], x0, y0, x1, y1 in pixels of the original.
        width: of the original, in pixels.
        height: of the original, in pixels.

    Raises:
        UserError: if a mask does not have the size of the image, or that is more than any image has.
    """
    from latentlens_dag.inputs.regions import OBJECT, patch_coverage
    from latentlens_dag.study.patch_truth import regions_shown

    if width * height > _MOST_PIXELS:
        raise UserError(f"The image is said to have {width:,} x {height:,} pixels, too many to measure its regions.")
    try:
        covers = patch_coverage(regions.to_arrow(), boxes, width, height).regions
    except ValueError as error:
        raise UserError(f"The regions of this image cannot be measured: {error}.") from error
    rows = regions.to_dicts()
    found = []
    for cover, is_shown in zip(covers, regions_shown(covers), strict=True):
        order = sorted(is_shown.nonzero()[0], key=lambda region: (rows[region]["kind"] != OBJECT, -cover[region]))
        found.append([rows[region] for region in order])
    return found


def data_uri(picture: bytes | None) -> str:
    """The bytes of a picture as an address that needs no request; empty for what is no picture."""
    kinds = {b"RIFF": "webp", b"\x89PNG": "png", b"\xff\xd8\xff": "jpeg"}
    kind = next((name for start, name in kinds.items() if (picture or b"").startswith(start)), None)
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode()}" if picture and kind else ""
