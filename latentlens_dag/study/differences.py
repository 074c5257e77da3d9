"""Differences of shares: lens against lens, layer against layer, study against study.

Whether one lens says more than another is a question about pairs, since both read the same images: a hard image is hard
for both. What is compared are therefore the same patches, image by image, with the intervals and tests of
`intervals.py`, whose units are images. Lenses are compared at the same layer, each with each. The layers of a lens are
compared with the study's first one, in most studies what the language model is given: so a slow rise adds up, where
steps from layer to layer would each be too small to be found, and a layer more or less changes no other's difference.

Between studies only the images are the same: models cut an image into different patches. An image then counts with as
many patches as the two have of it on average, and with the share of each; for equal patches that is the same.

p-values are adjusted by Benjamini and Hochberg over a *family*, the tests that one chart shows together: those of one
study (or pair of studies), comparison, judge, patch group, k and measure, over all layers and pairs of lenses.

Sinks and padding are in no patch group here: a patch that is a sink at one of two layers is left out of both. Memory
grows with the patches of one file and with the images, not with images and layers.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import polars as pl
import pyarrow as pa

from latentlens_dag.inputs.regions import BACKGROUND, OBJECT
from latentlens_dag.schema import LENS_DIFFERENCES, SINKS, lens_order
from latentlens_dag.study import interpretability
from latentlens_dag.study.interpretability import ALL, INTERPRETABLE
from latentlens_dag.study.intervals import (
    Interval,
    adjusted_p_values,
    differences,
    ends_in_single_precision,
    sign_flip_p_values,
)

if TYPE_CHECKING:
    from latentlens_dag.dataset.dataset import Dataset


Answers = Literal["first", "every"]
_VERDICT_OF: dict[Answers, pl.Expr] = {"first": pl.col("first_verdict"), "every": pl.col("verdict")}


class Measure(NamedTuple):
    """What counts as a hit."""

    name: str
    of: Answers
    """Whether of the nearest answer alone or of all answers."""
    hit: pl.Expr
    """Of a row of JUDGEMENTS."""

    @property
    def column(self) -> str:
        """Of the hits, while they are counted."""
        return f"{self.of}_{self.name}"


MEASURES = tuple(
    Measure(name, of, verdict != "none" if name == INTERPRETABLE else verdict == name)
    for of, verdict in _VERDICT_OF.items()
    for name in interpretability.MEASURES
)
"""In the order of the table."""
GROUPS = (ALL, OBJECT, BACKGROUND)
_HITS = [measure.column for measure in MEASURES]
_OTHERS = [f"{name}_other" for name in _HITS]
_PATCH = ["judge", "image_id", "token_index", "patch_group"]
_IMAGE = ["judge", "patch_group", "image_id"]
_FAMILY = ["study", "other_study", "comparison", "judge", "patch_group", "k", "measure"]


class Side(NamedTuple):
    """One of the two whose shares are compared."""

    study: str
    lens: str
    visual_layer: int


class Pair(NamedTuple):
    """A comparison; the difference is that of the first minus that of the second."""

    comparison: str
    """lenses, layers, studies."""
    first: Side
    second: Side


class JudgedStudy(NamedTuple):
    """The judgements of a study, to compare it with another."""

    name: str
    judgements: Mapping[int, pl.LazyFrame]
    """JUDGEMENTS by visual layer."""
    sinks: pa.Table
    top_k: int | None = None
    """How many answers each token has; None where it is not known."""

    @classmethod
    def of(cls, dataset: Dataset, study: str) -> JudgedStudy:
        """A study of a dataset, read layer by layer when it is compared.

        Raises:
            UserError: if a table was not pulled.
        """
        found = dataset.collect("SELECT DISTINCT visual_layer FROM judgements WHERE study = $study", study=study)
        judgements, of_study = dataset.scan("judgements"), pl.col("study") == study
        layers = {
            layer: judgements.filter(of_study, pl.col("visual_layer") == layer) for layer in found["visual_layer"]
        }
        sinks = dataset.scan("sinks").filter(of_study).collect().to_arrow()
        if "neighbors" not in dataset.tables:
            return cls(study, layers, sinks)
        answers = dataset.collect("SELECT max(rank) AS top_k FROM neighbors WHERE study = $study", study=study)
        return cls(study, layers, sinks, answers["top_k"].item())


def lens_differences(
    study: str, judgements: Mapping[int, Sequence[pl.LazyFrame]], top_k: int, sinks: pa.Table | None = None
) -> pa.Table:
    """The differences between the lenses of a study at each layer, and between each layer and the first one.

    Args:
        study: its name.
        judgements: JUDGEMENTS by visual layer, in one part or more. Parts of the same number hold the same images at
            all layers, and two are in memory at a time.
        top_k: how many answers were judged.
        sinks: SINKS of the study.

    Returns:
        LENS_DIFFERENCES, ordered by comparison, judge, patch group (all first), k and measure (as in MEASURES), lenses
        (as in LENSES) and layer.
    """
    marked = _lazy_sinks(sinks)
    rows: list[dict[str, Any]] = []
    for layer in sorted(judgements):
        counts: dict[Pair, list[pl.DataFrame]] = defaultdict(list)
        for at_first, here in zip(judgements[min(judgements)], judgements[layer], strict=True):
            for pair, both in _pairs(study, layer, _by_lens(here, marked), min(judgements), at_first, marked):
                counts[pair].append(both)
        for pair, parts in counts.items():
            rows += _compared(pair, _with_all(pl.concat(parts)), top_k)
    return _table(rows)


def study_differences(first: JudgedStudy, second: JudgedStudy) -> pa.Table:
    """The differences between two studies of the same images, at each lens and layer of both.

    Returns:
        LENS_DIFFERENCES with the comparison `studies`, ordered as by `lens_differences`; `tokens` are those of the
        first study, and `k` is null for all answers. Where the studies have other numbers of answers, of which more
        fit by chance alone, there are rows of the nearest answer only (`k` 1). No row for a patch group without an
        image that both have.
    """
    rows: list[dict[str, Any]] = []
    for layer in sorted(first.judgements.keys() & second.judgements.keys()):
        one, other = (_with_all(_of_images(study, layer)) for study in (first, second))
        both = one.join(other, on=["lens", *_IMAGE], suffix="_other")
        for (lens,), counts in both.partition_by("lens", as_dict=True).items():
            sides = (Side(study.name, str(lens), layer) for study in (first, second))
            rows += _compared(Pair("studies", *sides), _of_equal_weight(counts), None)
    if first.top_k != second.top_k:
        rows = [row for row in rows if row["k"] == 1]
    return _table(rows)


def _lazy_sinks(sinks: pa.Table | None) -> pl.LazyFrame:
    table = SINKS.empty_table() if sinks is None else sinks
    return pl.DataFrame(table).lazy().select("image_id", "token_index", "visual_layer")


def _hits(judgements: pl.LazyFrame, sinks: pl.LazyFrame) -> pl.LazyFrame:
    """The patches that count under each lens, with a column per measure: whether it is a hit."""
    in_group = judgements.filter(pl.col("patch_group").is_in([OBJECT, BACKGROUND]))
    shown = in_group.join(sinks, on=["image_id", "token_index", "visual_layer"], how="anti")
    return shown.select("lens", *_PATCH, *(measure.hit.alias(measure.column) for measure in MEASURES))


def _by_lens(judgements: pl.LazyFrame, sinks: pl.LazyFrame) -> dict[str, pl.DataFrame]:
    parts = _hits(judgements, sinks).collect().partition_by("lens", as_dict=True, include_key=False)
    return {str(lens): part for (lens,), part in parts.items()}


def _pairs(
    study: str,
    layer: int,
    here: Mapping[str, pl.DataFrame],
    first: int,
    at_first: pl.LazyFrame,
    sinks: pl.LazyFrame,
) -> Iterator[tuple[Pair, pl.DataFrame]]:
    """The comparisons of a layer, with the counts per image of some images."""
    sides = {lens: Side(study, lens, layer) for lens in sorted(here, key=lens_order)}
    for one, other in combinations(sides, 2):
        yield Pair("lenses", sides[one], sides[other]), _count_both(here[one], here[other])
    if layer != first:
        before = _by_lens(at_first, sinks)
        for lens in sides.keys() & before.keys():
            yield Pair("layers", sides[lens], Side(study, lens, first)), _count_both(here[lens], before[lens])


def _count_both(one: pl.DataFrame, other: pl.DataFrame) -> pl.DataFrame:
    """Per image and patch group: the patches that both have, and the hits of each."""
    both = one.join(other, on=_PATCH, suffix="_other")
    return both.group_by(_IMAGE).agg(pl.len().cast(pl.Int64).alias("patches"), _sums([*_HITS, *_OTHERS]))


def _sums(columns: list[str]) -> pl.Expr:
    return pl.col(columns).cast(pl.Int64).sum()


def _of_images(study: JudgedStudy, layer: int) -> pl.DataFrame:
    """Per lens, image and patch group of a study: the patches and the hits."""
    hits = _hits(study.judgements[layer], _lazy_sinks(study.sinks)).group_by("lens", *_IMAGE)
    return hits.agg(pl.len().cast(pl.Int64).alias("patches"), _sums(_HITS)).collect(engine="streaming")


def _with_all(counts: pl.DataFrame) -> pl.DataFrame:
    """The same counts, and their sums over the patch groups."""
    keys = [name for name in counts.columns if name in ("lens", *_IMAGE)]
    everything = counts.with_columns(patch_group=pl.lit(ALL)).group_by(keys).agg(pl.exclude(keys).sum())
    return pl.concat([counts, everything.select(counts.columns)])


def _of_equal_weight(counts: pl.DataFrame) -> pl.DataFrame:
    """Counts of two studies as of the same patches: as many as they have on average, with the shares of each."""
    weight = (pl.col("patches") + pl.col("patches_other")) / 2
    return counts.with_columns(
        pl.col(_HITS) * weight / pl.col("patches"),
        pl.col(_OTHERS) * weight / pl.col("patches_other"),
        patches=weight,
        tokens=pl.col("patches"),
    )


def _compared(pair: Pair, counts: pl.DataFrame, top_k: int | None) -> Iterator[dict[str, Any]]:
    """The rows of a comparison, by judge, patch group, k and measure; without adjusted p-values."""
    measures = [(at, one) for at, one in enumerate(MEASURES) if one.of == "every" or top_k != 1]
    for (judge, group), images in counts.sort(_IMAGE).group_by("judge", "patch_group", maintain_order=True):
        patches = images["patches"].to_numpy()
        one, other = (images.select(names).to_numpy().T for names in (_HITS, _OTHERS))
        found, p_values = differences(one, other, patches), sign_flip_p_values(one, other, patches)
        counted = {"images": len(images), "tokens": int(images["tokens" if "tokens" in images else "patches"].sum())}
        for at, measure in measures:
            interval = Interval.of(found.low[at], found.high[at])
            yield {
                **_places(pair),
                "judge": judge,
                "patch_group": group,
                "k": 1 if measure.of == "first" else top_k,
                "measure": measure.name,
                **counted,
                "share": float(one[at].sum() / patches.sum()),
                "other_share": float(other[at].sum() / patches.sum()),
                "difference": float(found.value[at]),
                "low": interval.low,
                "high": interval.high,
                "p_value": float(p_values[at]),
            }


def _places(pair: Pair) -> dict[str, Any]:
    others = {f"other_{name}": value for name, value in pair.second._asdict().items()}
    return {"comparison": pair.comparison, **pair.first._asdict(), **others}


def _table(rows: Iterable[dict[str, Any]]) -> pa.Table:
    """Rows in their order, with p-values adjusted family by family."""
    ordered = sorted(rows, key=_order)
    families: dict[tuple[Any, ...], list[dict[str, Any]]] = defaultdict(list)
    for row in ordered:
        families[tuple(row[name] for name in _FAMILY)].append(row)
    for family in families.values():
        adjusted = adjusted_p_values([row["p_value"] for row in family])
        for row, value in zip(family, adjusted, strict=True):
            row["adjusted_p_value"] = float(value)
    return ends_in_single_precision(pa.Table.from_pylist(ordered, schema=LENS_DIFFERENCES))


def _order(row: Mapping[str, Any]) -> tuple[Any, ...]:
    names = [measure.name for measure in MEASURES]
    group, all_answers, measure = GROUPS.index(row["patch_group"]), row["k"] != 1, names.index(row["measure"])
    lenses = lens_order(row["lens"]), lens_order(row["other_lens"])
    whole = (row[name] for name in ("study", "other_study", "comparison", "judge"))
    return *whole, group, all_answers, measure, *lenses, row["visual_layer"]
