"""Why a query of verdicts gives no rows: the studies that have answers and no judge."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from latentlens_dag.dataset.named_queries import named_queries

if TYPE_CHECKING:
    from latentlens_dag.dataset.dataset import Dataset

_OF_VERDICTS = re.compile(r"\b(judgements|interpretability|lens_differences)\b", re.IGNORECASE)
_UNJUDGED = "SELECT study FROM neighbors EXCEPT SELECT study FROM judgements ORDER BY study"


def unjudged_note(dataset: Dataset, query: str) -> str | None:
    """What to tell people of a query without rows; None where it asks no verdicts, or all studies have some.

    Args:
        dataset: that was asked.
        query: SQL, or the name of a query.
    """
    named = named_queries().get(query.strip())
    if not _OF_VERDICTS.search(named.sql if named else query) or not {"neighbors", "judgements"} <= {*dataset.tables}:
        return None
    studies = dataset.collect(_UNJUDGED)["study"].to_list()
    if not studies:
        return None
    return (
        f"There are no verdicts of {', '.join(studies)}: either its defs.yaml names no judge "
        "(`judge: {regions: {}}`, for pictures with annotated regions), or it is not built to its end "
        "(`latentlens-dag status`)."
    )
