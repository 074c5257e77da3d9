"""What the page Layers draws of the null of the layer alignment, and of the geometry of the states."""

from __future__ import annotations

import polars as pl

SOURCES = {"visual": "visual tokens", "contextual": "text tokens of the index"}
DIRECTIONS = ["anisotropy", "top_dimension_share", "top_10_share", "even_share", "sink_share", "hub_share"]
_CELL = ["visual_layer", "contextual_layer"]


def has_null(alignment: pl.DataFrame) -> bool:
    """Whether LAYER_ALIGNMENT has a null: older versions computed none."""
    return "null_share" in alignment.columns and alignment["null_share"].count() > 0


def alignment_cells(alignment: pl.DataFrame) -> pl.DataFrame:
    """LAYER_ALIGNMENT of one study as the cells of a heat map, with a row `all` of all visual layers together.

    Returns:
        visual_layer (text), contextual_layer, share, null_share and difference, the last two null without a null.
    """
    if not has_null(alignment):
        alignment = alignment.with_columns(null_share=pl.lit(None, pl.Float64), null_tokens=pl.lit(None, pl.Int64))
    null_answers = pl.col("null_share") * pl.col("null_tokens")
    every = alignment.group_by("contextual_layer").agg(pl.col("neighbors").sum(), null=null_answers.sum())
    together = every.sort("contextual_layer").select(
        "contextual_layer",
        visual_layer=pl.lit("all"),
        share=pl.col("neighbors") / pl.col("neighbors").sum(),
        null_share=(pl.col("null") / pl.col("null").sum()).fill_nan(None),
    )
    columns = [*_CELL, "share", "null_share"]
    single = alignment.with_columns(pl.col("visual_layer").cast(pl.String)).select(columns)
    return pl.concat([single, together.select(columns)]).with_columns(difference=pl.col("share") - pl.col("null_share"))


def directions(statistics: pl.DataFrame) -> pl.DataFrame:
    """STATE_STATISTICS of one study's layers, with names of sources, and shares beside counts.

    Returns:
        The rows whose directions are known, without the connector's; `even_share` is that of a dimension if all had
        the same, `sink_share` that of the states. No row where an older version computed none.
    """
    if "anisotropy" not in statistics.columns:
        return pl.DataFrame(schema=dict.fromkeys(["source", "layer", *DIRECTIONS], pl.Null))
    known = statistics.filter(pl.col("source").is_in(list(SOURCES)), pl.col("directions") > 0)
    return known.with_columns(
        pl.col("source").replace_strict(SOURCES, default=None),
        even_share=1 / pl.col("dimensions"),
        sink_share=pl.col("sinks") / pl.col("states"),
    )
