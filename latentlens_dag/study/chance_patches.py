"""The chance patches: for every patch of an image set, four patches of the same group in other images, and their words.

Each is drawn uniformly from all images by a hash of (draw, image_id, token_index), so that batches do not change it. It
lies in any batch, so the words are moved once, for the whole set: each batch's words are read, and written into the
files of all batches that drew them. A judge of a batch then reads that batch's files alone.

Why four: the chance of a lens is a mean over its patches of how often other patches would be hits. One draw says of
each patch yes or no; the mean of four leaves a quarter of the variance that drawing adds, and the intervals count
patches, not draws, so that many more would not make them narrower. The files and a judge's time grow with the draws.

The words stand once in a file for each image and regions that chance patches show: in the first of their rows.

Memory: 9 bytes per patch and draw, the counts of each image, one batch of PATCH_TRUTH without its words, the words of
its distinct truths (4 bytes each), and for each batch the rows that wait for its file: at most 4,096, that is 4 MB
where each shows something else in 90 words. Time grows with the patches.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from latentlens_dag.inputs.regions import BACKGROUND, OBJECT
from latentlens_dag.models.families.token_map import PADDING
from latentlens_dag.schema import PATCH_TRUTH
from latentlens_dag.storage.hashing import hash_bytes
from latentlens_dag.storage.parquet import parquet_rows
from latentlens_dag.study.patch_truth import WORD_LISTS, distinct_truths, read_words

CHANCE_SEED = 20_260_202
DRAWS = 4
CHANCE_PATCHES = pa.schema(
    [
        ("patch", pa.int32()),  # the row of the patch in PATCH_TRUTH of its batch; one that has no other is left out
        ("draw", pa.int8()),  # from 0
        ("chance_image_id", pa.string()),
        ("chance_token_index", pa.int32()),
        ("chance_truth", pa.int64()),  # equal where chance patches show the same regions of the same image
        *(PATCH_TRUTH.field(name) for name in WORD_LISTS),  # of the chance patch; null but in the first row of a truth
    ]
)

_GROUPS = (OBJECT, BACKGROUND, PADDING)
_PATCH = ("image_id", "token_index", "patch_group")
_ROW_GROUP = 1 << 12  # as many rows per batch wait in memory


def write_chance_patches(truths: Sequence[Path], outs: Sequence[Path]) -> int:
    """Draw the chance patches of every patch of a study, and write what they show.

    Args:
        truths: PATCH_TRUTH of each batch, in order of image_id, token_index; all rows of an image are in one batch.
        outs: the files to write, CHANCE_PATCHES of each batch.

    Returns:
        The number of chance patches.
    """
    images = _Images.of([_group_counts(file) for file in truths])
    draws = [_draw(pl.DataFrame(pq.read_table(file, columns=list(_PATCH))), images) for file in truths]
    with ExitStack() as stack:
        writers = [stack.enter_context(parquet_rows(out, CHANCE_PATCHES, _ROW_GROUP)) for out in outs]
        truths_before = 0
        for number, file in enumerate(truths):
            shown = _Shown.of(file, truths_before)
            for drawn, writer in zip(draws, writers, strict=True):
                for table in shown.chance_patches(drawn.of_batch(number)):
                    writer.write(table)
            truths_before += len(shown.words)
    return sum(writer.written for writer in writers)


@dataclass(frozen=True)
class _Shown:
    """What the patches of a batch show, to be drawn by the patches of all batches."""

    patches: pl.DataFrame
    """image_id, token_index, number (int32, of its distinct truth), in order of their places (see `_Images`)."""
    words: pa.Table
    """WORD_LISTS of each distinct truth."""
    truths_before: int
    """How many distinct truths the batches before it have."""

    @classmethod
    def of(cls, file: Path, truths_before: int) -> _Shown:
        """Of PATCH_TRUTH of a batch."""
        truths = distinct_truths(file)
        patches = pl.DataFrame(pq.read_table(file, columns=list(_PATCH)))
        order = np.argsort(patches["patch_group"].replace_strict(_GROUPS, range(len(_GROUPS))), kind="stable")
        patches = patches.select("image_id", "token_index", pl.Series("number", truths.number))[order]
        return cls(patches, read_words(file, truths.first).combine_chunks(), truths_before)

    def chance_patches(self, drawn: _Drawn) -> Iterator[pa.Table]:
        """CHANCE_PATCHES, piece by piece, of the patches of a batch that drew from this one."""
        places = drawn.places
        first = np.zeros(len(places), np.bool_)
        first[np.unique(self.patches["number"].gather(places), return_index=True)[1]] = True
        for start in range(0, len(places), _ROW_GROUP):
            span = slice(start, start + _ROW_GROUP)
            chance = self.patches[places[span]]
            number = chance["number"].to_numpy()
            words = self.words.take(pa.array(number, mask=~first[span])).columns
            truth = number.astype(np.int64) + self.truths_before
            image_id, token_index = chance["image_id"].to_arrow(), chance["token_index"].to_arrow()
            lists = [
                words_of.cast(field.type) for words_of, field in zip(words, list(CHANCE_PATCHES)[-3:], strict=True)
            ]
            who = drawn.patches[span], drawn.draw[span]
            yield pa.table([*who, image_id.cast(pa.string()), token_index, truth, *lists], CHANCE_PATCHES)


@dataclass(frozen=True)
class _Images:
    """The patches of all images: how many there are of each group, and where.

    A patch's *place* is its number in its batch, counted by group (in the order of _GROUPS), image_id and token_index.
    """

    ids: npt.NDArray[np.str_]
    """[I], ascending."""
    batch: npt.NDArray[np.int64]
    """[I], from 0."""
    batches: int
    counts: npt.NDArray[np.int64]
    """[3, I], for each of _GROUPS."""
    places: npt.NDArray[np.int64]
    """[3, I]: the place of the image's first patch of the group."""
    starts: npt.NDArray[np.int64]
    """[3, I]: how many patches of the group the images before it have."""

    @classmethod
    def of(cls, counts: Sequence[pl.DataFrame]) -> _Images:
        """Of the counts of each batch, as `_group_counts` gives them."""
        of_batches = [rows.with_columns(batch=pl.lit(number, pl.Int64)) for number, rows in enumerate(counts)]
        rows = pl.concat(of_batches).sort("image_id")
        by_group = rows.select(_GROUPS).to_numpy().T
        first = rows.select(f"first_{group}" for group in _GROUPS).to_numpy().T
        ids = np.array(rows["image_id"].to_list(), np.str_)
        starts = by_group.cumsum(axis=1) - by_group
        return cls(ids, rows["batch"].to_numpy(), len(counts), by_group, first, starts)


