"""From a source of text to distinct sentences, and from those to shards; or to the batches of a text set.

A sentence is a line, or a cell of a column, without its outer blanks; empty ones are dropped and equal sentences
counted once. Its id is the hash of its text and decides its shard. Sources are read as a stream, and what does
not fit into memory is sorted on disk, by DuckDB. What a newcomer gets wrong: the order of the source is not kept.
Everything is ordered by `sentence_id`, so a shuffled corpus gives the same bytes; only `write_order`, for those who
ask for it, says where a sentence came first.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Literal, NamedTuple

import pyarrow as pa

from latentlens_dag.errors import UserError
from latentlens_dag.hub.datasets import HubColumn, column_values
from latentlens_dag.schema import SENTENCES, TEXTS
from latentlens_dag.sql.connections import scratch_connection
from latentlens_dag.storage.hashing import ids_to_integers, shard_of, text_id
from latentlens_dag.storage.parquet import parquet_rows

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ORDER = pa.schema([("sentence_id", pa.string()), ("first_place", pa.int64())])
"""The columns of an order: `first_place` counts the source's texts from 0."""
MAX_CHARACTERS = 100_000
"""Characters of the longest text that is taken for a sentence."""
_BATCH = 65_536
_SORT_MEMORY = "1GB"  # of DuckDB; beyond it, it sorts on disk


@dataclass(frozen=True)
class TextFile:
    """A file of texts."""

    kind: Literal["lines", "csv", "jsonl", "parquet"]
    path: Path
    column: str | None = None
    """Of csv, jsonl and parquet: the column that holds the text."""

    def __str__(self) -> str:
        """What it is called in a message."""
        return str(self.path)


TextSource = TextFile | HubColumn


def read_texts(source: TextSource) -> Iterator[str]:
    """The texts of a source in its order, without outer blanks and without empty ones; never all in memory.

    `.gz` is unpacked on the way, but for Parquet.

    Raises:
        UserError: where the file is missing, cannot be unpacked or parsed, a line is not UTF-8, the column is
            missing or holds something else than text, or a text has more than LONGEST characters; of the Hub, as
            `column_values`.
    """
    for place, text in _read_hub(source) if isinstance(source, HubColumn) else _read_file(source):
        if len(text) > MAX_CHARACTERS:
            raise UserError(
                f"{source}, {place}: {len(text):,} characters are no sentence (at most {MAX_CHARACTERS:,}). "
                "Write one sentence per line or row."
            )
        if text := text.strip():
            yield text


def _read_hub(source: HubColumn) -> Iterator[tuple[str, str]]:
    for number, value in enumerate(column_values(source), 1):
        yield f"row {number}", _text(value, source, f"row {number}")


def _read_file(source: TextFile) -> Iterator[tuple[str, str]]:
    if not source.path.is_file():
        raise UserError(f"The corpus file {source.path} does not exist. Correct `source` in the defs.yaml beside it.")
    readers = {"lines": _read_lines, "csv": _read_csv, "jsonl": _read_jsonl, "parquet": _read_parquet}
    try:
        yield from readers[source.kind](source)
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise UserError(
            f"{source.path} cannot be unpacked ({error}): it is named .gz, but is damaged or not gzip. Make it again, "
            "or name it without .gz if it is plain text."
        ) from error


def write_sentences(source: TextSource, out: Path) -> int:
    """Write the distinct sentences of a source as Parquet (SENTENCES), in order of id; give their number.

    Raises:
        UserError: as `read_texts`, and where there is not one sentence.
    """
    empty = f"The corpus {source} is empty: it has not one text. Write one sentence per line or row."
    return write_texts(read_texts(source), out, empty)


def write_texts(texts: Iterable[str], out: Path, if_empty: str) -> int:
    """Write distinct texts as Parquet (SENTENCES), in order of id; give their number.

    Raises:
        UserError: saying `if_empty`, where there is not one.
    """
    return _write_distinct(_unless_empty(texts, if_empty), out, SENTENCES)


def write_batch(source: TextSource, batch: int, batches: int, out: Path) -> int:
    """Write the distinct texts of a source whose ids fall into a batch (TEXTS), in order of id; give their number.

    Raises:
        UserError: as `read_texts`, and where the source, not the batch, has not one text.
    """
    texts = _unless_empty(read_texts(source), f"{source} is empty: it has not one text. Write one per line or row.")
    return _write_distinct((text for text in texts if shard_of(text_id(text), batches) == batch), out, TEXTS)


def _unless_empty(texts: Iterable[str], if_empty: str) -> Iterator[str]:
    found = False
    for text in texts:
        found = True
        yield text
    if not found:
        raise UserError(if_empty)


def _write_distinct(texts: Iterable[str], out: Path, schema: pa.Schema) -> int:
    """Write distinct texts with their ids, the two columns of `schema`, in order of id; give their number."""
    stream, name = iter(texts), schema.names[0]
    parts = (pa.table([_ids(part), part], schema) for part in iter(lambda: list(islice(stream, _BATCH)), []))
    query = f"SELECT DISTINCT {name}, text FROM found ORDER BY {name}"
    with parquet_rows(out, schema) as rows:
        for table in _sorted(parts, schema, query, out):
            rows.write(table)
    return rows.written


def write_order(source: TextSource, out: Path) -> int:
    """Write where each distinct sentence of a source first comes in it (ORDER), in order of id; give their number.

    Raises:
        UserError: as `read_texts`.
    """
    texts = enumerate(read_texts(source))
    parts = (
        pa.table([_ids(text for _, text in part), [place for place, _ in part]], ORDER)
        for part in iter(lambda: list(islice(texts, _BATCH)), [])
    )
    query = "SELECT sentence_id, min(first_place) FROM found GROUP BY sentence_id ORDER BY sentence_id"
    with parquet_rows(out, ORDER) as rows:
        for table in _sorted(parts, ORDER, query, out):
            rows.write(table)
    return rows.written


