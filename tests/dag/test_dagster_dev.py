"""The same graph from the UI: a real `dagster dev`, asked over its GraphQL, builds, tries again, and automates.

One server for all tests here: the study of its project is gone, and the first backfill builds it again, whole.
"""

import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from latentlens_dag.dag.run_tags import FORCED
from latentlens_dag.models.self_checks import CHECKS
from latentlens_dag.testing import TINY_STUDY, tiny_project
from tests.dag.conftest import build, opened
from tests.helpers.dagster_server import NODES, REPOSITORY, Server, asset_key, dagster_dev
from tests.helpers.file_opens import OPENS_OF_A_LOAD, counted_opens

SHOWN_CHECKS = """
query ($key: AssetKeyInput!) { assetNodeOrError(assetKey: $key) { ... on AssetNode { assetChecksOrError {
  ... on AssetChecks { checks { name blocking executionForLatestMaterialization { status evaluation {
    success metadataEntries { label } } } } } } } } }
"""
SENSOR = """
query ($selector: SensorSelector!) { sensorOrError(sensorSelector: $selector) { ... on Sensor {
  sensorState { status ticks(limit: 1) { status skipReason runIds error { message } } } } } }
"""
START_SENSOR = """
mutation ($selector: SensorSelector!) { startSensor(sensorSelector: $selector) { __typename } }
"""
VOCABULARY = ("embeddinglens", "logitlens")
"""The lenses that read the model."""
# The daemon looks at a backfill every 30 s, and no setting changes that. Python runs this file at the start of every
# process of the server, and the daemon then looks every second.
EVERY_SECOND = """
import sys
if "dagster._daemon" in sys.orig_argv:
    import dagster._daemon.controller
    dagster._daemon.controller.DEFAULT_DAEMON_INTERVAL_SECONDS = 1
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server on a project without its study: every run of the UI starts a process of its own, which takes long."""
    project, extra = tiny_project(tmp_path_factory.mktemp("served"), 1, 1), tmp_path_factory.mktemp("extra")
    switched_off = TINY_STUDY.split("---\n")[-1].replace("name: tiny", "name: unused\n  enabled: false")
    yaml = project / "assets" / "tiny" / "defs.yaml"
    yaml.write_text(yaml.read_text() + "---\n" + switched_off)
    (extra / "sitecustomize.py").write_text(EVERY_SECOND)
    build(project)
    shutil.rmtree(project / ".latentlens" / "warehouse" / "study")
    with dagster_dev(project, extra) as one:
        yield one


@pytest.fixture(scope="module")
def built(server: Server) -> tuple[Server, str]:
    """The server, after a backfill of the whole study, and how that ended."""
    keys = ["/".join(node["assetKey"]["path"]) for node in server.ask(NODES) if not node["isObservable"]]
    return server, server.backfill([key for key in keys if key.startswith("study/tiny/")])


def test_every_asset_has_a_group_a_description_and_kinds_and_a_study_that_is_off_has_no_assets(server: Server) -> None:
    nodes = {"/".join(node["assetKey"]["path"]): node for node in server.ask(NODES)}
    assert {"corpus/text/source", "index/words/table/L02", "study/tiny/latentlens/V01", "study/tiny/catalog"} <= set(
        nodes
    )
    assert all(node["groupName"] != "default" and node["description"] and node["kinds"] for node in nodes.values())
    assert not [key for key in nodes if key.startswith("study/unused")]


def test_a_backfill_of_a_whole_study_succeeds_and_build_finds_nothing_left(built: tuple[Server, str]) -> None:
    server, status = built
    assert status == "COMPLETED_SUCCESS", server.log()
    assert (server.project / ".latentlens" / "warehouse" / "study" / "tiny" / "catalog.duckdb").is_file()
    assert build(server.project) == []


def test_checks_are_shown_with_their_results(built: tuple[Server, str]) -> None:
    server, _ = built
    for key, names in {
        "study/tiny/model_checks": set(CHECKS),
        "index/words/contextual/L01": {"finite_unit_vectors"},
        "index/words/table/L01": {"row_count"},
        "study/tiny/visual/V00": {"finite_states"},
        "study/tiny/latentlens/V01": {"sorted_neighbors"},
    }.items():
        checks = server.ask(SHOWN_CHECKS, key=asset_key(key))["assetChecksOrError"]["checks"]
        assert {check["name"] for check in checks} == names
        for check in checks:
            shown = check["executionForLatestMaterialization"]
            assert check["blocking"] and shown["status"] == "SUCCEEDED" and shown["evaluation"]["success"]
            assert [entry["label"] for entry in shown["evaluation"]["metadataEntries"]] == ["problems"]


