"""The states of a batch's tokens at one layer, as a Lance dataset."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa

from latentlens_dag.index.lance_files import (
    DTYPE,
    FILE_VERSION,
    check_directions,
    is_in_filter,
    matrix_digest,
    matrix_of,
    open_table,
    vector_column,
)
from latentlens_dag.storage.files import atomic_path
from latentlens_dag.storage.hashing import hash_values

if TYPE_CHECKING:
    from numpy.typing import NDArray


def write_states(
    path: Path,
    image_ids: list[str],
    token_index: NDArray[np.int32],
    states: NDArray[np.float32],
    dtype: str = "float32",
) -> str:
    """Write the states of a batch's visual tokens at one layer as a Lance dataset; return their content hash.

    Args:
        path: folder of the dataset; replaced whole.
        image_ids: N ids.
        token_index: [N], the number of the token in its image.
        states: [N, d], the residual stream itself, not normalized.
        dtype: in which the model computed them (`dtypes.chosen_dtype`).

    Raises:
        ValueError: where a state has no direction, naming image and token.
    """
    import lance

    norms = np.linalg.norm(states.astype(np.float64), axis=1).astype(np.float32)
    check_directions(states, norms, [f"{i} token {t}" for i, t in zip(image_ids, token_index, strict=True)])
    columns = {
        "image_id": pa.array(image_ids),
        "token_index": pa.array(token_index, pa.int32()),
        "state": vector_column(states),
        "norm": pa.array(norms),
    }
    with atomic_path(path) as temporary:
        table = pa.table(columns).replace_schema_metadata({DTYPE: dtype.encode()})
        lance.write_dataset(table, str(temporary), data_storage_version=FILE_VERSION)
    return hash_values([matrix_digest(states), token_index.tolist(), *image_ids])


class TokenStates(NamedTuple):
    """The visual tokens of a batch at one layer."""

    image_ids: list[str]
    token_index: NDArray[np.int32]  # [N]
    states: NDArray[np.float32]  # [N, d]
    dtype: str = ""
    """In which the model computed them; empty where it was not recorded."""


def dtype_of_states(path: Path) -> str:
    """In which dtype a model computed the states of a file of `write_states`; "" where that is not known."""
    import lance

    return ((lance.dataset(str(path)).schema.metadata or {}).get(DTYPE) or b"").decode()


def read_states(path: Path, image_id: str | None = None) -> TokenStates:
    """The states of a batch, or of one image of it."""
    only = None if image_id is None else is_in_filter("image_id", [image_id])
    table = open_table(path)
    found = table.to_table(filter=only).combine_chunks()
    states, dtype = matrix_of(found["state"].combine_chunks()), (table.schema.metadata or {}).get(DTYPE, b"").decode()
    return TokenStates(found["image_id"].to_pylist(), found["token_index"].to_numpy().astype(np.int32), states, dtype)
