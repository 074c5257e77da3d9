"""Where two sides disagree: two studies, lenses or layers that describe the same images.

The measure is the Jaccard distance of the words that the two sides answer for a patch, ignoring case:
1 - |both| / |either|, 0 for the same words, 1 for no word in common. Rank and similarity do not count, since those of
different lenses cannot be compared.

A study compared with itself is one query over its own patches. Two studies may cut an image into different patches and
lie in different databases: then a patch is compared with the patch of the other side that holds its center and overlaps
it most (`_LINKS`), so some patches of the other side may be compared with none.
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
"""Images behind a curve over layers: ids are hashes, so the first ones are a random sample."""

# The box of a text's token spans the characters of its word, in one row.
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
SELECT
    image_id,
    avg(disagreement) AS disagreement,
    count(*) AS patches,
    avg(CAST(disagreement = 1 AS INTEGER)) AS disjoint
FROM ({patches})
GROUP BY image_id
ORDER BY disagreement DESC, image_id
"""


@dataclass(frozen=True)
class StudyEntry:
    """A study of one of the sources."""

    label: str
    """The study's name, preceded by that of its source if several sources have a study of this name."""
    data: BrowserData
    facts: StudyFacts

    def collect(self, query: str, /, **params: ParameterValue) -> pl.DataFrame:
        """The rows of a query, which may use the study's name as `$study`."""
        return self.data.dataset(self.facts.name).collect(query, study=self.facts.name, **params)


@dataclass(frozen=True)
class Side:
    """One side of a comparison: a study's answers through one lens at one visual layer."""

    entry: StudyEntry
    lens: str
    layer: int

    @property
    def study(self) -> str:
        """The study's name in its source."""
        return self.entry.facts.name


class PatchDisagreement(NamedTuple):
    """How much two sides disagree on a patch, and on which words, in lower case and sorted."""

    disagreement: float
    """In 0..1."""
    in_both: list[str]
    only_here: list[str]
    """Words of the first side alone."""
    only_there: list[str]


class StudyRegistry(MethodCache):
    """The studies of one or several sources, and how much they disagree."""

    def __init__(self, *sources: BrowserData) -> None:
        """Register the studies of the sources."""
        super().__init__(_CACHED_RESULTS)
        self.entries = _entries_by_label(sources)

    @cached
    def shared_images(self, one: StudyEntry, other: StudyEntry) -> tuple[str, ...]:
        """The ids of the images, or texts, that both studies have, sorted."""
        sql = "SELECT DISTINCT image_id FROM visual_tokens WHERE study = $study"
        return tuple(sorted(set.intersection(*(set(entry.collect(sql)["image_id"]) for entry in {one, other}))))

    @cached
    def top_k(self, entry: StudyEntry) -> int:
        """The most answers that a patch of a study has."""
        return int(entry.collect("SELECT max(rank) FROM neighbors WHERE study = $study").item() or 1)

    @cached
    def linked_tokens(self, one: StudyEntry, other: StudyEntry, image_id: str) -> dict[int, int]:
        """For each token of an image in one study, the token of the other study that it is compared with."""
        return dict(_links_of(one, other, image_id).select("token_index", "other_token").iter_rows())

    @cached
    def by_patch(self, one: Side, other: Side, image_id: str, top: int) -> dict[int, PatchDisagreement]:
        """The disagreement on each patch of the first side that has a counterpart, by token_index.

        `top` limits how many answers of a patch count, here and below.
        """
        patches = _compared(one, other, image_id, top, _EACH).select("token_index", *PatchDisagreement._fields)
        return {token: PatchDisagreement(*values) for token, *values in patches.iter_rows()}

    @cached
    def by_image(self, one: Side, other: Side, top: int) -> pl.DataFrame:
        """The images by mean disagreement, largest first.

        Returns:
            image_id, disagreement (mean over the patches compared), patches (their number), disjoint (the share of
            them without a word in common).
        """
        return _compared(one, other, None, top, _BY_IMAGE)

    @cached
    def by_layer(self, one: Side, other: Side, top: int, image_id: str | None) -> pl.DataFrame:
        """The mean disagreement at every layer, of one image or of a sample.

        Two lenses or studies are compared layer by layer. One lens of one study is compared with itself: the first
        side stays at its layer.

        Returns:
            layer, disagreement; without the layers at which nothing can be compared.
        """
        import polars as pl

        images = image_id or ",".join(self.shared_images(one.entry, other.entry)[:_SAMPLE])
        fixed = (one.entry, one.lens) == (other.entry, other.lens)
        layers = [layer for layer in other.entry.facts.visual_layers if fixed or layer in one.entry.facts.visual_layers]
        pairs = [(one if fixed else replace(one, layer=layer), replace(other, layer=layer)) for layer in layers]
        means = [_compared(*pair, images, top, _MEAN)["disagreement"].item() for pair in pairs]
        curve = pl.DataFrame({"layer": layers, "disagreement": means}, {"layer": pl.Int32, "disagreement": pl.Float64})
        return curve.drop_nulls()


