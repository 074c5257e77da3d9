"""Reading a dataset: its tables as SQL views and Polars frames, and the queries that come with it.

`open_dataset` takes a warehouse, a home, a catalog or a release and gives the same tables for each. The queries are
files of `queries/`, each with a comment that gives its title, what it answers and its parameters.

What a newcomer gets wrong: values are bound, never pasted. Write `WHERE word = $word` and pass `word=...`,
then a quote in a word is a quote and nothing else.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import duckdb

from latentlens_dag.dataset.human_judgements import FOLDER, judging_folder
from latentlens_dag.dataset.named_queries import NamedQuery, ParameterValue, named_queries
from latentlens_dag.dataset.release_catalog import find_catalog
from latentlens_dag.dataset.study_catalog import write_catalog
from latentlens_dag.errors import UserError
from latentlens_dag.hub.names import parse_release_name
from latentlens_dag.release.reader import ReleaseTables, is_release, read_release
from latentlens_dag.schema import TABLES
from latentlens_dag.sql.quoting import identifier, literal
from latentlens_dag.sql.sandbox import (
    NO_LIMITS,
    Limits,
    first_line,
    mounted_path,
    open_file,
    open_folder,
    require_select,
)
from latentlens_dag.sql.views import (
    IDENTITY,
    count_sets,
    current_files,
    human_judgements_view,
    table_patterns,
    view_sql,
)
from latentlens_dag.storage.home import find_warehouse
from latentlens_dag.storage.warehouse import Warehouse

if TYPE_CHECKING:
    import polars as pl

__all__ = ["Dataset", "open_dataset", "write_catalog"]


class Dataset:
    """The tables of a dataset, for reading. Safe to share between threads; every query has a cursor of its own."""

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        files: Mapping[str, list[Path]],
        spill: tempfile.TemporaryDirectory[str] | None,
        release: ReleaseTables | None = None,
        in_catalog: bool = False,
    ) -> None:
        """Take a locked connection, the files of tables that are nothing but files, and where it spills to.

        Of a release also what it is, and whether the connection reads its catalog instead of its files.
        """
        self._connection = connection
        self._files = files
        self._spill = spill  # removed with the dataset
        self._missing = {} if release is None else release.missing
        self.release = None if release is None else release.manifest
        """What a release says of itself; None for what is none."""
        self._of_image = None if release is None or in_catalog else release.of_image
        self.release_tables = release
        """A release as it lies on this machine; None for what is none."""
        self.folder = None if release is None else release.folder
        """Where a release lies."""

    @property
    def tables(self) -> list[str]:
        """The names of its tables, in alphabetical order."""
        return sorted(row[0] for row in self.sql("SHOW TABLES").fetchall())

    def sql(self, query: str, /, **params: ParameterValue) -> duckdb.DuckDBPyRelation:
        """Run one reading statement; `$name` in it is bound to the parameter of that name.

        Returns:
            A relation: `.pl()`, `.df()`, `.fetchall()`.

        Raises:
            UserError: if it is not SQL, does more than read, touches a file, or names what does not exist.
        """
        return self._run(self._connection.cursor(), query, params)

    def _run(
        self, cursor: duckdb.DuckDBPyConnection, query: str, params: Mapping[str, ParameterValue]
    ) -> duckdb.DuckDBPyRelation:
        try:
            require_select(cursor, query)
            return cursor.sql(query, params=params) if params else cursor.sql(query)
        except duckdb.Error as error:
            raise UserError(self._told(error, query)) from error

    def scan(self, table: str) -> pl.LazyFrame:
        """A table as a Polars LazyFrame; files are read where and as far as the query needs them.

        Raises:
            UserError: if there is no such table.
        """
        import polars as pl

        if table in self._missing:
            raise UserError(self._missing[table])
        if table not in self.tables:
            raise UserError(f"There is no table {table!r}; there are {', '.join(self.tables)}.")
        if self._files.get(table):
            return pl.scan_parquet(self._files[table], glob=False)
        # Typed as `Any` by duckdb: with lazy=True it gives a LazyFrame that pushes columns and filters down.
        lazy: pl.LazyFrame = self.sql(f"FROM {identifier(table)}").pl(lazy=True)
        return lazy

    def named(self, name: str, /, **params: ParameterValue) -> duckdb.DuckDBPyRelation:
        """Run a named query with its parameters, defaults where they are not given.

        Raises:
            UserError: if there is no such query, a parameter is unknown, or a required one is missing.
        """
        query = named_queries().get(name)
        if query is None:
            raise UserError(f"There is no query {name!r}; there are {', '.join(named_queries())}.")
        values = _bound(query, params)
        text = self._pivoted(query, values) if query.pivot else query.sql
        return self._run(self._cursor_of(values.get("image_id")), text, values)

    def _cursor_of(self, image_id: ParameterValue) -> duckdb.DuckDBPyConnection:
        """A cursor for a named query about one image: of a release, which has a file per image, it opens no other."""
        cursor = self._connection.cursor()
        if isinstance(image_id, str) and self._of_image is not None:
            for table, select in self._of_image(image_id).items():
                cursor.execute(f"CREATE TEMP VIEW {identifier(table)} AS {select}")
        return cursor

    def query(self, text: str, /, **params: ParameterValue) -> duckdb.DuckDBPyRelation:
        """Run a named query or, where the text is no query's name, SQL: what the command line takes.

        Raises:
            UserError: as `named` and `sql`; for one word that is neither, naming the queries.
        """
        if text.strip() in named_queries():
            return self.named(text.strip(), **params)
        try:
            return self.sql(text, **params)
        except UserError as error:
            if not re.fullmatch(r"\s*[\w-]+\s*", text):
                raise
            names = ", ".join(named_queries())
            raise UserError(f"{text.strip()!r} is no query; there are {names}. Nor is it SQL: {error}") from error

    def collect(self, text: str, /, **params: ParameterValue) -> pl.DataFrame:
        """Run a named query or SQL to its end: what a command or a page shows.

        A relation is lazy, so a value that does not fit (`layer="x"`) fails only when it is read, with an error of
        DuckDB's. Here every mistake is told alike.

        Raises:
            UserError: as `query`, and for what goes wrong while the query runs.
        """
        try:
            found: pl.DataFrame = self.query(text, **params).pl()
        except duckdb.Error as error:
            raise UserError(self._told(error, text)) from error
        return found

    def close(self) -> None:
        """Close the connection; relations made from it are of no use afterwards."""
        self._connection.close()
        if self._spill is not None:
            self._spill.cleanup()

    def __enter__(self) -> Dataset:
        """The dataset itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()

    def _told(self, error: duckdb.Error, query: str) -> str:
        """A mistake in a query; that a table is in the release and not here; that a file is no longer here."""
        if gone := re.search(r"No such file or directory: '(.*)'", str(error)):
            return f"{gone[1]} is gone since this was opened: it was moved, or a build replaces it. Open this anew."
        asked = re.search(r"Table with name (\w+) does not exist", str(error))
        if asked and (missing := self._missing.get(asked[1].lower())):
            return missing
        code = " ".join(line.strip() for line in query.splitlines() if not line.startswith("--"))
        return f"{first_line(error)} (in: {' '.join(code.split())[:200]})"

    def _pivoted(self, query: NamedQuery, values: Mapping[str, ParameterValue]) -> str:
        """The query as a matrix. DuckDB finds the columns of a PIVOT itself, but not where values are bound."""
        column, cell = map(identifier, query.pivot or ("", ""))
        found = self.sql(f"SELECT DISTINCT {column} FROM ({query.sql}\n) ORDER BY 1", **values).fetchall()
        if not found:
            return query.sql
        members = ", ".join(literal(value) if isinstance(value, str) else str(value) for (value,) in found)
        return f"FROM (PIVOT ({query.sql}\n) ON {column} IN ({members}) USING first({cell})) ORDER BY ALL"


