"""The catalog of a release, made once on this machine: its tables in one DuckDB file, for reading fast.

A release is cut for the Hub, into a few files per image, so that one image more uploads little. Whoever looks up one
word or one patch opens all of them: of the paper's size (23 million rows, 1,500 files) half a second for a patch, where
its catalog takes 15 ms. Making that takes half a minute of one core and 1.6 times the release's bytes, so only who
browses makes it, in the background; `open_dataset` reads it where it is.

What a newcomer gets wrong: it lies among the assets of the Hub's cache (`HF_HOME/assets`), never in the release, and is
named after what is in it. So it is never out of date, and may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread, get_native_id
from types import TracebackType

import duckdb

from latentlens_dag.cleaning import interrupted
from latentlens_dag.release_manifest import MANIFEST
from latentlens_dag.release_reading import ReleaseTables
from latentlens_dag.sandbox import ReadOnlyFolder, first_line
from latentlens_dag.views import create_views, identifier, literal
from latentlens_dag.warehouse import atomic_path, remove, scratch_folder

_FORMAT = 1
"""Raise it when the same release would give another catalog."""
_MEMORY = "300MB"
_UNUSED_S = 30 * 86_400


def made_catalogs() -> list[Path]:
    """The catalogs that were made on this machine."""
    return sorted(_folder().glob("*.duckdb"))


def made_catalog(release: ReleaseTables) -> Path | None:
    """The catalog of a release, None where it was not made yet; it counts as used now."""
    path = _catalog_of(release)
    if not path.is_file():
        return None
    os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns))
    return path


class CatalogMaker:
    """Makes the catalog of a release; `stop` ends it from another thread, and leaves nothing behind."""

    def __init__(self, release: ReleaseTables) -> None:
        """Take the release; nothing is made yet."""
        self._release = release
        self._stopped = False
        self._connection = duckdb.connect()

    def make(self) -> None:
        """Make the catalog, atomically, and remove those that nobody has used for a month.

        Raises:
            duckdb.Error: if a file cannot be read or written, or it was stopped.
            OSError: if there is no room for it.
        """
        remove_unused()
        path = _catalog_of(self._release)
        with scratch_folder(path) as scratch, atomic_path(path) as temporary:
            self._prepare(scratch)
            self._connection.execute(f"ATTACH {literal(str(temporary))} AS catalog")
            for table in map(identifier, self._release.views):
                if self._stopped:
                    raise duckdb.InterruptException("Stopped.")
                self._connection.execute(f"CREATE TABLE catalog.{table} AS FROM {table}")
            self._connection.execute("DETACH catalog")

    def _prepare(self, scratch: Path) -> None:
        """Rows keep the order of a release, by image, layer and lens, as one thread reads them."""
        settings = {"memory_limit": _MEMORY, "threads": 1, "temp_directory": str(scratch)}
        for name, value in {**settings, "enable_external_file_cache": False, "enable_progress_bar": False}.items():
            self._connection.execute(f"SET {name} = {literal(value) if isinstance(value, str) else value}")
        self._connection.register_filesystem(ReadOnlyFolder(self._release.folder, self._release.listed))
        for statement in create_views(self._release.views):
            self._connection.execute(statement)

    def stop(self) -> None:
        """End `make`."""
        self._stopped = True
        self._connection.interrupt()

    def __enter__(self) -> CatalogMaker:
        """The maker itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close its connection."""
        self._connection.close()


@contextmanager
def made_in_background(release: ReleaseTables | None) -> Iterator[Thread | None]:
    """Make the catalog of a release while the block runs, unless there is one, or nothing to make one of.

    What goes wrong is no more than a browser that stays slow, so it is logged and nothing else.
    """
    if release is None or made_catalog(release) is not None:
        yield None
        return
    with CatalogMaker(release) as maker:
        thread = Thread(target=_make_quietly, args=[maker], daemon=True)
        thread.start()
        try:
            yield thread
        finally:
            while thread.is_alive():  # an interrupt between two statements has no effect
                maker.stop()
                thread.join(0.1)


def _make_quietly(maker: CatalogMaker) -> None:
    if hasattr(os, "setpriority"):  # of Linux, where a thread has a priority of its own; it must not slow the pages
        os.setpriority(os.PRIO_PROCESS, get_native_id(), 19)
    try:
        maker.make()
    except duckdb.InterruptException:
        return
    except (duckdb.Error, OSError) as error:
        logging.getLogger(__name__).warning("No catalog was made, so look-ups stay slow: %s", first_line(error))


def remove_unused() -> None:
    """Remove the catalogs that nobody has used for a month, and what a kill has left of one."""
    unused = [path for path in made_catalogs() if time.time() - path.stat().st_atime > _UNUSED_S]
    for path in [*unused, *(left.path for left in interrupted(_folder()))]:
        remove(path)


def _catalog_of(release: ReleaseTables) -> Path:
    """Where it lies: the manifest names the hash of every file; some tables may not have been pulled."""
    made_of = hashlib.sha256((release.folder / MANIFEST).read_bytes())
    made_of.update(repr((_FORMAT, duckdb.__version__, sorted(release.views))).encode())
    return _folder() / f"{made_of.hexdigest()[:32]}.duckdb"


def _folder() -> Path:
    from huggingface_hub import cached_assets_path

    return cached_assets_path("latentlens-dag", namespace="catalogs")
