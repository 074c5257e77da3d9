"""What a release says of itself: `manifest.json`, with every file's size, hash and rows.

Reading it, writing it and refusing what cannot be right belong here; whether the files are as it says is decided where
they are read (`reader.py`, `pull.py`). What a newcomer gets wrong: a manifest comes from a stranger. Nothing
of it may be used, least of all a path, before `read_manifest` has looked at all of it.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn, cast

from latentlens_dag.errors import UserError
from latentlens_dag.schema import TABLES

FORMAT = "latentlens-release"
SCHEMA_VERSION = 1
"""Of the tables' columns and the layout of files; an older one is migrated when it is read (`reader.py`)."""
MANIFEST = "manifest.json"

MAX_FILES = 100_000
MAX_MANIFEST_BYTES = 64 << 20
MAX_FILE_BYTES = 50 << 30
MAX_FILE_ROWS = 10**9 - 1
MAX_PATH_LENGTH = 500
"""Characters; no file system takes many more."""

ReleaseKind = Literal["tables", "index"]
_KINDS = ("tables", "index")
_PART = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,199}")
_HASH = re.compile(r"[0-9a-f]{64}")
_FIELDS = {"format", "schema_version", "kind", "name", "package_version", "studies", "tables", "files"}


@dataclass(frozen=True)
class ReleaseFile:
    """A file of a release."""

    path: str
    """Relative to the release, with `/`."""
    size: int
    """In bytes."""
    sha256: str
    """64 hexadecimal digits."""
    rows: int | None = None
    """Of Parquet of a table; None for any other file."""
    table: str | None = None
    """The table that its rows belong to."""


@dataclass(frozen=True)
class ReleaseTable:
    """A table of a release, which may lie in many files."""

    rows: int
    columns: tuple[str, ...]


@dataclass(frozen=True)
class ReleaseManifest:
    """What `manifest.json` says."""

    kind: ReleaseKind
    name: str
    schema_version: int
    package_version: str
    studies: Mapping[str, Mapping[str, Any]]
    """Where each study came from; only told, never acted on."""
    tables: Mapping[str, ReleaseTable]
    files: tuple[ReleaseFile, ...]
    """Every file but the manifest, in order of their paths."""

    def of(self, tables: Iterable[str]) -> list[ReleaseFile]:
        """The files of some tables, in order of their paths."""
        wanted = set(tables)
        return [file for file in self.files if file.table in wanted]


def read_manifest(source: Path | bytes) -> ReleaseManifest:
    """The manifest of a release, with everything in it checked.

    Args:
        source: the file or its content.

    Raises:
        UserError: where it is too large, no JSON, no manifest of a release, made by a newer version of this package,
            or claims what no release has: unsafe, repeated or too many paths, absurd sizes or numbers of rows.
    """
    facts = _parsed(source)
    if facts.get("format") != FORMAT:
        _refuse(f'it does not say "format": "{FORMAT}", so this is no release of this package')
    _require_version(facts)
    _require_fields(facts)
    tables = {name: _table(name, entry) for name, entry in facts["tables"].items()}
    files = tuple(_file(path, facts["files"][path], tables) for path in sorted(facts["files"]))
    _require_distinct([file.path for file in files])
    _require_sums(tables, files)
    studies = {_named(name, "study"): _object(entry, f"study {name}") for name, entry in facts["studies"].items()}
    version = facts["schema_version"]
    return ReleaseManifest(facts["kind"], facts["name"], version, facts["package_version"], studies, tables, files)


def manifest_text(manifest: ReleaseManifest) -> str:
    """The text of `manifest.json`: the same for equal manifests, with a line for each file, study and table."""
    files = {file.path: _file_facts(file) for file in manifest.files}
    tables = {name: {"rows": table.rows, "columns": list(table.columns)} for name, table in manifest.tables.items()}
    facts = {
        "files": _lines(files),
        "format": _compact(FORMAT),
        "kind": _compact(manifest.kind),
        "name": _compact(manifest.name),
        "package_version": _compact(manifest.package_version),
        "schema_version": _compact(manifest.schema_version),
        "studies": _lines(manifest.studies),
        "tables": _lines(tables),
    }
    return "{\n" + ",\n".join(f"{_compact(name)}: {text}" for name, text in facts.items()) + "\n}\n"


