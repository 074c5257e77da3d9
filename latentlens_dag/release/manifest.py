"""The manifest of a release: `manifest.json`, with the size, hash and rows of every file.

This module reads and writes it and refuses claims that no release can make; `reader.py` and `pull.py` compare the files
with it. Note: a manifest may come from a stranger. Nothing of it may be used, least of all a path, before
`read_manifest` has checked all of it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn, cast

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, Strict, TypeAdapter, ValidationError
from pydantic import model_validator as validator
from pydantic.dataclasses import dataclass

from latentlens_dag.errors import UserError
from latentlens_dag.schema import TABLES

FORMAT = "latentlens-release"
SCHEMA_VERSION = 2
"""Of the tables' columns and the layout of files; an older one is migrated when it is read (`migrations.py`)."""
MANIFEST = "manifest.json"

MAX_FILES = 100_000
MAX_MANIFEST_BYTES = 64 << 20
MAX_FILE_BYTES = 50 << 30
MAX_FILE_ROWS = 10**9 - 1
MAX_PATH_LENGTH = 500
"""Characters; no file system takes many more."""

ReleaseKind = Literal["tables", "index"]
_COMPONENT = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,199}")


def _check_name(name: str) -> str:
    if not _COMPONENT.fullmatch(name):
        raise ValueError("names have letters, digits, `.`, `_` and `-`")
    return name


def _check_path(path: str) -> str:
    if len(path) > MAX_PATH_LENGTH or not all(_COMPONENT.fullmatch(part) for part in path.split("/")):
        raise ValueError(
            "paths are relative, of letters, digits, `.`, `_`, `-` and `/` (and no part may begin with a dot), or they "
            "could lead out of the release"
        )
    return path


def _check_distinct(columns: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(columns)) < len(columns):
        raise ValueError("two columns have one name")
    return columns


def _file_list(files: object) -> list[object]:
    """The stored object of files, by path, as a list in order of paths."""
    if not isinstance(files, dict):
        raise ValueError("it must be an object")
    if len(files) > MAX_FILES:
        raise ValueError(f"it has {len(files):,} files, and {MAX_FILES:,} are the most")
    entries = ((path, files[path]) for path in sorted(files))
    return [{**entry, "path": path} if isinstance(entry, dict) else entry for path, entry in entries]


_Name = Annotated[str, AfterValidator(_check_name)]
_Rows = Annotated[int, Strict(), Field(ge=0, le=MAX_FILE_ROWS)]


@dataclass(frozen=True)
class ReleaseFile:
    """A file of a release."""

    path: Annotated[str, AfterValidator(_check_path)]
    """Relative to the release, with `/`."""
    size: Annotated[int, Strict(), Field(ge=0, le=MAX_FILE_BYTES)]
    """In bytes."""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    """64 hexadecimal digits."""
    rows: _Rows | None = None
    """Of a Parquet file of a table; None for any other file."""
    table: str | None = None
    """The table that its rows belong to."""

    @validator(mode="after")
    def _check_table(self) -> ReleaseFile:
        if (self.table is None) != (self.rows is None):
            raise ValueError("it has a table without rows, or rows without a table")
        if self.table is not None and not self.path.endswith(".parquet"):
            raise ValueError(f"it belongs to the table {_shown(self.table)}, but is no .parquet")
        return self


@dataclass(frozen=True)
class ReleaseTable:
    """A table of a release, in one file or many."""

    rows: Annotated[int, Strict(), Field(ge=0, le=MAX_FILES * MAX_FILE_ROWS)]
    columns: Annotated[tuple[str, ...], AfterValidator(_check_distinct)]


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class ReleaseManifest:
    """The content of `manifest.json`."""

    kind: ReleaseKind
    name: _Name
    schema_version: int
    package_version: Annotated[str, Field(max_length=100)]
    studies: dict[_Name, dict[str, Any]]
    """Where each study came from; shown to people, never acted on."""
    tables: dict[_Name, ReleaseTable]
    files: Annotated[tuple[ReleaseFile, ...], BeforeValidator(_file_list)]
    """Every file but the manifest, in order of their paths."""

    def of(self, tables: Iterable[str]) -> list[ReleaseFile]:
        """The files of some tables, in order of their paths."""
        wanted = set(tables)
        return [file for file in self.files if file.table in wanted]

    @validator(mode="after")
    def _check_whole(self) -> ReleaseManifest:
        _check_distinct_paths([file.path for file in self.files])
        rows = Counter[str]()
        for file in self.files:
            if file.table is not None and file.table not in self.tables:
                raise ValueError(f"{file.path} belongs to a table {_shown(file.table)} that the release does not have")
            rows[file.table or ""] += file.rows or 0
        for name, table in self.tables.items():
            if rows[name] != table.rows:
                raise ValueError(f"table {name} has {table.rows:,} rows, but its files have {rows[name]:,}")
        return self


_MANIFESTS = TypeAdapter(ReleaseManifest)


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
    try:
        return _MANIFESTS.validate_python({name: value for name, value in facts.items() if name != "format"})
    except ValidationError as error:
        _refuse(_reason(error, facts))


def manifest_text(manifest: ReleaseManifest) -> str:
    """The text of `manifest.json`: the same for equal manifests, with a line for each file, study and table."""
    plain = {name: getattr(manifest, name) for name in ("kind", "name", "package_version", "schema_version")}
    facts = {
        "files": _lines({file.path: _file_facts(file) for file in manifest.files}),
        **{name: _compact(value) for name, value in {"format": FORMAT, **plain}.items()},
        "studies": _lines(manifest.studies),
        "tables": _lines({name: {"rows": one.rows, "columns": one.columns} for name, one in manifest.tables.items()}),
    }
    return "{\n" + ",\n".join(f"{_compact(name)}: {text}" for name, text in facts.items()) + "\n}\n"


