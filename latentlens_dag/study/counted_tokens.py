"""Which visual tokens count in a study's figures: all but those that show nothing of their image.

A token shows nothing if it ends a row (`newline`), stands beside a view (`separator`), or if its whole box is in the
padding, which a judge has as a group of its own (`patch_truth.py`). Its answers are stored, but describe the processor,
not the image. Tokens of no known place (`unmapped`) may show something, so they count, as do all tokens of texts.

Note: padding is found by its boxes, since the view `padding` is newer than many a home. The named queries have the same
rule in SQL: the rows of `blank` there.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import pyarrow as pa

from latentlens_dag.models.families.token_map import PADDING, WITHOUT_BOX, outside_image

if TYPE_CHECKING:
    from numpy.typing import NDArray

TOKEN = ["image_id", "token_index"]
"""The columns of a token of a study."""
BLANK_VIEWS = (WITHOUT_BOX | {PADDING}) - {"unmapped"}
_BOX = ("x0", "y0", "x1", "y1")
_SIZE = ("width", "height")
PLACES = [*TOKEN, "view", *_BOX]
"""Of VISUAL_TOKENS: what `blank_tokens` needs."""
SIZES = ["image_id", *_SIZE]
"""Of IMAGES."""
_NONE = pl.DataFrame(schema={"image_id": pl.String, "token_index": pl.Int32})


def blank_tokens(visual_tokens: Iterable[pa.Table], images: Iterable[pa.Table]) -> pl.DataFrame:
    """The tokens of a study that show nothing of their image.

    Args:
        visual_tokens: VISUAL_TOKENS of the study (PLACES at least), one table at a time in memory.
        images: IMAGES (SIZES at least) of the tokens of each table.

    Returns:
        TOKEN, a row per blank token, in order of the tables.
    """
    parts = (_blank(pl.DataFrame(tokens), pl.DataFrame(of)) for tokens, of in zip(visual_tokens, images, strict=True))
    return pl.concat([_NONE, *parts])


def without_blank(neighbors: Iterable[pa.Table], blank: pl.DataFrame) -> Iterable[pa.Table]:
    """The rows of tables (with TOKEN) whose tokens count; the tables themselves where all do."""
    if blank.is_empty():
        return neighbors
    return (table.filter(pa.array(counts(table, blank))) for table in neighbors)


def counts(tokens: pa.Table, blank: pl.DataFrame) -> NDArray[np.bool_]:
    """[N]: whether each of N tokens (a table with TOKEN) counts."""
    if blank.is_empty() or not len(tokens):
        return np.ones(len(tokens), np.bool_)
    rows = pl.DataFrame(tokens.select(TOKEN)).with_columns(pl.col("token_index").cast(pl.Int32)).with_row_index("place")
    mask = np.zeros(len(rows), np.bool_)
    mask[rows.join(blank, on=TOKEN, how="anti")["place"].to_numpy()] = True
    return mask


def _blank(tokens: pl.DataFrame, images: pl.DataFrame) -> pl.DataFrame:
    sized = tokens.with_row_index("place").join(images.select(SIZES), on="image_id")
    padding = np.zeros(len(tokens), np.bool_)
    for (width, height), rows in sized.group_by(_SIZE):
        boxes = rows.select(_BOX).to_numpy().astype(np.float32)
        padding[rows["place"].to_numpy()] = outside_image(boxes, width, height)
    return tokens.filter(pl.col("view").is_in(list(BLANK_VIEWS)) | pl.Series(padding)).select(TOKEN)
