"""Where two sides disagree: two studies, lenses or layers that describe the same images.

The measure is per patch: of the words among the answers of either side, in any case, the share that only one of them
has (1 - |both| / |either|, the Jaccard distance of the two sets of words). 0 says that both name the same words, 1 that
they have none in common; rank and similarity do not count, for those of different lenses cannot be compared.

What a newcomer gets wrong: a study compared with itself is one query, and its patches are the same ones. Two studies
may see an image through different region maps, and may lie in different databases. Then a patch is compared with that
patch of the other side which holds its center and overlaps it most (`_LINKS`), so that the patches of one side are
compared with some of the other's, not with all of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from latentlens_dag.browse.method_cache import MethodCache, cached
from latentlens_dag.dataset.named_queries import ParameterValue, named_queries

if TYPE_CHECKING:
    import polars as pl

    from latentlens_dag.browse.browser_data import BrowserData, StudyFacts

_CACHED_RESULTS = 300
_SAMPLE = 16
"""Images that a curve over layers is taken of: ids are hashes, so the first ones are a random sample."""

# Boxes of a text's tokens are the characters of their words, in one row.
_BOXES = """
SELECT
    image_id,
    token_index,
    view,
    coalesce(x0, char_start) AS x0,
    if(x0 IS NULL AND char_start IS NOT NULL, 0, y0) AS y0,
    coalesce(x1, char_end) AS x1,
    if(x0 IS NULL AND char_start IS NOT NULL, 1, y1) AS y1
FROM visual_tokens
LEFT JOIN (SELECT image_id, token_index, char_start, char_end FROM text_tokens WHERE study = $study)
    USING (image_id, token_index)
WHERE study = $study AND ($images IS NULL OR list_contains(string_split($images, ','), image_id))
ORDER BY image_id, token_index
"""
_LINKS = """
WITH pairs AS (
    SELECT
        boxes.image_id,
        boxes.token_index,
        others.token_index AS other_token,
        (boxes.x0 + boxes.x1) / 2 >= others.x0 AND (boxes.x0 + boxes.x1) / 2 < others.x1
            AND (boxes.y0 + boxes.y1) / 2 >= others.y0 AND (boxes.y0 + boxes.y1) / 2 < others.y1 AS holds_center,
        (least(boxes.x1, others.x1) - greatest(boxes.x0, others.x0))
            * (least(boxes.y1, others.y1) - greatest(boxes.y0, others.y0)) AS shared,
        (boxes.x1 - boxes.x0) * (boxes.y1 - boxes.y0) + (others.x1 - others.x0) * (others.y1 - others.y0) AS areas
    FROM boxes
    JOIN others ON boxes.image_id = others.image_id
        AND boxes.x0 < others.x1 AND others.x0 < boxes.x1
        AND boxes.y0 < others.y1 AND others.y0 < boxes.y1
)
SELECT
    image_id,
    token_index,
    arg_max(other_token, (holds_center, shared / (areas - shared), -other_token)) AS other_token
FROM pairs
GROUP BY image_id, token_index
"""
_ACROSS = """
WITH patches AS (
    SELECT
        image_id,
        token_index,
        one.words,
        two.words AS other_words,
        list_intersect(one.words, two.words) AS shared
    FROM links
    JOIN one USING (image_id, token_index)
    JOIN two ON two.image_id = links.image_id AND two.token_index = links.other_token
)
SELECT
    image_id,
    token_index,
    1 - len(shared) / (len(words) + len(other_words) - len(shared)) AS disagreement,
    list_sort(shared) AS in_both,
    list_sort(list_filter(words, lambda word: NOT list_contains(shared, word))) AS only_here,
    list_sort(list_filter(other_words, lambda word: NOT list_contains(shared, word))) AS only_there
