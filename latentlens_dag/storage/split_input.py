"""An input that all partitions of a step share, read once for all of them.

The first partition of a build writes the rows of every partition into a scratch folder, from which each takes its own.
The folder's name contains the process, so that other processes neither wait for it nor depend on it, and a kill leaves
what `leftovers.py` removes; and the version of the input, so that a changed one is read anew.

Note: the parts are Arrow streams instead of final files, because a writer of Parquet holds up to a whole row group, and
there are up to 96 of them.
"""

from __future__ import annotations

import atexit
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from latentlens_dag.storage.files import atomic_path, process_path, remove
from latentlens_dag.storage.hashing import hash_values

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

_PROCESS = uuid.uuid4().hex
"""Distinguishes this process from a dead one of the same number."""
_FOLDERS: set[Path] = set()
"""The scratch folders of this process."""


class NumberedRows(NamedTuple):
    """Some rows of the input."""

    rows: pa.Table
    parts: NDArray[np.int64]
    """[N] the partition of each row; -1 where it belongs to none."""


class SharedInput(NamedTuple):
    """What the partitions of a step share."""

    read: Callable[[], Iterable[NumberedRows]]
    """Gives all rows, some at a time, always with the same columns."""
    version: str
    """Of its content: equal versions, equal rows."""


def rows_of_part(read: Callable[[], Iterable[NumberedRows]], part: int) -> Iterator[pa.Table]:
    """The rows of one partition alone, in the order of the input."""
    import pyarrow as pa

    for rows, parts in read():
        yield rows.filter(pa.array(parts == part))


@contextmanager
def split_rows(shared: SharedInput, beside: Path, part: int, parts: int) -> Iterator[Iterable[pa.Table]]:
    """As `rows_of_part`, but the input is read once for all partitions of this process.

    What a partition took is removed when the block ends without an error; what none takes, by `remove_untaken_rows` or
    when the process ends.

    Args:
        shared: the input.
        beside: a path of this input in the warehouse, beside which the scratch folder lies.
        part: the partition, 0..parts-1.
        parts: the number of partitions.
    """
    if parts == 1:
        yield rows_of_part(shared.read, part)
        return
    folder = process_path(beside, hash_values([_PROCESS, shared.version, parts])[:8])
    if not folder.is_dir():
        _FOLDERS.add(folder)
        with atomic_path(folder) as temporary:
            _split(shared, temporary, parts)
    file = _file(folder, part)
    if not file.is_file():  # taken before, or the input is empty
        yield rows_of_part(shared.read, part)
        return
    yield _read(file)
    file.unlink()
    if not any(folder.iterdir()):
        folder.rmdir()


def remove_untaken_rows(below: Path) -> None:
    """Remove the rows, of inputs below a folder, that no partition of this process took."""
    for folder in [folder for folder in _FOLDERS if folder.is_relative_to(below)]:
        remove(folder)
        _FOLDERS.remove(folder)


@atexit.register
def _remove_all() -> None:
    for folder in _FOLDERS:
        remove(folder)


def _split(shared: SharedInput, folder: Path, parts: int) -> None:
    """Write the rows of each partition, in the order of the input, as a file of its own."""
    import numpy as np
    import pyarrow as pa

    folder.mkdir()
    options = pa.ipc.IpcWriteOptions(compression="lz4")
    streams: dict[int, pa.RecordBatchStreamWriter] = {}
    with ExitStack() as stack:
        for rows, of in shared.read():
            for part in range(parts) if not streams else ():
                streams[part] = stack.enter_context(
                    pa.ipc.new_stream(_file(folder, part), rows.schema, options=options)
                )
            order = np.argsort(of, kind="stable")
            starts, ends = (np.searchsorted(of[order], np.arange(parts), side) for side in ("left", "right"))
            ordered = rows.take(order).combine_chunks()
            for part, (start, end) in enumerate(zip(starts, ends, strict=True)):
                if start < end:
                    streams[part].write_table(ordered.slice(start, end - start))


def _read(file: Path) -> Iterator[pa.Table]:
    import pyarrow as pa

    with pa.ipc.open_stream(file) as stream:
        for batch in stream:
            yield pa.Table.from_batches([batch])


def _file(folder: Path, part: int) -> Path:
    return folder / f"part_{part:02d}.arrow"
