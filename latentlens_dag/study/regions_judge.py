"""The regions judge: whether a neighbor's word fits what annotated regions show in the patch. Exact and deterministic.

A patch shows the regions that cover at least half of it or, if none does, the one that covers most. Their `words` are
*concrete*, their `abstract_words` *abstract*, the concrete words of the image's other regions *global*. The verdict on
a visual token is the first of concrete, abstract, global, none that any of its neighbors earns; `words` are the
neighbors that earned it. Words match as in `text/inflection.py`.

*Chance* judges the same neighbors against a patch of the same group (object or background) in another image.

Note: the truth is that of the whole image set, even where one batch is judged. The chance patch is drawn from all
images by a hash of (image_id, token_index), so batches do not change it. Tokens without a box, and images without a
region, get no judgement.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from latentlens_dag.inputs.regions import BACKGROUND, OBJECT, object_coverage, patch_coverage
from latentlens_dag.schema import JUDGEMENTS
from latentlens_dag.storage.hashing import hash_bytes
from latentlens_dag.text.inflection import base_forms, distinct

CONCRETE, ABSTRACT, GLOBAL, NONE = "concrete", "abstract", "global", "none"
VERDICTS = (CONCRETE, ABSTRACT, GLOBAL, NONE)
"""In the order of precedence; the index of a verdict is its `level`."""
CHANCE_SEED = 20_260_202
HALF = 0.5 - 1e-6  # coverage is float32: half a patch may come out as 0.49999997

_PATCH = ["image_id", "token_index"]
_TOKEN = ["study", "visual_layer", "lens", *_PATCH]


@dataclass(frozen=True)
class Truth:
    """What every patch of an image set shows. Patches that show the same regions share a `truth_id`."""

    patches: pl.DataFrame
    """image_id, token_index, patch_group, truth_id, chance_id (the truth_id of the chance patch, or null).

    The group is `object` if object regions together cover at least half of the patch."""
    words: pl.DataFrame
    """truth_id, level, word, in order of the regions."""
    forms: pl.DataFrame
    """truth_id, form, level: base forms of the words, each at its lowest level."""


def build_truth(regions: Iterable[pa.Table], visual_tokens: Iterable[pa.Table], images: Iterable[pa.Table]) -> Truth:
    """The truth of a whole image set for the patches of one study.

    Args:
        regions: REGIONS, all batches in any order.
        visual_tokens: VISUAL_TOKENS of one study, all batches in any order.
        images: IMAGES, all batches in any order; only image_id, width and height are read.
    """
    size_tables = (pl.DataFrame(table.select(["image_id", "width", "height"])) for table in images)
    sizes = {image_id: size for table in size_tables for image_id, *size in table.iter_rows()}
    by_image = dict(_by_image(regions, ["region_id"]))
    tokens = _by_image(visual_tokens, ["token_index"])
    builder = _TruthBuilder([], [])
    for image_id, table in tokens:
        if image_id in by_image:
            builder.add(image_id, table.drop_nulls(["x0", "y0", "x1", "y1"]), by_image[image_id], *sizes[image_id])
    return builder.truth()


def judge_regions(neighbors: pa.Table, truth: Truth, judge_name: str = "regions") -> pa.Table:
    """Judge the neighbors of visual tokens against what their patches show.

    Args:
        neighbors: NEIGHBORS of any lenses and layers; every token with all of its neighbors.
        truth: that of the whole image set.
        judge_name: for the column `judge`.

    Returns:
        JUDGEMENTS, one row per judged token, layer and lens, ordered by study, layer, lens, image, token.
    """
    answers = pl.DataFrame(neighbors.select([*_TOKEN, "rank", "word"])).join(truth.patches, on=_PATCH)
    answers = answers.sort(*_TOKEN, "rank").with_columns(token=pl.struct(_TOKEN).rle_id())
    answers = answers.with_columns(
        level=_levels(answers, "truth_id", truth), chance_level=_levels(answers, "chance_id", truth)
    )
    judged = answers.group_by("token", maintain_order=True).agg(
        pl.col(*_TOKEN, "patch_group").first(), pl.col("level", "chance_level").min()
    )
    judged = judged.join(_earned(answers, judged), on="token", how="left", maintain_order="left").with_columns(
        judge=pl.lit(judge_name),
        verdict=_verdict("level"),
        chance_verdict=_verdict("chance_level"),
        words=pl.col("words").fill_null(pl.lit([], dtype=pl.List(pl.String))),
    )
    return judged.select(JUDGEMENTS.names).to_arrow().cast(JUDGEMENTS)


@dataclass
class _TruthBuilder:
    """The truth, image by image."""

    patches: list[pl.DataFrame]
    words: list[tuple[int, int, str]]
    truths: int = 0

    def add(self, image_id: str, tokens: pl.DataFrame, regions: pl.DataFrame, width: int, height: int) -> None:
        """Add the tokens with boxes and the regions of one image."""
        boxes = tokens.select("x0", "y0", "x1", "y1").to_numpy().astype(np.float32)
        table = regions.to_arrow()
        coverage = patch_coverage(table, boxes, width, height)
        truths, member = np.unique(regions_shown(coverage), axis=0, return_inverse=True)
        is_object = object_coverage(table, boxes, width, height) >= HALF
        self.patches.append(
            tokens.select(_PATCH).with_columns(
                patch_group=pl.Series(np.where(is_object, OBJECT, BACKGROUND), dtype=pl.String),
                truth_id=pl.Series(self.truths + member.ravel(), dtype=pl.Int32),
            )
        )
        words, abstract_words = regions["words"].to_list(), regions["abstract_words"].to_list()
        for selection in truths:
            self.words += _words_by_level(self.truths, words, abstract_words, selection)
            self.truths += 1

    def truth(self) -> Truth:
        """The truth of all images, which must have been added in order of image_id."""
        empty = {"image_id": pl.String, "token_index": pl.Int32, "patch_group": pl.String, "truth_id": pl.Int32}
        patches = pl.concat([pl.DataFrame(schema=empty), *self.patches])
        words = pl.DataFrame(self.words, {"truth_id": pl.Int32, "level": pl.Int8, "word": pl.String}, orient="row")
        forms = (
            words.join(_word_forms(words["word"]), on="word").group_by("truth_id", "form").agg(pl.col("level").min())
        )
        return Truth(patches.with_columns(chance_id=_chance_ids(patches)), words, forms)


def regions_shown(cover: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    """[T, R]: whether a patch shows a region: all that cover half of it, else the one that covers most."""
    shows = cover >= HALF
    lost = ~shows.any(axis=1) & (cover > 0).any(axis=1)
    shows[lost, cover[lost].argmax(axis=1)] = True
    return shows


def _words_by_level(
    truth_id: int, words: list[list[str]], abstract_words: list[list[str]], shown: npt.NDArray[np.bool_]
) -> Iterator[tuple[int, int, str]]:
    """truth_id, level, word of a patch that shows the regions `shown` [R]."""
    here = [region for region, covered in enumerate(shown) if covered]
    elsewhere = [region for region, covered in enumerate(shown) if not covered]
    for level, (lists, members) in enumerate([(words, here), (abstract_words, here), (words, elsewhere)]):
        for word in distinct(word for member in members for word in lists[member] or ()):
            yield truth_id, level, word


def _chance_ids(patches: pl.DataFrame) -> pl.Series:
    """The truth of a patch of the same group in another image, uniform over all; null if there is none."""
    chance = np.full(len(patches), -1, np.int32)
    ids, groups, truths = (patches[name].to_numpy() for name in ("image_id", "patch_group", "truth_id"))
    draws = _draws(patches)
    for group in (OBJECT, BACKGROUND):
        rows = np.flatnonzero(groups == group)
        # Rows are in order of (image_id, token_index), so the patches of one image are a block, which is skipped.
        _, start, member, size = np.unique(ids[rows], return_index=True, return_inverse=True, return_counts=True)
        others = rows.size - size[member]
        has = others > 0
        drawn = (draws[rows[has]] % others[has].astype(np.uint64)).astype(np.int64)
        drawn += np.where(drawn >= start[member][has], size[member][has], 0)
        chance[rows[has]] = truths[rows[drawn]]
    return pl.Series("chance_id", chance).replace(-1, None)


def _draws(patches: pl.DataFrame) -> npt.NDArray[np.uint64]:
    """A uniform 64-bit number per patch, from image_id and token_index alone (splitmix64)."""
    names = patches["image_id"].unique()
    seeds = pl.Series([int(hash_bytes(f"{CHANCE_SEED} {name}".encode()), 16) for name in names], dtype=pl.UInt64)
    mixed = patches["image_id"].replace_strict(names, seeds, return_dtype=pl.UInt64).to_numpy().copy()
    with np.errstate(over="ignore"):
        mixed += (patches["token_index"].to_numpy().astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        draws: npt.NDArray[np.uint64] = mixed ^ (mixed >> np.uint64(31))
    return draws


def _levels(answers: pl.DataFrame, truth_column: str, truth: Truth) -> pl.Series:
    """The level of each answer's word against the truth in `truth_column`; null where that is null."""
    pairs = answers.select(pl.col(truth_column).alias("truth_id"), "word")
    known = (
        pairs.unique()
        .join(_word_forms(answers["word"]), on="word")
        .join(truth.forms, on=["truth_id", "form"])
        .group_by("truth_id", "word")
        .agg(pl.col("level").min())
    )
    found = pairs.join(known, on=["truth_id", "word"], how="left", maintain_order="left")
    level = pl.when(pl.col("truth_id").is_not_null()).then(pl.col("level").fill_null(VERDICTS.index(NONE)))
    return found.select(level.cast(pl.Int8))["level"]


