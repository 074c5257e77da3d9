"""Layer tables on disk: Lance datasets, written in parts and committed at once.

A layer table is made of fragments that shards write on their own, uncommitted and invisible; one commit then makes them
the table's new version, so a reader sees all shards or none of them. Note: Lance accepts zero and infinite vectors.
They are refused here, where they are written, because no search can use them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import pyarrow as pa

from latentlens_dag.errors import UserError
from latentlens_dag.index.lance_files import (
    FILE_VERSION,
    READ_ROWS,
    Table,
    check_directions,
    matrix_digest,
    matrix_of,
    open_table,
    row_parts,
    vector_column,
)
from latentlens_dag.index.memory_map import release_pages
from latentlens_dag.schema import OCCURRENCES
from latentlens_dag.search.sinks import sink_norm
from latentlens_dag.storage.files import remove, write_text
from latentlens_dag.storage.hashing import hash_bytes, hash_values

if TYPE_CHECKING:
    import lance
    from numpy.typing import NDArray


_WRITE_BYTES = 8 << 20

_MESSAGE = "__lance_commit_message"  # what Lance calls it among a transaction's properties
_ENCODER = b"encoder"  # in a layer table's schema: the weights and the algorithm that made its vectors
_DTYPE = b"dtype"  # there: in which a model computed the states
_SINK_NORM = b"sink_norm"  # there: the norm above which a row is an attention sink, and no neighbor


def layer_schema(width: int, encoder: str = "", sink_norm: float | None = None, dtype: str | None = None) -> pa.Schema:
    """The columns of a layer table: an occurrence with its unit vector and the length it had.

    `encoder` names what made the vectors (weights, algorithm); equal key and equal encoder: the same state. Rows whose
    norm is above `sink_norm` are attention sinks (`search/sinks.py`), which a search leaves out. `dtype` is the one in
    which a model computed the states.
    """
    metadata = {_ENCODER: encoder.encode()} if encoder else {}
    metadata |= {} if dtype is None else {_DTYPE: dtype.encode()}
    metadata |= {} if sink_norm is None else {_SINK_NORM: repr(sink_norm).encode()}
    state = [pa.field("vector", pa.list_(pa.float16(), width)), pa.field("norm", pa.float32())]
    _index, key, *others = OCCURRENCES
    return pa.schema([key, *state, *others], metadata=metadata or None)


class Fragments(NamedTuple):
    """What one shard contributes to one layer table."""

    rows: int
    width: int
    content: str
    """Hash of keys and vectors: equal content, equal hash, whatever Lance names its files."""
    sinks: int = 0
    """Rows of a committed table that are attention sinks, and no neighbors."""


def write_fragments(
    table: Path,
    record: Path,
    occurrences: pa.Table,
    vectors: NDArray[np.float16],
    norms: NDArray[np.float32],
    encoder: str = "",
    dtype: str | None = None,
) -> Fragments:
    """Write a shard's rows as uncommitted fragments of `table`, and their description to `record`.

    Args:
        table: folder of the layer table; need not exist.
        record: JSON file that `commit_fragments` reads.
        occurrences: N rows, in order of key.
        vectors: [N, d], unit length; may be a memory map.
        norms: [N], the lengths before normalizing.
        encoder: what made the vectors, as in `layer_schema`.
        dtype: in which a model computed them, if that is known.

    Raises:
        ValueError: where a vector has no direction, naming its key.
    """
    from lance.fragment import write_fragments as write

    check_directions(vectors, norms, occurrences["key"].to_pylist())
    content = hash_values([matrix_digest(vectors), hash_bytes(norms.tobytes()), _content(occurrences)])
    written: list[object] = []
    if len(occurrences):
        schema = layer_schema(vectors.shape[1])
        reader = pa.RecordBatchReader.from_batches(schema, _batches(occurrences, vectors, norms, schema))
        table.parent.mkdir(parents=True, exist_ok=True)
        fragments = write(reader, str(table), schema=schema, data_storage_version=FILE_VERSION)
        written = [fragment.to_json() for fragment in fragments]
    shard = Fragments(len(occurrences), int(vectors.shape[1]), content)
    sizes = {"rows": shard.rows, "width": shard.width, "content": content}
    facts = {**sizes, "encoder": encoder, "fragments": written, **({} if dtype is None else {"dtype": dtype})}
    write_text(json.dumps(facts, indent=1, sort_keys=True) + "\n", record)
    return shard


def commit_fragments(
    table: Path, records: list[Path], provenance: str, sinks: Literal["exclude", "include"] = "exclude"
) -> Fragments:
    """Make the shards' fragments the new version of the layer table: one atomic commit.

    Args:
        table: folder of the layer table.
        records: the shards' descriptions, in order of shard.
        provenance: kept as the commit's message.
        sinks: whether rows with outlying norms (`search/sinks.py`) are left out of searches. They are stored
            in any case.
    """
    import lance

    facts = [json.loads(record.read_text(encoding="utf-8")) for record in records]
    rows = sum(fact["rows"] for fact in facts)
    if not rows:
        raise UserError(
            f"The index beside {table.name} keeps no occurrence at all: is every sentence shorter than "
            "`min_position` tokens? Add sentences or lower `min_position`."
        )
    described = chain.from_iterable(fact["fragments"] for fact in facts)
    numbered = [{**fragment, "id": number} for number, fragment in enumerate(described)]
    fragments = [lance.FragmentMetadata.from_json(json.dumps(fragment)) for fragment in numbered]
    encoders = {fact.get("encoder", "") for fact in facts if fact["rows"]}
    if len(encoders) > 1:
        raise UserError(
            f"The shards of {table.name} were encoded by different models, algorithms or dtypes: single shards were "
            "encoded by themselves, the model's folder changed, or an earlier version encoded part of the index. Run "
            "`latentlens-dag build`; if that is refused too, encode all with --force --select index/NAME/contextual."
        )
    _forget_unreadable(table)
    files = [file for record in records for file in fragment_files(table, record)]
    norms = np.concatenate([_fragment_norms(file) for file in files])
    limit = sink_norm(norms, lambda least: _rows_above(files, least)) if sinks == "exclude" else np.inf
    found = int((norms > limit).sum())
    dtype = next((fact["dtype"] for fact in facts if "dtype" in fact), None)
    schema = layer_schema(facts[0]["width"], encoders.pop(), limit if found else None, dtype)
    lance.LanceDataset.commit(str(table), lance.LanceOperation.Overwrite(schema, fragments), commit_message=provenance)
    content = hash_values(fact["content"] for fact in facts)
    return Fragments(rows, facts[0]["width"], hash_values([content, limit]) if found else content, found)


def _fragment_norms(file: Path) -> NDArray[np.float32]:
    """The norms in a fragment's file, committed or not."""
    from lance.file import LanceFileReader

    norms: NDArray[np.float32] = LanceFileReader(str(file), columns=["norm"]).read_all().to_table()["norm"].to_numpy()
    return norms