def _compared(one: Side, other: Side, images: str | None, top: int, shape: str) -> pl.DataFrame:
    """Aggregate the disagreement of the patches of some images (comma-separated ids), by default of all, by `shape`."""
    if one.entry == other.entry:
        patches = named_queries()["disagreement"].sql
        second: dict[str, ParameterValue] = {"other_lens": other.lens, "other_layer": other.layer}
        sql = shape.replace("{patches}", patches)
        return one.entry.collect(sql, lens=one.lens, layer=one.layer, images=images, top=top, **second)
    words = [
        side.entry.collect("answer_words", lens=side.lens, layer=side.layer, images=images, top=top)
        for side in (one, other)
    ]
    links = _links_of(one.entry, other.entry, images)
    return _joined(shape.replace("{patches}", _ACROSS), links=links, one=words[0], two=words[1])


def _links_of(one: StudyEntry, other: StudyEntry, images: str | None) -> pl.DataFrame:
    """The tokens to compare: image_id, token_index, other_token.

    Studies with the same boxes throughout are compared token by token, including tokens without a box.
    """
    import polars as pl

    boxes, others = (entry.collect(_BOXES, images=images) for entry in (one, other))
    boxes, others = (
        a.join(b, on="image_id", how="semi", maintain_order="left") for a, b in ((boxes, others), (others, boxes))
    )
    if boxes.equals(others):
        return boxes.select("image_id", "token_index", pl.col("token_index").alias("other_token"))
    return _joined(_LINKS, boxes=boxes, others=others)


def _joined(sql: str, **frames: pl.DataFrame) -> pl.DataFrame:
    """The result of SQL over frames, which may come from several databases."""
    import duckdb

    with duckdb.connect() as connection:
        for name, frame in frames.items():  # copied: joining Arrow tables in place took 80 times as long
            connection.register(f"given_{name}", frame.to_arrow())
            connection.execute(f"CREATE TABLE {name} AS FROM given_{name}")
        found: pl.DataFrame = connection.sql(sql).pl()
    return found


def _entries_by_label(sources: Sequence[BrowserData]) -> dict[str, StudyEntry]:
    """The studies that have answers; a name that several sources share is preceded by that of its source."""
    studies = [(data, facts) for data in sources for facts in data.studies().values() if facts.lenses]
    names = Counter(facts.name for _, facts in studies)
    source_names = _source_names([data.source for data in sources])
    entries = {}
    for data, facts in studies:
        label = facts.name if names[facts.name] == 1 else f"{source_names[data.source]}: {facts.name}"
        entries[label] = StudyEntry(label, data, facts)
    return entries


def _source_names(sources: Sequence[str]) -> dict[str, str]:
    """Short names of the sources: the last telling part of each path, or the whole paths if these are not unique."""
    short = {}
    for source in sources:
        parts = [part for part in Path(source).parts if not part.startswith(".") and part not in ("warehouse", "/")]
        short[source] = parts[-1] if parts else source
    return short if len(set(short.values())) == len(short) else {source: source for source in sources}
