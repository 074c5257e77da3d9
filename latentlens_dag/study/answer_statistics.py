"""Statistics of neighbors: the contextual layers that they come from, and how many different words they are.

`layer_alignment` is the paper's row-normalized heat map: the share of each contextual layer among the LatentLens
neighbors at each visual layer. `diversity` counts the different words among a token's neighbors.

Note: five neighbors are often one word five times, from five adjacent layers or in five inflections. A neighbor counts
as another word only if it matches none nearer than itself. Its interval is that of the share of such answers among
all (`intervals.py`), with images as the units.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import polars as pl
import pyarrow as pa

from latentlens_dag.schema import DIVERSITY, LATENTLENS, LAYER_ALIGNMENT, NEIGHBORS, lens_candidates, lens_order
from latentlens_dag.study.intervals import shares
from latentlens_dag.text.inflection import base_forms

_LAYERS = ["study", "visual_layer", "contextual_layer"]
_LENS = ["study", "lens", "visual_layer"]
_COUNTS = ["tokens", "answers", "words"]


def layer_alignment(neighbors: pa.Table | Iterable[pa.Table]) -> pa.Table:
    """The share of each contextual layer among the LatentLens neighbors of each visual layer.

    Args:
        neighbors: NEIGHBORS, in one or many tables (one at a time in memory); other lenses are ignored.

    Returns:
        LAYER_ALIGNMENT, ordered by study, visual layer, contextual layer; pairs without a neighbor have no row.
    """
    counts = _sum(_LAYERS, ["neighbors"], (_alignment_counts(table) for table in _tables(neighbors)))
    of_layer = pl.col("neighbors").sum().over("study", "visual_layer")
    shares = counts.with_columns(share=pl.col("neighbors") / of_layer).sort(_LAYERS)
    return shares.select(LAYER_ALIGNMENT.names).to_arrow().cast(LAYER_ALIGNMENT)


def diversity(neighbors: pa.Table | Iterable[pa.Table]) -> pa.Table:
    """The mean number of different words among the neighbors of a token, per lens and visual layer.

    Args:
        neighbors: NEIGHBORS, in one or many tables (one at a time in memory), each with all neighbors of its tokens.
            Neighbors without a letter are not words.

    Returns:
        DIVERSITY, ordered by study, lens (as in LENSES), visual layer.
    """
    parts = (_word_counts(table) for table in _tables(neighbors))
    counts = _sum([*_LENS, "image_id"], _COUNTS, parts).sort(*_LENS, "image_id")
    groups = sorted(counts.group_by(_LENS, maintain_order=True), key=lambda group: _place(group[0]))
    return pa.Table.from_pylist([_distinct_words(*group) for group in groups], schema=DIVERSITY)


def _place(group: tuple[Any, ...]) -> tuple[object, ...]:
    study, lens, layer = group
    return study, lens_order(lens), layer


def _distinct_words(group: tuple[Any, ...], images: pl.DataFrame) -> dict[str, Any]:
    """A row of DIVERSITY, from the counts of the images."""
    tokens, answers, words = (int(images[name].sum()) for name in _COUNTS)
    found = shares(images["words"].to_numpy(), images["answers"].to_numpy())
    of_tokens = {name: float(end) * answers / tokens for name, end in (("low", found.low), ("high", found.high))}
    return {
        **dict(zip(_LENS, group, strict=True)),
        "candidates": lens_candidates(group[1]),
        "tokens": tokens,
        "images": len(images),
        "distinct_words": words / tokens,
        **{name: end if math.isfinite(end) else None for name, end in of_tokens.items()},
    }


def _alignment_counts(table: pa.Table) -> pl.DataFrame:
    answers = pl.DataFrame(table.select([*_LAYERS, "lens"])).filter(pl.col("lens") == LATENTLENS)
    return answers.group_by(_LAYERS).agg(neighbors=pl.len().cast(pl.Int64))


def _word_counts(table: pa.Table) -> pl.DataFrame:
    """Per lens, layer and image: tokens, neighbors, and those that match no nearer neighbor of their token."""
    answers = pl.DataFrame(table.select([*_LENS, "image_id", "token_index", "rank", "word"]))
    tokens = answers.select(*_LENS, "image_id", "token_index").unique(maintain_order=True).with_row_index("token")
    answers = answers.join(tokens, on=[*_LENS, "image_id", "token_index"]).select("token", "rank", "word")
    words = answers["word"].drop_nulls().unique().sort()
    forms = pl.DataFrame({"word": words, "form": [sorted(base_forms(word)) for word in words]}, _FORMS)
    matches = answers.join(forms.explode("form", empty_as_null=False), on="word")
    nearest = matches.group_by("token", "form").agg(nearest=pl.col("rank").min())
    repeats = matches.join(nearest, on=["token", "form"]).filter(pl.col("rank") > pl.col("nearest"))
    new = matches.select("token", "rank").unique().join(repeats, on=["token", "rank"], how="anti")
    counted = tokens.join(new.group_by("token").agg(words=pl.len()), on="token", how="left")
    counted = counted.join(answers.group_by("token").agg(answers=pl.len()), on="token", how="left")
    sums = {name: pl.col(name).sum().cast(pl.Int64) for name in ("answers", "words")}
    return counted.group_by(*_LENS, "image_id").agg(tokens=pl.len().cast(pl.Int64), **sums)


_FORMS: dict[str, pl.DataType | type[pl.DataType]] = {"word": pl.String, "form": pl.List(pl.String)}


def _sum(keys: list[str], counts: list[str], parts: Iterable[pl.DataFrame]) -> pl.DataFrame:
    empty = pl.DataFrame(NEIGHBORS.empty_table()).select(keys)
    frames = [empty.with_columns(pl.lit(0, pl.Int64).alias(name) for name in counts), *parts]
    return pl.concat(frame.select(*keys, *counts) for frame in frames).group_by(keys).agg(pl.col(counts).sum())


def _tables(neighbors: pa.Table | Iterable[pa.Table]) -> Iterable[pa.Table]:
    return [neighbors] if isinstance(neighbors, pa.Table) else neighbors
