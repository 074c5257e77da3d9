"""Where every file of a home lies, and how a file comes to be there whole or not at all.

Only paths and atomic writes belong here; no module outside this one spells a path of the warehouse.
What a newcomer gets wrong: writing to the final path. Everything is written under a temporary name in
the same folder, flushed to disk, and renamed: a reader, or a kill, never meets half a file.
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

ROW_GROUP = 65_536
"""Rows of a Parquet row group."""
_PARQUET: dict[str, Any] = {"compression": "zstd", "write_page_index": True}


@dataclass(frozen=True)
class Warehouse:
    """The folder `warehouse/` of a home, as paths.

    Partitions (shards, batches) are ints; layers are contextual or visual layer numbers.
    """

    root: Path

    def sentences(self, corpus: str) -> Path:
        """Parquet: every distinct sentence of the corpus (SENTENCES), in order of `sentence_id`."""
        return self.root / "corpus" / corpus / "sentences.parquet"

    def order(self, corpus: str) -> Path:
        """Parquet: where every distinct sentence first comes in the source (corpus.ORDER), in order of id."""
        return self.root / "corpus" / corpus / "order.parquet"

    def shard(self, corpus: str, shard: int) -> Path:
        """Parquet: the sentences whose id falls into the shard (SENTENCES)."""
        return self.root / "corpus" / corpus / f"shard_{shard:02d}.parquet"

    def index(self, index: str) -> IndexPaths:
        """The folder of an index, as paths."""
        return IndexPaths(self.root / "index" / index)

    def candidates(self, index: str, shard: int) -> Path:
        """Parquet: what the shard offers to the selection (OCCURRENCES or occurrences.IN_ORDER)."""
        return self.root / "index" / index / "candidates" / f"shard_{shard:02d}.parquet"

    def selection(self, index: str) -> Path:
        """Parquet: `sentence_id`, `key` of every occurrence that is kept, over all shards."""
        return self.root / "index" / index / "selection.parquet"

    def occurrences(self, index: str, shard: int) -> Path:
        """Parquet: the kept occurrences of the shard (OCCURRENCES), in order of `key`."""
        return self.index(index).occurrences(shard)

    def layer_table(self, index: str, layer: int) -> Path:
        """Lance dataset: one row per occurrence, with its vector at this contextual layer."""
        return self.index(index).layer_table(layer)

    def fragments(self, index: str, layer: int, shard: int) -> Path:
        """JSON: the Lance fragments that a shard contributes to a layer table."""
        return self.root / "index" / index / "fragments" / f"layer_{layer:02d}" / f"shard_{shard:02d}.json"

    def originals(self, images: str) -> Path:
        """Folder: the pictures of a set whose source is a table, named by their ids, and names.parquet."""
        return self.root / "images" / images / "originals"

    def pictures(self, images: str, batch: int) -> Path:
        """Parquet: the images of a batch (IMAGES)."""
        return self.root / "images" / images / f"batch_{batch:02d}.parquet"

    def regions(self, images: str, batch: int) -> Path:
        """Parquet: the annotated regions of a batch's images (REGIONS)."""
        return self.root / "images" / images / f"regions_{batch:02d}.parquet"

    def texts(self, texts: str, batch: int) -> Path:
        """Parquet: the texts of a batch (TEXTS), in order of `text_id`."""
        return self.root / "texts" / texts / f"batch_{batch:02d}.parquet"

    def study(self, study: str) -> Path:
        """The folder of a study's results."""
        return self.root / "study" / study

    def visual(self, study: str, layer: int, batch: int) -> Path:
        """Lance dataset: the states of a batch's visual tokens at one visual layer."""
        return self.study(study) / "visual" / f"layer_{layer:02d}" / f"batch_{batch:02d}.lance"

    def connector(self, study: str, batch: int) -> Path:
        """Lance dataset: the connector's output for a batch's visual tokens, with the columns of `visual`."""
        return self.study(study) / "visual" / "connector" / f"batch_{batch:02d}.lance"

    def visual_tokens(self, study: str, batch: int) -> Path:
        """Parquet: where each visual token of a batch lies in its image (VISUAL_TOKENS)."""
        return self.study(study) / "visual_tokens" / f"batch_{batch:02d}.parquet"

    def text_tokens(self, study: str, batch: int) -> Path:
        """Parquet: what each token of a batch's texts is (TEXT_TOKENS)."""
        return self.study(study) / "text_tokens" / f"batch_{batch:02d}.parquet"

    def neighbors(self, study: str, lens: str, layer: int, batch: int) -> Path:
        """Parquet: the answers of one lens at one visual layer (NEIGHBORS)."""
        return self.study(study) / lens / f"layer_{layer:02d}" / f"batch_{batch:02d}.parquet"

    def judgements(self, study: str, layer: int, batch: int) -> Path:
        """Parquet: the verdicts on all lenses' answers at one visual layer (JUDGEMENTS)."""
        return self.study(study) / "judgements" / f"layer_{layer:02d}" / f"batch_{batch:02d}.parquet"

    def summary(self, study: str, table: str) -> Path:
        """Parquet: a summary of the whole study (`views.SUMMARIES`)."""
        return self.study(study) / f"{table}.parquet"

    def model_checks(self, study: str) -> Path:
        """JSON: the self-checks of the study's model."""
        return self.study(study) / "model_checks.json"

    def release(self, release: str) -> Path:
        """The folder of a staged release: its files as they go to the Hub, with manifest.json."""
        return self.root / "release" / release

    def shape(self, kind: str, name: str) -> Path:
        """JSON: the partitions, layers and lenses that a set now has; kind is images, texts, index or study.

        Files of partitions or layers that it no longer has may still lie beside it; readers leave them out.
        """
        return self.root / kind / name / "shape.json"

    def observed(self, name: str) -> Path:
        """JSON: sizes, times and hashes of a source's files when it was last looked at."""
        return self.root / "observed" / f"{name}.json"

    def catalog(self, study: str) -> Path:
        """DuckDB file: the study's tables, materialized."""
        return self.study(study) / "catalog.duckdb"


