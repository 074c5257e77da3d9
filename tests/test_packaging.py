"""What an installed copy carries."""

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_every_package_of_the_source_tree_is_installed_and_so_are_all_files_of_the_pages() -> None:
    setup = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    found = {".".join(file.parent.relative_to(ROOT).parts) for file in ROOT.glob("latentlens_dag/**/__init__.py")}
    assert set(setup["packages"]) == {*found, "latentlens_dag.dashboards"}
    pages = ROOT / "dashboards"
    carried = {file for glob in setup["package-data"]["latentlens_dag.dashboards"] for file in pages.glob(glob)}
    there = {file for file in pages.rglob("*") if file.is_file() and "__pycache__" not in file.parts}
    assert there - carried == {pages / "app.py"}
