"""A column of a dataset on the Hugging Face Hub, read as a stream from one commit.

Opening a dataset with the library `datasets`, checking that what was opened is what was asked for, and telling what
went wrong belong here; what a text or a picture must be is decided in `inputs/texts.py` and `inputs/image_tables.py`.
What a newcomer gets wrong: a commit does not pin everything by itself. A dataset's card may name files elsewhere, and
where the Hub cannot be reached the library takes whatever revision it once cached; both are refused here.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from gzip import BadGzipFile
from itertools import islice
from tempfile import TemporaryDirectory
from typing import Any

from latentlens_dag.errors import UserError
from latentlens_dag.hub.errors import http_status

_FORMATS = {"arrow", "csv", "json", "parquet", "text"}  # others unpack archives of media, or need more packages
_BATCH = 1000
_LONGEST_REASON = 400  # characters


@dataclass(frozen=True)
class HubColumn:
    """A column of one split of a dataset on the Hub, at one commit."""

    dataset: str
    """user/dataset."""
    config: str | None
    """None for the dataset's default."""
    split: str
    column: str
    revision: str
    """The full commit."""

    def __str__(self) -> str:
        """What it is called in a message."""
        return f"Dataset {self.dataset} of the Hub (config {self.config or 'default'}, split {self.split})"


def column_values(source: HubColumn, batch: int = _BATCH) -> Iterator[Any]:
    """The values of the column in the order of the rows, never all in memory; of Parquet only this column is fetched.

    Args:
        source: which column.
        batch: rows that are held at a time.

    Raises:
        UserError: where the package `datasets` is missing, the Hub cannot be reached or refuses, or the dataset, its
            commit, config, split or column is not there, has files outside of the commit, or cannot be read.
    """
    _require_library(source)
    with _told(source):
        for table in _rows(source).select_columns(source.column).with_format("arrow").iter(batch):
            yield from table[source.column].to_pylist()


def _require_library(source: HubColumn) -> None:
    try:
        import datasets  # noqa: F401  # takes 1 s
    except ModuleNotFoundError as error:
        raise UserError(
            f"{source} cannot be read: the package `datasets` is not installed. Install it with "
            "`pip install 'datasets>=5.2,<6'`, or this package with its extra `hub`."
        ) from error


def _rows(source: HubColumn) -> Any:
    """The split as a stream of rows that have the column."""
    builder = _builder(source)
    rows = builder.as_streaming_dataset(split=source.split)
    if columns := rows.column_names or _peeked_columns(rows):  # none where there is no row
        _check_column(source, columns)
    if hasattr(builder.config, "columns"):
        builder.config.columns = [source.column]  # or Parquet's other columns, images perhaps, would be fetched too
        rows = builder.as_streaming_dataset(split=source.split)
    return rows


def _builder(source: HubColumn) -> Any:
    """What reads the dataset's files, all of which are of the commit."""
    import datasets

    datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = False  # it tells a counter outside of HF_ENDPOINT what is read
    path = f"hf://datasets/{source.dataset}"  # without hf://, a folder of this name would be taken
    with TemporaryDirectory() as empty:  # a cache that has no other revision to fall back on
        builder = datasets.load_dataset_builder(path, source.config, revision=source.revision, cache_dir=empty)
    if builder.name not in _FORMATS:
        if builder.name == "imagefolder":
            raise UserError(
                f"{source} consists of imagefolder files, plain pictures, which are not read one by one over the "
                f"network. Download them, `hf download {source.dataset} --repo-type dataset --revision "
                f"{source.revision} --local-dir FOLDER`, and name the folder: `source: {{folder: FOLDER}}`."
            )
        raise UserError(
            f"{source} consists of {builder.name} files, from which no column is read. Take a dataset of "
            f"{', '.join(sorted(_FORMATS))} files, or write a column of it to one."
        )
    _check_pinned(source, builder.config.data_files or {})
    if hasattr(builder.config, "keep_default_na"):
        builder.config.keep_default_na = False  # in CSV, the sentence `None` is a sentence
    return builder


def _check_pinned(source: HubColumn, files: dict[str, list[str]]) -> None:
    inside = f"hf://datasets/{source.dataset}@{source.revision}/"
    for file in (file for of_split in files.values() for file in of_split):
        if not file.startswith(inside):
            raise UserError(
                f"{source} names the file {file}, which its commit {source.revision} does not pin. Take a dataset "
                "that holds its files itself."
            )


def _peeked_columns(rows: Any) -> list[str]:
    """The columns of the first row; CSV and plain text do not tell them before."""
    return [name for table in islice(rows.with_format("arrow").iter(1), 1) for name in table.column_names]


def _check_column(source: HubColumn, columns: list[str]) -> None:
    if source.column not in columns:
        raise UserError(
            f"{source} has no column {source.column!r}; it has {', '.join(columns)}. Correct `column` of its source."
        )


@contextmanager
def _told(source: HubColumn) -> Iterator[None]:
    """Tell the user what a failure of the libraries means.

    Errors of the network are told without their text and cause, and so nowhere logged: they quote headers, and a
    header holds the user's token.
    """
    import httpx2  # what huggingface_hub speaks HTTP with
    from datasets.exceptions import DatasetNotFoundError
    from huggingface_hub.errors import LocalEntryNotFoundError
    from yaml import YAMLError

    network = (httpx2.HTTPError, ConnectionError, LocalEntryNotFoundError, UnicodeEncodeError)  # the last: of a header
    try:
        yield
    except DatasetNotFoundError as error:
        raise UserError(
            f"{source} cannot be read at commit {source.revision}: {_reason(error)} Correct `hub` or `revision` of "
            "its source; log in with `hf auth login` if the dataset is private or asks for access."
        ) from None
    except network as error:
        status = http_status(error)
        what = f"the Hub answered with status {status}" if status else f"no answer ({type(error).__name__})"
        raise UserError(
            f"{source} cannot be read: {what}. Is there a network, does HF_HUB_OFFLINE forbid it, are HF_ENDPOINT and "
            "HF_TOKEN right where they are set? Then build again."
        ) from None
    except KeyError:  # CSV does not tell columns before
        raise UserError(
            f"{source} has files without the column {source.column!r}, which its first file has. Correct `column` of "
            "its source, or name a `config` whose files are all alike."
        ) from None
    except (ValueError, FileNotFoundError, YAMLError, BadGzipFile, EOFError, zlib.error) as error:
        raise UserError(
            f"{source} cannot be read: {_reason(error)} Correct `config` or `split` of its source, or take "
            "another dataset or commit if its files are damaged."
        ) from None


def _reason(error: Exception) -> str:
    """The text of an error in one line, ended by a stop."""
    text = " ".join(str(error).split())
    return (text if len(text) <= _LONGEST_REASON else text[:_LONGEST_REASON] + " ...").removesuffix(".") + "."
