"""The tokens that lenses may answer with: the table `candidates`.

LatentLens can only answer with tokens that its index has, a vocabulary lens with every token of the vocabulary, pieces
of words included. A study with `candidates: shared` has vocabulary lenses with the tokens of the index, so that a
difference between lenses is not one of their candidates. Those lenses read their tokens from this table, where SQL can
compare them with LatentLens's.

Note: the tokens of the index are those of its occurrences, whether or not some of them are attention sinks, which a
search leaves out layer by layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from latentlens_dag.errors import UserError
from latentlens_dag.schema import CANDIDATES, LENSES, lens_order

if TYPE_CHECKING:
    from numpy.typing import NDArray


def candidates(study: str, lenses: Sequence[str], top_k: int, occurrences: Sequence[Path]) -> pa.Table:
    """The tokens that each lens with shared candidates may answer with.

    Args:
        study: its name.
        lenses: of the study; those with all candidates have no rows.
        top_k: how many answers a visual token has.
        occurrences: Parquet files (OCCURRENCES) of its index.

    Returns:
        CANDIDATES, ordered by lens (as in LENSES) and token.

    Raises:
        UserError: where the index has fewer tokens than `top_k`.
    """
    import polars as pl

    found = pl.scan_parquet(list(occurrences), glob=False).select(pl.col("token_id").unique().sort()).collect()
    ids = found["token_id"].cast(pl.Int32)
    check_enough(study, top_k, len(ids))
    named = sorted((lens for lens in lenses if LENSES[lens].candidates == "shared"), key=lens_order)
    tables = [pa.table([[study] * len(ids), [lens] * len(ids), ids.to_arrow()], CANDIDATES.names) for lens in named]
    return pa.concat_tables([CANDIDATES.empty_table(), *(table.cast(CANDIDATES) for table in tables)])


def tokens_of(table: pa.Table, lens: str) -> NDArray[np.int32]:
    """The tokens of a lens in CANDIDATES, by id in ascending order."""
    ids: NDArray[np.int32] = np.sort(table.filter(pc.equal(table["lens"], lens))["token_id"].to_numpy())
    return ids


def check_enough(study: str, top_k: int, tokens: int) -> None:
    """Refuse more answers than there are shared candidates."""
    if tokens < top_k:
        raise UserError(
            f"`top_k: {top_k}` and `candidates: shared` of Study {study} ask for more answers than its index has "
            f"different tokens ({tokens}): ask for fewer, give the index a larger corpus, or set `candidates: all`."
        )
