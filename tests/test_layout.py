"""Where tests lie: in the folder of the package that they test, under the name of its module."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TESTS = Path(__file__).parent
NO_PACKAGES = {"benchmarks", "cases", "families", "fuzz", "helpers", "real", "soak"}
"""Folders of tests that mirror no package: measurements, inputs of the world outside, the table of all families,
damaged inputs, what tests share, real models and what takes hours."""


def _unmirrored(tests: Path, package: Path) -> list[str]:
    """The folders of tests that are neither a package of the same path nor named as none."""
    folders = {file.parent.relative_to(tests) for file in tests.rglob("*.py")} - {Path()}
    own = {folder for folder in folders if folder.parts[0] not in NO_PACKAGES}
    return sorted(str(folder) for folder in own if not (package / folder / "__init__.py").is_file())


def test_every_folder_of_tests_is_that_of_a_package_or_named_as_none() -> None:
    assert _unmirrored(TESTS, ROOT / "latentlens_dag") == ["dashboards"]  # which lies beside the package
    assert (ROOT / "dashboards").is_dir()
    assert {name for name in NO_PACKAGES if not (TESTS / name).is_dir()} == set()


@pytest.mark.parametrize("folder", ["judging", "dag/pages", "helpers_of_more"])
def test_a_folder_of_no_package_is_found(tmp_path: Path, folder: str) -> None:
    for place in (tmp_path / "tests" / folder, tmp_path / "tests" / "helpers" / "more", tmp_path / "tests" / "dag"):
        place.mkdir(parents=True, exist_ok=True)
        (place / "test_a.py").touch()
    (tmp_path / "package" / "dag").mkdir(parents=True)
    (tmp_path / "package" / "dag" / "__init__.py").touch()
    assert _unmirrored(tmp_path / "tests", tmp_path / "package") == [folder]


def test_only_modules_that_pytest_collects_hold_tests() -> None:
    strays = {
        file.relative_to(TESTS).as_posix()
        for file in TESTS.rglob("*.py")
        if "def test_" in file.read_text(encoding="utf-8") and not file.name.startswith("test_")
    }
    assert strays == set()
