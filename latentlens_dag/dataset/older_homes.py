"""Tables of a home that an older version of this package wrote, as those of today, until `build` writes them anew.

Columns that were added without a new schema version, before it was released, are null.

Note: one file of each study says which columns all its files have. Of a build that was interrupted while it judged a
study anew, `FROM judgements` may fail; the next build ends that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from latentlens_dag.release.manifest import SCHEMA_VERSION
from latentlens_dag.release.migrations import MIGRATIONS, migrated
from latentlens_dag.schema import TABLES
from latentlens_dag.sql.quoting import empty_sql
from latentlens_dag.sql.sandbox import mounted_path
from latentlens_dag.sql.views import SUMMARIES, view_sql

if TYPE_CHECKING:
    import pyarrow as pa


def older_studies(root: Path, table: str, files: Sequence[Path]) -> dict[str, int]:
    """The studies whose files have the columns of an older schema version, and that version; few have any.

    Args:
        root: the warehouse.
        table: the name of the table.
        files: of it, in order of their paths.
    """
    versions = {version: step.before[table] for version, step in MIGRATIONS.items() if table in step.before}
    if not versions and table not in SUMMARIES:
        return {}
    import pyarrow.parquet as pq

    first = {_study(root, file): file for file in reversed(files)}
    found = {study: _version(pq.read_schema(file).names, TABLES[table], versions) for study, file in first.items()}
    return {study: version for study, version in sorted(found.items()) if version}


def _version(names: list[str], today: pa.Schema, versions: Mapping[int, pa.Schema]) -> int:
    """The schema version whose columns these are; 0 for those of today."""
    if names == today.names:
        return 0
    lacking = SCHEMA_VERSION if set(names) < set(today.names) else 0
    return next((version for version, schema in versions.items() if names == schema.names), lacking)


def mixed_view(root: Path, table: str, files: Sequence[Path], older: dict[str, int]) -> str:
    """The SELECT of a table whose files are partly of older versions (as `older_studies` gives them)."""
    parts = [empty_sql(TABLES[table])]  # for what no file has
    for version in sorted({*older.values(), 0}):
        own = [mounted_path(root, file) for file in files if older.get(_study(root, file), 0) == version]
        if own:
            rows = view_sql(table, own)
            parts.append(rows if version == 0 else migrated(table, rows, version, {}))
    return " UNION ALL BY NAME ".join(f"FROM ({part})" for part in parts)


def older_note(older: Mapping[str, Mapping[str, int]]) -> str | None:
    """What people should know of a home with such studies, by table as `older_studies` gives them."""
    if not older:
        return None
    studies = ", ".join(sorted({study for found in older.values() for study in found}))
    if "judgements" in older:
        made, note = f"judged {studies}: `latentlens-dag build` judges again", MIGRATIONS[1].note
    else:
        made, note = f"made {', '.join(older)} of {studies}: `latentlens-dag build` makes them anew", _LACKING
    return f"An older version of this package {made}, without a model. {note}"


_LACKING = "Until then, columns that they lack are null."


def _study(root: Path, file: Path) -> str:
    return file.relative_to(root).parts[1]