@dataclass(frozen=True)
class IndexPaths:
    """The folder of an index, in a warehouse or alone, as paths."""

    root: Path

    @property
    def shape(self) -> Path:
        """JSON: what the index has; written last (`index/folder.py`)."""
        return self.root / "shape.json"

    @property
    def own_sentences(self) -> Path:
        """Parquet: the sentences (SENTENCES) of an index that stands alone."""
        return self.root / "sentences.parquet"

    def corpus_sentences(self, corpus: str) -> Path:
        """Parquet: the sentences (SENTENCES) of an index that lies in a warehouse."""
        return Warehouse(self.root.parent.parent).sentences(corpus)

    def occurrences(self, part: int) -> Path:
        """Parquet: the kept occurrences of a part (OCCURRENCES), in order of `key`."""
        return self.root / "occurrences" / f"shard_{part:02d}.parquet"

    def layer_table(self, layer: int) -> Path:
        """Lance dataset: one row per occurrence, with its vector at this contextual layer."""
        return self.root / f"layer_{layer:02d}.lance"


@contextmanager
def atomic_path(final: Path) -> Iterator[Path]:
    """A temporary path beside `final`, which replaces `final` when the block ends without an error.

    Both a file and a folder may be written there. The replaced content stays whole until the rename.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(final, "tmp")
    try:
        yield temporary
        _replace(temporary, final)
    finally:
        remove(temporary)


@contextmanager
def scratch_folder(beside: Path) -> Iterator[Path]:
    """A temporary folder beside a file that is being made; on the home's disk, where there is room for large things.

    What a kill leaves of it is known by its name, as of `atomic_path`.
    """
    folder = _temporary(beside, "tmp")
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        remove(folder)


def _temporary(final: Path, kind: str) -> Path:
    """A name beside `final` that says whose it is, so that it is known for garbage when the process is gone."""
    return final.parent / f".{final.name}.{os.getpid()}.{uuid.uuid4().hex[:8]}.{kind}"


def write_parquet(table: pa.Table, path: Path, schema: pa.Schema | None = None) -> None:
    """Write a table atomically with the house's Parquet settings; same table, same bytes.

    zstd, page index, row groups of ROW_GROUP rows; cast to `schema` first where one is given.
    """
    import pyarrow.parquet as pq

    if schema is not None:
        table = table.select(schema.names).cast(schema)
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary, row_group_size=ROW_GROUP, **_PARQUET)


class ParquetRows:
    """Rows on their way into a Parquet file; however they are cut into tables, the file has the same bytes."""

    def __init__(self, writer: pq.ParquetWriter) -> None:
        """Rows for `writer`."""
        self.written = 0
        self._writer = writer
        self._waiting: list[pa.Table] = []

    def write(self, table: pa.Table) -> None:
        """Add the rows of `table`, which has the columns of the schema."""
        schema = self._writer.schema
        self._waiting.append(table.select(schema.names).cast(schema))
        self.written += len(table)
        while sum(map(len, self._waiting)) >= ROW_GROUP:
            self._flush()

    def finish(self) -> None:
        """Write what is still waiting."""
        while any(map(len, self._waiting)):
            self._flush()

    def _flush(self) -> None:
        import pyarrow as pa

        rows = pa.concat_tables(self._waiting)
        self._writer.write_table(rows.slice(0, ROW_GROUP).combine_chunks(), row_group_size=ROW_GROUP)
        self._waiting = [rows.slice(ROW_GROUP)]


@contextmanager
def parquet_rows(path: Path, schema: pa.Schema) -> Iterator[ParquetRows]:
    """As `write_parquet`, for rows that come table by table: the file is there when the block ends without an error."""
    with atomic_path(path) as temporary, parquet_part(temporary, schema) as rows:
        yield rows


@contextmanager
def parquet_part(path: Path, schema: pa.Schema) -> Iterator[ParquetRows]:
    """As `parquet_rows`, of a file in a folder that is being made: it is neither atomic by itself nor flushed to disk.

    Thousands of small files would take milliseconds each to flush.
    """
    import pyarrow.parquet as pq

    with pq.ParquetWriter(path, schema, **_PARQUET) as writer:
        rows = ParquetRows(writer)
        yield rows
        rows.finish()


def write_text(text: str, path: Path) -> None:
    """Write a text file atomically, as UTF-8 with line feeds."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(facts: object, path: Path) -> None:
    """Write a JSON file atomically, keys in order; a file that says the same already is left as it is."""
    text = json.dumps(facts, indent=1, sort_keys=True) + "\n"
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        write_text(text, path)


def remove(path: Path) -> None:
    """Delete a file or a folder; nothing happens where there is none."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _replace(temporary: Path, final: Path) -> None:
    if temporary.is_dir():
        # A folder cannot be renamed over another one: readers see the old, then a gap of one rename, then the new.
        old = _temporary(final, "old")
        if final.exists():
            final.rename(old)
        temporary.rename(final)
        remove(old)
    else:
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(final)
    _sync_folder(final.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
