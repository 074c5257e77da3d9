"""When the sensor starts the job `build`, and when it waits."""

import shutil
from pathlib import Path

import dagster as dg
import pytest

from latentlens_dag.dag.automation import build_when_something_changes, with_automation
from latentlens_dag.dag.home_lock import build_lock
from latentlens_dag.dag.loading import load_definitions
from latentlens_dag.dag.resources import HomeResource
from latentlens_dag.storage.home import Home


@pytest.fixture
def project(fresh_project: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(fresh_project, tmp_path / "project"))


def _tick(project: Path, cursor: str | None) -> dg.SensorResult:
    """One look of the sensor, with the definitions as they are now."""
    home = Home(project / ".latentlens")
    defs = with_automation(load_definitions(project, home))
    given = {"home": HomeResource(root=str(home.root))}
    with (
        dg.DagsterInstance.ephemeral() as instance,
        dg.build_sensor_context(instance, cursor, resources=given, definitions=defs) as context,
    ):
        found = build_when_something_changes(context)
    assert isinstance(found, dg.SensorResult)
    return found


def test_the_sensor_asks_once_and_what_failed_is_not_tried_again_before_something_changes(project: Path) -> None:
    first = _tick(project, None)
    assert len(first.run_requests or []) == 1
    again = _tick(project, first.cursor)  # however the run that it asked for ended
    assert not again.run_requests and "Nothing changed" in str(again.skip_reason)
    texts = project / "assets/tiny/corpus.txt"
    texts.write_text(texts.read_text() + "A blue bus waits near the lake.\n")
    assert len(_tick(project, first.cursor).run_requests or []) == 1


def test_while_a_build_runs_the_sensor_waits_and_forgets_nothing(project: Path) -> None:
    (project / ".latentlens").mkdir(exist_ok=True)
    with build_lock(Home(project / ".latentlens")):
        waiting = _tick(project, None)
    assert not waiting.run_requests and waiting.cursor is None
    assert "a build is running" in str(waiting.skip_reason)
    assert len(_tick(project, None).run_requests or []) == 1
