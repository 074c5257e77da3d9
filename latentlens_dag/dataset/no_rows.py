"""Why a query gives no rows: a parameter that nothing here has, or studies that declare nothing of what it asks."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from latentlens_dag.dataset.named_queries import ParameterValue, named_queries
from latentlens_dag.schema import TABLES

if TYPE_CHECKING:
    from latentlens_dag.dataset.dataset import Dataset

_JUDGE = "verdicts", "names no judge (`judge: {regions: {}}`, for pictures with annotated regions)"
_ABLATION = "answers from smaller indexes", "has no `corpus_ablation: [0.01, 0.1, 1.0]`, which needs a judge"
_CONNECTOR = "connectors", "has no `vlm: {connector: NAME}`"
_CAPTIONS = "captions of models", "has no `captions: true`"
_SHARED = "shared candidates", "has no `candidates: [all, shared]`"
_DECLARED = {
    "judgements": _JUDGE,
    "interpretability": _JUDGE,
    "lens_differences": _JUDGE,
    "corpus_ablation": _ABLATION,
    "candidates": _SHARED,
    "study_connectors": _CONNECTOR,
    "generated_captions": _CAPTIONS,
}
"""Tables that a study has where its defs.yaml says so: what they hold, and what it lacks otherwise."""
_NEEDED = {
    "study_differences": "judgements",
    "interpretability": "interpretability",
    "lens_differences": "lens_differences",
    "corpus_ablation": "corpus_ablation",
    "candidates": "candidates",
    "training_steps": "study_connectors",
    "captions": "generated_captions",
}
"""Of the named queries, those that have no row of a study without rows in this table. Others only add its columns."""
_NOT_ALIKE = (
    "Studies {study} and {other_study} have no visual token at the same place of the same image, with answers of the "
    "same lens and layer: their images, the grids on which their models cut them, their lenses or their layers differ, "
    "or they are one study."
)
_COLUMNS = {
    "study": "study",
    "other_study": "study",
    "lens": "lens",
    "other_lens": "lens",
    "layer": "visual_layer",
    "other_layer": "visual_layer",
    "image_id": "image_id",
    "text_id": "image_id",
}
"""Parameters that name something, and the column of the answers that has it."""
_OF_VERDICTS = {name: name for name in ("judge", "measure", "k", "patch_group", "comparison")}
"""Those that name something of the tables in `_NEEDED`, where these have the column."""


def no_rows_note(dataset: Dataset, query: str, params: Mapping[str, ParameterValue]) -> str | None:
    """What to tell people of a query without rows; None where nothing is known of why.

    Args:
        dataset: that was asked.
        query: SQL, or the name of a query.
        params: of the query, by name.
    """
    if "neighbors" not in dataset.tables:
        return None
    named = query.strip() in named_queries()
    given = {name: value for name, value in params.items() if value is not None} if named else {}
    if unknown := next(_unknown(dataset, "neighbors", _COLUMNS, given), None):
        return unknown
    table = _NEEDED.get(query.strip()) if named else _table_of(query)
    if query.strip() == "training_steps" and table in dataset.tables and _rows_of(dataset, str(table)):
        return _unjudged_note(dataset, given)
    if named and query.strip() == "neighbor_overlap":
        return _NOT_ALIKE.format(**given) if {"study", "other_study"} <= set(given) else None
    if table is None or table not in dataset.tables:
        return None
    studies = {str(given[name]) for name in ("study", "other_study") if name in given}
    return _lacking_note(dataset, table, studies) or next(_unknown(dataset, table, _OF_VERDICTS, given), None)


def _rows_of(dataset: Dataset, table: str) -> bool:
    return not dataset.collect(f"SELECT 1 FROM {table} LIMIT 1").is_empty()


def _unjudged_note(dataset: Dataset, given: Mapping[str, ParameterValue]) -> str | None:
    """Why there are no steps of a training, where studies read connectors' models: a parameter, or no judge."""
    if unknown := next(_unknown(dataset, "study_connectors", {"connector": "connector"}, given), None):
        return unknown
    if _rows_of(dataset, "interpretability SEMI JOIN study_connectors USING (study)"):
        return next(_unknown(dataset, "interpretability", _OF_VERDICTS, given), None)
    return _lacking_note(dataset, "interpretability", set(dataset.collect("FROM study_connectors")["study"]))


def _unknown(
    dataset: Dataset, table: str, columns: Mapping[str, str], given: Mapping[str, ParameterValue]
) -> Iterator[str]:
    """The parameters with a value that no row of a table has, of those that the table has a column of."""
    for name, column in columns.items():
        if name in given and column in TABLES[table].names and not _has(dataset, table, column, str(given[name])):
            yield f"`{name}={given[name]}`: no answer here has it.{_known(dataset, table, column)}"


def _has(dataset: Dataset, table: str, column: str, value: str) -> bool:
    """Whether a row has a value, which may be a number as text."""
    sql = f'SELECT 1 FROM "{table}" WHERE {column}::VARCHAR = $value LIMIT 1'
    return not dataset.collect(sql, value=value).is_empty()


def _known(dataset: Dataset, table: str, column: str) -> str:
    """The values of a column, but for ids, of which there may be millions."""
    if column == "image_id":
        return ""
    values = dataset.collect(f'SELECT DISTINCT {column} FROM "{table}" ORDER BY {column}')[column].to_list()
    return f" There are: {', '.join(map(str, values))}."


def _table_of(query: str) -> str | None:
    """The table of `_DECLARED` that SQL reads first, if any."""
    found = re.search(rf"\b(?:FROM|JOIN)\s+\"?({'|'.join(_DECLARED)})\b", query, re.IGNORECASE)
    return found[1].lower() if found else None


def _lacking_note(dataset: Dataset, table: str, studies: set[str]) -> str | None:
    """Which studies have answers and no row of a table, of those that are named or of all."""
    found = dataset.collect(f'SELECT study FROM neighbors EXCEPT SELECT study FROM "{table}" ORDER BY study')
    lacking = [study for study in found["study"].to_list() if not studies or study in studies]
    if not lacking:
        return None
    what, why = _DECLARED[table]
    return (
        f"There are no {what} of {', '.join(lacking)}: either its defs.yaml {why}, or it is not built to its end "
        "(`latentlens-dag status`)."
    )
