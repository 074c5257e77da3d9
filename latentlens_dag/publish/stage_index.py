"""Stage a release of an index: its layer tables as they are, its occurrences and sentences, and a card.

The folder is that of an index that stands alone (`index/folder.py`), so `ContextualIndex.open` reads it where it was
staged or pulled to, and over the network without pulling it (`index/remote.py`).

Note: Lance names its files by random numbers and records when, and by which run, a table was committed. Tables are
therefore linked or copied file by file at their newest version: staging again gives the same bytes as long as the index
is not rebuilt, and only newly encoded rows give other files. An index that is deleted and rebuilt has tables of equal
rows in other bytes; its Parquet, `shape.json`, card and table names stay the same.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latentlens_dag.index.folder import read_index_folder
from latentlens_dag.index.lance_files import count_rows, open_table
from latentlens_dag.index.layer_tables import dtype_of, last_transaction, version_files, width_of
from latentlens_dag.publish.about import About
from latentlens_dag.publish.stage_results import count_parquet_rows, occurrence_files, write_manifest
from latentlens_dag.publish.tables import count_table_rows
from latentlens_dag.release.manifest import ReleaseManifest
from latentlens_dag.schema import SENTENCES
from latentlens_dag.sql.quoting import file_literal
from latentlens_dag.storage.files import atomic_path, write_text
from latentlens_dag.storage.parquet import ParquetRows, unsynced_parquet_rows
from latentlens_dag.storage.records import ArtifactStore
from latentlens_dag.storage.shapes import IndexShape
from latentlens_dag.storage.warehouse import IndexPaths, Warehouse

_GROUP_BYTES = 32 << 20  # of vectors in a row group of Parquet


@dataclass(frozen=True)
class ReleasedIndex:
    """An index to be released."""

    name: str
    corpus: str
    declared: Mapping[str, Any]
    """Its provenance by its YAML, as the manifest of a release has it."""
    model: str
    """The asset of its language model: index/demo_index/language_model."""


def stage_index(
    warehouse: Warehouse, about: About, index: ReleasedIndex, *, every_sentence: bool = True, vectors: bool = False
) -> ReleaseManifest:
    """Stage a release of an index: `warehouse.release(about.name)` is replaced whole, or stays as it was.

    Args:
        warehouse: where the index was built.
        about: its name and license terms.
        index: the one to release.
        every_sentence: whether to include all sentences of the corpus, or only those of the occurrences.
        vectors: whether to include the vectors as Parquet too: key, vector, norm of each layer, uncompressed, in chunks
            that depend on their content, so that the Hub stores only what changed.

    Raises:
        UserError: where the index is not whole.
    """
    from latentlens_dag.publish.card import index_card

    source = read_index_folder(warehouse.index(index.name).root)
    occurrences = occurrence_files(warehouse, index.name)
    with atomic_path(warehouse.release(about.name)) as folder:
        folder.mkdir()
        target = IndexPaths(folder)
        for table in source.tables.values():
            _link(_table_files(table), table.parent, folder)
        _link(occurrences, warehouse.index(index.name).root, folder)
        _write_sentences(source.sentences, occurrences, target.own_sentences, every_sentence)
        rows = {layer: count_rows(table) for layer, table in source.tables.items()}
        shape = IndexShape(
            parts=len(occurrences),
            layers=list(rows),
            language_model=source.language_model,
            rows=rows,
            dtype=dtype_of(source.tables[min(rows)]),
        )
        shape.write(target.shape)
        for layer, table in source.tables.items() if vectors else ():
            _write_vectors(table, folder / "vectors" / f"{target.layer_table(layer).stem}.parquet")
        facts = _provenance(warehouse, index, occurrences)
        write_text(index_card(folder, about, facts, count_table_rows(folder)), folder / "README.md")
        return write_manifest(folder, "index", about.name, {index.name: facts})


def _table_files(table: Path) -> Iterator[Path]:
    """The files of the newest version of a layer table, and the measurements of its vector index."""
    for path in [*version_files(table), *last_transaction(table)]:
        yield from (one for one in sorted(path.rglob("*")) if one.is_file()) if path.is_dir() else [path]


def _link(files: Iterator[Path] | Sequence[Path], root: Path, folder: Path) -> None:
    """Link files below `root` to the same places below `folder`, or copy them where links are impossible.

    Files of the warehouse never change in place: a rebuild writes new ones.
    """
    for file in files:
        target = folder / file.relative_to(root)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(file, target)
        except OSError:
            shutil.copyfile(file, target)


def _write_sentences(sentences: Path, occurrences: Sequence[Path], path: Path, every: bool) -> None:
    if every:
        _link([sentences], sentences.parent, path.parent)
        return
    import duckdb
    import pyarrow as pa

    files = ", ".join(map(file_literal, occurrences))
    query = (
        f"SELECT sentence_id, text FROM read_parquet({file_literal(sentences)}) WHERE sentence_id IN "
        f"(SELECT sentence_id FROM read_parquet([{files}])) ORDER BY sentence_id"
    )
    with duckdb.connect() as connection, unsynced_parquet_rows(path, SENTENCES) as rows:
        connection.execute("SET enable_progress_bar = false")
        for batch in connection.sql(query).to_arrow_reader(1 << 14):
            rows.write(pa.Table.from_batches([batch]))


def _write_vectors(table: Path, path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path.parent.mkdir(exist_ok=True)
    if not count_rows(table):
        return
    rows = max(1, _GROUP_BYTES // (2 * width_of(table)))
    scanner = open_table(table).scanner(columns=["key", "vector", "norm"], batch_size=rows)
    chunked = {"compression": "none", "use_content_defined_chunking": True, "write_page_index": True}
    with pq.ParquetWriter(path, scanner.projected_schema.remove_metadata(), **chunked) as writer:
        parquet = ParquetRows(writer, rows)
        for batch in scanner.to_batches():
            parquet.write(pa.Table.from_batches([batch]))
        parquet.finish()


def _provenance(warehouse: Warehouse, index: ReleasedIndex, occurrences: Sequence[Path]) -> dict[str, Any]:
    """The provenance of an index: its declaration and the records of the warehouse."""
    records = list(ArtifactStore(warehouse.root).records(f"index/{index.name}"))
    weights = {record.inputs[index.model] for record in records if index.model in record.inputs}
    model = {**index.declared["model"], "weights": min(weights, default=None)}
    sentences, rows = count_parquet_rows([warehouse.sentences(index.corpus)]), count_parquet_rows(occurrences)
    return {**index.declared, "kind": "index", "model": model, "sentences": sentences, "occurrences": rows}
