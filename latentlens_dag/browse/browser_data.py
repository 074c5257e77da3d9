"""What the pages of the browser ask: a library of studies, and what to draw of an image, a token or a word.

Pages only query and draw; whatever can be tested without a page is here or in `dataset/queries/`. What a newcomer gets
wrong: text from data is not made safe here. `printable` and `clip` make it readable; it is the drawing that
must treat it as text (`textContent`, `html.escape`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from cachetools import LRUCache, cachedmethod

from latentlens_dag.browse.layout import data_uri
from latentlens_dag.browse.method_cache import MethodCache, cached
from latentlens_dag.dataset.dataset import Dataset, open_dataset
from latentlens_dag.dataset.human_judgements import judging_folder
from latentlens_dag.dataset.release_catalog import list_catalogs
from latentlens_dag.errors import UserError
from latentlens_dag.release.manifest import MANIFEST
from latentlens_dag.release.reader import is_release
from latentlens_dag.sql.sandbox import Limits
from latentlens_dag.storage.hashing import hash_values
from latentlens_dag.storage.home import find_warehouse

if TYPE_CHECKING:
    import polars as pl

MEMORY_MB = 500
"""What all queries of a library may take together, whatever the machine has; more of it is spilled to disk."""
_LEAST_MB = 150
_CACHED_BYTES = 60_000_000
"""Of tables. A number of them is no limit: one token's has 20 KB, a frequent word's in a large study 10 MB."""
_CACHED_RESULTS = 250  # other results: of an image, or of a page of them


@dataclass(frozen=True)
class StudyFacts:
    """What a study has."""

    name: str
    images: int
    texts: int
    visual_tokens: int
    answers: int
    visual_layers: tuple[int, ...]
    lenses: tuple[str, ...]
    """In the order in which people name them: LatentLens first."""

    @property
    def of_texts(self) -> bool:
        """Whether what it describes is texts."""
        return self.texts > 0 and self.images == 0


class BrowserData(MethodCache):
    """The studies of a source, each read where reading is fastest; answers are remembered."""

    def __init__(self, source: str, whole: Dataset, catalogs: Mapping[str, Dataset]) -> None:
        """Take the dataset of everything, and that of each study which has a catalog of its own."""
        self.source = source
        self.whole = whole
        self.catalogs = dict(catalogs)
        super().__init__(_CACHED_RESULTS)
        self.frames: LRUCache[Any, pl.DataFrame] = LRUCache(_CACHED_BYTES, lambda frame: frame.estimated_size())

    @property
    def place(self) -> str:
        """What `open_dataset` opens as this machine has it now: of a release of the Hub, its folder."""
        return str(self.whole.folder or self.source)

    def dataset(self, study: str) -> Dataset:
        """Where the study is read."""
        return self.catalogs.get(study, self.whole)

    def read_from(self, study: str) -> str:
        """What the study is read from: a catalog or Parquet."""
        found = self.dataset(study).sql("FROM duckdb_databases() WHERE database_name = 'dataset'").fetchall()
        return "catalog" if found else "Parquet"

    @cachedmethod(attrgetter("frames"), lock=attrgetter("cache_lock"))
    def ask(self, study: str, query: str, /, **params: Any) -> pl.DataFrame:
        """A named query about one study; hashable parameters only, since answers are remembered."""
        return self.dataset(study).collect(query, study=study, **params)

    @cached
    def facts(self) -> dict[str, StudyFacts]:
        """The studies that have tokens or answers, by name."""
        found: dict[str, StudyFacts] = {}
        for dataset in (*self.catalogs.values(), *self._others()):
            for row in dataset.collect("studies").iter_rows(named=True):
                found.setdefault(row["study"], _facts_of(row))
        return dict(sorted(found.items()))

    def _others(self) -> list[Dataset]:
        if not self.catalogs:
            return [self.whole]
        names = set(self.whole.collect("SELECT DISTINCT study FROM visual_tokens")["study"])
        return [self.whole] if names - set(self.catalogs) else []

    @cached
    def pictures(self, study: str, image_ids: tuple[str, ...]) -> dict[str, Thumbnail]:
        """The pictures with these ids that the study has, by id."""
        sql = (
            "SELECT image_id, file_name, width, height, thumbnail FROM images WHERE list_contains($image_ids, image_id)"
        )
        rows = self.dataset(study).collect(sql, image_ids=list(image_ids)).iter_rows()
        return {row[0]: Thumbnail(row[0], row[1] or row[0], row[2], row[3], data_uri(row[4])) for row in rows}

    @cached
    def regions(self, study: str, image_id: str) -> list[dict[str, Any]]:
        """The annotated regions of an image, rows of REGIONS."""
        return self.dataset(study).collect("FROM regions WHERE image_id = $image_id", image_id=image_id).to_dicts()

    @cached
    def contextual_layers(self, study: str) -> tuple[int, ...]:
        """The contextual layers that answers of the study come from, in order."""
        sql = "SELECT DISTINCT contextual_layer FROM layer_alignment WHERE study = $study ORDER BY 1"
        return tuple(self.dataset(study).collect(sql, study=study)["contextual_layer"].drop_nulls().to_list())

    @cached
    def texts(self, study: str, text_ids: tuple[str, ...]) -> dict[str, str]:
        """The texts with these ids, by id."""
        sql = "SELECT text_id, text FROM texts WHERE list_contains($text_ids, text_id)"
        return dict(self.dataset(study).collect(sql, text_ids=list(text_ids)).iter_rows())

    @cached
    def token_texts(self, study: str, text_id: str) -> dict[int, str]:
        """What each token of a text is in it, by token_index."""
        sql = "SELECT token_index, token_str FROM text_tokens WHERE study = $study AND image_id = $text_id"
        return dict(self.dataset(study).collect(sql, study=study, text_id=text_id).iter_rows())

    def close(self) -> None:
        """Close every dataset."""
        for dataset in (self.whole, *self.catalogs.values()):
            dataset.close()


def similarity_thresholds(library: BrowserData, study: str, lens: str, layer: int) -> tuple[float, ...]:
    """Round similarities between the least and the greatest of the nearest answers of a lens and layer."""
    asked = {"lens": lens, "layer": layer, "words": None, "verdict": None, "similarity": None}  # as of a whole gallery
    found = library.ask(study, "find_images", **asked)["mean_similarity"].drop_nulls().to_list()
    if not found:
        return ()
    step = 1.0 if max(found) > 1 else 0.05
    low, high = int(min(found) / step) - 4, int(max(found) / step) + 6
    return tuple(round(number * step, 2) for number in range(max(low, 0), high))


class Thumbnail(NamedTuple):
    """An image as a page shows it."""

    image_id: str
    file_name: str
    width: int
    """Of the original, in pixels, as are all boxes."""
    height: int
    source: str
    """The thumbnail as a data URI; empty where there is none."""


def open_browser_data(source: str | Path) -> BrowserData:
    """Open what `open_dataset` opens, with the catalogs of a home's studies where they are built.

    Raises:
        UserError: if there is nothing to read.
    """
    catalog = find_warehouse(source).catalog("x")
    files = sorted(catalog.parent.parent.glob(f"*/{catalog.name}"))
    limits = Limits(max(MEMORY_MB // (1 + len(files)), _LEAST_MB))
    whole = open_dataset(source, limits)
    catalogs: dict[str, Dataset] = {}
    for file in files:
        try:
            catalogs[file.parent.name] = open_dataset(file, limits)
        except UserError:  # being replaced, or cut short: the views over Parquet say the same, more slowly
            continue
    return BrowserData(str(source), whole, catalogs)


def source_fingerprint(source: str | Path) -> str:
    """What changes when a build writes, or the catalog of a release is made: a hash of paths, sizes and times."""
    path = Path(source)
    people = judging_folder(path)
    # Which files there are: what comes into one is seen at once.
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
    """What a person typed as the `words` of a query: lower case, one comma between two; None for nothing."""
    words = [" ".join(word.split()).lower() for word in text.split(",")]
    return ",".join(dict.fromkeys(word for word in words if word)) or None


_ORDER = ("latentlens", "embeddinglens", "logitlens")


def _facts_of(row: Mapping[str, Any]) -> StudyFacts:
    lenses = sorted(row["lenses"] or [], key=lambda lens: _ORDER.index(lens) if lens in _ORDER else len(_ORDER))
    images, texts, tokens, answers = (row[name] or 0 for name in ("images", "texts", "visual_tokens", "answers"))
    return StudyFacts(row["study"], images, texts, tokens, answers, tuple(row["visual_layers"] or ()), tuple(lenses))
