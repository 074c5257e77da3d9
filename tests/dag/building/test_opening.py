"""What a command does before its work: what it imports, how often it asks Dagster's history, what it looks at."""

import contextlib
import gc
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from sqlalchemy import Engine, event

from latentlens_dag.dag.building.collector import no_collector, rare_collections
from latentlens_dag.dag.building.steps import AssetPartition, Lineage, find_steps
from latentlens_dag.storage.records import ArtifactStore
from tests.dag.conftest import opened
from tests.dag.small_graph import small_definitions
from tests.helpers.simulated_history import large_project, simulate_build

HEAVY = {"torch", "transformers", "lance", "duckdb", "polars", "streamlit", "datasets"}


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Projects of one study that count as built, by their number of batches. Do not write to them."""
    folders = {batches: large_project(tmp_path_factory.mktemp("large"), 1, batches) for batches in (2, 6)}
    for folder in folders.values():
        with opened(folder) as project:
            simulate_build(project)
    return folders


def _imported(folder: Path, *arguments: str) -> tuple[str, set[str]]:
    """The last line that a command writes, and the packages that it has imported."""
    code = (
        "import sys; from latentlens_dag.cli.main import main\ntry: main()\nexcept SystemExit: pass\n"
        "print(*{name.split('.')[0] for name in sys.modules})"
    )
    command = [sys.executable, "-c", code, *arguments]
    run = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    said, _, names = (run.stderr + run.stdout).strip().rpartition("\n")
    return said.splitlines()[-1], {*names.split()}


@pytest.mark.parametrize("command", ["build", "plan", "status"])
def test_a_command_with_nothing_to_do_imports_no_library_of_models_or_tables(
    command: str, simulated: dict[int, Path]
) -> None:
    said, names = _imported(simulated[2], command)
    assert said == "Everything is up to date." or command == "status"
    assert HEAVY & names == set()


def test_a_mistake_in_a_defs_yaml_is_reported_before_anything_that_reads_history_is_imported(
    simulated: dict[int, Path], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(simulated[2], tmp_path / "project"))
    file = folder / "assets" / "tiny" / "defs.yaml"
    file.write_text(file.read_text().replace("top_k: 3", "top_k: three"))
    said, names = _imported(folder, "plan")
    assert said.startswith("Error: `top_k: three` of Study tiny_0 in ")
    assert (HEAVY | {"sqlalchemy", "alembic"}) & names == set()


@contextlib.contextmanager
def _queries() -> Iterator[list[str]]:
    """The queries that reach SQLite meanwhile."""
    queries: list[str] = []

    def trace(connection: sqlite3.Connection, *_: object) -> None:
        connection.set_trace_callback(lambda text: queries.append(text) if "SELECT" in text else None)

    event.listen(Engine, "checkout", trace)
    yield queries
    event.remove(Engine, "checkout", trace)


def test_a_plan_asks_the_history_as_often_for_six_batches_as_for_two_and_reads_every_record_once(
    simulated: dict[int, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    read, count = ArtifactStore.read, {}
    for batches, folder in simulated.items():
        records: list[str | None] = []
        monkeypatch.setattr(ArtifactStore, "read", lambda *which, to=records: to.append(which[1:]) or read(*which))
        with opened(folder) as project, _queries() as queries:
            selection = project.select()
            project.observe(selection)
            assert project.plan(selection) == []
            assert sorted(records, key=str) == sorted(_named(project.targets(selection)), key=str)
            count[batches] = len(queries)
    assert 0 < count[6] == count[2] < 40


def _named(targets: Sequence[AssetPartition]) -> list[tuple[str, str | None]]:
    return [(key.to_user_string(), partition) for key, partition in targets]


def test_a_build_collects_rarely_and_leaves_the_collector_as_it_was() -> None:
    before = gc.get_threshold()
    with pytest.raises(ZeroDivisionError), rare_collections():
        assert gc.get_threshold()[0] > before[0]
        raise ZeroDivisionError
    assert gc.get_threshold() == before


def test_the_collector_is_off_inside_and_afterwards_as_before() -> None:
    with no_collector():
        with no_collector():
            assert not gc.isenabled()
        assert not gc.isenabled()
    assert gc.isenabled()
    with pytest.raises(ZeroDivisionError), no_collector():
        _ = 1 / 0
    assert gc.isenabled()
    gc.disable()
    try:
        with no_collector():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_the_ancestors_of_partitions_are_their_parents_and_the_parents_of_those() -> None:
    graph = small_definitions(Path("nowhere")).resolve_asset_graph()
    lineage = Lineage(graph)
    targets = [target for step in find_steps(graph) for target in step.targets()]

    def slowly(target: AssetPartition) -> set[AssetPartition]:
        return {target}.union(*map(slowly, lineage.parents(*target)))

    for first in targets:
        assert lineage.with_ancestors([first]) == slowly(first)
        for second in targets:
            assert lineage.with_ancestors([first, second]) == slowly(first) | slowly(second)
