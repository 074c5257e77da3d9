"""The data behind the browser's pages: the studies of a source, and what to draw of an image, a token or a word.

Pages only query and draw; whatever can be tested without a page is here or in `dataset/queries/`. Note: text from data
is not made safe here. Whoever draws it must treat it as text (`textContent`, `html.escape`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from cachetools import LRUCache, cachedmethod

from latentlens_dag.browse.layout import data_uri, shown_regions
from latentlens_dag.browse.method_cache import MethodCache, cached
from latentlens_dag.dataset.dataset import Dataset, open_dataset
from latentlens_dag.dataset.human_judgements import judging_folder
from latentlens_dag.dataset.release_catalog import list_catalogs
from latentlens_dag.errors import UserError
from latentlens_dag.release.manifest import MANIFEST
from latentlens_dag.release.reader import is_release
from latentlens_dag.schema import lens_order
from latentlens_dag.sql.sandbox import Limits
from latentlens_dag.storage.hashing import hash_values
from latentlens_dag.storage.home import find_warehouse
from latentlens_dag.text.words import fold_word

if TYPE_CHECKING:
    import polars as pl

MEMORY_MB = 500
"""Memory for all queries of a source together, whatever the machine has; DuckDB spills the rest to disk."""
_LEAST_MB = 150
_CACHED_BYTES = 60_000_000
"""Of tables. A number of them is no limit: one token's has 20 KB, a frequent word's in a large study 10 MB."""
_CACHED_RESULTS = 250  # other results: of an image, or of a page of them
_SIZES = ("images", "texts", "visual_tokens", "answers")
_BOXES = """
SELECT token_index, x0, y0, x1, y1
FROM visual_tokens
WHERE study = $study AND image_id = $image_id AND x0 IS NOT NULL
"""


@dataclass(frozen=True)
class StudyFacts:
    """The size and the parts of a study."""

    name: str
    images: int
    texts: int
    visual_tokens: int
    answers: int
    visual_layers: tuple[int, ...]
    lenses: tuple[str, ...]
    """LatentLens first."""

    @property
    def of_texts(self) -> bool:
        """Whether the study is of texts instead of images."""
        return self.texts > 0 and self.images == 0


class BrowserData(MethodCache):
    """The studies of a source, each read where reading is fastest."""

    def __init__(self, source: str, full_dataset: Dataset, catalogs: Mapping[str, Dataset]) -> None:
        """Take the dataset of the whole source, and the catalogs of the studies that have one."""
        self.source = source
        self.full_dataset = full_dataset
        self.catalogs = dict(catalogs)
        super().__init__(_CACHED_RESULTS)
        self.frames: LRUCache[Any, pl.DataFrame] = LRUCache(_CACHED_BYTES, lambda frame: frame.estimated_size())

    @property
    def dataset_path(self) -> str:
        """A path that `open_dataset` takes: of a release of the Hub, its folder on this machine."""
        release = self.full_dataset.release_tables
        return str(release.folder if release else self.source)

    def dataset(self, study: str) -> Dataset:
        """The dataset to read a study from: its catalog, or the whole source."""
        return self.catalogs.get(study, self.full_dataset)

    def read_from(self, study: str) -> str:
        """The storage that a study is read from: catalog or Parquet."""
        found = self.dataset(study).sql("FROM duckdb_databases() WHERE database_name = 'dataset'").fetchall()
        return "catalog" if found else "Parquet"

    @cachedmethod(attrgetter("frames"), lock=attrgetter("cache_lock"))
    def collect(self, study: str, query: str, /, **params: Any) -> pl.DataFrame:
        """The rows of a named query about one study; parameters must be hashable, since the rows are cached."""
        return self.dataset(study).collect(query, study=study, **params)

    @cached
    def studies(self) -> dict[str, StudyFacts]:
        """The studies that have tokens or answers, by name."""
        found: dict[str, StudyFacts] = {}
        for dataset in (*self.catalogs.values(), *self._others()):
            for row in dataset.collect("studies").iter_rows(named=True):
                images, texts, tokens, answers = (row[name] or 0 for name in _SIZES)
                layers, lenses = tuple(row["visual_layers"] or ()), tuple(sorted(row["lenses"] or (), key=lens_order))
                found.setdefault(row["study"], StudyFacts(row["study"], images, texts, tokens, answers, layers, lenses))
        return dict(sorted(found.items()))

    def _others(self) -> list[Dataset]:
        if not self.catalogs:
            return [self.full_dataset]
        names = set(self.full_dataset.collect("SELECT DISTINCT study FROM visual_tokens")["study"])
        return [self.full_dataset] if names - set(self.catalogs) else []

    @cached
    def thumbnails(self, study: str, image_ids: tuple[str, ...]) -> dict[str, Thumbnail]:
        """The thumbnails of those of the images that the study has, by image_id."""
        sql = (
            "SELECT image_id, file_name, width, height, thumbnail FROM images WHERE list_contains($image_ids, image_id)"
        )
        rows = self.dataset(study).collect(sql, image_ids=list(image_ids)).iter_rows()
        return {row[0]: Thumbnail(row[0], row[1] or row[0], row[2], row[3], data_uri(row[4])) for row in rows}

    @cached
    def ground_truth(self, study: str, image_id: str) -> dict[int, list[dict[str, Any]]]:
        """By token_index, the annotated regions that each patch of an image shows; errors as `shown_regions`."""
        dataset, image = self.dataset(study), self.thumbnails(study, (image_id,)).get(image_id)
        if image is None or "regions" not in dataset.tables:  # of a release of which they were not pulled
            return {}
        regions = dataset.collect("FROM regions WHERE image_id = $image_id ORDER BY region_id", image_id=image_id)
        if regions.is_empty():
            return {}
        tokens = dataset.collect(_BOXES, study=study, image_id=image_id)
        boxes = tokens.select("x0", "y0", "x1", "y1").to_numpy()
        return dict(zip(tokens["token_index"], shown_regions(regions, boxes, image.width, image.height), strict=True))

    @cached
    def caption(self, study: str, image_id: str) -> str | None:
        """What the study's model itself says of an image; None where that is not stored."""
        dataset = self.dataset(study)
        if "generated_captions" not in dataset.tables:  # a catalog of an older version, or not pulled of a release
            return None
        sql = "SELECT caption FROM generated_captions WHERE study = $study AND image_id = $image_id"
        found = dataset.collect(sql, study=study, image_id=image_id)
        return None if found.is_empty() else str(found["caption"].item())

    @cached
    def contextual_layers(self, study: str) -> tuple[int, ...]:
        """The contextual layers that the study's answers come from, sorted."""
        answered = "study = $study AND neighbors > 0"  # of a null, other layers have rows, too
        sql = f"SELECT DISTINCT contextual_layer FROM layer_alignment WHERE {answered} ORDER BY 1"
        return tuple(self.dataset(study).collect(sql, study=study)["contextual_layer"].drop_nulls().to_list())

    @cached
    def texts(self, study: str, text_ids: tuple[str, ...]) -> dict[str, str]:
        """The texts with these ids, by text_id."""
        sql = "SELECT text_id, text FROM texts WHERE list_contains($text_ids, text_id)"
        return dict(self.dataset(study).collect(sql, text_ids=list(text_ids)).iter_rows())

    @cached
    def token_texts(self, study: str, text_id: str) -> dict[int, str]:
        """The characters of each token of a text, by token_index."""
        sql = "SELECT token_index, token_str FROM text_tokens WHERE study = $study AND image_id = $text_id"
        return dict(self.dataset(study).collect(sql, study=study, text_id=text_id).iter_rows())

    def close(self) -> None:
        """Close every dataset."""
        for dataset in (self.full_dataset, *self.catalogs.values()):
            dataset.close()


