"""From a source of text to the shards of a corpus, or to the batches of a text set.

A sentence is a line, or a cell of a column, stripped of outer whitespace; empty and repeated sentences are dropped. The
id of a sentence is the hash of its text and decides its shard. Sources are streamed, and DuckDB sorts on disk what does
not fit into memory. Note: the order of the source is not preserved. Everything is sorted by `sentence_id`, so that a
shuffled corpus gives the same bytes; `write_order` records where each sentence first occurs.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import json
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import pyarrow as pa

from latentlens_dag.errors import UserError
from latentlens_dag.hub.datasets import HubColumn, column_values
from latentlens_dag.schema import SENTENCES, TEXTS
from latentlens_dag.sql.connections import scratch_connection
from latentlens_dag.storage.arrow_values import python_values
from latentlens_dag.storage.hashing import ids_to_integers, shards_of, text_id
from latentlens_dag.storage.parquet import parquet_rows
from latentlens_dag.storage.split_input import NumberedRows
from latentlens_dag.storage.untrusted_parquet import ParquetReadError, read_batches, read_footer
from latentlens_dag.text.display import name_list

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ORDER = pa.schema([("sentence_id", pa.string()), ("first_place", pa.int64())])
"""Columns of the source's order: `first_place` counts its texts from 0."""
MAX_CHARACTERS = 100_000
"""The most characters that a sentence may have."""
MAX_LINE_BYTES = 16 << 20
"""The most bytes of a line, with all columns that it may have."""
_BATCH = 65_536
_PARQUET_ROWS = 2048  # read at a time: of the longest sentences, they fit into the memory of the reader
_SORT_MEMORY = "1GB"  # DuckDB's limit, above which it sorts on disk


@dataclass(frozen=True)
class TextFile:
    """A file of texts."""

    kind: Literal["lines", "csv", "jsonl", "parquet"]
    path: Path
    column: str | None = None
    """The column with the text, for csv, jsonl and parquet."""

    def __str__(self) -> str:
        """The file, for messages."""
        return str(self.path)


TextSource = TextFile | HubColumn


def read_texts(source: TextSource) -> Iterator[str]:
    """Stream the texts of a source in its order, stripped, without empty ones.

    `.gz` is decompressed, except for Parquet.

    Raises:
        UserError: if the file is missing, cannot be read, decompressed or parsed, or is not UTF-8; if the column is
            missing, comes twice or has other values than text; if a row of CSV has more or fewer fields than the
            header; if a text is longer than MAX_CHARACTERS or has characters that are none. For the Hub, see
            `column_values`.
    """
    for place, text in _read_hub(source) if isinstance(source, HubColumn) else _read_file(source):
        if text := stripped_text(text, f"{source}, {place}", "sentence"):
            yield text


def stripped_text(text: str, place: str, kind: str) -> str:
    """A text without outer whitespace.

    Args:
        text: as it was read.
        place: the file and the place in it, for messages.
        kind: what it is to be, in a word: a sentence, a caption.

    Raises:
        UserError: if it has a NUL character, or is longer than MAX_CHARACTERS.
    """
    if "\0" in text:
        raise UserError(
            f"{place}: the text has a NUL character, as text in UTF-16 has when it is read as UTF-8. "
            f"{_CONVERT.format('utf-16')}, or remove the character."
        )
    if len(text) > MAX_CHARACTERS:
        raise UserError(
            f"{place}: {len(text):,} characters are no {kind} (at most {MAX_CHARACTERS:,}). Write one {kind} per line "
            "or row."
        )
    return text.strip()


def _read_hub(source: HubColumn) -> Iterator[tuple[str, str]]:
    for number, value in enumerate(column_values(source), 1):
        yield f"row {number}", checked_text(value, f"{source}, row {number}", source.column)


def _read_file(source: TextFile) -> Iterator[tuple[str, str]]:
    if not source.path.is_file():
        raise UserError(f"The corpus file {source.path} does not exist. Correct `source` in the defs.yaml beside it.")
    readers = {"lines": _read_lines, "csv": _read_csv, "jsonl": _read_jsonl, "parquet": _read_parquet}
    with file_errors(source.path, source.kind):
        yield from readers[source.kind](source)


@contextmanager
def file_errors(path: Path, kind: str) -> Iterator[None]:
    """Translate the errors of the libraries that read a file of texts, as jsonl for example."""
    try:
        yield
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise UserError(
            f"{path} cannot be decompressed ({error}): it is named .gz, but is damaged or not gzip. Create it "
            "again, or rename it without .gz if it is plain text."
        ) from error
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error}). Correct its permissions.") from error
    except (pa.ArrowException, ValueError) as error:  # ValueError: text that is not UTF-8 too
        raise UserError(
            f"{path} cannot be read as {kind} ({error}): it is damaged, or its texts are not UTF-8. Write it again."
        ) from error