def open_dataset(source: str | Path | Warehouse, limits: Limits = NO_LIMITS) -> Dataset:
    """Open a dataset for reading.

    Args:
        source: a warehouse, a home (which has the folder `warehouse/`), a catalog.duckdb file, the folder of a release,
            or the name of one on the Hugging Face Hub, as `user/name` or `user/name@v1.0.0`. What of it is not here
            yet is downloaded, unless some of its tables were pulled before: then these are opened.
        limits: what its queries may take together.

    Raises:
        UserError: if it is none of these, or a release is refused or cannot be downloaded.
    """
    path = source.root if isinstance(source, Warehouse) else Path(source)
    if isinstance(source, str) and not path.exists() and (asked := parse_release_name(source)):
        from latentlens_dag.release.pull import pull_tables

        return _open_release(pull_tables(*asked), limits)
    if not isinstance(source, Warehouse) and is_release(path):
        return _open_release(read_release(path, "user/name"), limits)
    spill = _spill_folder(limits)
    if path.is_file():
        return Dataset(open_file(path, _place(spill), limits), {}, spill)
    root = path if isinstance(source, Warehouse) else _warehouse_root(path)
    people = judging_folder(path)
    files = {table: current_files(root, found) for table, found in table_patterns().items()}
    several = {table for table in IDENTITY if count_sets(root, files[table]) > 1}
    views = {
        table: view_sql(table, [mounted_path(root, file) for file in files[table]], table in several)
        for table in TABLES
    }
    plain = {table: found for table, found in files.items() if table not in several}
    listed = {file.relative_to(root).as_posix() for found in files.values() for file in found}
    beside = {} if people is None else {FOLDER: people.root}
    if people is not None:
        views["human_judgements"] = human_judgements_view(
            [mounted_path(people.root, file, FOLDER) for file in people.files()]
        )
    return Dataset(open_folder(root, views, _place(spill), listed, limits, beside), plain, spill)