class SourceOrder(NamedTuple):
    """Where each sentence of a corpus first comes in its source; 16 bytes a sentence."""

    ids: NDArray[np.uint64]
    """Ascending."""
    first_places: NDArray[np.int64]

    def first_places_of(self, sentence_ids: NDArray[np.uint64]) -> NDArray[np.int64]:
        """The first place of each of these sentences."""
        import numpy as np

        found = np.searchsorted(self.ids, sentence_ids)
        known = self.ids[np.minimum(found, len(self.ids) - 1)] == sentence_ids if len(self.ids) else found < 0
        if not known.all():
            missing = int(sentence_ids[~known][0])
            raise ValueError(
                f"The order of the corpus does not have sentence {missing:016x}: it was made of another state of the "
                "source. Build the order and the shards again."
            )
        return self.first_places[found]


def read_order(path: Path) -> SourceOrder:
    """What `write_order` wrote."""
    import numpy as np
    import pyarrow.parquet as pq

    parts = [(ids_to_integers(part[0]), part[1].to_numpy()) for part in pq.ParquetFile(path).iter_batches()]
    ids, places = zip(*parts, strict=True) if parts else ((), ())
    return SourceOrder(np.concatenate([np.empty(0, np.uint64), *ids]), np.concatenate([np.empty(0, np.int64), *places]))


def _ids(texts: Iterable[str]) -> list[str]:
    return [text_id(text) for text in texts]


def _sorted(parts: Iterable[pa.Table], schema: pa.Schema, query: str, beside: Path) -> Iterator[pa.Table]:
    """The answer to a query about `found`, the rows of all parts; what memory does not hold is sorted on disk."""
    # One thread: each holds memory that it cannot spill.
    with scratch_connection(beside, _SORT_MEMORY, preserve_insertion_order=False, threads=1) as connection:
        # DuckDB would wrap an error of the reader; a table of its own is filled batch by batch instead.
        connection.register("nothing", schema.empty_table())
        connection.execute("CREATE TABLE found AS FROM nothing")
        for part in parts:
            connection.register("batch", part)
            connection.execute("INSERT INTO found FROM batch")
            connection.unregister("batch")
        for found in connection.sql(query).to_arrow_reader(_BATCH):
            yield pa.Table.from_batches([found]).rename_columns(schema.names).cast(schema)


def write_shard(sentences: Path, shard: int, shards: int, out: Path) -> int:
    """Write the sentences of one shard, in order of id; give their number."""
    import pyarrow.parquet as pq

    with parquet_rows(out, SENTENCES) as rows:
        for batch in pq.ParquetFile(sentences).iter_batches():
            mine = [shard_of(sentence_id, shards) == shard for sentence_id in batch["sentence_id"].to_pylist()]
            rows.write(pa.Table.from_batches([batch]).filter(pa.array(mine, pa.bool_())))
    return rows.written


def _read_lines(source: TextFile) -> Iterator[tuple[str, str]]:
    with _open(source.path) as file:
        for number, line in enumerate(file, 1):
            yield f"line {number}", _decode(line, source.path, number)


def _read_csv(source: TextFile) -> Iterator[tuple[str, str]]:
    lines = (_decode(line, source.path, number) for number, line in enumerate(_open(source.path), 1))
    csv.field_size_limit(max(csv.field_size_limit(), 16 * MAX_CHARACTERS))
    rows = csv.DictReader(lines, strict=True)
    try:
        _check_column(source, rows.fieldnames or [])
        for row in rows:
            yield f"line {rows.line_num}", row[source.column or ""] or ""
    except csv.Error as error:
        raise UserError(
            f"{source.path}, line {rows.line_num}: {error}. Is it CSV, with a header and fields in double quotes?"
        ) from error


def _read_jsonl(source: TextFile) -> Iterator[tuple[str, str]]:
    for place, line in _read_lines(source):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(f"{source.path}, {place}: not JSON ({error}). Write one object per line.") from error
        _check_column(source, list(row) if isinstance(row, dict) else [], f", {place}")
        yield place, _text(row[source.column], source, place)


def _read_parquet(source: TextFile) -> Iterator[tuple[str, str]]:
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(source.path)
    except pa.ArrowInvalid as error:
        raise UserError(f"{source.path} is no Parquet file, or is damaged ({error}). Write it again.") from error
    _check_column(source, file.schema_arrow.names)
    number = 0
    for batch in file.iter_batches(columns=[source.column]):
        for value in batch[0].to_pylist():
            number += 1
            yield f"row {number}", _text(value, source, f"row {number}")


def _check_column(source: TextFile, columns: Iterable[str], place: str = "") -> None:
    if source.column not in (known := list(columns)):
        raise UserError(
            f"{source.path}{place} has no column {source.column!r}; it has {', '.join(known) or 'none'}. Correct "
            "`column` of the corpus's source."
        )


def _text(value: object, source: TextSource, place: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise UserError(
            f"{source}, {place}: {source.column} is {value!r:.80}, no text. Name the column that holds the text."
        )
    return value


def _open(path: Path) -> IO[bytes]:
    return io.BufferedReader(gzip.open(path, "rb")) if path.suffix == ".gz" else path.open("rb")  # type: ignore[arg-type]


def _decode(line: bytes, path: Path, number: int) -> str:
    try:
        return line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}, line {number}: byte 0x{line[error.start]:02x} at column {error.start + 1} is not UTF-8. The "
            "file was probably saved in another encoding: convert it, for example with `iconv -f latin1 -t utf-8`."
        ) from error
