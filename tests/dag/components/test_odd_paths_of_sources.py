"""Paths of a defs.yaml that are there, but are something else than what is read."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from latentlens_dag.dag.components.sources import CorpusSource, ImageSource, existing_path
from latentlens_dag.errors import UserError
from latentlens_dag.storage.file_hashes import file_hashes


def _a_file(path: Path) -> None:
    path.write_text("a")


def _a_link_to_nothing(path: Path) -> None:
    path.symlink_to(path.parent / "gone")


def _a_link_to_itself(path: Path) -> None:
    path.symlink_to(path)


MADE: dict[str, tuple[Callable[[Path], None], str]] = {
    "a folder": (Path.mkdir, r"(is a folder, and a file is read|is no folder)"),
    "a file": (_a_file, r"is no folder, and a folder of files is read"),
    "a pipe": (os.mkfifo, r"(is no regular file|is no folder)"),
    "a link to nothing": (_a_link_to_nothing, r"is a link to .*gone, which does not exist"),
    "a link to itself": (_a_link_to_itself, r"is a link to .*x, which does not exist"),
}


@pytest.mark.parametrize("made", MADE)
@pytest.mark.parametrize("field", ["folder", "parquet", "lines", "csv", "jsonl"])
def test_a_path_that_is_something_else_is_refused_before_anything_is_built(
    tmp_path: Path, made: str, field: str
) -> None:
    make, message = MADE[made]
    path = tmp_path / "x"
    make(path)
    if made == ("a folder" if field == "folder" else "a file"):
        return
    with pytest.raises(UserError, match=rf"`source\.{field}` of Corpus a: .*x {message}"):
        if field == "folder":
            ImageSource(folder=path).image_source("Corpus a")
        else:
            CorpusSource(**{field: path}, column=None if field == "lines" else "text").text_source("Corpus a")


@pytest.mark.parametrize("make", [Path.mkdir, _a_file])
def test_a_path_that_may_not_be_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], None]
) -> None:
    make(tmp_path / "x")
    asked: list[int] = []
    monkeypatch.setattr(os, "access", lambda _, mode: bool(asked.append(mode)))  # the tests may run as root
    with pytest.raises(UserError, match=r"`source\.folder` of a: .*x may not be read"):
        existing_path(tmp_path / "x", "source.folder", "a")
    assert asked == [os.R_OK | (os.X_OK if make is Path.mkdir else 0)]


@pytest.mark.parametrize("name", ["c" * 300, "c" * 5000, "c/" * 3000])
def test_a_path_that_no_system_takes_is_refused_and_not_repeated_whole(tmp_path: Path, name: str) -> None:
    with pytest.raises(
        UserError, match=r"^`source\.lines: .*\.\.\.` has a (name|path) of .* bytes, and a file system takes"
    ) as error:
        existing_path(tmp_path / name, "source.lines", "a")
    assert len(str(error.value)) < 500


def test_a_file_that_fails_to_be_read_is_named(tmp_path: Path) -> None:
    def broken(path: str, size: int, time_ns: int) -> str:
        raise OSError(errno.EIO, "Input/output error")  # as of a damaged disk, without the name

    _a_file(tmp_path / "x")
    with pytest.raises(UserError, match=r"x cannot be read \(Input/output error\)"):
        file_hashes(tmp_path / "x", tmp_path / "memory.json", hasher=broken)
