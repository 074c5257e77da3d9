"""The states that an index is searched with, as a matrix."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from latentlens_dag.errors import UserError

if TYPE_CHECKING:
    from numpy.typing import NDArray


def query_matrix(states: Any, width: int, index: str | Path, language_model: str) -> NDArray[np.floating]:
    """States [Q, d] as an array of their own type; of a tensor, on any device, in float64.

    Args:
        states: a tensor or what NumPy makes an array of.
        width: d, of the index's vectors.
        index, language_model: the names of both, for messages.

    Raises:
        UserError: where they are no matrix of numbers, or of another width.
    """
    if hasattr(states, "detach"):
        states = states.detach().cpu().double().numpy()  # NumPy has no bfloat16
    queries: NDArray[np.floating] = np.asarray(states)
    if queries.ndim != 2 or queries.dtype.kind not in "fiu":
        raise UserError(
            f"`states` must be a matrix of numbers [queries, {width}], not {queries.dtype} of shape "
            f"{queries.shape}. A single state is `state[None]`."
        )
    if queries.shape[1] != width:
        raise UserError(
            f"The states have width {queries.shape[1]}, the vectors of {index} have width {width}: were "
            f"both made by the same language model ({language_model})?"
        )
    return queries
