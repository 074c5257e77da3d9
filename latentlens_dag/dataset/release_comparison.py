"""The differences of two releases: tables, images, and the answers of each study, layer by layer.

Tables are compared by their rows in any order, so a release that was staged in other parts is the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from latentlens_dag.dataset.comparison import AnswerDifference, compare_part
from latentlens_dag.schema import TABLES
from latentlens_dag.sql.quoting import identifier

if TYPE_CHECKING:
    import polars as pl

    from latentlens_dag.dataset.dataset import Dataset

_OF_STUDIES = ("neighbors", "judgements")


class TableDifference(NamedTuple):
    """The difference of one table."""

    table: str
    rows_first: int
    rows_second: int
    same: bool
    """Whether both have the same rows, in any order."""


@dataclass(frozen=True)
class ReleaseDifference:
    """The differences of two releases."""

    tables: tuple[TableDifference, ...]
    not_compared: tuple[str, ...]
    """Tables that at least one of the two lacks."""
    images_added: tuple[str, ...]
    """Ids of images and texts that only the second has."""
    images_removed: tuple[str, ...]
    studies_added: tuple[str, ...]
    studies_removed: tuple[str, ...]
    studies: Mapping[str, list[AnswerDifference]]
    """For each study of both: its answers through each lens, and its verdicts, at each visual layer of either."""

    def facts(self) -> dict[str, Any]:
        """As JSON."""
        studies = {study: [one._asdict() for one in found] for study, found in self.studies.items()}
        return {**asdict(self), "tables": [one._asdict() for one in self.tables], "studies": studies}


def compare_releases(first: Dataset, second: Dataset) -> ReleaseDifference:
    """Compare two opened releases, or homes.

    Memory holds the answers of one lens at one visual layer of one study; tables that were not pulled are left out.

    Raises:
        UserError: if a file cannot be read.
    """
    both = [table for table in TABLES if table in first.tables and table in second.tables]
    images = [_values(data, "image_id", ("images", "visual_tokens", "text_tokens")) for data in (first, second)]
    studies = [_values(data, "study", ("neighbors", "visual_tokens", "text_tokens")) for data in (first, second)]
    shared = sorted(studies[0] & studies[1])
    found = {study: _differences(study, first, second, both) for study in shared}
    contents = [(table, _content(first, table), _content(second, table)) for table in both]
    return ReleaseDifference(
        tuple(TableDifference(table, one[0], other[0], one == other) for table, one, other in contents),
        tuple(table for table in TABLES if table not in both),
        _only(images[1], images[0]),
        _only(images[0], images[1]),
        _only(studies[1], studies[0]),
        _only(studies[0], studies[1]),
        {study: differences for study, differences in found.items() if differences},
    )


def _only(some: set[str], others: set[str]) -> tuple[str, ...]:
    return tuple(sorted(some - others))


def _values(data: Dataset, column: str, tables: tuple[str, ...]) -> set[str]:
    """The values of a column in those of the tables that exist."""
    found = (data.collect(f"SELECT DISTINCT {column} FROM {table}") for table in tables if table in data.tables)
    return {value for frame in found for value in frame[column].to_list()}


def _content(data: Dataset, table: str) -> tuple[int, str]:
    """The number of rows of a table, and the sum of their hashes: the same for equal rows in any order."""
    row = ", ".join(identifier(name) for name in TABLES[table].names)
    query = f"SELECT count(*) AS rows, sum(hash({row}))::VARCHAR AS content FROM {identifier(table)}"
    return data.collect(query).row(0)  # type: ignore[return-value]


def _differences(study: str, first: Dataset, second: Dataset, tables: list[str]) -> list[AnswerDifference]:
    """The differences of a study, part by part and layer by layer."""
    found = []
    for table in _OF_STUDIES:
        if table in tables:
            parts = [_parts(data, table, study) for data in (first, second)]
            for part, layer in sorted(parts[0] | parts[1]):
                one, other = (
                    _rows(data, table, study, part, layer) if (part, layer) in of else None
                    for data, of in zip((first, second), parts, strict=True)
                )
                found.append(compare_part(part, layer, one, other))
    return found


def _parts(data: Dataset, table: str, study: str) -> set[tuple[str, int]]:
    """The lenses (or `judgements`) and visual layers of a study in a table."""
    part = "lens" if table == "neighbors" else f"'{table}'"
    query = f"SELECT DISTINCT {part} AS part, visual_layer FROM {table} WHERE study = $study"
    return {(str(name), int(layer)) for name, layer in data.collect(query, study=study).rows()}


def _rows(data: Dataset, table: str, study: str, part: str, layer: int) -> pl.LazyFrame:
    import polars as pl

    rows = data.scan(table).filter(pl.col("study") == study, pl.col("visual_layer") == layer)
    return rows if table == "judgements" else rows.filter(pl.col("lens") == part)