def _group_counts(truth: Path) -> pl.DataFrame:
    """image_id, and for each group the number of its patches and the place of the first one; in order of image_id."""
    rows = pl.DataFrame(pq.read_table(truth, columns=["image_id", "patch_group"]))
    counted = [(pl.col("patch_group") == group).sum().cast(pl.Int64).alias(group) for group in _GROUPS]
    counts = rows.group_by("image_id", maintain_order=True).agg(counted)
    before = {group: sum((pl.col(one).sum() for one in _GROUPS[:at]), pl.lit(0)) for at, group in enumerate(_GROUPS)}
    return counts.with_columns(
        (first + pl.col(group).cum_sum() - pl.col(group)).alias(f"first_{group}") for group, first in before.items()
    )


class _Drawn(NamedTuple):
    """The chance patches of a batch's patches, in order of the batch that they lie in."""

    patches: npt.NDArray[np.int32]
    """Rows of the batch."""
    draw: npt.NDArray[np.int8]
    places: npt.NDArray[np.int32]
    """Of their chance patches, in those patches' batches."""
    ends: npt.NDArray[np.int64]
    """For each batch, where its chance patches end."""

    def of_batch(self, number: int) -> _Drawn:
        """Those whose chance patch lies in a batch."""
        span = slice(self.ends[number - 1] if number else 0, self.ends[number])
        return _Drawn(self.patches[span], self.draw[span], self.places[span], self.ends[number : number + 1])


def _draw(rows: pl.DataFrame, images: _Images) -> _Drawn:
    """Draw for the patches of a batch."""
    runs = rows["image_id"].rle().struct.unnest()
    image_of = np.repeat(np.searchsorted(images.ids, np.array(runs["value"].to_list(), np.str_)), runs["len"])
    members = [np.flatnonzero(rows["patch_group"] == name) for name in _GROUPS]
    found = []
    for draw in range(DRAWS):
        numbers = _random_numbers(draw, runs, rows["token_index"].to_numpy())
        for group, patches in enumerate(members):
            drawn = _draw_of_group(patches, group, image_of, numbers, images)
            found.append((drawn[0], np.full(len(drawn[0]), draw, np.int8), *drawn[1:]))
    patches, draws, batches, places = (np.concatenate(parts) for parts in zip(*found, strict=True))
    order = np.argsort(batches, kind="stable")
    ends = np.bincount(batches, minlength=images.batches).cumsum()
    return _Drawn(patches[order].astype(np.int32), draws[order], places[order].astype(np.int32), ends)


def _draw_of_group(
    patches: npt.NDArray[np.int64],
    group: int,
    image_of: npt.NDArray[np.int64],
    numbers: npt.NDArray[np.uint64],
    images: _Images,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The patches that have a chance patch, of those of one group; its batch, and its place there."""
    counts, starts = images.counts[group], images.starts[group]
    others = counts.sum() - counts[image_of[patches]]
    patches, others = patches[others > 0], others[others > 0]
    own = image_of[patches]
    drawn = (numbers[patches] % others.astype(np.uint64)).astype(np.int64)
    drawn += np.where(drawn >= starts[own], counts[own], 0)  # the patches of its own image are a block, and skipped
    other = np.searchsorted(starts, drawn, side="right") - 1
    return patches, images.batch[other], images.places[group][other] + drawn - starts[other]


def _random_numbers(draw: int, runs: pl.DataFrame, token_index: npt.NDArray[np.int32]) -> npt.NDArray[np.uint64]:
    """A uniform 64-bit number per patch, from the draw, image_id and token_index alone (splitmix64).

    Args:
        draw: from 0.
        runs: value and len: the images and how many patches of each follow one another.
        token_index: of the patches.
    """
    seeds = [int(hash_bytes(f"{CHANCE_SEED + draw} {image_id}".encode()), 16) for image_id in runs["value"]]
    mixed = np.repeat(np.array(seeds, np.uint64), runs["len"])
    with np.errstate(over="ignore"):
        mixed += (token_index.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        numbers: npt.NDArray[np.uint64] = mixed ^ (mixed >> np.uint64(31))
    return numbers
