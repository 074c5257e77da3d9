"""HunYuan-VL and HunYuan OCR: Qwen2-VL's grid, with a newline token after each row, between two separator tokens.

Note: newlines and separators stand in the sequence as image tokens, but are embeddings of the connector, so they have
no pixels and no box.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from latentlens_dag.models.families import qwen_vl
from latentlens_dag.models.families.token_map import TokenMap, concat_maps, without_box


def region_map(processor: Any, config: Any, width: int, height: int) -> TokenMap:
    """The boxes of an image's visual tokens: a separator, the rows of cells, each with its newline, a separator."""
    rows = _with_newlines(qwen_vl.region_map(processor, config, width, height))
    separator = without_box("separator", 1)
    return concat_maps([separator, rows, separator] if processor.cat_extra_token else [rows])


def _with_newlines(grid: TokenMap) -> TokenMap:
    """A grid, row by row, with a newline after each row."""
    columns, rows = int(grid.col.max()) + 1, int(grid.row.max()) + 1
    ends = np.arange(1, rows + 1) * columns
    return TokenMap(
        (["global"] * columns + ["newline"]) * rows,
        np.insert(grid.tile, ends, 0),
        np.insert(grid.row, ends, np.arange(rows)),
        np.insert(grid.col, ends, columns),
        np.insert(grid.boxes, ends, np.nan, axis=0),
    )
