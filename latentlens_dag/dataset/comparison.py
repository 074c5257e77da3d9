"""The differences of two sets of answers: of versions of a study, of studies on the same images, of releases.

Answers are compared token by token, so both must be of the same images and of models with equally many visual tokens.
Tokens, layers and lenses that only one of them has are counted, not compared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from latentlens_dag.errors import UserError
from latentlens_dag.schema import LATENTLENS

if TYPE_CHECKING:
    import polars as pl

_TOKEN = ["image_id", "token_index"]
_IMAGES_LOOKED_AT = 100


class AnswerDifference(NamedTuple):
    """The difference of the answers of one lens, or of the verdicts, at one visual layer."""

    part: str
    """A lens, or `judgements`."""
    visual_layer: int
    tokens: int
    """Visual tokens (for judgements: tokens under lenses) that both have."""
    only_first: int
    only_second: int
    same: float | None
    """Share of the tokens with the same answers in the same order (or the same verdict); None without tokens."""
    same_nearest: float | None
    """Share of the tokens with the same first answer; None for judgements."""
    overlap: float | None
    """Mean share of the answers that the other one also has; None for judgements."""


def compare_results(
    first: Mapping[tuple[str, int], Sequence[Path]], second: Mapping[tuple[str, int], Sequence[Path]]
) -> list[AnswerDifference]:
    """Compare two results, part by part and layer by layer (as `study_versions.version_files` gives them).

    Of parts and layers that only one has, the tokens are counted. Memory holds one part at one layer.
    """
    import polars as pl

    def rows(files: Mapping[tuple[str, int], Sequence[Path]], part: str, layer: int) -> pl.LazyFrame | None:
        found = files.get((part, layer))
        return pl.scan_parquet(list(found), glob=False) if found else None

    return [
        compare_part(part, layer, rows(first, part, layer), rows(second, part, layer))
        for part, layer in sorted({*first, *second})
    ]


def refuse_other_patches(names: tuple[str, str], first: Sequence[Path], second: Sequence[Path]) -> None:
    """Refuse two studies whose models cut images, or texts, into different tokens.

    Args:
        names: of the studies, for the message.
        first: the tables VISUAL_TOKENS of the first study; those of images that both have are compared, at most 100.
        second: those of the second.

    Raises:
        UserError: where an image has other visual tokens in one than in the other.
    """
    import polars as pl

    if not first or not second:
        return
    tables = [pl.scan_parquet(list(files), glob=False) for files in (first, second)]
    ids = [table.select("image_id").unique() for table in tables]
    images = ids[0].join(ids[1], on="image_id").sort("image_id").head(_IMAGES_LOOKED_AT)
    columns = [*_TOKEN, "x0", "y0", "x1", "y1"]
    one, other = (table.select(columns).join(images, on="image_id").sort(_TOKEN).collect() for table in tables)
    if not one.equals(other):
        raise UserError(
            f"{names[0]} and {names[1]} cut their images, or texts, into different tokens, so that their answers "
            "cannot be compared token by token. Where both are judged, compare their shares: `diff --shares`."
        )


def compare_part(part: str, layer: int, first: pl.LazyFrame | None, second: pl.LazyFrame | None) -> AnswerDifference:
    """Compare two results of one part at one visual layer: rows of NEIGHBORS under one lens, or of JUDGEMENTS.

    Raises:
        ValueError: where neither has such rows; one of them may be None.
    """
    one, other = (first, second) if first is not None else (second, first)
    if one is None:
        raise ValueError(f"Neither has {part} at visual layer {layer}.")
    if other is None:
        other = one.limit(0)
    rows = (one, other) if first is not None else (other, one)
    return (_compare_verdicts if part == "judgements" else _compare_answers)(part, layer, *rows)


def _compare_answers(part: str, layer: int, first: pl.LazyFrame, second: pl.LazyFrame) -> AnswerDifference:
    import polars as pl

    one, other = _answers(part, first), _answers(part, second)
    both = one.join(other, on=_TOKEN, suffix="_other")
    shared = pl.col("answers").list.set_intersection("answers_other").list.len()
    longest = pl.max_horizontal(pl.col("answers").list.len(), pl.col("answers_other").list.len())
    shares = both.select(
        same=(pl.col("answers") == pl.col("answers_other")).mean(),
        nearest=(pl.col("answers").list.first() == pl.col("answers_other").list.first()).mean(),
        overlap=(shared / longest).mean(),
    ).row(0)
    return AnswerDifference(part, layer, len(both), len(one) - len(both), len(other) - len(both), *shares)


def _answers(part: str, rows: pl.LazyFrame) -> pl.DataFrame:
    """The answers of each visual token, nearest first, each as a text that identifies it."""
    import polars as pl

    # A word in its sentence at a contextual layer; or a token of the vocabulary.
    names = ["contextual_layer", "token_id", "sentence_id", "position"] if part == LATENTLENS else ["token_id"]
    answer = pl.concat_str([pl.col(name).cast(pl.String).fill_null("") for name in names], separator=" ")
    return rows.sort("rank").group_by(_TOKEN, maintain_order=True).agg(answer.alias("answers")).collect()


def _compare_verdicts(part: str, layer: int, first: pl.LazyFrame, second: pl.LazyFrame) -> AnswerDifference:
    import polars as pl

    keys = [*_TOKEN, "lens", "judge"]
    one, other = (rows.select(*keys, "verdict").collect() for rows in (first, second))
    both = one.join(other, on=keys, suffix="_other")
    same = both.select((pl.col("verdict") == pl.col("verdict_other")).mean()).item()
    return AnswerDifference(part, layer, len(both), len(one) - len(both), len(other) - len(both), same, None, None)
