"""Who may import whom, and what is imported when nothing is done yet."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from graphlib import CycleError, TopologicalSorter
from importlib import import_module
from pathlib import Path

import pytest

import latentlens_dag

ROOT = Path(__file__).parents[1]
FLOORS = (
    ("errors", "schema", "device", "drawing", "text"),
    ("storage", "search"),
    ("hub", "sql"),
    ("models", "inputs", "release"),
    ("index", "dataset", "testing", "training"),
    ("study", "figures"),
    ("publish", "browse"),
    ("dag", "dashboards"),
    ("cli", "definitions"),
    ("demo",),
)
"""The packages, and the modules of the root, from the lowest floor to the highest: each imports only from below."""
LIBRARIES = {
    "dagster": {"dag", "definitions"},
    "streamlit": {"dashboards"},
    "torch": {"device", "models", "search", "index", "study", "testing", "training", "demo"},
    "lance": {"index", "browse"},
    "huggingface_hub": {"hub", "models", "release", "publish", "index", "dataset", "dag"},
}
"""Who alone may import them."""
PACKAGE = "latentlens_dag"
STATEMENT = re.compile(r"\bfrom (latentlens_dag[\w.]*) import (\w+)|\bimport (latentlens_dag[\w.]*)")

Sources = Mapping[str, str]
"""Module -> its text."""


def _sources() -> dict[str, str]:
    found = {}
    for folder in (PACKAGE, "dashboards"):
        for file in (ROOT / folder).rglob("*.py"):
            name = ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            found[name if folder == PACKAGE else f"{PACKAGE}.{name}"] = file.read_text(encoding="utf-8")
    return found


SOURCES = _sources()


@cache
def _names(module: str, source: str, is_package: bool) -> frozenset[str]:
    """All that a module imports, as dotted names: also relative imports, and modules that are named in strings."""
    return frozenset(_each_name(module, source, is_package))


def _each_name(module: str, source: str, is_package: bool) -> Iterator[str]:
    tree = ast.parse(source)
    prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = module.split(".")[: len(module.split(".")) + is_package - node.level] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield from (f"{base}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose:
            if re.fullmatch(rf"{PACKAGE}(\.\w+)+", node.value):
                yield node.value
            yield from (f"{one[1]}.{one[2]}" if one[1] else one[3] for one in STATEMENT.finditer(node.value))


def _module_of(name: str, sources: Sources) -> str | None:
    """The module of the package that a dotted name is, or is of; what the root gives out is of its home."""
    root, _, attribute = name.partition(".")
    if root == PACKAGE and attribute in latentlens_dag._HOMES:
        return latentlens_dag._HOMES[attribute]
    while name not in sources and "." in name:
        name = name.rpartition(".")[0]
    return name if name in sources and name != PACKAGE else None


def _imports(sources: Sources) -> dict[str, set[str]]:
    """Module -> modules of the package that it imports."""
    packages = {name for name in sources if any(other.startswith(f"{name}.") for other in sources)}
    return {
        module: {
            found
            for name in _names(module, source, module in packages)
            if (found := _module_of(name, sources)) not in (None, module)
        }
        for module, source in sources.items()
        if module != PACKAGE
    }


def _package(module: str) -> str:
    return module.split(".")[1]


def _going_up(sources: Sources) -> list[str]:
    """Imports of what is not on a lower floor, in words."""
    floor = {package: number for number, packages in enumerate(FLOORS) for package in packages}
    return [
        f"{module} imports {other}"
        for module, others in _imports(sources).items()
        for other in sorted(others)
        if _package(module) != _package(other) and floor[_package(other)] >= floor[_package(module)]
    ]


def _circle(sources: Sources) -> list[str]:
    """Modules of which each imports the one before, back to the first; none where there is no such circle."""
    try:
        TopologicalSorter(_imports(sources)).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_every_package_has_a_floor() -> None:
    assert {_package(module) for module in SOURCES if module != PACKAGE} == {one for floor in FLOORS for one in floor}


def test_a_package_imports_only_packages_on_lower_floors() -> None:
    assert _going_up(SOURCES) == []


def test_no_files_import_one_another_in_a_circle() -> None:
    assert _circle(SOURCES) == []


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_library_is_imported_only_where_it_belongs(library: str) -> None:
    users = {
        module
        for module, source in SOURCES.items()
        for name in _names(module, source, False)
        if name.split(".")[0] == library
    }
    assert {module for module in users if module == PACKAGE or _package(module) not in LIBRARIES[library]} == set()


UPWARD = {
    "import": "import latentlens_dag.cli.main",
    "from a module": "from latentlens_dag.cli.main import main",
    "from a package": "def late():\n    from latentlens_dag.dag import keys",
    "from the root": "from latentlens_dag import definitions",
    "what the root gives out": "from latentlens_dag import open_dataset",
    "relative": "from ..dag.keys import label",
    "relative, of a module": "from .. import definitions",
    "import_module": "import_module('latentlens_dag.dag.keys')",
    "python -m": "run([sys.executable, '-m', 'latentlens_dag.cli.streamlit_server'])",
    "python -c": "run([sys.executable, '-c', 'from latentlens_dag.cli.main import main; main()'])",
    "python -c import": "CODE = f'import latentlens_dag.dag.keys; {1}'",
    "for a type": "if TYPE_CHECKING:\n    from latentlens_dag.study.lenses import base",
}


@pytest.mark.parametrize("code", UPWARD.values(), ids=UPWARD)
def test_an_import_that_goes_up_is_found_however_it_is_written(code: str) -> None:
    module = f"{PACKAGE}.text.inflection"
    found = _going_up({**SOURCES, module: f"{SOURCES[module]}\n{code}\n"})
    assert len(found) == 1 and found[0].startswith(f"{module} imports {PACKAGE}.")


@pytest.mark.parametrize("code", ["from .quoting import literal", "import_module('latentlens_dag.sql.quoting')"])
def test_a_circle_of_two_files_is_found(code: str) -> None:
    views, quoting = f"{PACKAGE}.sql.views", f"{PACKAGE}.sql.quoting"
    back = "from latentlens_dag.sql.views import view_sql"
    assert _circle({views: code, quoting: ""}) == []
    assert set(_circle({f"{PACKAGE}.sql": "", views: code, quoting: back})) == {views, quoting}


def _missing(text: str) -> list[str]:
    """What a text imports from the package, or names by its dotted path, that is not there."""
    named = [found[0] for found in re.finditer(rf"\b{PACKAGE}(\.\w+)+", text)]
    for module, names in re.findall(r"\bfrom (latentlens_dag[\w.]*) import \(?([\w, ]+)", text):
        named += [f"{module}.{name.split(' as ')[0].strip()}" for name in names.split(",") if name.strip()]
    return sorted({name for name in named if not _is_there(name)})


@cache
def _is_there(name: str) -> bool:
    if any(f"{source}.".startswith(f"{name}.") for source in SOURCES):
        return True
    module, _, attribute = name.rpartition(".")
    if not module:
        return False
    if module in SOURCES:
        return hasattr(import_module(module), attribute)
    return _is_there(module)  # an attribute of an attribute


def test_what_tests_and_docs_name_of_the_package_is_there() -> None:
    files = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "tests").rglob("*.py")]
    files = [file for file in files if file.name not in ("CHANGELOG.md", Path(__file__).name)]
    missing = {str(file.relative_to(ROOT)): _missing(file.read_text(encoding="utf-8")) for file in files}
    assert {file: names for file, names in missing.items() if names} == {}


@pytest.mark.parametrize(
    "text",
    [
        "from latentlens_dag import pull",
        "code = 'from latentlens_dag.release import pull, release_marks'",
        "`latentlens_dag.release.pull.fetch_release`",
        "latentlens_dag.nowhere.pull",
    ],
)
def test_a_name_that_moved_away_is_found(text: str) -> None:
    assert len(_missing(text)) >= 1


@pytest.mark.parametrize("statement", ["import latentlens_dag", "import latentlens_dag.cli.main"])
def test_what_is_heavy_is_imported_late(statement: str) -> None:
    code = f"{statement}, sys; print({{m.split('.')[0] for m in sys.modules}} & {set(HEAVY)!r})"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"


HEAVY = ("torch", "dagster", "transformers", "lance", "duckdb", "polars", "streamlit", "datasets")