def _word_forms(words: pl.Series) -> pl.DataFrame:
    """word, form: every base form of every distinct word."""
    known = sorted(word for word in words.unique() if word is not None)
    pairs = [(word, form) for word in known for form in sorted(base_forms(word))]
    return pl.DataFrame(pairs, {"word": pl.String, "form": pl.String}, orient="row")


def _earned(answers: pl.DataFrame, judged: pl.DataFrame) -> pl.DataFrame:
    """token, words: the distinct answers at the token's own level, nearest first."""
    best = answers.select("token", "word", "level").join(
        judged.select("token", best="level"), on="token", maintain_order="left"
    )
    earned = best.filter((pl.col("level") == pl.col("best")) & (pl.col("level") < VERDICTS.index(NONE)))
    earned = earned.unique(["token", "word"], keep="first", maintain_order=True)
    return earned.group_by("token", maintain_order=True).agg(words=pl.col("word"))


def _verdict(level: str) -> pl.Expr:
    return pl.col(level).replace_strict(range(len(VERDICTS)), VERDICTS, default=None, return_dtype=pl.String)


def _by_image(tables: Iterable[pa.Table], order: list[str]) -> Iterator[tuple[str, pl.DataFrame]]:
    """Image id and its rows, both in order, whatever the order and number of the tables."""
    frames = [pl.DataFrame(table) for table in tables]
    if frames:
        rows = pl.concat(frames).sort("image_id", *order)
        for (image_id,), frame in rows.group_by("image_id", maintain_order=True):
            yield str(image_id), frame