def _rows_above(files: list[Path], norm: float) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float16]]]:
    """Norms and vectors of the rows of fragments' files whose norm is above a limit, some thousands at a time."""
    from lance.file import LanceFileReader

    for file in files:
        norms = _fragment_norms(file)
        rows = np.flatnonzero(norms > np.float32(norm))
        reader = LanceFileReader(str(file), columns=["vector"])
        for start in range(0, len(rows), READ_ROWS):
            some = rows[start : start + READ_ROWS]
            found = reader.take_rows(some.tolist()).to_table().combine_chunks()
            yield norms[some], matrix_of(found["vector"].combine_chunks())


def is_readable(table: Path) -> bool:
    """Whether the newest version of a Lance dataset can be opened; also where there is none yet."""
    try:
        return not _has_versions(table) or open_table(table) is not None
    except (OSError, ValueError):
        return False


def _forget_unreadable(table: Path) -> None:
    """Remove the versions of a table whose newest one is damaged; its fragments stay, a commit names them again."""
    if not is_readable(table):
        for part in ("_versions", "_transactions", "_indices"):
            remove(table / part)


def _has_versions(table: Path) -> bool:
    versions = table / "_versions"
    return versions.is_dir() and any(versions.iterdir())


def fragment_files(table: Path, record: Path) -> list[Path]:
    """The files of the fragments that `write_fragments` described in `record`."""
    described = json.loads(record.read_text(encoding="utf-8"))["fragments"]
    return [table / "data" / file["path"] for fragment in described for file in fragment["files"]]


def version_files(table: Path, version: int | None = None) -> list[Path]:
    """The files and folders that a version of a layer table, by default the newest, consists of.

    Its manifest, fragments and indexes, with the measurements of these. (No row is ever deleted from a fragment.)
    """
    dataset = open_table(table, version)
    fragments = [fragment.metadata for fragment in dataset.get_fragments()]
    data = [table / "data" / file.path for fragment in fragments for file in fragment.files]
    indexes = [table / "_indices" / index["uuid"] for index in dataset.list_indices()]
    measured = [table.with_suffix(".approximate.json")] if indexes else []
    return [_manifest_file(table, int(dataset.version)), *data, *indexes, *measured]


def last_transaction(table: Path) -> list[Path]:
    """The transaction that made the newest version, which says where the version came from (`provenance_of`)."""
    transactions = (table / "_transactions").glob("*.txn")
    return sorted(transactions, key=lambda file: int(file.name.partition("-")[0]))[-1:]


def tagged_versions(table: Path) -> list[int]:
    """The versions of a layer table that have a tag, so that Lance keeps them."""
    return sorted({int(tag["version"]) for tag in open_table(table).tags.list().values()})


def _manifest_file(table: Path, version: int) -> Path:
    """The file of a version; Lance counts their names down, and counted up before."""
    names = [f"{2**64 - 1 - version}.manifest", f"{version}.manifest"]
    return next(file for name in names if (file := table / "_versions" / name).is_file())


