"""Content hashes: what names a sentence, an image, an occurrence, and decides its shard.

An id is the first 64 bits of BLAKE2b of the content, as 16 hexadecimal digits, so that the order of a
source, its file name and the machine change nothing. What a newcomer gets wrong: an id is also a
uniform random number. `shard_of` takes its low digits (which shard), `within_fraction` its high ones
(which sample), so the two do not select the same sentences.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

_BLOCK_BYTES = 1 << 20


def hash_bytes(content: bytes) -> str:
    """The 64-bit id of some bytes, 16 hexadecimal digits."""
    return hashlib.blake2b(content, digest_size=8).hexdigest()


def text_id(text: str) -> str:
    """The id of a sentence: of its UTF-8 bytes."""
    return hash_bytes(text.encode("utf-8"))


def hash_chunks(parts: Iterable[bytes | memoryview]) -> str:
    """The id of some bytes that come in parts, and are never all in memory."""
    state = hashlib.blake2b(digest_size=8)
    for part in parts:
        state.update(part)
    return state.hexdigest()


def hash_file(path: Path) -> str:
    """The 64-bit hash of a file's content, read in blocks."""
    with path.open("rb") as file:
        return hash_chunks(iter(lambda: file.read(_BLOCK_BYTES), b""))


def hash_values(parts: Iterable[object]) -> str:
    """One hash of several values in order, whatever characters they hold."""
    return hash_bytes(json.dumps([str(part) for part in parts]).encode("utf-8"))


def shard_of(content_id: str, parts: int) -> int:
    """The shard or batch, 0..parts-1, that an id belongs to."""
    return int(content_id[8:], 16) % parts


def within_fraction(content_id: str, fraction: float) -> bool:
    """Whether an id belongs to a sample of `fraction` of all ids; smaller samples lie inside larger ones."""
    return int(content_id[:8], 16) < fraction * 2**32


def ids_to_integers(ids: pa.Array | pa.ChunkedArray) -> NDArray[np.uint64]:
    """Ids as numbers, which take a third of the memory and have the same order."""
    import numpy as np

    digits = "".join(ids.to_pylist())
    return np.frombuffer(bytes.fromhex(digits), ">u8").astype(np.uint64)


def integers_to_ids(numbers: NDArray[np.uint64]) -> pa.Array:
    """The ids (strings) that `ids_to_integers` made these numbers of."""
    import numpy as np
    import pyarrow as pa

    digits = numbers.astype(">u8").tobytes().hex().encode("ascii")
    ends = np.arange(0, len(digits) + 1, 16, dtype=np.int64)
    parts = [None, pa.py_buffer(ends), pa.py_buffer(digits)]
    return pa.Array.from_buffers(pa.large_string(), len(numbers), parts)
