"""The catalog of a release, made once on this machine: its tables in one DuckDB file, for fast reading.

A release has a few files per image, so that one more image uploads little; looking up one word or patch opens all of
them: at the paper's size (23 million rows, 1,500 files) a patch takes half a second, and 15 ms with a catalog. Making
one takes half a minute of one core and 1.6 times the release's bytes, so only the browser does, in the background;
`open_dataset` reads it if it exists.

A catalog lies among the assets of the Hub's cache (`HF_HOME/assets`), never in the release. Its name is a hash of the
paths, sizes and times of the files that it was made of, so a changed or copied release never reads another one's
catalog. It may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import duckdb

from latentlens_dag.release.manifest import MANIFEST
from latentlens_dag.release.reader import ReleaseTables
from latentlens_dag.sql.connections import scratch_connection
from latentlens_dag.sql.quoting import create_views, identifier, literal
from latentlens_dag.sql.sandbox import ReadOnlyFolder, first_line
from latentlens_dag.storage.files import atomic_path, remove
from latentlens_dag.storage.paths import plain_file

_FORMAT = 3
"""Raise it when the same release would make another catalog."""
_MEMORY = "300MB"
_UNUSED_S = 30 * 86_400


def list_catalogs() -> list[Path]:
    """The release catalogs on this machine."""
    return sorted(_folder().glob("*.duckdb"))


def find_catalog(release: ReleaseTables) -> Path | None:
    """The catalog of a release, marked as used now; None if there is none yet."""
    path = _catalog_of(release)
    if not path.is_file():
        return None
    os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns))
    return path


@contextmanager
def build_in_background(release: ReleaseTables | None) -> Iterator[subprocess.Popen[str] | None]:
    """Make the catalog of a release while the block runs, unless it exists or `release` is None.

    A process of its own does it, since DuckDB never frees the memory it took. Errors go to stderr only: without a
    catalog the browser is slow, but works.
    """
    if release is None or find_catalog(release) is not None:
        yield None
        return
    facts = {"folder": str(release.folder), "listed": sorted(release.listed), "views": dict(release.views)}
    with subprocess.Popen(
        [sys.executable, "-m", __name__, str(_catalog_of(release))],
        stdin=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C ends it by `kill` below
    ) as process:
        assert process.stdin is not None
        with suppress(BrokenPipeError):  # it has ended already, and said why
            process.stdin.write(json.dumps(facts))
            process.stdin.close()
        try:
            yield process
        finally:
            process.kill()
            process.wait()
            remove_unused_catalogs()


def build_catalog(path: Path, folder: str, listed: Collection[str], views: Mapping[str, str]) -> None:
    """Make the catalog of a release, atomically.

    Rows keep the order of the release, by image, layer and lens, since one thread reads them.

    Args:
        path: the catalog's file.
        folder: the release.
        listed: the files of its tables.
        views: the SELECT of each table.

    Raises:
        duckdb.Error: if a file cannot be read or written.
        OSError: if the disk is full.
    """
    settings = {"threads": 1, "enable_external_file_cache": False}
    with (
        atomic_path(path) as temporary,
        plain_file(temporary) as database,
        scratch_connection(path, _MEMORY, **settings) as connection,
    ):
        connection.register_filesystem(ReadOnlyFolder(Path(folder), listed))
        connection.execute(f"ATTACH {literal(str(database))} AS catalog")
        create_views(connection, views)
        for table in map(identifier, views):
            connection.execute(f"CREATE TABLE catalog.{table} AS FROM {table}")
        connection.execute("DETACH catalog")


def main() -> None:
    """Make the catalog of the release described on standard input, at the path given as argument."""
    if hasattr(os, "nice"):
        os.nice(19)
    try:
        build_catalog(Path(sys.argv[1]), **json.load(sys.stdin))
    except (duckdb.Error, OSError) as error:
        sys.exit(f"No catalog was made, so look-ups stay slow: {first_line(error)}")


def remove_unused_catalogs() -> None:
    """Remove the catalogs that were not used for a month, and what a killed process left."""
    from latentlens_dag.storage.leftovers import interrupted_writes  # takes 0.1 s, which the first view would wait for

    unused = [path for path in list_catalogs() if time.time() - path.stat().st_atime > _UNUSED_S]
    for path in [*unused, *interrupted_writes(_folder())]:
        remove(path)


def _catalog_of(release: ReleaseTables) -> Path:
    """Path by a hash of the manifest, the folder, the sizes and times of its files, and the tables that were pulled."""
    made_of = hashlib.sha256((release.folder / MANIFEST).read_bytes())
    files = []
    for file in sorted(release.listed):
        with suppress(FileNotFoundError):
            facts = (release.folder / file).stat()
            files.append((file, facts.st_size, facts.st_mtime_ns))
    place = str(release.folder.resolve())
    made_of.update(repr((_FORMAT, duckdb.__version__, sorted(release.views), place, files)).encode())
    return _folder() / f"{made_of.hexdigest()[:32]}.duckdb"


def _folder() -> Path:
    from huggingface_hub import cached_assets_path

    return cached_assets_path("latentlens-dag", namespace="catalogs")


if __name__ == "__main__":
    main()
