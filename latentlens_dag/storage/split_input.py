"""An input that all partitions of a step share, read once for all of them.

The first partition of a build writes the rows of every partition into a scratch folder, from which each takes its own.
The folder's name contains the process, so that other processes neither wait for it nor depend on it, and a kill leaves
what `leftovers.py` removes; and the version of the input, so that a changed one is read anew.

Note: the parts are Arrow streams instead of final files, because a writer of Parquet holds up to a whole row group, and
there are up to 96 of them. Where there are more partitions than files may be open, each reads the input for itself.
"""

from __future__ import annotations

import atexit
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
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


_MOST_FILES = 512
"""Open at the same time; usual limits of a process are 1,024 and less."""


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
def split_rows(
    shared: SharedInput, beside: Path, part: int, parts: int, wanted: Callable[[], Collection[int]] | None = None
) -> Iterator[Iterable[pa.Table]]:
    """As `rows_of_part`, but the input is read once for all partitions of this process.

    What a partition took is removed when the block ends without an error; what none takes, when the process ends.

    Args:
        shared: the input.
        beside: a path of this input in the warehouse, beside which the scratch folder lies.
        part: the partition, 0..parts-1.
        parts: the number of partitions.
        wanted: gives the partitions that are likely to follow, this one among them; by default all.
    """
    folder = process_path(beside, hash_values([_PROCESS, shared.version, parts])[:8])
    if not folder.is_dir():
        among = sorted(range(parts) if wanted is None else wanted())
        if part in among and 1 < len(among) <= _MOST_FILES:
            atexit.register(remove, folder)
            with atomic_path(folder) as temporary:
                _split(shared, temporary, among)
    file = _file(folder, part)
    if not file.is_file():  # not wanted with others, or taken before
        yield rows_of_part(shared.read, part)
        return
    yield _read(file)
    file.unlink()
    if not any(folder.iterdir()):
        folder.rmdir()


def _split(shared: SharedInput, folder: Path, among: Sequence[int]) -> None:
    """Write the rows of each of some partitions, in the order of the input, as a file of its own."""
    import numpy as np
    import pyarrow as pa

    folder.mkdir()
    options = pa.ipc.IpcWriteOptions(compression="lz4")
    streams: dict[int, pa.RecordBatchStreamWriter] = {}
    with ExitStack() as stack:
        for rows, of in shared.read():
            for part in among if not streams else ():
                streams[part] = stack.enter_context(
                    pa.ipc.new_stream(_file(folder, part), rows.schema, options=options)
                )
            order = np.argsort(of, kind="stable")
            starts, ends = (np.searchsorted(of[order], among, side) for side in ("left", "right"))
            ordered = rows.take(order).combine_chunks()
            for part, start, end in zip(among, starts, ends, strict=True):
                if start < end:
                    streams[part].write_table(ordered.slice(start, end - start))


def _read(file: Path) -> Iterator[pa.Table]:
    import pyarrow as pa

    with pa.ipc.open_stream(file) as stream:
        for batch in stream:
            yield pa.Table.from_batches([batch])


def _file(folder: Path, part: int) -> Path:
    return folder / f"part_{part:02d}.arrow"
