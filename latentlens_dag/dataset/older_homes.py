"""Tables of a home that an older version of this package wrote, as those of today, until `build` writes them anew.

Note: one file of each study says which columns all its files have. Of a build that was interrupted while it judged a
study anew, `FROM judgements` may fail; the next build ends that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from latentlens_dag.release.migrations import MIGRATIONS, migrated
from latentlens_dag.sql.sandbox import mounted_path
from latentlens_dag.sql.views import view_sql


def older_studies(root: Path, table: str, files: Sequence[Path]) -> dict[str, int]:
    """The studies whose files have the columns of an older schema version, and that version; few have any.

    Args:
        root: the warehouse.
        table: the name of the table.
        files: of it, in order of their paths.
    """
    versions = {version: step.before[table] for version, step in MIGRATIONS.items() if table in step.before}
    if not versions:
        return {}
    import pyarrow.parquet as pq

    first = {_study(root, file): file for file in reversed(files)}
    found = {study: pq.read_schema(file).names for study, file in first.items()}
    return {
        study: version
        for study, names in sorted(found.items())
        for version, schema in versions.items()
        if names == schema.names
    }


def mixed_view(root: Path, table: str, files: Sequence[Path], older: dict[str, int]) -> str:
    """The SELECT of a table whose files are partly of older versions (as `older_studies` gives them)."""
    parts = []
    for version in sorted({*older.values(), 0}):
        own = [mounted_path(root, file) for file in files if older.get(_study(root, file), 0) == version]
        if own:
            rows = view_sql(table, own)
            parts.append(rows if version == 0 else migrated(table, rows, version, {}))
    return " UNION ALL BY NAME ".join(f"FROM ({part})" for part in parts)


def older_note(older: Mapping[str, Mapping[str, int]]) -> str | None:
    """What people should know of a home with such studies: `older_studies` by table, of those that have any."""
    judged = sorted({study for table in _OF_JUDGES & older.keys() for study in older[table]})
    if judged:
        return (
            f"An older version of this package judged {', '.join(judged)}: `latentlens-dag build` judges again, "
            f"without a model. {MIGRATIONS[1].note}"
        )
    if not older:
        return None
    studies = sorted({study for found in older.values() for study in found})
    return (
        f"An older version of this package made {', '.join(sorted(older))} of {', '.join(studies)}: columns that it "
        "did not know are null. `latentlens-dag build` computes them, without a model."
    )


_OF_JUDGES = {"interpretability", "judgements"}


def _study(root: Path, file: Path) -> str:
    return file.relative_to(root).parts[1]