def write_sentences(source: TextSource, out: Path) -> int:
    """Write the distinct sentences of a source as Parquet (SENTENCES), sorted by id, and return their number.

    Raises:
        UserError: as `read_texts`, and if there are none.
    """
    empty = f"The corpus {source} is empty: it has no texts. Write one sentence per line or row."
    return write_texts(read_texts(source), out, empty)


def write_texts(texts: Iterable[str], out: Path, if_empty: str) -> int:
    """Write distinct texts as Parquet (SENTENCES), sorted by id, and return their number.

    Raises:
        UserError: with the message `if_empty`, if there are none.
    """
    return _write_distinct(_tables(_unless_empty(texts, if_empty), SENTENCES), out, SENTENCES)


def texts_by_batch(source: TextSource, batches: int) -> Iterator[NumberedRows]:
    """Stream the texts of a source (TEXTS), some of them repeated, with the batch of each.

    Raises:
        UserError: as `read_texts`, and if there are none.
    """
    texts = _unless_empty(read_texts(source), f"{source} is empty: it has no texts. Write one per line or row.")
    for rows in _tables(texts, TEXTS):
        yield NumberedRows(rows, shards_of(rows["text_id"], batches))


def write_batch(texts: Iterable[pa.Table], out: Path) -> int:
    """Write the distinct ones of some texts (TEXTS), sorted by id, and return their number."""
    return _write_distinct(texts, out, TEXTS)


def _unless_empty(texts: Iterable[str], if_empty: str) -> Iterator[str]:
    empty = True
    for text in texts:
        empty = False
        yield text
    if empty:
        raise UserError(if_empty)


def _tables(texts: Iterable[str], schema: pa.Schema) -> Iterator[pa.Table]:
    """Texts with their ids, the two columns of `schema`, some at a time."""
    stream = iter(texts)
    for chunk in iter(lambda: list(islice(stream, _BATCH)), []):
        yield pa.table([_ids(chunk), chunk], schema)


def _write_distinct(tables: Iterable[pa.Table], out: Path, schema: pa.Schema) -> int:
    """Write the distinct rows of tables (id, text), sorted by id, and return their number."""
    name = schema.names[0]
    return _write_query(f"SELECT DISTINCT {name}, text FROM unsorted ORDER BY {name}", tables, schema, out)


def write_order(source: TextSource, out: Path) -> int:
    """Write the place in a source where each distinct sentence first occurs (ORDER), and return their number.

    Raises:
        UserError: as `read_texts`.
    """
    texts = enumerate(read_texts(source))
    chunks = iter(lambda: list(islice(texts, _BATCH)), [])
    tables = (pa.table([_ids(text for _, text in chunk), [place for place, _ in chunk]], ORDER) for chunk in chunks)
    query = "SELECT sentence_id, min(first_place) FROM unsorted GROUP BY sentence_id ORDER BY sentence_id"
    return _write_query(query, tables, ORDER, out)


class SourceOrder(NamedTuple):
    """The place in the source where each sentence of a corpus first occurs; 16 bytes per sentence."""

    ids: NDArray[np.uint64]
    """Ascending."""
    first_places: NDArray[np.int64]
    """Counted from 0."""

    def first_places_of(self, sentence_ids: NDArray[np.uint64]) -> NDArray[np.int64]:
        """The first place of each of the given sentences."""
        import numpy as np

        rows = np.searchsorted(self.ids, sentence_ids)
        known = self.ids[np.minimum(rows, len(self.ids) - 1)] == sentence_ids if len(self.ids) else rows < 0
        if not known.all():
            missing = int(sentence_ids[~known][0])
            raise ValueError(
                f"The order of the corpus does not have sentence {missing:016x}: it was made from another state of the "
                "source. Build the order and the shards again."
            )
        return self.first_places[rows]


def read_order(path: Path) -> SourceOrder:
    """Read a file of `write_order`."""
    import numpy as np
    import pyarrow.parquet as pq

    parts = [(ids_to_integers(part[0]), part[1].to_numpy()) for part in pq.ParquetFile(path).iter_batches()]
    ids, places = zip(*parts, strict=True) if parts else ((), ())
    return SourceOrder(np.concatenate([np.empty(0, np.uint64), *ids]), np.concatenate([np.empty(0, np.int64), *places]))


def _ids(texts: Iterable[str]) -> list[str]:
    return [text_id(text) for text in texts]