FROM patches
ORDER BY image_id, token_index
"""
_EACH = "FROM ({patches})"
_MEAN = "SELECT avg(disagreement) AS disagreement FROM ({patches})"
_BY_IMAGE = """
SELECT image_id, avg(disagreement) AS disagreement, count(*) AS patches, avg(CAST(disagreement = 1 AS INTEGER)) AS apart
FROM ({patches})
GROUP BY image_id
ORDER BY disagreement DESC, image_id
"""


@dataclass(frozen=True)
class StudyEntry:
    """A study of one of the sources."""

    label: str
    """Its name, after that of its source where two sources have a study of this name."""
    library: BrowserData
    facts: StudyFacts


@dataclass(frozen=True)
class Side:
    """What is compared: a study's answers at one lens and visual layer."""

    of: StudyEntry
    lens: str
    layer: int

    @property
    def study(self) -> str:
        """The name that the study has in its source."""
        return self.of.facts.name


class PatchDisagreement(NamedTuple):
    """How far apart two sides are on a patch, and by which words; words are in lower case and in order."""

    disagreement: float
    """In 0..1."""
    in_both: list[str]
    only_here: list[str]
    """Of the first side."""
    only_there: list[str]


class StudyRegistry(MethodCache):
    """The studies of one or several sources, to be compared; answers are remembered."""

    def __init__(self, *libraries: BrowserData) -> None:
        """Take the sources."""
        super().__init__(_CACHED_RESULTS)
        self.studies = _labelled(libraries)
        """By their labels."""

    @cached
    def shared_images(self, one: StudyEntry, other: StudyEntry) -> tuple[str, ...]:
        """The images, or texts, that two studies have, in order of their ids."""
        return tuple(sorted(_images(one) if one == other else _images(one) & _images(other)))

    @cached
    def top_k(self, of: StudyEntry) -> int:
        """The most answers that a patch of a study has."""
        sql, study = "SELECT max(rank) AS k FROM neighbors WHERE study = $study", of.facts.name
        return int(of.library.dataset(study).collect(sql, study=study)["k"].item() or 1)

    @cached
    def links(self, one: StudyEntry, other: StudyEntry, image_id: str) -> dict[int, int]:
        """Per token of an image in one study, the token of the other study that it is compared with."""
        return dict(_links_of(one, other, image_id).select("token_index", "other_token").iter_rows())

    @cached
    def patches(self, one: Side, other: Side, image_id: str, top: int) -> dict[int, PatchDisagreement]:
        """How far apart the two are on every patch of the first side that is compared, by its token."""
        found = _compared(one, other, image_id, top, _EACH)
        return {
            row[0]: PatchDisagreement(*row[1:])
            for row in found.select("token_index", *PatchDisagreement._fields).iter_rows()
        }

    @cached
    def by_image(self, one: Side, other: Side, top: int) -> pl.DataFrame:
        """The images by mean disagreement, most first.

        Returns:
            image_id, disagreement (mean over patches), patches (that were compared), apart (the share of them that have
            no word in common).
        """
        return _compared(one, other, None, top, _BY_IMAGE)

    @cached
    def by_layer(self, one: Side, other: Side, top: int, image_id: str | None) -> pl.DataFrame:
        """The mean disagreement at every layer, of one image or of a sample.

        Of two lenses or studies: both at the same layer. Of one lens of one study: the first side, at its layer, with
        every layer.

        Returns:
            layer, disagreement; layers at which nothing can be compared are left out.
        """
        import polars as pl

        images = image_id or ",".join(self.shared_images(one.of, other.of)[:_SAMPLE])
        fixed = (one.of, one.lens) == (other.of, other.lens)
        layers = [layer for layer in other.of.facts.visual_layers if fixed or layer in one.of.facts.visual_layers]
        pairs = [(one if fixed else replace(one, layer=layer), replace(other, layer=layer)) for layer in layers]
        means = [_compared(*pair, images, top, _MEAN)["disagreement"].item() for pair in pairs]
        curve = pl.DataFrame({"layer": layers, "disagreement": means}, {"layer": pl.Int32, "disagreement": pl.Float64})
        return curve.drop_nulls()


