"""Reading a dataset: its tables as SQL views and Polars frames, and its named queries.

`open_dataset` takes a warehouse, a home, a catalog or a release, and gives the same tables for each. Values are bound,
never pasted: write `WHERE word = $word` and pass `word=...`, and a quote in a word stays a quote.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb

from latentlens_dag.dataset.human_judgements import FOLDER, JudgingFolder, judging_folder
from latentlens_dag.dataset.named_queries import NamedQuery, ParameterValue, named_queries
from latentlens_dag.dataset.older_homes import mixed_view, older_note, older_studies
from latentlens_dag.dataset.release_catalog import find_catalog
from latentlens_dag.dataset.result_types import result_frame
from latentlens_dag.errors import UserError
from latentlens_dag.hub.names import parse_release_name
from latentlens_dag.release.reader import ReleaseTables, is_release, read_release
from latentlens_dag.schema import TABLES
from latentlens_dag.sql.quoting import identifier, literal
from latentlens_dag.sql.sandbox import (
    NO_LIMITS,
    QUERY_ERRORS,
    Limits,
    first_line,
    mounted_path,
    open_file,
    open_folder,
    require_select,
)
from latentlens_dag.sql.views import (
    DECLARED,
    IDENTITY,
    count_sets,
    current_files,
    human_judgements_view,
    table_patterns,
    view_sql,
    with_text_id,
)
from latentlens_dag.storage.home import find_warehouse
from latentlens_dag.storage.paths import refuse_address, refuse_too_long
from latentlens_dag.storage.warehouse import Warehouse
from latentlens_dag.text.html import table_html

if TYPE_CHECKING:
    import polars as pl


_SIZE = "SELECT count(*) FROM {}"


class Dataset:
    """The tables of a dataset, for reading. Safe to share between threads; every query has a cursor of its own."""

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        files: Mapping[str, list[Path]],
        spill: tempfile.TemporaryDirectory[str] | None,
        release: ReleaseTables | None = None,
        in_catalog: bool = False,
        note: str | None = None,
    ) -> None:
        """Take a locked connection, the files of the tables that consist of plain files, and the folder to spill to.

        For a release also the release, and whether the connection reads its catalog instead of its files.
        """
        self.note = note if release is None else release.note
        """What people should know where an older version of this package made some of the tables."""
        self._connection = connection
        self._files = files
        self._spill = spill  # removed with the dataset
        self._missing = {} if release is None else release.missing
        self.release = None if release is None else release.manifest
        """The manifest of a release; None for anything else."""
        self._of_image = None if release is None or in_catalog else release.of_image
        self.release_tables = release
        """A release as it lies on this machine; None for anything else."""

    @property
    def tables(self) -> list[str]:
        """The names of the tables, sorted."""
        return sorted(row[0] for row in self.sql("SHOW TABLES").fetchall())

    def __repr__(self) -> str:
        """The names of the tables, on one line."""
        try:
            return f"<Dataset of {len(self.tables)} tables: {', '.join(self.tables)}>"
        except (UserError, duckdb.Error):
            return "<Dataset, closed>"

    def _repr_html_(self) -> str:
        try:
            rows = [(name, *self.sql(_SIZE.format(identifier(name))).fetchall()[0]) for name in self.tables]
        except (UserError, duckdb.Error):  # closed, or a file is gone
            return table_html(repr(self), [], [])
        cells = [(name, f"{count:,}", ", ".join(self.sql(f"FROM {identifier(name)}").columns)) for name, count in rows]
        return table_html(f"Dataset of {len(rows)} tables", ("table", "rows", "columns"), cells)

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
        except QUERY_ERRORS as error:
            raise UserError(self._query_error(error, query)) from error

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
        """A cursor for a query about one image: of a release, which has a file per image, it opens only that file."""
        cursor = self._connection.cursor()
        if isinstance(image_id, str) and self._of_image is not None:
            for table, select in self._of_image(image_id).items():
                cursor.execute(f"CREATE TEMP VIEW {identifier(table)} AS {select}")
        return cursor

    def query(self, text: str, /, **params: ParameterValue) -> duckdb.DuckDBPyRelation:
        """Run a named query or, if the text is not the name of one, SQL.

        Raises:
            UserError: as `named` and `sql`; for a single word that is neither, with the names of the queries.
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
        """The rows of a named query or of SQL.

        What Polars has no type for, such as an interval or a year after 9999, is text. A relation is lazy, so a wrong
        value (`layer="x"`) fails only when it is read, with an error of DuckDB. Here every mistake is a UserError.

        Raises:
            UserError: as `query`, and if the query fails while it runs.
        """
        try:
            return result_frame(self.query(text, **params))
        except QUERY_ERRORS as error:
            raise UserError(self._query_error(error, text)) from error

    def close(self) -> None:
        """Close the connection, and with it all relations made from it."""
        self._connection.close()
        if self._spill is not None:
            self._spill.cleanup()

    def __enter__(self) -> Dataset:
        """The dataset itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def _query_error(self, error: Exception, query: str) -> str:
        """The message of an error: a file that is gone, a table that was not pulled, or a mistake in the query."""
        if gone := re.search(r"No such file or directory: '(.*)'", str(error)):
            return f"{gone[1]} is gone since this was opened: it was moved, or a build replaces it. Open this anew."
        table = re.search(r"Table with name (\w+) does not exist", str(error))
        if table and (missing := self._missing.get(table[1].lower())):
            return missing
        code = " ".join(line.strip() for line in query.splitlines() if not line.startswith("--"))
        return f"{first_line(error)} (in: {' '.join(code.split())[:200]})"

    def _pivoted(self, query: NamedQuery, values: Mapping[str, ParameterValue]) -> str:
        """The SQL of a query as a matrix. DuckDB finds the columns of a PIVOT itself only if no values are bound."""
        pivot, *cells = query.pivot or ("", "")
        column = identifier(pivot)
        found = self.sql(f"SELECT DISTINCT {column} FROM ({query.sql}\n) ORDER BY 1", **values).fetchall()
        if not found:
            return query.sql
        members = [value for (value,) in found]
        listed = ", ".join(literal(value) if isinstance(value, str) else str(value) for value in members)
        filled = ", ".join(f"first({identifier(cell)}) AS {identifier(cell)}" for cell in cells)
        made = {cell: [identifier(f"{value}_{cell}") for value in members] for cell in cells}
        first = [f"{name} AS {identifier(str(value))}" for name, value in zip(made[cells[0]], members, strict=True)]
        shown = ", ".join([*first, *(name for cell in cells[1:] for name in made[cell])])
        every = ", ".join(name for names in made.values() for name in names)
        matrix = f"PIVOT ({query.sql}\n) ON {column} IN ({listed}) USING {filled}"
        return f"SELECT * EXCLUDE ({every}), {shown} FROM ({matrix}) ORDER BY ALL"


def open_dataset(source: str | Path | Warehouse, limits: Limits = NO_LIMITS) -> Dataset:
    """Open a dataset for reading.

    Args:
        source: a warehouse, a home (which has the folder `warehouse/`), a catalog.duckdb file, the folder of a release,
            or the name of one on the Hugging Face Hub, as `user/name` or `user/name@v1.0.0`. It is downloaded, unless
            some of its tables were pulled before: then these are opened.
        limits: memory and threads for all its queries together.

    Raises:
        UserError: if the source is none of these, or a release is refused or cannot be downloaded.
    """
    if isinstance(source, Warehouse):
        return _open_warehouse(source.root, None, limits)
    refuse_too_long(source, "data")
    path = Path(source)
    if isinstance(source, str) and not path.exists() and (name := parse_release_name(source)):
        from latentlens_dag.release.pull import pull_tables

        return _open_release(pull_tables(*name), limits)
    refuse_address(source, "data", _ON_THE_HUB)
    if is_release(path):
        return _open_release(read_release(path, "user/name"), limits)
    if path.is_file():
        spill = _spill_folder(limits)
        return Dataset(open_file(path, _path(spill), limits, DECLARED), {}, spill)
    return _open_warehouse(_warehouse_root(path), judging_folder(path), limits)


_ON_THE_HUB = "Name a folder or file of this machine, or a release on the Hub as user/name@v1.0.0."


def _open_warehouse(root: Path, people: JudgingFolder | None, limits: Limits) -> Dataset:
    files = {table: current_files(root, patterns) for table, patterns in table_patterns().items()}
    several = {table for table in IDENTITY if count_sets(root, files[table]) > 1}
    views = {
        table: view_sql(table, [mounted_path(root, file) for file in files[table]], table in several)
        for table in TABLES
    }
    older = {table: found for table in TABLES if (found := older_studies(root, table, files[table]))}
    views |= {table: mixed_view(root, table, files[table], found) for table, found in older.items()}
    note = older_note(older)
    beside = {}
    if people is not None:
        mounted = [mounted_path(people.root, file, FOLDER) for file in people.files()]
        views["human_judgements"], beside[FOLDER] = human_judgements_view(mounted), people.root
    of_texts = {file.relative_to(root).parts[1] for file in files["text_tokens"]}
    views = {table: with_text_id(table, select, of_texts) for table, select in views.items()}
    listed = {file.relative_to(root).as_posix() for table in files.values() for file in table}
    plain = {table: paths for table, paths in files.items() if table not in several and table not in older}
    spill = _spill_folder(limits)
    return Dataset(open_folder(root, views, _path(spill), listed, limits, beside), plain, spill, note=note)


def _open_release(release: ReleaseTables, limits: Limits) -> Dataset:
    """Open a release through its catalog if this machine has one."""
    spill = _spill_folder(limits)
    if catalog := find_catalog(release):
        return Dataset(open_file(catalog, _path(spill), limits), release.files, spill, release, in_catalog=True)
    try:
        of_texts = {Path(file).parts[1] for file in release.listed if Path(file).parts[0] == "text_tokens"}
        views = {table: with_text_id(table, select, of_texts) for table, select in release.views.items()}
        connection = open_folder(release.folder, views, _path(spill), release.listed, limits)
    except duckdb.Error as error:
        raise UserError(f"Release {release.manifest.name} cannot be read: {first_line(error)}") from error
    return Dataset(connection, release.files, spill, release)


def _spill_folder(limits: Limits) -> tempfile.TemporaryDirectory[str] | None:
    """A folder for what does not fit into memory, unless nothing may be spilled."""
    if not limits.spill:
        return None
    return tempfile.TemporaryDirectory(prefix="latentlens-sql-", ignore_cleanup_errors=True)


def _path(folder: tempfile.TemporaryDirectory[str] | None) -> Path | None:
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