def _write_query(query: str, tables: Iterable[pa.Table], schema: pa.Schema, out: Path) -> int:
    """Write the result of a query about the table `unsorted`, the rows of all tables, and return their number."""
    # One thread: each holds memory that it cannot spill.
    settings = {"preserve_insertion_order": False, "threads": 1}
    with parquet_rows(out, schema) as rows, scratch_connection(out, _SORT_MEMORY, **settings) as connection:
        # Filled table by table, because DuckDB would wrap an error of the reader if it called it.
        connection.register("empty", schema.empty_table())
        connection.execute("CREATE TABLE unsorted AS FROM empty")
        for table in tables:
            connection.register("batch", table)
            connection.execute("INSERT INTO unsorted FROM batch")
            connection.unregister("batch")
        for batch in connection.sql(query).to_arrow_reader(_BATCH):
            rows.write(pa.Table.from_batches([batch]).rename_columns(schema.names).cast(schema))
    return rows.written


def sentences_by_shard(sentences: Path, shards: int) -> Iterator[NumberedRows]:
    """Stream a file of sentences (SENTENCES) with the shard of each."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(sentences) as file:
        for batch in file.iter_batches():
            rows = pa.Table.from_batches([batch])
            yield NumberedRows(rows, shards_of(rows["sentence_id"], shards))


def write_shard(sentences: Iterable[pa.Table], out: Path) -> int:
    """Write the sentences of one shard in the order in which they come, and return their number."""
    with parquet_rows(out, SENTENCES) as rows:
        for some in sentences:
            rows.write(some)
    return rows.written


def _read_lines(source: TextFile) -> Iterator[tuple[str, str]]:
    return read_lines(source.path)


def read_lines(path: Path) -> Iterator[tuple[str, str]]:
    """The lines of a file that are not blank, with their ends, each after its place; for use in `file_errors`.

    Raises:
        UserError: if a line is not UTF-8, or has more than MAX_LINE_BYTES.
    """
    with _open(path) as file:
        lines = _Lines(path, file)
        for line in lines:
            if line.isspace():
                lines.skip(_BLANK)
            else:
                yield f"line {lines.number}", _decode(line, path, lines.number)


def _read_csv(source: TextFile) -> Iterator[tuple[str, str]]:
    csv.field_size_limit(max(csv.field_size_limit(), 16 * MAX_CHARACTERS))
    with _open(source.path) as file:
        rows = _csv_rows(_Lines(source.path, file), source.path)
        _, header = next(rows, ("", []))
        check_column(source.column or "", header, str(source.path), _COLUMN)
        column = header.index(source.column or "")
        for place, row in rows:
            if len(row) != len(header):
                raise UserError(
                    f"{source.path}, {place}: the row has {'more' if len(row) > len(header) else 'fewer'} "
                    f"fields than the header, which has {len(header)}. A text with a comma, a quote or "
                    "a line break in it needs double quotes around it."
                )
            yield place, row[column]


def _csv_rows(lines: _Lines, path: Path) -> Iterator[tuple[str, list[str]]]:
    """The rows that are not empty, each with the line in which it begins."""
    rows = csv.reader((_decode(line, path, lines.number) for line in lines), strict=True)
    while True:
        first = lines.number + 1
        try:
            row = next(rows, None)
        except csv.Error as error:
            place = f"line {first}" if lines.number <= first else f"lines {first} to {lines.number}"
            reason = "a carriage return outside of quotes" if "new-line" in str(error) else error
            raise UserError(
                f"{path}, {place}: {reason}. Is it CSV, with a header and fields in double quotes?"
            ) from error
        if row is None:
            return
        if row:
            yield f"line {first}", row
        else:
            lines.skip(_EMPTY)


def _read_jsonl(source: TextFile) -> Iterator[tuple[str, str]]:
    for place, row in read_json_lines(source.path):
        check_column(source.column or "", row, f"{source.path}, {place}", _COLUMN)
        yield place, checked_text(row[source.column or ""], f"{source}, {place}", source.column or "")


def read_json_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects of a file of JSON lines, each after its place; for use in `file_errors`.

    Raises:
        UserError: as `read_lines`, and if a line is no JSON, or an object has a key twice. A line of another value than
            an object counts as an object without keys.
    """
    for place, line in read_lines(path):
        if not line.strip():
            continue
        try:
            row = json.loads(line, object_pairs_hook=_unique_keys)
        except (ValueError, RecursionError) as error:  # numbers too long and lists too deep are none of its own errors
            raise UserError(
                f"{path}, {place}: no JSON that can be read ({error}). Write one object per line."
            ) from error
        yield place, row if isinstance(row, dict) else {}