def build_manifest(
    folder: Path, kind: ReleaseKind, name: str, studies: Mapping[str, Mapping[str, Any]], package_version: str
) -> ReleaseManifest:
    """The manifest of a staged folder, made by reading every file in it; an old `manifest.json` is passed over.

    A Parquet file belongs to the table that its first folder, or itself, is named after.

    Args:
        folder: the release.
        kind: tables or index.
        name: what the release is called.
        studies: where each study came from.
        package_version: of this package.

    Raises:
        UserError: where the folder holds what no release may hold: a link, a name that is not portable, files of one
            table with different columns, too much.
    """
    files: list[ReleaseFile] = []
    columns: dict[str, tuple[str, ...]] = {}
    for path in _ordinary_files(folder):
        relative = path.relative_to(folder).as_posix()
        table, rows = table_of(relative), None
        if table is not None:
            rows, names = _footer(path)
            if columns.setdefault(table, names) != names:
                raise UserError(f"{path} has other columns than the files of {table} before it. Stage it again.")
        files.append(ReleaseFile(relative, path.stat().st_size, file_sha256(path), rows, table))
    totals = _row_totals(files)
    tables = {table: ReleaseTable(totals[table], names) for table, names in columns.items()}
    made = ReleaseManifest(kind, name, SCHEMA_VERSION, package_version, studies, tables, tuple(files))
    return read_manifest(manifest_text(made).encode())


def _ordinary_files(folder: Path) -> Iterator[Path]:
    """All files of a folder but the manifest, in order of their paths."""
    for path in sorted(one for one in folder.rglob("*") if one.is_symlink() or not one.is_dir()):
        if path.is_symlink() or not path.is_file():
            raise UserError(f"{path} is no ordinary file: a release holds no links. Stage it again.")
        if path != folder / MANIFEST:
            yield path


def _footer(path: Path) -> tuple[int, tuple[str, ...]]:
    """Rows and columns of a Parquet file."""
    import pyarrow.parquet as pq

    footer = pq.read_metadata(path)
    return footer.num_rows, tuple(footer.schema.to_arrow_schema().names)


def table_of(path: str) -> str | None:
    """The table that a path of a release belongs to, None for files of none."""
    first = path.partition("/")[0].removesuffix(".parquet")
    return first if path.endswith(".parquet") and first in TABLES else None


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file, as 64 hexadecimal digits."""
    import hashlib

    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _parsed(source: Path | bytes) -> dict[str, Any]:
    size = len(source) if isinstance(source, bytes) else source.stat().st_size
    if size > MAX_MANIFEST_BYTES:
        _refuse(f"it has {size:,} bytes, more than the {MAX_MANIFEST_BYTES:,} that a release may need")
    content = source if isinstance(source, bytes) else source.read_bytes()
    try:
        text = content.decode()
        facts = json.loads(text, object_pairs_hook=_once, parse_constant=_refuse_constant)
        json.dumps(facts, ensure_ascii=False).encode()  # half characters, which no file or terminal takes
    except (ValueError, RecursionError) as error:  # also of UTF-8, of half characters, of numbers without end
        _refuse(f"it is no JSON that can be read ({type(error).__name__})")
    return _object(facts, "the manifest")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose names are all different; JSON itself lets the last one win."""
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        _refuse(f"it names {_shown(twice)} twice in one object")
    return found


def _refuse_constant(text: str) -> NoReturn:
    _refuse(f"it holds {text}, which is no JSON")


def _require_version(facts: Mapping[str, Any]) -> None:
    version = _number(facts.get("schema_version"), "schema_version", 2**31)
    if version > SCHEMA_VERSION:
        made = facts.get("package_version")
        _refuse(
            f"it was made by a newer version of this package{f' ({_shown(made)})' if isinstance(made, str) else ''}, "
            f"with schema version {version}, and this one knows {SCHEMA_VERSION} at most. Upgrade: "
            "`pip install -U latentlens-dag`"
        )
    if version < 1:
        _refuse(f"there never was a schema version {version}")


def _require_fields(facts: Mapping[str, Any]) -> None:
    if missing := sorted(_FIELDS - facts.keys()):
        _refuse(f"it lacks {', '.join(missing)}")
    if unknown := sorted(facts.keys() - _FIELDS):
        _refuse(f"nothing is known of its field {_shown(unknown[0])}")
    if facts["kind"] not in _KINDS:
        _refuse(f"its kind is {_shown(facts['kind'])}, not {' or '.join(_KINDS)}")
    _named(facts["name"], "name")
    if not isinstance(facts["package_version"], str) or len(facts["package_version"]) > 100:
        _refuse("its package_version is no version")
    for field in ("studies", "tables", "files"):
        _object(facts[field], field)
    if len(facts["files"]) > MAX_FILES:
        _refuse(f"it has {len(facts['files']):,} files, and {MAX_FILES:,} are the most")


