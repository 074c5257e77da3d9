"""The files of a source: which count, in what order, and when one is read again."""

import json
import os
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latentlens_dag.storage.file_hashes import content_hash, file_hashes, file_states, files_below, forget_hash
from latentlens_dag.storage.hashing import hash_file

NAMES = st.sampled_from(["a", "b", "a.b", "B", ".a", "README.md", "z-1", "é", "a b"])


def _by_definition(path: Path, hidden: bool) -> dict[Path, list[int]]:
    """As the versions of every home before were made."""
    below = (file for file in path.rglob("*") if file.is_file() and file.name != "README.md")
    counted = (file for file in below if hidden or not any(n.startswith(".") for n in file.relative_to(path).parts))
    return {file: [file.stat().st_size, file.stat().st_mtime_ns] for file in sorted(counted)}


@settings(deadline=None)
@given(files=st.lists(st.lists(NAMES, min_size=1, max_size=3).map("/".join), max_size=12), hidden=st.booleans())
def test_the_files_of_a_folder_are_those_of_a_recursive_listing_in_the_order_of_paths(
    files: list[str], hidden: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("folder")
    for name in files:
        if not any(parent.is_file() for parent in (folder / name).parents) and not (folder / name).is_dir():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(name)
    (folder / "link").symlink_to(folder / "gone")
    (folder / "round").symlink_to(folder)
    expected = _by_definition(folder, hidden)
    found = file_states(folder, hidden)
    assert list(found.items()) == list(expected.items())
    hashes = file_hashes(folder, folder.parent / "memory.json", hidden)
    assert list(hashes.items()) == [(str(file), hash_file(file)) for file in expected]


def test_a_file_is_its_own_listing_and_a_missing_one_has_none(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("as a source, it counts")
    assert list(file_states(tmp_path / "README.md")) == [tmp_path / "README.md"]
    assert file_states(tmp_path / "gone") == {}


def test_links_to_nothing_are_below_a_folder_and_folders_are_not(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "link").symlink_to("gone")
    (tmp_path / "again").symlink_to(tmp_path / "folder")
    assert list(files_below(tmp_path)) == [str(tmp_path / "folder" / "link")]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may list every folder")
def test_a_folder_that_must_not_be_listed_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir(mode=0)
    assert file_states(tmp_path) == {}


def test_only_files_of_another_size_or_time_are_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from latentlens_dag.storage import file_hashes as module

    folder, memory, read = tmp_path / "folder", tmp_path / "memory.json", []
    folder.mkdir()
    for name in "abcd":
        (folder / name).write_text(name)
    monkeypatch.setattr(module, "hash_file", lambda path: read.append(path.name) or hash_file(path))
    before = file_hashes(folder, memory)
    (folder / "b").write_text("longer")
    os.utime(folder / "c", ns=(0, 0))
    (folder / "e").write_text("new")
    assert read == list("abcd")
    after = file_hashes(folder, memory)
    assert read == [*"abcd", *"bce"]
    assert {name for name in after if before.get(name) != after[name]} == {str(folder / "b"), str(folder / "e")}


DAMAGED = [5, None, "x", [], [1, 2], {"0": 1}, [1.5, 2, "x"], ["1", 2, "x"], [None, None, ""]]


def test_a_damaged_memory_of_a_file_does_not_count_and_is_mended(tmp_path: Path) -> None:
    (folder := tmp_path / "folder").mkdir()
    (folder / "a").write_text("a")
    expected = file_hashes(folder, memory := tmp_path / "memory.json")
    sound, state = memory.read_text(), file_states(folder)[folder / "a"]
    for damaged in [*DAMAGED, [*state, 5], [*state, None], [*state, "x", "y"], [float(state[0]), state[1], "x"]]:
        memory.write_text(json.dumps({str(folder / "a"): damaged}))
        assert file_hashes(folder, memory) == expected and memory.read_text() == sound
    memory.write_text(json.dumps({str(folder / "a"): [*state, "known"]}))
    assert file_hashes(folder, memory) == {str(folder / "a"): "known"}


def test_sources_that_share_a_file_read_it_once_unless_it_changes_between_them(tmp_path: Path) -> None:
    folder, read = tmp_path / "model", list[str]()
    folder.mkdir()
    for name in ("a", "b"):
        (folder / name).write_text(name)

    @cache
    def hasher(path: str, size: int, time_ns: int) -> str:
        read.append(path)
        return content_hash(path, size, time_ns)

    both = [file_hashes(folder, tmp_path / f"{number}.json", hasher=hasher) for number in range(2)]
    assert both[0] == both[1] == file_hashes(folder, tmp_path / "alone.json")
    assert read == [str(folder / "a"), str(folder / "b")]
    (folder / "b").write_text("changed")
    assert file_hashes(folder, tmp_path / "2.json", hasher=hasher) == file_hashes(folder, tmp_path / "new.json")


def test_a_forgotten_file_is_read_again_with_its_old_size_and_time_and_no_other_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from latentlens_dag.storage import file_hashes as module

    folder, memory, read = tmp_path / "folder", tmp_path / "memory.json", []
    folder.mkdir()
    for name in "abc":
        (folder / name).write_text(name)
    file_hashes(folder, memory)
    facts = (folder / "b").stat()
    (folder / "b").write_text("B")
    os.utime(folder / "b", ns=(facts.st_atime_ns, facts.st_mtime_ns))
    monkeypatch.setattr(module, "hash_file", lambda path: read.append(path.name) or hash_file(path))
    stale = file_hashes(folder, memory)
    forget_hash(folder / "gone", memory)
    forget_hash(folder / "b", memory)
    assert file_hashes(folder, memory) == {str(folder / name): hash_file(folder / name) for name in "abc"} != stale
    assert read == ["b"]
