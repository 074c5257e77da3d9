"""Vectors of a local layer table where they lie in its files: mapped into memory, not copied.

Lance writes a column of fixed-size float16 lists as flat pages, so a scan of it can do without decoding, which costs a
third of a search on one core. Lance's own reader says where each page lies, and a page is used only if its
first and last rows are those that Lance reads. Everything else (an object store, deleted rows, another encoding) is
left to the caller: `flat_pages` gives None, and the caller scans.

Note: mapped pages count as the process's memory until they are released. They are, block by block; a block that is
still held is read from the file again.
"""

from __future__ import annotations

import itertools
import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import lance
    from numpy.typing import NDArray


class Page(NamedTuple):
    """Rows that lie one after the other in a file."""

    file: Path
    position: int
    """In bytes."""
    rows: int


def flat_pages(dataset: lance.LanceDataset, column: str) -> list[Page] | None:
    """Where the rows of a column of float16 vectors lie, in the dataset's order; None where that is not known."""
    width = dataset.schema.field(column).type.list_size
    pages: list[Page] = []
    for fragment in dataset.get_fragments():
        found = _fragment_pages(Path(dataset.uri), fragment.metadata, column, 2 * width)
        if found is None:
            return None
        pages += found
    return pages if _are_what_lance_reads(dataset, column, pages, width) else None


def mapped_rows(pages: list[Page], width: int, rows: int) -> Iterator[NDArray[np.float16]]:
    """The vectors of the pages, at most `rows` at a time: [n, width], read-only."""
    for file in dict.fromkeys(page.file for page in pages):
        with file.open("rb") as opened:
            content = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
        content.madvise(mmap.MADV_SEQUENTIAL)
        for page in pages:
            if page.file == file:
                yield from _cut(content, page, width, rows)


def release_pages(array: NDArray) -> None:
    """Release the pages of an array that is mapped from a file; its content stays in the file."""
    mapping = getattr(array, "_mmap", None)  # np.memmap has no public name for it
    if mapping is not None:
        mapping.madvise(mmap.MADV_DONTNEED)


def _cut(content: mmap.mmap, page: Page, width: int, rows: int) -> Iterator[NDArray[np.float16]]:
    parts = -(-page.rows // rows)
    cuts = [page.rows * part // parts for part in range(parts + 1)]  # about equal
    for first, last in itertools.pairwise(cuts):
        count = last - first
        start = page.position + first * 2 * width
        yield np.frombuffer(content, np.float16, count * width, start).reshape(count, width)
        aligned = start // mmap.PAGESIZE * mmap.PAGESIZE
        content.madvise(mmap.MADV_DONTNEED, aligned, start + count * 2 * width - aligned)


def _fragment_pages(root: Path, fragment: lance.FragmentMetadata, column: str, row_bytes: int) -> list[Page] | None:
    from lance.file import LanceFileReader

    file = root / "data" / fragment.files[0].path
    if len(fragment.files) != 1 or fragment.deletion_file is not None or not file.is_file():
        return None
    facts = LanceFileReader(str(file)).metadata()
    if len(facts.columns) != len(facts.schema.names):
        return None
    pages = []
    for page in facts.columns[facts.schema.get_field_index(column)].pages:
        buffers = [buffer for buffer in page.buffers if buffer.size]
        if len(buffers) != 1 or buffers[0].size % row_bytes:
            return None
        pages.append(Page(file, buffers[0].position, buffers[0].size // row_bytes))
    return pages if sum(page.rows for page in pages) == fragment.num_rows else None


def _are_what_lance_reads(dataset: lance.LanceDataset, column: str, pages: list[Page], width: int) -> bool:
    """Whether the first and last row of every page are the dataset's."""
    ends, rows, mapped = [], 0, []
    for page in pages:
        ends += [rows, rows + page.rows - 1]
        rows += page.rows
        for row in (0, page.rows - 1):
            with page.file.open("rb") as file:
                file.seek(page.position + row * 2 * width)
                mapped.append(file.read(2 * width))
    if not pages or rows != dataset.count_rows():
        return False
    expected = dataset.take(ends, columns=[column])[column].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return expected.astype(np.float16, copy=False).tobytes() == b"".join(mapped)