def _table(name: str, entry: Any) -> ReleaseTable:
    facts = _object(entry, f"table {_shown(_named(name, 'table'))}")
    columns = facts.get("columns")
    if not isinstance(columns, list) or not all(isinstance(column, str) for column in columns):
        _refuse(f"the columns of table {name} are no list of names")
    if len(set(columns)) < len(columns):
        _refuse(f"table {name} has two columns of one name")
    return ReleaseTable(_number(facts.get("rows"), f"rows of table {name}", MAX_FILES * MAX_FILE_ROWS), (*columns,))


def _file(path: str, entry: Any, tables: Mapping[str, ReleaseTable]) -> ReleaseFile:
    _require_safe(path)
    facts = _object(entry, f"file {path}")
    size = _number(facts.get("size"), f"size of {path}", MAX_FILE_BYTES)
    sha256, table, rows = facts.get("sha256"), facts.get("table"), facts.get("rows")
    if not isinstance(sha256, str) or not _HASH.fullmatch(sha256):
        _refuse(f"the sha256 of {path} is no hash of 64 hexadecimal digits")
    if (table is None) != (rows is None):
        _refuse(f"{path} has a table without rows, or rows without a table")
    if table is None:
        return ReleaseFile(path, size, sha256)
    if not isinstance(table, str) or table not in tables:
        _refuse(f"{path} belongs to a table {_shown(table)} that the release does not have")
    if not path.endswith(".parquet"):
        _refuse(f"{path} belongs to the table {table}, but is no .parquet")
    return ReleaseFile(path, size, sha256, _number(rows, f"rows of {path}", MAX_FILE_ROWS), table)


def _require_safe(path: str) -> None:
    if len(path) > MAX_PATH_LENGTH or not all(_PART.fullmatch(part) for part in path.split("/")):
        _refuse(
            f"it names a file {_shown(path)}. Paths are relative, of letters, digits, `.`, `_`, `-` and `/` (and "
            "no part may begin with a dot), or they could lead out of the release"
        )
    if path == MANIFEST:
        _refuse(f"it lists itself ({MANIFEST})")


def _require_distinct(paths: Sequence[str]) -> None:
    """No two paths may be one file where capitals do not count, nor one path a folder of another."""
    known = {path.lower() for path in paths}
    if len(known) < len(paths):
        twice = next(path for path, count in Counter(path.lower() for path in paths).items() if count > 1)
        _refuse(f"it names {twice} twice, with other capitals")
    for path in known:
        above = "/".join(path.split("/")[:-1])
        while above:
            if above in known:
                _refuse(f"it names {above} as a file and as a folder")
            above = above.rpartition("/")[0]


def _require_sums(tables: Mapping[str, ReleaseTable], files: Iterable[ReleaseFile]) -> None:
    totals = _row_totals(files)
    for name, table in tables.items():
        if totals[name] != table.rows:
            _refuse(f"table {name} has {table.rows:,} rows, but its files have {totals[name]:,}")


def _row_totals(files: Iterable[ReleaseFile]) -> Counter[str]:
    totals = Counter[str]()
    for file in files:
        totals[file.table or ""] += file.rows or 0
    return totals


def _named(name: Any, what: str) -> str:
    if not isinstance(name, str) or not _PART.fullmatch(name):
        _refuse(f"{_shown(name)} cannot be a {what}: letters, digits, `.`, `_` and `-` can")
    return name


def _number(value: Any, what: str, most: int) -> int:
    if type(value) is not int:
        _refuse(f"the {what} is {_shown(value)}, no number")
    if not 0 <= value <= most:
        _refuse(f"the {what} is {_shown(value)}, and it must be from 0 to {most:,}")
    return value


def _object(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        _refuse(f"{what} is {_shown(value)}, no object")
    return cast("dict[str, Any]", value)


def _shown(value: Any) -> str:
    """A value of a stranger's, short and without what could drive a terminal."""
    text = ascii(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _refuse(reason: str) -> NoReturn:
    raise UserError(
        f"This release's {MANIFEST} is refused: {reason}. If you trust where it came from, fetch or stage it again; "
        "if not, do not use it."
    )


def _file_facts(file: ReleaseFile) -> dict[str, object]:
    facts = {"size": file.size, "sha256": file.sha256, "rows": file.rows, "table": file.table}
    return {name: value for name, value in facts.items() if value is not None}


def _lines(entries: Mapping[str, object]) -> str:
    """An object with one line per entry, in order of their names."""
    lines = [f"{_compact(name)}:{_compact(entries[name])}" for name in sorted(entries)]
    return "{\n" + ",\n".join(lines) + "\n}" if lines else "{}"


def _compact(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False)
