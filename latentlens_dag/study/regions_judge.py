"""The regions judge: whether a neighbor's word fits what annotated regions show in the patch. Exact and deterministic.

What a patch shows is in the patch truth (`study/patch_truth.py`). The verdict on a visual token is the first of
concrete, abstract, global, none that any of its neighbors earns; `words` are the neighbors that earned it. Words match
as in `text/inflection.py`.

*Chance* judges the same neighbors against patches of the same group in other images (`study/chance_patches.py`):
`chance_verdict` is that of the first draw, `chance_counts` of all. The nearest neighbor alone has verdicts of its own.

Note: words are compared as numbers, for a batch may have ten million answers per layer, and many times as many words
that are shown: 63 million of 1,042 images with 576 patches, each of whose chance patches shows something else. The base
forms of the latter are sorted once, as integers of four bytes; the answers of every layer are looked up among them.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from latentlens_dag.schema import JUDGEMENTS
from latentlens_dag.study.chance_patches import DRAWS
from latentlens_dag.study.patch_truth import WORD_LISTS, distinct_truths, iter_words
from latentlens_dag.text.inflection import base_forms

CONCRETE, ABSTRACT, GLOBAL, NONE = "concrete", "abstract", "global", "none"
VERDICTS = (CONCRETE, ABSTRACT, GLOBAL, NONE)
"""In the order of precedence; the index of a verdict is its `level`."""

_PATCH = ["image_id", "token_index"]
_LENS = ["study", "visual_layer", "lens"]
_ANSWER = [*_LENS, *_PATCH, "rank", "word"]
_PIECE = 1 << 18  # answers
_NOTHING = -1
_LEVEL_BITS = 2  # of a key


@dataclass(frozen=True)
class Truth:
    """What the patches of a batch and their chance patches show, ready to look words up."""

    patches: pl.DataFrame
    """patch (from 0, in order of image_id, token_index), image_id, token_index, patch_group, shown.

    `shown` is the number of what the patch shows; patches of an image that show the same regions share it."""
    chance: npt.NDArray[np.int64]
    """[DRAWS, P]: the numbers of what the chance patches of each patch show; -1 for a patch without any."""
    forms: Forms

    @classmethod
    def of(cls, patch_truth: Path, chance_patches: Path) -> Truth:
        """Of the files of one batch: PATCH_TRUTH, in order of image_id, token_index, and CHANCE_PATCHES."""
        own, drawn = distinct_truths(patch_truth), _DrawnTruths.of(chance_patches)
        other = len(own.first)  # the number of the first of the drawn truths
        chance = np.full((DRAWS, len(own.number)), _NOTHING, np.int64)
        chance[drawn.draw, drawn.patches] = other + drawn.number

        def words() -> Iterator[ShownWords]:
            yield from _shown_words(patch_truth, own.first, np.arange(other))
            yield from _shown_words(chance_patches, drawn.rows, other + drawn.truths)

        patches = pl.DataFrame(pq.read_table(patch_truth, columns=[*_PATCH, "patch_group"])).with_row_index("patch")
        return cls(patches.with_columns(shown=own.number.astype(np.int64)), chance, Forms.of(words))


class _DrawnTruths(NamedTuple):
    """What the chance patches of a batch show: numbers from 0, in order of the first patch that drew each.

    So the look-ups of patches that follow one another stay near to one another.
    """

    patches: npt.NDArray[np.int64]
    """[N], of the batch: the patch that drew each chance patch."""
    draw: npt.NDArray[np.int64]
    """[N], from 0."""
    number: npt.NDArray[np.int64]
    """[N]: of what it shows."""
    rows: npt.NDArray[np.int64]
    """[D], ascending: the rows of the file that have the words."""
    truths: npt.NDArray[np.int64]
    """[D]: the number of what each of `rows` shows."""

    @classmethod
    def of(cls, chance_patches: Path) -> _DrawnTruths:
        """Of CHANCE_PATCHES in a file."""
        table = pq.read_table(chance_patches, columns=["patch", "draw", "chance_truth"])
        patch, draw, truth = (column.to_numpy() for column in table.columns)
        order = np.lexsort((draw, patch))
        distinct, row = np.unique(truth, return_index=True)
        number = np.empty(len(distinct), np.int64)
        number[np.unique(truth[order], return_index=True)[1].argsort()] = np.arange(len(distinct))
        by_row = row.argsort()
        of_patches = number[np.searchsorted(distinct, truth)]
        return cls(patch.astype(np.int64), draw.astype(np.int64), of_patches, row[by_row], number[by_row])


class ShownWords(NamedTuple):
    """Words of one level, and the number of what shows each."""

    level: int
    shown: npt.NDArray[np.int64]
    """[W]"""
    words: pa.DictionaryArray
    """[W]"""


@dataclass(frozen=True)
class Forms:
    """The base forms of words that are shown, to look other words up among them."""

    codes: dict[str, int]
    """Base form to its code, from 0."""
    keys: list[npt.NDArray[np.uint32]]
    """Each ascending: those of `span` numbers of what is shown after the other. A key is the number, counted from the
    first of its array, times the number of codes, plus the code; its last two bits are the lowest level of the words
    that are shown there and have this base form."""

    @property
    def span(self) -> int:
        """As many numbers have their keys in one array, for keys have four bytes."""
        return max(1, (1 << 32 - _LEVEL_BITS) // max(1, len(self.codes)))

    @classmethod
    def of(cls, columns: Callable[[], Iterable[ShownWords]]) -> Forms:
        """Of words of all levels, which are read twice: memory holds four bytes for each, and some columns."""
        vocabulary = {word for column in columns() for word in column.words.dictionary.to_pylist()}
        every = sorted({form for word in vocabulary for form in base_forms(word)})
        forms = cls({form: code for code, form in enumerate(every)}, [])
        parts: list[array[int]] = []
        for column in columns():
            forms._pack(column, parts)
        while parts:
            forms.keys.append(_lowest_levels(np.frombuffer(parts.pop(0), np.uint32)))
        return forms

    def _pack(self, column: ShownWords, parts: list[array[int]]) -> None:
        """Add the keys of some words to the parts of all keys, of which there may be more then.

        Note: an array of Python's grows in place. A list of small arrays would leave its memory in pieces.
        """
        indices = column.words.indices.to_numpy()
        for code in _form_codes(column.words.dictionary.to_pylist(), self.codes).T:
            of_word = code[indices]
            has = of_word >= 0
            part, local = np.divmod(column.shown[has], self.span)
            packed = self._keys(local, of_word[has]) | np.uint32(column.level)
            for number in np.unique(part).tolist():
                parts.extend(array("I") for _ in range(len(parts), number + 1))
                parts[number].frombytes(packed[part == number].view(np.uint8))

    def _keys(self, local: npt.NDArray[np.int64], codes: npt.NDArray[np.int64]) -> npt.NDArray[np.uint32]:
        """The keys [N], with level 0, of numbers counted from the first of their array."""
        return ((local * len(self.codes) + codes) << _LEVEL_BITS).astype(np.uint32)

    def levels(self, words: pl.Series, *shown: npt.NDArray[np.int64]) -> list[npt.NDArray[np.int8]]:
        """The level [N] of each of N words, or null, against each of `shown` [N]: numbers of what is shown."""
        vocabulary = words.unique().drop_nulls().sort()
        codes = _form_codes([*vocabulary, None], self.codes)
        of_words = words.cast(pl.Enum(vocabulary)).to_physical().fill_null(len(vocabulary)).to_numpy()
        return [self._lowest(codes, of_words, numbers) for numbers in shown]

    def _lowest(
        self, codes: npt.NDArray[np.int64], words: npt.NDArray[np.uint32], shown: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.int8]:
        """The level [N] of `words` [N], which are rows of `codes`, against `shown` [N]."""
        levels = np.full(len(words), VERDICTS.index(NONE), np.int8)
        for code in codes.T:
            rows = np.flatnonzero((code[words] >= 0) & (shown != _NOTHING))
            part, local = np.divmod(shown[rows], self.span)
            wanted = self._keys(local, code[words[rows]])
            for number, keys in enumerate(self.keys):
                own = np.flatnonzero(part == number) if len(self.keys) > 1 else slice(None)
                levels[rows[own]] = np.minimum(levels[rows[own]], _find_levels(keys, wanted[own]))
        return levels


def judge_files(files: Iterable[Path], truth: Truth) -> Iterator[pa.Table]:
    """Judge the neighbors in files, piece by piece: a quarter of a million answers take 150 MB.

    Args:
        files: NEIGHBORS of one lens and layer each, in order of image_id.
        truth: of the batch with their images.

    Yields:
        JUDGEMENTS, file by file, ordered by image and token.

    Raises:
        ValueError: if a file is not in order of image_id.
    """
    for file in files:
        for table in _whole_images(file):
            yield judge_regions(table, truth)


def _whole_images(file: Path) -> Iterator[pa.Table]:
    """The answers in a file, about _PIECE at a time, those of an image together."""
    with pq.ParquetFile(file) as source:
        rest = source.schema_arrow.empty_table().select(_ANSWER)
        for batch in source.iter_batches(_PIECE, columns=_ANSWER):
            rows = pa.concat_tables([rest, pa.Table.from_batches([batch]).select(_ANSWER)])
            ids = pl.Series(rows["image_id"])
            if not ids.is_sorted():
                raise ValueError(f"The neighbors in {file} are not in order of image_id. Materialize them again.")
            end = ids.search_sorted(ids[-1])  # where the last image begins; it may go on
            rest = rows.slice(end)
            yield rows.slice(0, end)
    yield rest


def judge_regions(neighbors: pa.Table, truth: Truth, judge_name: str = "regions") -> pa.Table:
    """Judge the neighbors of visual tokens against what their patches show.

    Args:
        neighbors: NEIGHBORS of any lenses and layers; every token with all of its neighbors.
        truth: of the batch with their images.
        judge_name: for the column `judge`.

    Returns:
        JUDGEMENTS, one row per judged token, layer and lens, ordered by study, layer, lens, image, token.
    """
    patches = truth.patches.select(*_PATCH, "patch", "shown")
    answers = pl.DataFrame(neighbors.select(_ANSWER)).join(patches, on=_PATCH).drop(_PATCH)
    by_token = [*_LENS, "patch"]
    answers = answers.sort(*by_token, "rank").with_columns(token=pl.struct(by_token).rle_id())
    drawn = truth.chance[:, answers["patch"].to_numpy()]
    level, *chance_levels = truth.forms.levels(answers["word"], answers["shown"].to_numpy(), *drawn)
    answers = answers.with_columns(level=pl.Series(level))
    judged = answers.group_by("token", maintain_order=True).agg(
        pl.col(*by_token).first(), pl.col("level").min(), first_level=pl.col("level").first()
    )
    judged = judged.join(_earned(answers, judged), on="token", how="left", maintain_order="left")
    starts = np.flatnonzero(answers["token"].is_first_distinct())
    judged = judged.with_columns(_chance_columns(chance_levels, starts, drawn[0, starts] != _NOTHING))
    of_patch = truth.patches.select(*_PATCH, "patch", "patch_group")
    judged = judged.join(of_patch, on="patch", how="left", maintain_order="left").with_columns(
        judge=pl.lit(judge_name),
        verdict=_verdict("level"),
        first_verdict=_verdict("first_level"),
        chance_verdict=_verdict("chance_level"),
        words=pl.col("words").fill_null(pl.lit([], dtype=pl.List(pl.String))),
    )
    return judged.select(JUDGEMENTS.names).to_arrow().cast(JUDGEMENTS)


def _chance_columns(
    levels: Sequence[npt.NDArray[np.int8]], starts: npt.NDArray[np.int64], has_chance: npt.NDArray[np.bool_]
) -> list[pl.Expr]:
    """chance_level (of the first draw), chance_counts and first_chance_counts of T tokens; null without a chance patch.

    Args:
        levels: [N] of each draw, of the answers, those of a token together and its nearest first.
        starts: [T]: where the answers of each token begin.
        has_chance: [T]
    """
    best = [np.minimum.reduceat(level, starts) if len(starts) else level for level in levels]
    nearest = [level[starts] for level in levels]
    columns = {"chance_level": pl.Series(best[0])}
    for name, of_draws in (("chance_counts", best), ("first_chance_counts", nearest)):
        counts = np.stack([np.equal(of_draws, level).sum(axis=0) for level in range(len(VERDICTS))], axis=1)
        columns[name] = pl.Series(counts.astype(np.int32)).cast(pl.List(pl.Int32))
    return [pl.when(pl.Series(has_chance)).then(values).alias(name) for name, values in columns.items()]


def _shown_words(file: Path, rows: npt.NDArray[np.int64], shown: npt.NDArray[np.int64]) -> Iterator[ShownWords]:
    """The words in some rows of a file, piece by piece.

    Args:
        file: with the columns WORD_LISTS, whose index is the level of their words.
        rows: [N], ascending.
        shown: [N], the number of what each row shows.
    """
    for place, table in iter_words(file, rows):
        for level, name in enumerate(WORD_LISTS):
            lists = table[name]
            words = pc.list_flatten(lists).unify_dictionaries().combine_chunks()
            yield ShownWords(level, np.repeat(shown[place], pc.list_value_length(lists).to_numpy()), words)


def _lowest_levels(keys: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
    """The keys, ascending, each with its lowest level; sorts its argument, for there may be 10^8 of them."""
    keys.sort()
    is_first = np.ones(len(keys), np.bool_)
    np.not_equal(keys[1:] >> _LEVEL_BITS, keys[:-1] >> _LEVEL_BITS, out=is_first[1:])
    return keys[is_first]


def _find_levels(keys: npt.NDArray[np.uint32], wanted: npt.NDArray[np.uint32]) -> npt.NDArray[np.int8]:
    """The levels [N] of wanted keys, which have level 0 themselves; that of NONE for one that is not among `keys`."""
    if not len(keys):
        return np.full(len(wanted), VERDICTS.index(NONE), np.int8)
    found = keys[np.searchsorted(keys, wanted).clip(max=len(keys) - 1)]
    level = (found & (len(VERDICTS) - 1)).astype(np.int8)
    level[found >> _LEVEL_BITS != wanted >> _LEVEL_BITS] = VERDICTS.index(NONE)
    return level


def _form_codes(words: Sequence[str | None], codes: Mapping[str, int]) -> npt.NDArray[np.int64]:
    """[V, F]: the codes of the base forms of each word, padded with -1; forms without a code are left out."""
    found = [sorted(codes[form] for form in base_forms(word or "") if form in codes) for word in words]
    table = np.full((len(found), max(map(len, found), default=0)), -1, np.int64)
    for row, of_word in zip(table, found, strict=True):
        row[: len(of_word)] = of_word
    return table


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
