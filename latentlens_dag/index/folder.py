"""The folder of an index: checks that it is whole, and writes one whole or not at all.

An index is a layer table per contextual layer, its occurrences, its sentences, and `shape.json`, which lists its
layers and parts and is written last. In a warehouse the sentences are those of the corpus. Note: a folder may hold more
than its index (tables of former layers, files of a running build). Only what `shape.json` lists is read.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from latentlens_dag.errors import UserError
from latentlens_dag.index.lance_files import count_rows
from latentlens_dag.index.layer_tables import encoder_of
from latentlens_dag.storage.files import atomic_path, read_json_object
from latentlens_dag.storage.shapes import INDEX_FORMAT, IndexShape, problem_text
from latentlens_dag.storage.warehouse import IndexPaths

_DISK_ERRORS = {
    getattr(errno, name)
    for name in ("ENOSPC", "EDQUOT", "EROFS", "EACCES", "EPERM", "ENOTDIR", "EEXIST", "EBUSY", "EFBIG")
    if name in dir(errno)
}
_REMAKE = "Build or import the index again."
_DISK_WORDS = re.compile(r"no space left|read-only file system|permission denied|quota exceeded", re.IGNORECASE)


@dataclass(frozen=True)
class IndexFolder:
    """A folder with a whole index."""

    path: Path
    language_model: str
    encoder: str
    tables: Mapping[int, Path]
    """Layer tables, by contextual layer."""
    occurrence_files: list[Path]
    """Parquet (OCCURRENCES), all parts."""
    sentences: Path
    """Parquet (SENTENCES)."""
    rows: int
    """Occurrences."""

    def reading(self) -> AbstractContextManager[None]:
        """Report errors of damaged files as `UserError` (`translate_damage_errors`)."""
        return translate_damage_errors(self.path)


def read_shape(folder: Path) -> IndexShape:
    """Read `shape.json` of an index.

    Raises:
        UserError: where there is no index, it is damaged, or of a newer format.
    """
    path = IndexPaths(folder).shape
    if not path.is_file():
        raise _no_index(folder)
    _check_format(folder, read_json_object(path))
    try:
        return IndexShape.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise UserError(f"{path} is damaged ({problem_text(error)}): build the index again.") from error


def read_index_folder(folder: Path) -> IndexFolder:
    """Find the parts of an index.

    Raises:
        UserError: where there is no index, it is half-built or damaged, of a newer format, or its tables were made
            by different models.
    """
    shape, paths = read_shape(folder), IndexPaths(folder)
    sentences = paths.own_sentences if shape.corpus is None else paths.corpus_sentences(shape.corpus)
    tables = {layer: paths.layer_table(layer) for layer in shape.layers}
    occurrences = [*map(paths.occurrences, range(shape.parts))]
    with translate_damage_errors(folder):
        rows = _check_whole(folder, tables, occurrences, sentences, shape.rows)
        encoder = _one_encoder(folder, tables)
    return IndexFolder(folder, shape.language_model, encoder, tables, occurrences, sentences, rows)


@contextmanager
def new_index(folder: Path, remedy: str) -> Iterator[IndexPaths]:
    """A folder to write an index into, which replaces `folder` when the block ends without an error.

    Until then the old index stays as it is; a kill leaves it, and a hidden folder beside it.

    Args:
        folder: does not exist, is empty, or holds an index that stands alone.
        remedy: ends the message where `folder` may not be replaced.

    Raises:
        UserError: where the folder holds something else, or cannot be written.
    """
    final = folder.resolve()
    with translate_disk_errors(folder):
        _check_replaceable(final, remedy)
        with atomic_path(final) as temporary:
            temporary.mkdir()
            yield IndexPaths(temporary)


@contextmanager
def translate_disk_errors(folder: Path) -> Iterator[None]:
    """Report that a disk is full or may not be written as `UserError`.

    Lance and DuckDB raise errors of their own, which carry the system's words but not its number.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if not _is_disk_error(error):
            raise
        text = " ".join(str(error).split())[:300]
        raise UserError(
            f"The index in {folder} cannot be written ({text}). Free space on the disk, or name a folder "
            "that may be written. An index that was there before is as it was."
        ) from error


def _is_disk_error(error: Exception) -> bool:
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in _DISK_ERRORS
    return bool(_DISK_WORDS.search(str(error)))