@pytest.fixture(scope="module")
def opens(built: tuple[Server, str]) -> dict[str, int]:
    """How often each file of weights and each image was opened in one run of all that reads them."""
    server, _ = built
    study = server.project / "assets" / "tiny"
    steps = ("images/pictures/pictures", *(f"study/tiny/{step}" for step in ("model_checks", "visual", *VOCABULARY)))
    nodes = ["/".join(node["assetKey"]["path"]) for node in server.ask(NODES)]
    with counted_opens([*study.rglob("*.safetensors"), *(study / "pictures").iterdir()]) as counts:
        run = server.materialize([key for key in nodes if key.startswith(steps)], "00", {FORCED: "true"})
        assert server.ended(run) == "SUCCESS", server.log()
        found = counts()
    assert build(server.project) == []
    return {file.name: times for file, times in found.items()}


def test_a_run_loads_a_model_once_for_its_checks_its_states_and_its_lenses(opens: dict[str, int]) -> None:
    assert opens["model.safetensors"] <= OPENS_OF_A_LOAD


def test_a_run_opens_an_image_once_for_its_picture_and_its_states(opens: dict[str, int]) -> None:
    assert {times for name, times in opens.items() if name.endswith(".png")} == {1}


def test_a_selection_is_materialized_and_build_then_does_what_follows_from_it(built: tuple[Server, str]) -> None:
    server, _ = built
    corpus = server.project / "assets" / "tiny" / "corpus.txt"
    corpus.write_text(corpus.read_text() + "The old boat sleeps near the school.\n")
    with opened(server.project) as one:
        one.observe(one.select())
    run = server.materialize(["corpus/text/sentences"])
    assert server.ended(run) == "SUCCESS", server.log()
    assert server.steps(run) == {"corpus__text__sentences": "SUCCESS"}
    ran = [label.split("[")[0] for label in build(server.project)]
    assert "corpus/text/sentences" not in ran and "corpus/text/shards" in ran and "study/tiny/catalog" in ran
    assert not [label for label in ran if label.startswith(("images/", "study/tiny/visual"))]
    assert build(server.project) == []


def test_a_retry_from_failure_runs_only_what_failed(built: tuple[Server, str]) -> None:
    server, _ = built
    file = server.project / "assets" / "tiny" / "regions.parquet"
    whole = file.read_bytes()
    file.write_bytes(b"cut short")
    both = ["images/pictures/pictures", "images/pictures/regions"]
    failed = server.materialize(both, "00")
    assert server.ended(failed) == "FAILURE"
    assert server.steps(failed) == {"images__pictures__pictures": "SUCCESS", "images__pictures__regions": "FAILURE"}
    file.write_bytes(whole)
    again = server.retry(failed)
    assert server.ended(again) == "SUCCESS", server.log()
    assert server.steps(again) == {"images__pictures__regions": "SUCCESS"}
    assert build(server.project) == []


def test_the_sensor_is_off_until_it_is_switched_on_and_then_builds_what_changed(built: tuple[Server, str]) -> None:
    server, _ = built
    selector = {**REPOSITORY, "sensorName": "build_when_something_changes"}

    def state() -> Any:
        return server.ask(SENSOR, selector=selector)["sensorState"]

    def last_tick() -> Any:
        return next(iter(state()["ticks"]), {"status": None, "skipReason": None})

    assert state()["status"] == "STOPPED" and state()["ticks"] == []
    corpus = server.project / "assets" / "tiny" / "corpus.txt"
    corpus.write_text(corpus.read_text() + "A blue bus waits near the lake.\n")
    assert server.ask(START_SENSOR, selector=selector)["__typename"] == "Sensor"
    server.wait(lambda: bool(server.runs_of("build")))
    (run,) = server.runs_of("build")
    assert server.ended(run) == "SUCCESS", server.log()
    assert build(server.project) == []
    server.wait(lambda: last_tick()["skipReason"] == "Nothing changed since `build` was last started.")
    assert server.runs_of("build") == [run]