def _unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """An object of JSON, of whose equal keys `json` would take the last."""
    found = dict(pairs)
    if len(found) < len(pairs):
        key = next(key for key, number in Counter(key for key, _ in pairs).items() if number > 1)
        raise ValueError(f"the key {key!r} comes twice")
    return found


def _read_parquet(source: TextFile) -> Iterator[tuple[str, str]]:
    try:
        check_column(source.column or "", read_footer(source.path).schema.names, str(source.path), _COLUMN)
        batches = read_batches(source.path, [source.column or ""], _PARQUET_ROWS)
        values = (value for batch in batches for value in python_values(batch[source.column]))
        for number, value in enumerate(values, 1):
            yield f"row {number}", checked_text(value, f"{source}, row {number}", source.column or "")
    except ParquetReadError as error:
        raise UserError(f"{source.path} is not a Parquet file, or is damaged ({error}). Write it again.") from error


_COLUMN = "`column` of the corpus's source"


def check_column(column: str, columns: Iterable[str], place: str, field: str) -> None:
    """Refuse a column that a table or an object does not have, or has twice.

    Args:
        column: that is to be read.
        columns: that there are.
        place: the file, and the place in it of an object, for messages.
        field: of the YAML that names the column, for messages.
    """
    existing = list(columns)
    if existing.count(column) > 1:
        raise UserError(f"{place} has several columns {column!r}, of which only one would be read. Rename the others.")
    if column not in existing:
        raise UserError(f"{place} has no column {column!r}; it has {name_list(existing)}. Correct {field}.")


def checked_text(value: object, place: str, column: str) -> str:
    """A value of a column as text; null is an empty one.

    Raises:
        UserError: if it is another value than text, or has half of a surrogate pair; `place` is the file and the row.
    """
    if value is None:
        return ""
    if not isinstance(value, str):
        raise UserError(f"{place}: {column} is {value!r:.80}, not text. Name the column that has the text.")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise UserError(
            f"{place}: {column} has a character that is none, {value[error.start]!r}: half of a "
            "surrogate pair, as where an emoji was cut in two. Write the whole character, or leave it out."
        ) from error
    return value


class _Lines:
    """The lines of a file, each held only up to MAX_LINE_BYTES: five megabytes of gzip may be one of five gigabytes."""

    def __init__(self, path: Path, file: io.BufferedReader) -> None:
        self.number = 0
        """Of the line that came last."""
        self._path, self._file = path, file

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        line = self._file.readline(MAX_LINE_BYTES + 1)
        if not line:
            raise StopIteration
        self.number += 1
        if len(line) > MAX_LINE_BYTES:
            raise UserError(
                f"{self._path}, line {self.number}: it has more than {MAX_LINE_BYTES:,} bytes. Write one sentence per "
                "line or row; is it text at all?"
            )
        return line

    def skip(self, blank: re.Pattern[bytes]) -> None:
        """Pass lines without text many at a time: 200 kilobytes of gzip may be 200 million of them."""
        while found := blank.match(self._file.peek()):
            self.number += found[0].count(b"\n")
            self._file.read(found.end())


_BLANK = re.compile(rb"\s*\n")
_EMPTY = re.compile(rb"(?:\r?\n)+")  # of a CSV, where blanks are a field
_BUFFER = 1 << 14  # of which `skip` copies the rest


_CONVERT = "Convert the file, for example with `iconv -f {} -t utf-8`"


def _open(path: Path) -> io.BufferedReader:
    """The file, decompressed, with "\\n" at the end of lines where they end with "\\r" alone."""
    raw: Any = gzip.open(path) if path.suffix == ".gz" else path.open("rb", 0)  # noqa: SIM115 - its caller closes it
    file = io.BufferedReader(raw, _BUFFER)
    start = file.peek()
    if b"\n" in start or b"\r" not in start[:-1]:
        return file
    return io.BufferedReader(_NewLines(file), _BUFFER)  # type: ignore[arg-type]


class _NewLines(io.RawIOBase):
    """A file with the other end of lines."""

    def __init__(self, file: io.BufferedReader) -> None:
        self._file = file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        content = self._file.read1(len(buffer)).replace(b"\r", b"\n")
        buffer[: len(content)] = content
        return len(content)

    def close(self) -> None:
        self._file.close()
        super().close()


def _decode(line: bytes, path: Path, number: int) -> str:
    try:
        return line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}, line {number}: byte 0x{line[error.start]:02x} at column {error.start + 1} is not UTF-8. The "
            f"file was probably saved in another encoding. {_CONVERT.format(_likely_encoding(line))}."
        ) from error


def _likely_encoding(line: bytes) -> str:
    """What a line that is not UTF-8 may be, by its mark or its NUL bytes."""
    if line.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return "utf-32"
    return "utf-16" if line.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in line else "latin1"