def _compared(one: Side, other: Side, images: str | None, top: int, shape: str) -> pl.DataFrame:
    """What `shape` makes of the patches of some images (ids with commas between them), by default of all."""
    if one.of == other.of:
        patches = named_queries()["disagreement"].sql
        sides: dict[str, ParameterValue] = {
            "lens": one.lens,
            "layer": one.layer,
            "other_lens": other.lens,
            "other_layer": other.layer,
        }
        dataset = one.of.library.dataset(one.study)
        return dataset.collect(_filled(shape, patches), study=one.study, images=images, top=top, **sides)
    frames = {"one": _words(one, images, top), "two": _words(other, images, top)}
    return _joined(_filled(shape, _ACROSS), links=_links_of(one.of, other.of, images), **frames)


def _filled(shape: str, patches: str) -> str:
    return shape.replace("{patches}", patches)


def _words(side: Side, images: str | None, top: int) -> pl.DataFrame:
    sides: dict[str, ParameterValue] = {"lens": side.lens, "layer": side.layer, "study": side.study}
    return side.of.library.dataset(side.study).collect("answer_words", images=images, top=top, **sides)


def _links_of(one: StudyEntry, other: StudyEntry, images: str | None) -> pl.DataFrame:
    """Which token is compared with which: image_id, token_index, other_token.

    Where all images of both have equal region maps, tokens of equal numbers, those without a place too.
    """
    import polars as pl

    boxes, others = _boxes(one, images), _boxes(other, images)
    boxes, others = (
        a.join(b, on="image_id", how="semi", maintain_order="left") for a, b in ((boxes, others), (others, boxes))
    )
    if boxes.equals(others):
        return boxes.select("image_id", "token_index", pl.col("token_index").alias("other_token"))
    return _joined(_LINKS, boxes=boxes, others=others)


def _boxes(of: StudyEntry, images: str | None) -> pl.DataFrame:
    study = of.facts.name
    return of.library.dataset(study).collect(_BOXES, study=study, images=images)


def _joined(sql: str, **frames: pl.DataFrame) -> pl.DataFrame:
    """The answer to SQL over frames, which may come from several databases."""
    import duckdb

    with duckdb.connect() as connection:
        for name, frame in frames.items():  # copied: a join of Arrow's tables as they lie took 80 times as long
            connection.register(f"given_{name}", frame.to_arrow())
            connection.execute(f"CREATE TABLE {name} AS FROM given_{name}")
        found: pl.DataFrame = connection.sql(sql).pl()
    return found


def _images(of: StudyEntry) -> frozenset[str]:
    study = of.facts.name
    sql = "SELECT DISTINCT image_id FROM visual_tokens WHERE study = $study"
    return frozenset(of.library.dataset(study).collect(sql, study=study)["image_id"])


def _labelled(libraries: Sequence[BrowserData]) -> dict[str, StudyEntry]:
    """The studies that have answers; a name that several sources have stands after that of its source."""
    found = [(library, facts) for library in libraries for facts in library.facts().values() if facts.lenses]
    names = Counter(facts.name for _, facts in found)
    sources = _source_names([library.source for library in libraries])
    shelved = {}
    for library, facts in found:
        label = facts.name if names[facts.name] == 1 else f"{sources[library.source]}: {facts.name}"
        shelved[label] = StudyEntry(label, library, facts)
    return shelved


def _source_names(sources: Sequence[str]) -> dict[str, str]:
    """What people call the sources: the last part of the path that tells, or all of it where two end alike."""
    short = {source: _short(source) for source in sources}
    return short if len(set(short.values())) == len(short) else {source: source for source in sources}


def _short(source: str) -> str:
    parts = [part for part in Path(source).parts if not part.startswith(".") and part not in ("warehouse", "/")]
    return parts[-1] if parts else source
