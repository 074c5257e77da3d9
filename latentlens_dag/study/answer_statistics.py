"""Statistics of neighbors: the contextual layers that they come from, and how many different words they are.

`layer_alignment` is the paper's row-normalized heat map: the share of each contextual layer among the LatentLens
neighbors at each visual layer, beside that among the answers to states that mean nothing (`study/null_answers.py`):
where the two agree, the share says something of the index, not of the tokens. `diversity` counts the different words
among a token's neighbors.

Note: five neighbors are often one word five times, from five adjacent layers or in five inflections. A neighbor counts
as another word only if it matches none nearer than itself. Its interval is that of the share of such answers among
all (`intervals.py`), with images as the units.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from latentlens_dag.schema import DIVERSITY, LATENTLENS, LAYER_ALIGNMENT, NEIGHBORS, lens_candidates, lens_order
from latentlens_dag.study.intervals import shares
from latentlens_dag.text.inflection import base_forms

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LAYERS = ["study", "visual_layer", "contextual_layer"]
_LENS = ["study", "lens", "visual_layer"]
_COUNTS = ["tokens", "answers", "words"]
ALIGNMENT_COLUMNS = [*_LAYERS, "lens"]
"""Of NEIGHBORS: what `layer_alignment` needs."""


def layer_alignment(neighbors: pa.Table | Iterable[pa.Table], null: pa.Table | Iterable[pa.Table] = ()) -> pa.Table:
    """The share of each contextual layer among the LatentLens neighbors of each visual layer, and among a null's.

    Args:
        neighbors: NEIGHBORS (ALIGNMENT_COLUMNS at least), in one or many tables (one at a time in memory); other lenses
            are ignored.
        null: NEIGHBORS of shuffled states of some of the tokens; what is said of a null is null without any.

    Returns:
        LAYER_ALIGNMENT, ordered by study, visual layer, contextual layer; pairs without a neighbor in either have no
        row.
    """
    counts = _sum(_LAYERS, ["neighbors"], (_alignment_counts(table) for table in _tables(neighbors)))
    both = counts.join(_null_shares(_tables(null), counts), on=_LAYERS, how="full", coalesce=True)
    both = both.with_columns(pl.col("neighbors").fill_null(0))
    of_layer = pl.col("neighbors").sum().over("study", "visual_layer")
    shares = both.with_columns(share=pl.col("neighbors") / of_layer).sort(_LAYERS)
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
    answers = pl.DataFrame(table.select(ALIGNMENT_COLUMNS)).filter(pl.col("lens") == LATENTLENS)
    return answers.group_by(_LAYERS).agg(neighbors=pl.len().cast(pl.Int64))


def _null_shares(null: Iterable[pa.Table], counts: pl.DataFrame) -> pl.DataFrame:
    """The null's columns, a row for every contextual layer that answers at the visual layer, measured or by the null.

    Args:
        null: NEIGHBORS, so few that all of them are in memory at once.
        counts: the measured pairs of layers.
    """
    tables = [pl.DataFrame(NEIGHBORS.empty_table()), *map(pl.DataFrame, null)]
    answers = pl.concat(table.select(*_LAYERS, "image_id", "token_index") for table in tables)
    parts = [pl.DataFrame(LAYER_ALIGNMENT.empty_table()).select(*_LAYERS, *_NULL)]
    for (study, layer), of_layer in answers.partition_by(*_LAYERS[:2], as_dict=True, maintain_order=True).items():
        measured = counts.filter(pl.col("study") == study, pl.col("visual_layer") == layer)
        layers = sorted({*measured["contextual_layer"], *of_layer["contextual_layer"]})
        found = _null_of_layer(of_layer, layers)
        found = found.with_columns(study=pl.lit(study), visual_layer=pl.lit(layer, pl.Int32))
        parts.append(found.select(*_LAYERS, *_NULL))
    return pl.concat(parts)


_NULL = ["null_share", "null_low", "null_high", "null_tokens"]


def _null_of_layer(answers: pl.DataFrame, layers: list[int]) -> pl.DataFrame:
    """The share of each contextual layer among the answers at one visual layer, images being the units."""
    from latentlens_dag.study.intervals import shares

    tokens = answers.group_by("image_id", "token_index").agg(pl.len()).group_by("image_id").agg(tokens=pl.len())
    tokens = tokens.sort("image_id")
    each = len(answers) / tokens["tokens"].sum()
    found = answers.group_by("contextual_layer", "image_id").agg(pl.len())
    of_layers = pl.DataFrame({"contextual_layer": pl.Series(layers, dtype=answers["contextual_layer"].dtype)})
    grid = of_layers.join(tokens, how="cross").join(found, on=["contextual_layer", "image_id"], how="left")
    hits = grid["len"].fill_null(0).to_numpy().reshape(len(layers), len(tokens)) / each
    of_null = shares(hits, tokens["tokens"].to_numpy())
    return of_layers.with_columns(
        null_share=of_null.share,
        null_low=pl.Series(of_null.low).fill_nan(None),
        null_high=pl.Series(of_null.high).fill_nan(None),
        null_tokens=pl.lit(int(tokens["tokens"].sum()), pl.Int64),
    )


def _word_counts(table: pa.Table) -> pl.DataFrame:
    """Per lens, layer and image: tokens, neighbors, and those that match no nearer neighbor of their token."""
    places = [*_LENS, "image_id"]
    image = _numbers([table[name] for name in places])
    token = _numbers([pa.chunked_array([image]), table["token_index"]])
    found, first = np.unique(image, return_index=True)
    _, first_of_token = np.unique(token, return_index=True)
    new = _matches_no_nearer(token, table["rank"].to_numpy(), table["word"])
    counts = {"tokens": image[first_of_token], "answers": image, "words": image[new]}
    columns = {name: np.bincount(images, minlength=len(found)) for name, images in counts.items()}
    return pl.DataFrame(table.select(places).take(first)).with_columns(**{n: pl.Series(c) for n, c in columns.items()})


def _numbers(columns: list[pa.ChunkedArray]) -> NDArray[np.int64]:
    """A number from 0 for each distinct row of some columns without nulls, int64 [N]."""
    numbers = np.zeros(len(columns[0]), np.int64)
    for column in columns:
        codes = pc.dictionary_encode(column).combine_chunks().indices.to_numpy().astype(np.int64)
        _, numbers = np.unique(numbers * (codes.max(initial=0) + 1) + codes, return_inverse=True)
    return numbers


def _matches_no_nearer(token: NDArray[np.int64], rank: NDArray[np.int32], word: pa.ChunkedArray) -> NDArray[np.bool_]:
    """Which answers [N] have a letter, and share no base form with an answer of lower rank of the same token."""
    encoded = pc.dictionary_encode(word).combine_chunks()
    known: dict[str, int] = {}
    forms = [
        [known.setdefault(form, len(known)) for form in base_forms(word)] for word in encoded.dictionary.to_pylist()
    ]
    counts = np.array([*map(len, forms), 0], np.int64)  # the last one is of null
    code = encoded.indices.fill_null(len(forms)).to_numpy()
    answer = np.repeat(np.arange(len(code)), counts[code])
    start = np.cumsum(counts) - counts
    place = np.arange(len(answer)) - np.repeat(np.cumsum(counts[code]) - counts[code], counts[code])
    form = np.fromiter(chain.from_iterable(forms), np.int64)[start[code[answer]] + place]
    order = np.lexsort((rank[answer], form, token[answer]))
    answer, form = answer[order], form[order]
    begins = np.r_[True, (np.diff(token[answer]) != 0) | (np.diff(form) != 0)][: len(answer)]
    nearest = rank[answer[begins]][np.cumsum(begins) - 1]
    new = counts[code] > 0
    new[answer[rank[answer] > nearest]] = False
    return new


def _sum(keys: list[str], counts: list[str], parts: Iterable[pl.DataFrame]) -> pl.DataFrame:
    empty = pl.DataFrame(NEIGHBORS.empty_table()).select(keys)
    frames = [empty.with_columns(pl.lit(0, pl.Int64).alias(name) for name in counts), *parts]
    return pl.concat(frame.select(*keys, *counts) for frame in frames).group_by(keys).agg(pl.col(counts).sum())


def _tables(neighbors: pa.Table | Iterable[pa.Table]) -> Iterable[pa.Table]:
    return [neighbors] if isinstance(neighbors, pa.Table) else neighbors
