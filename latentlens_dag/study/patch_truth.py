"""The patch truth: what the annotated regions of an image show in each of its patches, in words.

A patch shows the regions that cover at least half of it or, if none does, the one that covers most. Their `words` are
its *concrete* words, their `abstract_words` its *abstract* ones, the words of the image's other regions its *global*
ones. Its group is `object` if object regions together cover at least half of it, else `background`. That of a
patch whose whole box is outside of the image is `padding`: it shows no region.

A photograph with annotations may have a hundred words for each of its hundreds of patches, but few selections of
regions. Whoever reads the words of a batch reads those of its distinct truths: an image and the regions that show.

Note: tokens without a box, and images without a region, have no rows. Padding is found by its boxes, since the view
`padding` is newer than many a home.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from latentlens_dag.inputs.regions import BACKGROUND, OBJECT, patch_coverage
from latentlens_dag.models.families.token_map import PADDING, outside_image
from latentlens_dag.schema import PATCH_TRUTH
from latentlens_dag.text.inflection import distinct

WORD_LISTS = ("concrete_words", "abstract_words", "global_words")
"""The columns of PATCH_TRUTH with words; a word in several counts as one of the first."""
HALF = 0.5 - 1e-6  # coverage is float32: half a patch may come out as 0.49999997

_BOX = ("x0", "y0", "x1", "y1")
_WORDS = pa.large_list(pa.dictionary(pa.int32(), pa.string()))  # pa.list_ ends at 2^31 words, pa.string() at 2 GiB
_NO_WORDS = pa.schema([(name, _WORDS) for name in WORD_LISTS])


def patch_truth(regions: pa.Table, visual_tokens: pa.Table, images: pa.Table) -> Iterator[pa.Table]:
    """What the patches of some images show.

    Args:
        regions: REGIONS, in any order.
        visual_tokens: VISUAL_TOKENS of one study, in any order.
        images: IMAGES, in any order; only image_id, width and height are read.

    Yields:
        PATCH_TRUTH of each image, in order of image_id, token_index.
    """
    sizes = {image_id: size for image_id, *size in pl.DataFrame(images.select(["image_id", "width", "height"])).rows()}
    regions_of = dict(_by_image(regions, "region_id"))
    for image_id, tokens in _by_image(visual_tokens, "token_index"):
        if image_id in regions_of:
            yield _image_truth(tokens.drop_nulls(_BOX), regions_of[image_id], *sizes[image_id])


def regions_shown(cover: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    """[T, R]: whether a patch shows a region: all that cover half of it, else the one that covers most."""
    shows = cover >= HALF
    lost = ~shows.any(axis=1) & (cover > 0).any(axis=1)
    shows[lost, cover[lost].argmax(axis=1)] = True
    return shows


class DistinctTruths(NamedTuple):
    """Which patches of a batch show the same regions of the same image, and so the same words."""

    number: npt.NDArray[np.int32]
    """[P]: of what each patch shows, from 0, in order of the first patch that shows it."""
    first: npt.NDArray[np.int64]
    """[D], ascending: the first patch that shows it."""


def distinct_truths(file: Path) -> DistinctTruths:
    """The distinct truths of PATCH_TRUTH in a file."""
    rows = pl.DataFrame(pq.read_table(file, columns=["image_id", "region_ids"])).with_row_index("patch")
    alike = rows.group_by("image_id", "region_ids", maintain_order=True).agg("patch").with_row_index("number")
    number = alike.select("number", "patch").explode("patch").sort("patch")["number"]
    return DistinctTruths(number.to_numpy().astype(np.int32), alike["patch"].list.first().to_numpy().astype(np.int64))


def read_words(file: Path, rows: npt.NDArray[np.int64]) -> pa.Table:
    """The words in some rows of a file, without holding those of the others.

    Args:
        file: with the columns WORD_LISTS.
        rows: [N], ascending.

    Returns:
        WORD_LISTS [N], as large lists of dictionary<int32, string>: each word takes four bytes.
    """
    return pa.concat_tables([_NO_WORDS.empty_table(), *(part.words for part in iter_words(file, rows))])


class WordsOfRows(NamedTuple):
    """The words in some consecutive ones of the requested rows."""

    place: slice
    """Which of the requested rows they are."""
    words: pa.Table
    """As `read_words` gives them."""


def iter_words(file: Path, rows: npt.NDArray[np.int64]) -> Iterator[WordsOfRows]:
    """As `read_words`, one row group of the file after the other."""
    start = 0
    with pq.ParquetFile(file, read_dictionary=[f"{name}.list.element" for name in WORD_LISTS]) as source:
        for group in range(source.num_row_groups):
            end = start + source.metadata.row_group(group).num_rows
            place = slice(*(int(at) for at in np.searchsorted(rows, (start, end))))
            if place.stop > place.start:
                words = source.read_row_group(group, columns=list(WORD_LISTS))
                yield WordsOfRows(place, words.take(pa.array(rows[place] - start)).cast(_NO_WORDS))
            start = end


def _image_truth(tokens: pl.DataFrame, regions: pl.DataFrame, width: int, height: int) -> pa.Table:
    """PATCH_TRUTH of one image, whose tokens all have boxes."""
    boxes = tokens.select(_BOX).to_numpy().astype(np.float32)
    cover, padding = patch_coverage(regions.to_arrow(), boxes, width, height), outside_image(boxes, width, height)
    shows = regions_shown(cover.regions) & ~padding[:, None]
    selections, selection_of = np.unique(shows, axis=0, return_inverse=True)
    columns = regions.select("region_id", "words", "abstract_words").to_dict(as_series=False)
    found = pa.Table.from_pylist([_in_words(**columns, shown=shown) for shown in selections], _SHOWN)
    found = found.take(pa.array(selection_of.ravel()))
    group = np.where(padding, PADDING, np.where(cover.objects >= HALF, OBJECT, BACKGROUND))
    of_tokens = tokens.select("study", "image_id", "token_index", pl.Series("patch_group", group, pl.String)).to_arrow()
    return pa.table([*of_tokens.columns, *found.columns], [*of_tokens.column_names, *found.column_names]).cast(
        PATCH_TRUTH
    )


def _in_words(
    region_id: list[str], words: list[list[str]], abstract_words: list[list[str]], shown: npt.NDArray[np.bool_]
) -> dict[str, tuple[str, ...]]:
    """The columns _SHOWN of a patch that shows the regions `shown` [R] of its image."""
    here, elsewhere = np.flatnonzero(shown), np.flatnonzero(~shown)
    return {
        "region_ids": tuple(region_id[region] for region in here),
        "concrete_words": distinct(word for region in here for word in words[region] or ()),
        "abstract_words": distinct(word for region in here for word in abstract_words[region] or ()),
        "global_words": distinct(word for region in elsewhere for word in words[region] or ()),
    }


_SHOWN = pa.schema([PATCH_TRUTH.field(name) for name in ("region_ids", *WORD_LISTS)])


def _by_image(table: pa.Table, order: str) -> Iterator[tuple[str, pl.DataFrame]]:
    """Image id and its rows, both in order."""
    rows = pl.DataFrame(table).sort("image_id", order)
    for (image_id,), frame in rows.group_by("image_id", maintain_order=True):
        yield str(image_id), frame
