"""Paths that users name: which cannot be used, and a plain path where a library reads characters as its own.

Databases take a path as part of an address: SQLAlchemy, through which Dagster opens SQLite, reads `%` and `?` in it,
and DuckDB cuts the name of its log at a `?`. Without a plain path, files came to lie outside of the home.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from latentlens_dag.errors import UserError

_SCHEME = re.compile(r"(^|/)[A-Za-z][A-Za-z0-9+.-]+:/")  # `pathlib` makes one slash of two; C: is a disk
_IN_ADDRESSES = re.compile(r"[%?#]")
_UNUSABLE = re.compile(r"[\x00-\x1f\x7f\\\ud800-\udfff]")  # Lance refuses them, DuckDB takes a backslash for a slash
_LONGEST_PART, _LONGEST = 255, 4095  # bytes of a file's name and of a path, on Linux; others take no more
_TEMPORARY = ("/tmp", "/var/tmp", "/dev/shm")


def refuse_address(path: str | Path, what: str, remedy: str = "Name a folder or file of this machine.") -> None:
    """Refuse an address such as s3://bucket/home where a path belongs; what exists under such a name passes.

    Args:
        path: as the user wrote it, or below the folder to which it is relative.
        what: the option or field that holds it, for the message.
        remedy: what to write instead.

    Raises:
        UserError: naming the address; also for a path that is too long for any file.
    """
    refuse_too_long(path, what)
    address = path if isinstance(path, str) else "/".join(Path(path).parts)
    if _SCHEME.search(address) and not Path(path).exists():
        raise UserError(f"`{what} {address}`: addresses are not supported here. {remedy}")


def refuse_too_long(path: str | Path, what: str) -> None:
    """Refuse a path that no file can have, at which the system's calls fail; arguments as `refuse_address`.

    Raises:
        UserError: with the first letters and the bound.
    """
    sizes = [_bytes(part) for part in Path(path).parts]
    if max(sizes, default=0) > _LONGEST_PART:
        found, size, most = "a name", max(sizes), _LONGEST_PART
    elif _bytes(str(path)) > _LONGEST:
        found, size, most = "a path", _bytes(str(path)), _LONGEST
    else:
        return
    start = " ".join(str(path)[:40].split())
    raise UserError(
        f"`{what} {start}...` has {found} of {size:,} bytes, and a file system takes {most:,}. Name a shorter one."
    )


def _bytes(text: str) -> int:
    return len(text.encode(errors="surrogatepass"))


def refuse_unusable(path: Path, what: str) -> None:
    """Refuse a path with a character that no file of a home can have: a control character, backslash or raw byte.

    Raises:
        UserError: naming the character.
    """
    if found := _UNUSABLE.search(str(path)):
        raise UserError(
            f"`{what} {str(path)!r}`: the path has the character {found[0]!r}, which the tables' libraries cannot "
            "write. Name a folder without control characters and backslashes."
        )


def is_plain(path: Path) -> bool:
    """Whether a path means itself inside of a database's address, too."""
    return not _IN_ADDRESSES.search(str(path))


@contextmanager
def plain_path(path: Path) -> Iterator[Path]:
    """The same file or folder by a path that databases take literally: through a temporary link where needed.

    Args:
        path: absolute; its folder must exist.

    Raises:
        UserError: where no folder for temporary files has a plain path.
    """
    with _plain_folder(path) as folder:
        if folder is None:
            yield path
        else:
            link = folder / "link"
            link.symlink_to(path.parent, target_is_directory=True)
            yield link / path.name


@contextmanager
def plain_file(path: Path) -> Iterator[Path]:
    """Where to write a new file so that a database takes its path literally; it is copied to `path` at the end.

    For DuckDB, which follows links. Of a plain path, this is the path itself.

    Raises:
        UserError: where no folder for temporary files has a plain path.
    """
    with _plain_folder(path) as folder:
        yield path if folder is None else folder / "file"
        if folder is not None:
            shutil.copyfile(folder / "file", path)


@contextmanager
def _plain_folder(path: Path) -> Iterator[Path | None]:
    """A temporary folder with a plain path; None where `path` is plain itself and needs none."""
    if is_plain(path):
        yield None
        return
    places = [Path(place) for place in (tempfile.gettempdir(), *_TEMPORARY)]
    place = next((place for place in places if is_plain(place) and place.is_dir()), None)
    if place is None:
        raise UserError(f"{path} needs a temporary folder without %, ? and # in its path: name one by TMPDIR.")
    with tempfile.TemporaryDirectory(prefix="latentlens-", dir=place) as folder:
        yield Path(folder)
