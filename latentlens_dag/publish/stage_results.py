"""Stage a release of results: write a folder that is a dataset repository of the Hub.

`tables.py` writes the tables, `card.py` the card. No time, host, path or run is in any file: staging again gives the
same bytes, and only what changed is uploaded.
"""

from __future__ import annotations

import io
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latentlens_dag.dataset.provenance import sources_of
from latentlens_dag.index.folder import read_shape as read_index_shape
from latentlens_dag.publish.about import About
from latentlens_dag.publish.tables import SentenceChoice, count_table_rows, open_catalogs, write_tables
from latentlens_dag.release.manifest import MANIFEST, ReleaseManifest, build_manifest, manifest_text
from latentlens_dag.schema import TABLES
from latentlens_dag.storage.files import atomic_path, write_text
from latentlens_dag.storage.package_versions import package_versions
from latentlens_dag.storage.records import ArtifactStore
from latentlens_dag.storage.warehouse import Warehouse

if TYPE_CHECKING:
    from PIL import Image

_EXAMPLE_BYTES = 60_000
_EXAMPLE_WIDTHS = (1200, 1000, 800, 600, 400)
_EXAMPLE_QUALITIES = (80, 65, 50)


@dataclass(frozen=True)
class ReleasedStudy:
    """A study to be released."""

    name: str
    corpus: str
    """The corpus of its index."""
    index: str
    declared: Mapping[str, Any]
    """Its provenance by its YAML, as the manifest of a release has it."""
    model: str
    """The asset of its model: study/demo/vlm, or connector/demo/checkpoint/S002000."""


def stage_tables(
    warehouse: Warehouse,
    about: About,
    studies: Sequence[ReleasedStudy],
    *,
    thumbnails: bool = False,
    sentences: SentenceChoice = "all",
) -> ReleaseManifest:
    """Stage a release of results: `warehouse.release(about.name)` is replaced whole, or stays as it was.

    Args:
        warehouse: where the studies were built.
        about: its name and license terms.
        studies: at least one.
        thumbnails: whether to include images, and an example of each study for the card.
        sentences: which ones to include.

    Raises:
        UserError: where a study is not built to its end.
    """
    from latentlens_dag.publish.card import tables_card

    final = warehouse.release(about.name)
    names = [study.name for study in studies]
    corpora = [warehouse.sentences(study.corpus) for study in studies]
    with atomic_path(final) as folder:
        folder.mkdir()
        with open_catalogs(warehouse, names, final) as connection:
            shown = write_tables(connection, folder, names, corpora, thumbnails=thumbnails, sentences=sentences)
        examples = _write_examples(warehouse, folder, names) if thumbnails else []
        rows = count_table_rows(folder)
        _write_queries(folder, set(rows))
        facts = {study.name: _provenance(warehouse, study, shown[study.name]) for study in studies}
        write_text(tables_card(folder, about, facts, rows, examples), folder / "README.md")
        return write_manifest(folder, "tables", about.name, facts)


def write_manifest(folder: Path, kind: Any, name: str, studies: Mapping[str, Mapping[str, Any]]) -> ReleaseManifest:
    """Write the manifest of a folder whose other files are complete."""
    made = build_manifest(folder, kind, name, studies, package_versions()["latentlens-dag"])
    write_text(manifest_text(made), folder / MANIFEST)
    return made


def _write_queries(folder: Path, tables: set[str]) -> None:
    """The package's queries whose tables the release has."""
    for file in sorted((Path(__file__).parents[1] / "dataset" / "queries").glob("*.sql")):
        named = set(re.findall(r"\b(?:FROM|JOIN)\s+(\w+)", file.read_text(encoding="utf-8"))) & set(TABLES)
        if named <= tables:
            (folder / "queries").mkdir(exist_ok=True)
            shutil.copyfile(file, folder / "queries" / file.name)


def _write_examples(warehouse: Warehouse, folder: Path, studies: Sequence[str]) -> list[str]:
    """Write an example image for the card for each study of images; returns these studies."""
    found = {study: picture for study in studies if (picture := _example(warehouse, study)) is not None}
    for study, picture in found.items():
        (folder / "examples").mkdir(exist_ok=True)
        (folder / "examples" / f"{study}.webp").write_bytes(picture)
    return list(found)


def _example(warehouse: Warehouse, study: str) -> bytes | None:
    """The image with the lowest id, annotated: an arbitrary choice that stays when others are added."""
    from latentlens_dag.dataset.dataset import open_dataset
    from latentlens_dag.figures.contact_sheet import draw_study, thumbnail_loader

    placed = "SELECT min(image_id) FROM visual_tokens WHERE x0 IS NOT NULL"
    with open_dataset(warehouse.catalog(study)) as dataset:
        ((first,),) = dataset.sql(placed).fetchall()
        if first is None:
            return None
        return _small_webp(draw_study(dataset, study, thumbnail_loader(dataset), only=[first])[0])


def _small_webp(picture: Image.Image) -> bytes:
    """Encode an image as WebP of at most _EXAMPLE_BYTES, as large and good as that allows."""
    from PIL import Image

    content = b""
    for width in _EXAMPLE_WIDTHS:
        small = picture.copy()
        small.thumbnail((width, 10 * width), Image.Resampling.LANCZOS)
        for quality in _EXAMPLE_QUALITIES:
            buffer = io.BytesIO()
            small.save(buffer, "WEBP", quality=quality)
            content = buffer.getvalue()
            if len(content) <= _EXAMPLE_BYTES:
                return content
    return content


def _provenance(warehouse: Warehouse, study: ReleasedStudy, shown: int) -> dict[str, Any]:
    """The provenance of a study: its declaration and the records of the warehouse."""
    store = ArtifactStore(warehouse.root)
    records = list(store.records(f"study/{study.name}"))
    weights = {record.inputs[study.model] for record in records if study.model in record.inputs}
    found = {(name, version) for record in records for name, version in record.packages.items()}
    versions = {name: ", ".join(sorted(v for n, v in found if n == name)) for name, _ in found}
    declared = study.declared
    model = {**declared["model"], "weights": min(weights, default=None)}
    model |= {"made_from": made_from} if (made_from := sources_of(store, study.model)) else {}
    read = {
        "sentences": count_parquet_rows([warehouse.sentences(study.corpus)]),
        "occurrences": count_parquet_rows(occurrence_files(warehouse, study.index)),
    }
    index, images = {**declared["index"], **read}, {**declared["images"], "count": shown}
    return {**declared, "model": model, "index": index, "images": images, "versions": versions}


def occurrence_files(warehouse: Warehouse, index: str) -> list[Path]:
    """The Parquet files (OCCURRENCES) that an index of a warehouse now has."""
    return [warehouse.occurrences(index, part) for part in range(read_index_shape(warehouse.index(index).root).parts)]


def count_parquet_rows(files: Sequence[Path]) -> int:
    """The total number of rows of some Parquet files."""
    import pyarrow.parquet as pq

    return sum(pq.read_metadata(file).num_rows for file in files)
