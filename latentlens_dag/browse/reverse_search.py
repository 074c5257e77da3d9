"""Reverse search: the visual tokens of a study that are nearest to a state, such as that of a word in a phrase.

The stored states are streamed file by file, some megabytes at a time, through the exact search of `search/exact.py`,
so a study may be larger than memory. Equal cosines come in order of (visual layer, image id, token), however the study
is cut into batches.

Both are residual streams of one language model, which can be compared across layers: a visual token is often nearest to
text at a deeper layer than its own (the paper's layer alignment).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from latentlens_dag.errors import UserError
from latentlens_dag.index.lance_files import matrix_of, open_table
from latentlens_dag.search.exact import Block, cosine_top_k
from latentlens_dag.storage.shapes import study_shape
from latentlens_dag.storage.warehouse import Warehouse

if TYPE_CHECKING:
    import lance
    import pyarrow as pa
    from numpy.typing import NDArray

    from latentlens_dag.dataset.dataset import Dataset

_READ_BYTES = 16 << 20  # of states, at a time
_LEAST_ROWS = 256
_TOKEN_BITS = 32  # of a key, for the token; above them stands the image's rank among all ids

_BOXES = """
SELECT image_id, token_index, x0, y0, x1, y1
FROM visual_tokens
WHERE study = $study AND x0 IS NOT NULL AND list_contains($images, image_id)
"""


class NearestToken(NamedTuple):
    """A visual token and its cosine to a state."""

    visual_layer: int
    image_id: str
    token_index: int
    cosine: float


class NearestTokens(NamedTuple):
    """The nearest visual tokens."""

    tokens: list[NearestToken]
    """Nearest first; equal cosines in order of (visual layer, image id, token)."""
    compared: int
    """States that were compared: a token counts once per layer."""


def visual_state_files(warehouse: Warehouse, study: str) -> dict[int, list[Path]]:
    """The files of a study's visual states, by visual layer.

    Raises:
        UserError: if the study is not built, or none of its states is stored.
    """
    shape = study_shape(warehouse, study)
    files = {
        layer: [path for batch in range(shape.parts) if (path := warehouse.visual(study, layer, batch)).is_dir()]
        for layer in sorted(shape.visual_layers)
    }
    found = {layer: paths for layer, paths in files.items() if paths}
    if not found:
        raise UserError(
            f"Study {study} has no stored states here ({warehouse.study(study)}): run `latentlens-dag build {study}`."
        )
    return found


def nearest_tokens(state: NDArray[np.floating], files: Mapping[int, Sequence[Path]], k: int) -> NearestTokens:
    """Find the k visual tokens with the highest cosine to a state.

    Args:
        state: [d], any floating type; need not be normalized.
        files: what `state_tables.write_states` wrote, by visual layer.
        k: how many; a token may be found at several layers. Fewer tokens give fewer results.

    Raises:
        UserError: if the states have another width, or a file cannot be read.
        ValueError: if k < 1, or a state has no direction.
    """
    with _readable(files):
        _check_width(state, files)
        tables = (_open(path).to_table(columns=["image_id"]) for paths in files.values() for path in paths)
        images = sorted({image for table in tables for image in table["image_id"].unique().to_pylist()})
        ranks = {image: rank for rank, image in enumerate(images)}
        counts: list[int] = []
        found = cosine_top_k(state[None], _blocks(files, ranks, counts), k)
    tokens = [
        NearestToken(int(layer), images[int(key) >> _TOKEN_BITS], int(key) & ((1 << _TOKEN_BITS) - 1), float(cosine))
        for cosine, layer, key in zip(found.cosine[0], found.contextual_layer[0], found.key[0], strict=True)
        if np.isfinite(cosine)
    ]
    return NearestTokens(tokens, sum(counts))


def token_boxes(dataset: Dataset, study: str, tokens: Sequence[NearestToken]) -> dict[tuple[str, int], list[float]]:
    """The boxes of tokens that have one, by image id and token: x0, y0, x1, y1 in pixels of the original."""
    rows = dataset.collect(_BOXES, study=study, images=list({token.image_id for token in tokens})).iter_rows()
    boxes = {(image, token): box for image, token, *box in rows}
    keys = ((token.image_id, token.token_index) for token in tokens)
    return {key: boxes[key] for key in keys if key in boxes}


def _blocks(files: Mapping[int, Sequence[Path]], ranks: Mapping[str, int], counts: list[int]) -> Iterator[Block]:
    """All states, with the visual layer in place of the contextual one; their numbers are added to `counts`."""
    for layer, paths in files.items():
        for path in paths:
            for batch in _batches(path):
                bits = [ranks[image] << _TOKEN_BITS for image in batch["image_id"].to_pylist()]
                tokens = batch["token_index"].to_numpy().astype(np.uint64)
                counts.append(len(tokens))
                yield Block(layer, np.array(bits, np.uint64) | tokens, matrix_of(batch["state"].combine_chunks()))


def _batches(path: Path) -> Iterator[pa.Table]:
    """Rows by number: a scan reads a file's single page of states whole (1.1 GB for 700 MB), and takes longer."""
    dataset = _open(path)
    step, total = max(_LEAST_ROWS, _READ_BYTES // (4 * _width(dataset))), dataset.count_rows()
    for start in range(0, total, step):
        rows = list(range(start, min(start + step, total)))
        yield dataset.take(rows, columns=["image_id", "token_index", "state"]).combine_chunks()


def _check_width(state: NDArray[np.floating], files: Mapping[int, Sequence[Path]]) -> None:
    path = next(path for paths in files.values() for path in paths)
    if (width := _width(_open(path))) != len(state):
        raise UserError(
            f"The state has width {len(state)}, the visual states in {path} have width {width}: were both made by the "
            "same language model?"
        )


def _width(dataset: lance.LanceDataset) -> int:
    return int(dataset.schema.field("state").type.list_size)


def _open(path: Path) -> lance.LanceDataset:
    try:
        return open_table(path)
    except (OSError, ValueError) as error:  # depending on what is missing
        raise _unreadable(path, error) from error


@contextmanager
def _readable(files: Mapping[int, Sequence[Path]]) -> Iterator[None]:
    """Turn errors of files that vanished or are damaged into a UserError."""
    import pyarrow as pa

    try:
        yield
    except (OSError, RuntimeError, pa.ArrowInvalid) as error:
        raise _unreadable(next(path for paths in files.values() for path in paths).parent.parent, error) from error


def _unreadable(path: Path, error: Exception) -> UserError:
    return UserError(
        f"The visual states in {path} cannot be read ({' '.join(str(error).split())[:200]}). If a build is running, "
        "try again when it is done; else run `latentlens-dag build`."
    )
