"""From a source of text to distinct sentences, and from those to shards.

A sentence is a line without its outer blanks; empty lines are dropped and equal sentences counted once.
Its id is the hash of its text and decides its shard. What a newcomer gets wrong: the order of the source
is not kept. Everything is ordered by `sentence_id`, so a shuffled corpus gives the same bytes.
"""

from __future__ import annotations

import gzip
import io
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pyarrow as pa

from latentlens_dag.errors import UserError
from latentlens_dag.identity import part_of, text_id
from latentlens_dag.schema import SENTENCES
from latentlens_dag.warehouse import write_parquet


def read_lines(path: Path) -> Iterator[str]:
    """The sentences of a text file, one per line, in order; `.gz` is unpacked on the way.

    Raises:
        UserError: where the file is missing, is not gzip though named so, or a line is not UTF-8.
    """
    if not path.is_file():
        raise UserError(f"The corpus file {path} does not exist. Correct `source.lines` in the defs.yaml beside it.")
    with _open(path) as file:
        try:
            for number, line in enumerate(file, 1):
                text = _decode(line, path, number).strip()
                if text:
                    yield text
        except (gzip.BadGzipFile, EOFError) as error:
            raise UserError(
                f"{path} cannot be unpacked ({error}): it is named .gz, but is damaged or not gzip. Make it again, or "
                "name it .txt if it is plain text."
            ) from error


def write_sentences(path: Path, out: Path) -> int:
    """Write the distinct sentences of a text file as Parquet (SENTENCES), in order of id; give their number.

    Raises:
        UserError: as `read_lines`, and where there is not one sentence.
    """
    sentences = {text_id(text): text for text in read_lines(path)}
    if not sentences:
        raise UserError(f"The corpus {path} is empty: it has not one line with text. Write one sentence per line.")
    ids = sorted(sentences)
    write_parquet(pa.table([ids, [sentences[i] for i in ids]], schema=SENTENCES), out)
    return len(ids)


def write_shard(sentences: Path, shard: int, shards: int, out: Path) -> int:
    """Write the sentences of one shard, in order of id; give their number."""
    import pyarrow.parquet as pq

    table = pq.read_table(sentences)
    mine = [part_of(sentence_id, shards) == shard for sentence_id in table["sentence_id"].to_pylist()]
    write_parquet(table.filter(pa.array(mine, pa.bool_())), out, SENTENCES)
    return sum(mine)


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