def _open_release(release: ReleaseTables, limits: Limits) -> Dataset:
    """Through its catalog where one was made on this machine."""
    spill = _spill_folder(limits)
    if catalog := find_catalog(release):
        return Dataset(open_file(catalog, _place(spill), limits), release.files, spill, release, in_catalog=True)
    try:
        connection = open_folder(release.folder, release.views, _place(spill), release.listed, limits)
    except duckdb.Error as error:
        raise UserError(f"Release {release.manifest.name} cannot be read: {first_line(error)}") from error
    return Dataset(connection, release.files, spill, release)


def _spill_folder(limits: Limits) -> tempfile.TemporaryDirectory[str] | None:
    """A folder for what does not fit into memory, where it may be spilled."""
    if not limits.spill:
        return None
    return tempfile.TemporaryDirectory(prefix="latentlens-sql-", ignore_cleanup_errors=True)


def _place(folder: tempfile.TemporaryDirectory[str] | None) -> Path | None:
    return None if folder is None else Path(folder.name)


def is_empty(warehouse: Warehouse) -> bool:
    """Whether no table of a warehouse has a file yet."""
    return not any(current_files(warehouse.root, patterns) for patterns in table_patterns().values())


def _warehouse_root(path: Path) -> Path:
    if not path.is_dir():
        raise UserError(f"There is no folder or file {path}. Give a warehouse, a home, a release or a catalog.duckdb.")
    root = find_warehouse(path).root
    parts = {Path(pattern).parts[0] for patterns in table_patterns().values() for pattern in patterns}
    if root.name != "warehouse" and not any((root / part).is_dir() for part in parts):
        raise UserError(
            f"{path} is no dataset: it has neither warehouse/ nor any of {', '.join(sorted(parts))}. "
            "Give a warehouse, a home (LATENTLENS_HOME), a release or a catalog.duckdb."
        )
    return root


def _bound(query: NamedQuery, params: Mapping[str, ParameterValue]) -> dict[str, ParameterValue]:
    known = {parameter.name: parameter for parameter in query.parameters}
    if unknown := ", ".join(name for name in params if name not in known):
        raise UserError(f"Query {query.name} has no parameter {unknown}; it has {', '.join(known) or 'none'}.")
    missing = [parameter for name, parameter in known.items() if parameter.required and name not in params]
    if missing:
        needed = ", ".join(f"{parameter.name} ({parameter.description})" for parameter in missing)
        raise UserError(f"Query {query.name} needs {needed}.")
    return {name: params.get(name, parameter.default) for name, parameter in known.items()}
