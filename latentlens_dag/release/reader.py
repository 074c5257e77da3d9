"""A release's tables as SQL views, those of an older release as if it had been made today.

This module maps files to tables; `migrations.py` has the older schemas, and `pull.py` downloads. Note: a release may
come from a stranger. Its manifest is checked before its data is read, and SQL sees the files of its manifest and no
others.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import reduce
from pathlib import Path

import pyarrow as pa

from latentlens_dag.errors import UserError
from latentlens_dag.release.manifest import MANIFEST, ReleaseFile, ReleaseManifest, read_manifest
from latentlens_dag.release.migrations import MIGRATIONS, migrated, migration_note, steps_from
from latentlens_dag.release.parquet_checks import names_problem, parquet_problem
from latentlens_dag.schema import TABLES
from latentlens_dag.sql.quoting import SQL_TYPES, empty_sql, identifier
from latentlens_dag.sql.sandbox import mounted_path
from latentlens_dag.sql.views import view_sql

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
"""A picture in a release, as the library `datasets` shows it; views give its bytes."""

BY_IMAGE = {"neighbors", "visual_tokens", "judgements", "regions", "text_tokens"}
"""Tables with one file per image (or text), or per first digits of their ids."""
_PART = re.compile(r"[0-9a-f]{2}|[0-9a-f]{16}")


@dataclass(frozen=True)
class ReleaseTables:
    """A release on this machine, ready to be read."""

    folder: Path
    manifest: ReleaseManifest
    views: Mapping[str, str]
    """SELECT per table."""
    files: Mapping[str, list[Path]]
    """Files per table, for tables that need no migration."""
    missing: Mapping[str, str]
    """Tables whose files are not all here, with the remedy."""

    def of_image(self, image_id: str) -> dict[str, str]:
        """SELECTs of the tables in BY_IMAGE over only the files with rows of an image.

        Files are named after their image, or after its first digits; tables with other files are left out.
        """
        found = {}
        for table in BY_IMAGE & self.views.keys():
            files = [self.folder / file.path for file in self.manifest.of([table])]
            if all(_PART.fullmatch(file.stem) for file in files):
                own = [file for file in files if image_id.startswith(file.stem)]
                found[table] = _view(self.folder, table, own, self.manifest)
        return found

    @property
    def note(self) -> str | None:
        """What people should know of its tables; None for a release of today's schema version."""
        return migration_note(self.manifest.schema_version, self.manifest.package_version)

    @property
    def listed(self) -> frozenset[str]:
        """The paths that SQL may read."""
        return frozenset(file.path for file in self.manifest.of(self.views))


def is_release(folder: Path) -> bool:
    """Whether a folder has a release's manifest."""
    return (folder / MANIFEST).is_file()


def schemas_at(version: int) -> dict[str, pa.Schema]:
    """The schemas of a release's files at a schema version."""
    images = TABLES["images"]
    thumbnail = images.get_field_index("thumbnail")
    today = {**TABLES, "images": images.set(thumbnail, pa.field("thumbnail", IMAGE))}
    return reduce(lambda schemas, step: {**schemas, **MIGRATIONS[step].before}, reversed(steps_from(version)), today)


def read_release(folder: Path, name: str, verified: Collection[str] | None = None) -> ReleaseTables:
    """Open the tables of a release's folder; some may be missing.

    Args:
        folder: has the manifest.json.
        name: of the release, for `latentlens-dag pull`.
        verified: the paths of the files that are here and were verified before; by default every file that is here
            is checked, except for its hash.

    Raises:
        UserError: where the manifest is refused or not of tables, columns are not those of its schema version, or a
            file is not what the manifest says.
    """
    manifest = read_manifest(folder / MANIFEST)
    check_tables(manifest)
    # In a cache of the Hub, files are links to ../../blobs.
    folders = (folder.resolve(), folder.resolve().parent.parent / "blobs")
    here = {
        file.path
        for file in manifest.files
        if (_is_here(folder, file, folders) if verified is None else file.path in verified)
    }
    tables = {name: manifest.of([name]) for name in TABLES}
    missing = {
        table: _missing(table, name, sum(file.path in here for file in files), len(files))
        for table, files in tables.items()
        if any(file.path not in here for file in files)
    }
    present = {table: files for table, files in tables.items() if table not in missing}
    if verified is None:
        check_files(folder, manifest, (file for files in present.values() for file in files))
    paths = {table: [folder / file.path for file in files] for table, files in present.items()}
    version, schemas = manifest.schema_version, schemas_at(manifest.schema_version)
    views = {table: _view(folder, table, found, manifest) for table, found in paths.items()}
    changed = {table for step in steps_from(version) for table in MIGRATIONS[step].selects}
    plain = {
        table: found
        for table, found in paths.items()
        if found and table not in changed and schemas[table].equals(TABLES[table])
    }
    return ReleaseTables(folder, manifest, views, plain, missing)


def check_tables(manifest: ReleaseManifest) -> None:
    """Refuse a release whose tables this version cannot open, before any of them is downloaded or read.

    Raises:
        UserError: where it is of another kind, or its columns are not those of its schema version.
    """
    if manifest.kind != "tables":
        raise UserError(
            f"Release {manifest.name} is an {manifest.kind}, not tables: open it with `ContextualIndex.open`."
        )
    schemas = schemas_at(manifest.schema_version)
    for name, table in manifest.tables.items():
        problem = names_problem(table.columns, schemas[name]) if name in schemas else "no release has such a table"
        if problem:
            raise UserError(
                f"Release {manifest.name} is refused: table {name} of schema version {manifest.schema_version}: "
                f"{problem}. It was not made by this package, or was changed since."
            )


def check_files(folder: Path, manifest: ReleaseManifest, files: Iterable[ReleaseFile]) -> None:
    """Refuse files whose size, footer, rows or columns differ from the manifest or the schema.

    Raises:
        UserError: naming the first such file.
    """
    schemas = schemas_at(manifest.schema_version)
    for file in files:
        if file.table in schemas and (problem := parquet_problem(folder / file.path, file, schemas[file.table])):
            raise UserError(
                f"Release {manifest.name} is refused: {file.path}: {problem}. Pull or stage it again; if it stays so, "
                "do not use it."
            )


def _is_here(folder: Path, file: ReleaseFile, folders: Iterable[Path]) -> bool:
    """Whether a file exists; a link must lead into one of the folders."""
    path = folder / file.path
    if not path.is_file():
        return False
    real = path.resolve()
    if not any(real.is_relative_to(allowed) for allowed in folders):
        raise UserError(f"{path} is a link out of the release: nothing of it is read. Pull or stage it again.")
    return True


def _missing(table: str, name: str, here: int, files: int) -> str:
    part = f" ({here:,} of its {files:,} files are here)" if here else ""
    return f"Table {table} was not pulled{part}: `latentlens-dag pull {name} --tables {table}` fetches it."


def _view(folder: Path, table: str, files: list[Path], manifest: ReleaseManifest) -> str:
    """The SELECT of a table with the columns of this version."""
    if not files:
        return empty_sql(TABLES[table])
    rows = view_sql(table, [mounted_path(folder, file) for file in files])
    rows = migrated(table, rows, manifest.schema_version, manifest.studies)
    columns = [_column(table, field) for field in TABLES[table]]
    return f"SELECT {', '.join(columns)} FROM ({rows})"


def _column(table: str, field: pa.Field) -> str:
    name = identifier(field.name)
    value = f"struct_extract({name}, 'bytes')" if (table, field.name) == ("images", "thumbnail") else name
    return f"CAST({value} AS {SQL_TYPES[field.type]}) AS {name}"
