"""Who may import whom, and what is imported when nothing is done yet."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "latentlens_dag"
CORE = [
    p for p in PACKAGE.rglob("*.py") if "dag" not in p.relative_to(PACKAGE).parts[:-1] and p.name != "definitions.py"
]


def _imports(file: Path) -> set[str]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {node.module or ""}
    return found


@pytest.mark.parametrize("file", CORE, ids=lambda p: p.relative_to(PACKAGE).as_posix())
def test_core_modules_know_neither_the_orchestrator_nor_the_pages(file: Path) -> None:
    roots = {name.split(".")[0] for name in _imports(file)}
    assert not roots & {"dagster", "streamlit"}
    if "cli" not in file.relative_to(PACKAGE).parts:
        assert not any(name.startswith("latentlens_dag.dag") for name in _imports(file))


@pytest.mark.parametrize("file", CORE, ids=lambda p: p.relative_to(PACKAGE).as_posix())
def test_only_the_demo_builder_knows_the_demo(file: Path) -> None:
    if "demo" not in file.relative_to(PACKAGE).parts:
        assert not any(name.startswith("latentlens_dag.demo") for name in _imports(file))


@pytest.mark.parametrize("statement", ["import latentlens_dag", "import latentlens_dag.cli.main"])
def test_what_is_heavy_is_imported_late(statement: str) -> None:
    code = f"{statement}, sys; print({{m.split('.')[0] for m in sys.modules}} & {set(HEAVY)!r})"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"


HEAVY = ("torch", "dagster", "transformers", "lance", "duckdb", "polars", "streamlit", "datasets")
