"""A column of a dataset on the Hugging Face Hub, read as a stream from one commit.

This module opens a dataset with the library `datasets`, checks that it is the one that was named, and translates its
errors; `inputs/texts.py` and `inputs/image_tables.py` check the values. Note: a commit does not pin everything by
itself. A dataset's card may name files elsewhere, and where the Hub cannot be reached the library takes whatever
revision it once cached; both are refused here.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from gzip import BadGzipFile
from itertools import islice
from tempfile import TemporaryDirectory
from typing import Any

from latentlens_dag.errors import UserError
from latentlens_dag.hub.errors import CONNECTION_HINT, failure_cause, network_errors
from latentlens_dag.storage.arrow_values import python_values, values_or_lists
from latentlens_dag.text.display import name_list

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
        """The dataset as messages name it."""
        return f"Dataset {self.dataset} of the Hub (config {self.config or 'default'}, split {self.split})"


def column_values(source: HubColumn, batch: int = _BATCH) -> Iterator[Any]:
    """Iterate over the column in the order of the rows; arguments and errors as of `rows_of_columns`."""
    return (value for (value,) in rows_of_columns(source, [source.column], batch, python_values))


def rows_of_columns(
    source: HubColumn,
    columns: Sequence[str],
    batch: int = _BATCH,
    values: Callable[[Any], list[Any]] = values_or_lists,
) -> Iterator[tuple[Any, ...]]:
    """Iterate over some columns in the order of the rows, in constant memory; of Parquet only these are fetched.

    Args:
        source: of which dataset.
        columns: their names; `source.column` need not be one of them.
        batch: rows in memory at a time.
        values: makes Python's values of a column of Arrow.

    Raises:
        UserError: where the package `datasets` is missing, the Hub cannot be reached or refuses, or the dataset, its
            commit, config, split or column is not there, has files outside of the commit, or cannot be read.
    """
    _require_library(source)
    with _user_errors(source):
        for table in _rows(source, columns).select_columns(list(columns)).with_format("arrow").iter(batch):
            yield from zip(*(values(table[column]) for column in columns), strict=True)


def _require_library(source: HubColumn) -> None:
    try:
        import datasets  # noqa: F401  # takes 1 s
    except ModuleNotFoundError as error:
        raise UserError(
            f"{source} cannot be read: the package `datasets` is not installed. Install it with "
            "`pip install 'datasets>=5.2,<6'`, or this package with its extra `hub`."
        ) from error


def _rows(source: HubColumn, wanted: Sequence[str]) -> Any:
    """The split as a stream of rows that have the columns."""
    builder = _builder(source)
    rows = builder.as_streaming_dataset(split=source.split)
    columns = rows.column_names or _first_row_columns(rows)  # none where there is no row
    if columns and (missing := [column for column in wanted if column not in columns]):
        raise UserError(
            f"{source} has no column {missing[0]!r}; it has {name_list(columns)}. Correct `column` of its source."
        )
    if hasattr(builder.config, "columns"):
        builder.config.columns = [*wanted]  # or Parquet's other columns, images perhaps, would be fetched too
        rows = builder.as_streaming_dataset(split=source.split)
    return rows


def _builder(source: HubColumn) -> Any:
    """The builder of the dataset, whose files all belong to the commit."""
    import datasets

    datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = False  # else a counter outside of HF_ENDPOINT is called
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


def _first_row_columns(rows: Any) -> list[str]:
    """The columns of the first row; CSV and plain text do not list them before."""
    return [name for table in islice(rows.with_format("arrow").iter(1), 1) for name in table.column_names]


@contextmanager
def _user_errors(source: HubColumn) -> Iterator[None]:
    """Translate errors of the libraries.

    Errors of the network are reported without their text and cause, and so nowhere logged: they quote headers, and a
    header holds the user's token.
    """
    from datasets.exceptions import DatasetNotFoundError
    from yaml import YAMLError

    try:
        yield
    except DatasetNotFoundError as error:
        raise UserError(
            f"{source} cannot be read at commit {source.revision}: {_reason(error)} Correct `hub` or `revision` of "
            "its source; log in with `hf auth login` if the dataset is private or asks for access."
        ) from None
    except network_errors() as error:
        reason = failure_cause(error)
        raise UserError(f"{source} cannot be read: {reason}. {CONNECTION_HINT} Then build again.") from None
    except KeyError:  # CSV lists no columns before
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