def similarity_thresholds(data: BrowserData, study: str, lens: str, layer: int) -> tuple[float, ...]:
    """Round similarities around the mean similarities of a study's images at one lens and layer."""
    gallery = {"lens": lens, "layer": layer, "words": None, "verdict": None, "similarity": None}  # cached for the page
    similarities = data.collect(study, "find_images", **gallery)["mean_similarity"].drop_nulls().to_list()
    if not similarities:
        return ()
    step = 1.0 if max(similarities) > 1 else 0.05
    low, high = int(min(similarities) / step) - 4, int(max(similarities) / step) + 6
    return tuple(round(number * step, 2) for number in range(max(low, 0), high))


class Thumbnail(NamedTuple):
    """A small copy of an image, for a page to show."""

    image_id: str
    file_name: str
    width: int
    """Of the original, in pixels, the unit of all boxes."""
    height: int
    source: str
    """Data URI of the pixels; empty if there are none."""


def open_browser_data(source: str | Path) -> BrowserData:
    """Open what `open_dataset` opens, with the catalogs of a home's studies that are built.

    Raises:
        UserError: if there is nothing to read.
    """
    catalog = find_warehouse(source).catalog("x")
    files = sorted(catalog.parent.parent.glob(f"*/{catalog.name}"))
    limits = Limits(max(MEMORY_MB // (1 + len(files)), _LEAST_MB))
    full_dataset = open_dataset(source, limits)
    catalogs: dict[str, Dataset] = {}
    for file in files:
        try:
            catalogs[file.parent.name] = open_dataset(file, limits)
        except UserError:  # being replaced, or incomplete: the views over Parquet have the same rows, more slowly
            continue
    return BrowserData(str(source), full_dataset, catalogs)


def source_fingerprint(source: str | Path) -> str:
    """A hash of the paths, sizes and times of a source's files: it changes when a build or a catalog writes."""
    path = Path(source)
    people = judging_folder(path)
    # Only which files of people exist: their contents are read at every query.
    found = [(str(file), 0, 0) for file in (people.files() if people else ())]
    if path.is_file():
        files = [path]
    elif is_release(path) or not path.exists():
        files = [path / MANIFEST, *list_catalogs()]
    else:
        root = find_warehouse(path).root
        files = [*root.glob("*/*/[!.]*.*"), *root.glob("study/**/[!.]*.parquet")]
    for file in sorted(files):
        try:
            facts = file.stat()
        except OSError:
            continue
        found.append((str(file), facts.st_size, facts.st_mtime_ns))
    return hash_values(found)


def parse_words(text: str) -> str | None:
    """Typed words as the parameter `words` of a query: as `fold_word`, comma-separated; None if there are none."""
    words = [fold_word(" ".join(word.split())) for word in text.split(",")]
    return ",".join(dict.fromkeys(word for word in words if word)) or None