def build_manifest(
    folder: Path, kind: ReleaseKind, name: str, studies: Mapping[str, Mapping[str, Any]], package_version: str
) -> ReleaseManifest:
    """The manifest of a staged folder, made by reading every file in it but an old `manifest.json`.

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
    import pyarrow.parquet as pq

    files: dict[str, dict[str, Any]] = {}
    tables: dict[str, dict[str, Any]] = {}
    for path in _ordinary_files(folder):
        relative = path.relative_to(folder).as_posix()
        files[relative] = {"size": path.stat().st_size, "sha256": file_sha256(path)}
        if (table := table_of(relative)) is not None:
            footer = pq.read_metadata(path)
            columns = tuple(footer.schema.to_arrow_schema().names)
            if tables.setdefault(table, {"rows": 0, "columns": columns})["columns"] != columns:
                raise UserError(f"{path} has other columns than the files of {table} before it. Stage it again.")
            tables[table]["rows"] += footer.num_rows
            files[relative] |= {"rows": footer.num_rows, "table": table}
    facts = {"format": FORMAT, "schema_version": SCHEMA_VERSION, "kind": kind, "name": name, "studies": studies}
    facts |= {"package_version": package_version, "tables": tables, "files": files}
    return read_manifest(_compact(facts).encode())


def _ordinary_files(folder: Path) -> Iterator[Path]:
    """All files of a folder but the manifest, in order of their paths."""
    for path in sorted(one for one in folder.rglob("*") if one.is_symlink() or not one.is_dir()):
        if path.is_symlink() or not path.is_file():
            raise UserError(f"{path} is no ordinary file: a release holds no links. Stage it again.")
        if path != folder / MANIFEST:
            yield path


def table_of(path: str) -> str | None:
    """The table that a path of a release belongs to, None for files of none."""
    first = path.partition("/")[0].removesuffix(".parquet")
    return first if path.endswith(".parquet") and first in TABLES else None


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file, as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _parsed(source: Path | bytes) -> dict[str, Any]:
    size = len(source) if isinstance(source, bytes) else source.stat().st_size
    if size > MAX_MANIFEST_BYTES:
        _refuse(f"it has {size:,} bytes, more than the {MAX_MANIFEST_BYTES:,} that a release may need")
    content = source if isinstance(source, bytes) else source.read_bytes()
    try:
        text = content.decode()
        facts = json.loads(
            text,
            object_pairs_hook=_unique_keys,
            parse_constant=lambda name: _refuse(f"it holds {name}, which is no JSON"),
        )
        json.dumps(facts, ensure_ascii=False).encode()  # half characters, which no file or terminal takes
    except (ValueError, RecursionError) as error:  # also of UTF-8, of half characters, of numbers without end
        _refuse(f"it is no JSON that can be read ({type(error).__name__})")
    if not isinstance(facts, dict):
        _refuse(f"the manifest is {_shown(facts)}, no object")
    return cast("dict[str, Any]", facts)


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose names are all different; JSON itself lets the last one win."""
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        _refuse(f"it names {_shown(twice)} twice in one object")
    return found


def _require_version(facts: Mapping[str, Any]) -> None:
    version, package = facts.get("schema_version"), facts.get("package_version")
    if type(version) is not int:
        _refuse(f"the schema_version is {_shown(version)}, no number")
    if version > SCHEMA_VERSION:
        maker = f" ({_shown(package)})" if isinstance(package, str) else ""
        _refuse(
            f"it was made by a newer version of this package{maker}, with schema version {_shown(version)}, and this "
            f"one knows {SCHEMA_VERSION} at most. Upgrade: `pip install -U latentlens-dag`"
        )
    if version < 1:
        _refuse(f"there never was a schema version {_shown(version)}")


def _reason(error: ValidationError, facts: Mapping[str, Any]) -> str:
    """The first thing that is wrong, with the entry, its key and value: `size of README.md is True: ...`."""
    first = error.errors(include_url=False)[0]
    place = list(first["loc"])
    if place[0:1] == ["files"] and len(place) > 1:
        place[0:2] = [] if place[2:] == ["path"] else [sorted(facts["files"])[cast("int", place[1])]]
    where = " of ".join(_shown(str(part))[1:-1] for part in reversed(place) if part != "[key]")
    if first["type"] == "missing":
        return f"it lacks {where}"
    if first["type"] == "unexpected_keyword_argument":
        return f"nothing is known of its field {where}"
    message = str(first.get("ctx", {}).get("error", first["msg"]))
    value = "" if isinstance(first["input"], dict) else f" is {_shown(first['input'])}"
    return f"{where}{value}: {message}" if place else message


def _check_distinct_paths(paths: list[str]) -> None:
    """No two paths may be one file where capitals do not count, nor one path a folder of another."""
    if MANIFEST in paths:
        raise ValueError(f"it lists itself ({MANIFEST})")
    known = {path.lower() for path in paths}
    if len(known) < len(paths):
        twice = next(path for path, count in Counter(path.lower() for path in paths).items() if count > 1)
        raise ValueError(f"it names {twice} twice, with other capitals")
    for path in known:
        while path := path.rpartition("/")[0]:
            if path in known:
                raise ValueError(f"it names {path} as a file and as a folder")


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
