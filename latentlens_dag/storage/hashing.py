"""Content hashes: ids of sentences, images and occurrences, which also decide their shard.

An id is the first 64 bits of BLAKE2b of the content, as 16 hexadecimal digits, so that the order of a source, its file
name and the machine change nothing. Ids also serve as uniform random numbers: `shard_of` takes the low digits (which
shard), `within_fraction` the high ones (which sample), so the two do not select the same sentences.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray


def hash_bytes(content: bytes) -> str:
    """The 64-bit id of some bytes, 16 hexadecimal digits."""
    return hashlib.blake2b(content, digest_size=8).hexdigest()


def text_id(text: str) -> str:
    """The id of a sentence or text, by its UTF-8 bytes."""
    return hash_bytes(text.encode("utf-8"))


def hash_chunks(chunks: Iterable[bytes | memoryview]) -> str:
    """The 64-bit id of bytes that come in chunks and are never all in memory."""
    state = hashlib.blake2b(digest_size=8)
    for chunk in chunks:
        state.update(chunk)
    return state.hexdigest()


def hash_file(path: Path) -> str:
    """The 64-bit hash of a file's content, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=8)).hexdigest()


def hash_values(values: Iterable[object]) -> str:
    """One hash of several values in order; their text may hold any characters."""
    return hash_bytes(json.dumps([str(value) for value in values]).encode("utf-8"))


def shard_of(content_id: str, parts: int) -> int:
    """The shard or batch, 0..parts-1, that an id belongs to."""
    return int(content_id[8:], 16) % parts


def shards_of(ids: pa.Array | pa.ChunkedArray, parts: int) -> NDArray[np.int64]:
    """`shard_of` for a column of ids: int64 [N]."""
    import numpy as np

    low_digits = ids_to_integers(ids) & np.uint64(0xFFFF_FFFF)
    return low_digits.astype(np.int64) % parts


def within_fraction(content_id: str, fraction: float) -> bool:
    """Whether an id belongs to a sample of `fraction` of all ids; smaller samples lie inside larger ones."""
    return int(content_id[:8], 16) < fraction * 2**32


def fraction_end(fraction: float) -> str:
    """The end of a sample of `fraction` of all ids: those that are smaller, as texts too, are `within_fraction`."""
    end = math.ceil(fraction * 2**32)
    return f"{end:08x}" if end < 2**32 else "g"  # above every hexadecimal digit


def ids_to_integers(ids: pa.Array | pa.ChunkedArray) -> NDArray[np.uint64]:
    """Convert ids to uint64, which take a third of the memory and have the same order.

    Raises:
        ValueError: if an id is null, or is not of hexadecimal digits.
    """
    import numpy as np
    import pyarrow as pa

    chunks = ids.chunks if isinstance(ids, pa.ChunkedArray) else [ids]
    digits = "".join(_joined(chunk.cast(pa.large_string())) for chunk in chunks)
    return np.frombuffer(bytes.fromhex(digits), ">u8").astype(np.uint64)


def _joined(texts: pa.LargeStringArray) -> str:
    """All texts of an array, one after another, without a Python object for each."""
    import numpy as np

    if texts.null_count:
        raise ValueError(
            f"{texts.null_count} of {len(texts)} ids are null: was the column read from a damaged or a foreign file?"
        )
    _, ends, content = texts.buffers()
    if not len(texts) or content is None:
        return ""
    first, last = np.frombuffer(ends, np.int64)[[texts.offset, texts.offset + len(texts)]]
    return content[int(first) : int(last)].to_pybytes().decode("ascii")


def integers_to_ids(numbers: NDArray[np.uint64]) -> pa.Array:
    """The inverse of `ids_to_integers`: large_string."""
    import numpy as np
    import pyarrow as pa

    digits = numbers.astype(">u8").tobytes().hex().encode("ascii")
    ends = np.arange(0, len(digits) + 1, 16, dtype=np.int64)
    parts = [None, pa.py_buffer(ends), pa.py_buffer(digits)]
    return pa.Array.from_buffers(pa.large_string(), len(numbers), parts)
