"""The tables of a study's tokens, from images or texts, and their stored states."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa

from latentlens_dag.index.lance_files import count_rows
from latentlens_dag.index.state_tables import write_states
from latentlens_dag.schema import TEXT_TOKENS, VISUAL_TOKENS

if TYPE_CHECKING:
    import polars as pl
    from numpy.typing import NDArray


class LayerReport(NamedTuple):
    """The written states of one layer."""

    content: str
    """Hash."""
    mean_norm: float
    problems: list[str]


def visual_token_table(study: str, image_ids: list[str], tokens: pl.DataFrame) -> pa.Table:
    """VISUAL_TOKENS of the tokens of some images (`VisualStates.tokens`)."""
    return _with_ids(study, image_ids, tokens, "image_index").select(VISUAL_TOKENS.names).to_arrow().cast(VISUAL_TOKENS)


class TextTokens(NamedTuple):
    """The two tables of the tokens of some texts."""

    visual_tokens: pa.Table
    """VISUAL_TOKENS: view `text`, no place in an image."""
    text_tokens: pa.Table
    """TEXT_TOKENS."""


def text_token_tables(study: str, text_ids: list[str], tokens: pl.DataFrame) -> TextTokens:
    """The tables of the tokens of some texts (`TextStates.tokens`); text ids are in the column `image_id`."""
    import polars as pl

    texts = _with_ids(study, text_ids, tokens, "text_index")
    no_place = [pl.lit(None).alias(name) for name in VISUAL_TOKENS.names[4:]]
    views = texts.with_columns(pl.lit("text").alias("view"), *no_place)
    return TextTokens(
        views.select(VISUAL_TOKENS.names).to_arrow().cast(VISUAL_TOKENS),
        texts.select(TEXT_TOKENS.names).to_arrow().cast(TEXT_TOKENS),
    )


def _with_ids(study: str, ids: list[str], tokens: pl.DataFrame, index: str) -> pl.DataFrame:
    """The tokens with columns study and image_id; the column `index` has positions in `ids`."""
    import polars as pl

    image_ids = pl.Series("image_id", ids, dtype=pl.String).gather(tokens[index])
    return tokens.with_columns(pl.lit(study).alias("study"), image_ids)


def write_visual_layer(
    path: Path, tokens: pa.Table, states: NDArray[np.float32], dtype: str = "float32"
) -> LayerReport:
    """Write the states [N, d] of the tokens (VISUAL_TOKENS, N rows) at one layer, computed in `dtype`."""
    content = write_states(path, tokens["image_id"].to_pylist(), tokens["token_index"].to_numpy(), states, dtype)
    rows = count_rows(path)
    problems = [] if rows == len(tokens) else [f"{rows} states were written for {len(tokens)} visual tokens"]
    return LayerReport(content, float(np.linalg.norm(states, axis=1).mean()) if len(states) else 0.0, problems)