def _check_replaceable(folder: Path, remedy: str) -> None:
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    shape = read_json_object(IndexPaths(folder).shape)
    if "format" not in shape or "layers" not in shape:
        raise UserError(f"{folder} exists and is no index, so it is not replaced. {remedy}")
    if shape.get("corpus") is not None:
        raise UserError(
            f"{folder} belongs to a warehouse, where `latentlens-dag build` makes it; it is not replaced. {remedy}"
        )


def _no_index(folder: Path) -> UserError:
    places = ("*", "index/*", "warehouse/index/*", ".latentlens/warehouse/index/*")
    near = sorted(found.parent for place in places for found in folder.glob(f"{place}/shape.json"))
    hint = f" Below it are: {', '.join(map(str, near[:5]))}." if near else ""
    return UserError(
        f"There is no index in {folder}: {_what_is(folder)}. Give "
        "the folder of an index: one that `ContextualIndex.build` or `latentlens-dag import-index` wrote, or "
        f"warehouse/index/NAME of a home. A build that was interrupted leaves none: run it again.{hint}"
    )


def _check_format(folder: Path, shape: Mapping[str, Any]) -> None:
    path = IndexPaths(folder).shape
    if not shape:
        raise UserError(f"{path} is damaged (no JSON object): build the index again.")
    if "format" not in shape or "layers" not in shape:
        raise UserError(
            f"{path} is not of an index, or of one that an older version of this package built: run "
            "`latentlens-dag build` again; what is built already stays."
        )
    written = shape["format"]
    if written != INDEX_FORMAT and not (isinstance(written, int) and written > INDEX_FORMAT):
        raise UserError(f"{path} says format {written!r}, which no version of latentlens-dag wrote. {_REMAKE}")
    if written != INDEX_FORMAT:
        raise UserError(
            f"The index in {folder} has format {written!r}, this version of latentlens-dag reads format "
            f"{INDEX_FORMAT}: update latentlens-dag."
        )


def _what_is(folder: Path) -> str:
    if folder.is_dir():
        return "it has no shape.json"
    return "it is a file" if folder.exists() else "no such folder"


def _check_whole(
    folder: Path,
    tables: Mapping[int, Path],
    occurrences: list[Path],
    sentences: Path,
    expected: Mapping[int, int] | None,
) -> int:
    """Refuse an index that lacks a part; return the number of its occurrences."""
    import pyarrow.parquet as pq

    remedy = _remedy(folder)
    missing = [path for path in (*occurrences, sentences) if not path.is_file()]
    missing += [table for table in tables.values() if encoder_of(table) is None]
    if missing or not tables:
        raise UserError(
            f"The index in {folder} is half-built: {missing[0] if missing else 'every layer'} is missing. {remedy}"
        )
    occurrence_count = sum(pq.read_metadata(file).num_rows for file in occurrences)
    for layer, table in tables.items():
        rows, wanted = count_rows(table), occurrence_count if expected is None else expected.get(layer)
        if rows != wanted:
            raise UserError(
                f"The index in {folder} is half-built: the table of contextual layer {layer} has {rows} rows, the "
                f"index lists {wanted}. {remedy}"
            )
    return occurrence_count


def _remedy(folder: Path) -> str:
    """The remedy for an index that lacks a part."""
    corpus = read_shape(folder).corpus
    if corpus is not None:
        select = f"--select corpus/{corpus} --select index/{folder.resolve().name}"
        return f"If a build was interrupted, run `latentlens-dag build`; if files were lost, with `--force {select}`."
    return _REMAKE


@contextmanager
def translate_damage_errors(folder: Path) -> Iterator[None]:
    """Report errors of damaged files as `UserError`.

    Raises:
        UserError: with the index and its reader's message.
    """
    import polars as pl
    import pyarrow as pa

    try:
        yield
    except UserError:
        raise
    except (OSError, pa.ArrowInvalid, pl.exceptions.ComputeError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "lance" not in str(error).lower():  # torch's, as of a device's memory
            raise
        text = " ".join(str(error).split())[:200]
        raise UserError(f"The index in {folder} is damaged ({text}). {_remedy(folder)}") from error


def _one_encoder(folder: Path, tables: Mapping[int, Path]) -> str:
    encoders = {layer: encoder_of(table) or "" for layer, table in tables.items()}
    first = next(iter(encoders))
    for layer, encoder in encoders.items():
        if encoder != encoders[first]:
            raise UserError(
                f"The index in {folder} mixes models: contextual layer {first} was made by {encoders[first] or '?'}, "
                f"layer {layer} by {encoder or '?'}. Was a table copied in, or a build interrupted after the model "
                "changed? Build the index again; in a project by `latentlens-dag build --force --select "
                f"index/{folder.name}`."
            )
    return encoders[first]