def provenance_of(table: Path) -> str:
    """What the newest commit of rows says of itself: the `provenance` that it was made with."""
    dataset = open_table(table)
    for transaction in dataset.get_transactions(dataset.version):
        if message := (transaction.transaction_properties if transaction else {}).get(_MESSAGE):
            return str(message)
    return ""


def drop_old_versions(table: Path, older_than: timedelta) -> int:
    """Remove versions of a layer table that are older, and files that only they need; give the bytes freed.

    The newest version stays, tagged ones stay, and fragments that were written but not committed stay: a build that is
    running, or was interrupted, may commit them.
    """
    removed = open_table(table).cleanup_old_versions(older_than=older_than, error_if_tagged_old_versions=False)
    return int(removed.bytes_removed)


class StoredRows(NamedTuple):
    """Rows that a layer table holds already."""

    places: NDArray[np.int64]
    """[M]: which of the requested keys it holds, ascending."""
    rows: NDArray[np.int64]
    """[M]: where in the table."""


def stored_rows(table: Path, encoder: str, keys: pa.Array) -> StoredRows:
    """Which of `keys` the layer table holds with vectors of `encoder`.

    None where there is no table, another's, or a damaged one.
    """
    import pyarrow.compute as pc

    places: list[NDArray[np.int64]] = [np.empty(0, np.int64)]
    rows: list[NDArray[np.int64]] = [np.empty(0, np.int64)]
    if encoder and is_readable(table) and encoder_of(table) == encoder:
        start = 0
        for batch in open_table(table).scanner(columns=["key"], batch_size=1 << 16).to_batches():
            place = pc.index_in(batch["key"], value_set=keys).fill_null(-1).to_numpy()
            hit = np.flatnonzero(place >= 0)
            places.append(place[hit].astype(np.int64))
            rows.append(start + hit)
            start += len(batch)
    all_places, all_rows = np.concatenate(places), np.concatenate(rows)
    order = np.argsort(all_places)
    return StoredRows(all_places[order], all_rows[order])


def encoder_of(table: Path) -> str | None:
    """What made the vectors of a layer table; "" where it does not say, None where none was committed yet."""
    if not _has_versions(table):
        return None
    return ((open_table(table).schema.metadata or {}).get(_ENCODER) or b"").decode()


def dtype_of(table: Table) -> str | None:
    """In which dtype a model computed the states of a layer table; None where that is not known."""
    stored = (open_table(table).schema.metadata or {}).get(_DTYPE)
    return None if stored is None else stored.decode()


def read_rows(table: Path, rows: NDArray[np.int64]) -> Iterator[tuple[NDArray[np.float16], NDArray[np.float32]]]:
    """Vectors [n, d] and norms [n] of the given rows of a layer table, in their order, some thousands at a time."""
    dataset = open_table(table)
    for start in range(0, len(rows), READ_ROWS):
        found = dataset.take(rows[start : start + READ_ROWS].tolist(), columns=["vector", "norm"]).combine_chunks()
        yield matrix_of(found["vector"].combine_chunks()), found["norm"].to_numpy()


def sink_norm_of(dataset: lance.LanceDataset) -> float | None:
    """The norm above which a layer table's rows are attention sinks; None where it has none, or keeps them."""
    found = (dataset.schema.metadata or {}).get(_SINK_NORM)
    return None if found is None else float(found)


def width_of(table: Table) -> int:
    """The width of the vectors of a layer table."""
    return int(open_table(table).schema.field("vector").type.list_size)


def unit_problems(vectors: NDArray[np.float16]) -> list[str]:
    """A message for each of the stored vectors [N, d] that is not of unit length within 5e-3."""
    wrong = []
    for start, part in row_parts(vectors):
        length = np.linalg.norm(part.astype(np.float32), axis=1)
        wrong += [f"row {start + row} has length {length[row]}" for row in np.flatnonzero(~(np.abs(length - 1) < 5e-3))]
    return wrong


def _batches(
    occurrences: pa.Table, vectors: NDArray[np.float16], norms: NDArray[np.float32], schema: pa.Schema
) -> Iterator[pa.RecordBatch]:
    rows = max(1, _WRITE_BYTES // (2 * vectors.shape[1]))
    for start in range(0, len(occurrences), rows):
        part = occurrences.slice(start, rows).combine_chunks()
        columns = {name: part[name] for name in schema.names if name in part.schema.names}
        columns["vector"] = vector_column(vectors[start : start + rows])
        columns["norm"] = pa.array(norms[start : start + rows])
        yield from pa.table([columns[name] for name in schema.names], schema=schema).to_batches()
        release_pages(vectors)


def _content(table: pa.Table) -> str:
    """The hash of a table's values, however it is chunked."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table.combine_chunks())
    return hash_bytes(sink.getvalue().to_pybytes())
