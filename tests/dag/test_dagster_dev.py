"""The same graph from the UI: a real `dagster dev`, asked over its GraphQL, builds the whole study."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from latentlens_dag.testing import TINY_STUDY

from .conftest import build, opened

NODES = "{ assetNodes { assetKey { path } groupName kinds description isPartitioned isObservable opName } }"
OBSERVE = """
mutation ($executionParams: ExecutionParams!) { launchPipelineExecution(executionParams: $executionParams) {
  __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message }
  ... on PipelineNotFoundError { message } ... on RunConfigValidationInvalid { errors { message } } } }
"""
LAUNCH = """
mutation ($params: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $params) {
  __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } } }
"""
STATUS = """
query ($id: String!) { partitionBackfillOrError(backfillId: $id) {
  __typename ... on PartitionBackfill { status error { message } } } }
"""


class Server:
    """A running `dagster dev`."""

    def __init__(self, port: int) -> None:
        self.port = port

    def ask(self, query: str, **variables: Any) -> Any:
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/graphql", body, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            found = json.load(answer)
        assert "errors" not in found, found["errors"]
        return found["data"]


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextmanager
def dagster_dev(project: Path) -> Iterator[Server]:
    """Start the server in a session of its own, wait until it answers, and end all of it afterwards."""
    from latentlens_dag.home import Home

    home = Home(project / ".latentlens")
    home.prepare()
    server = Server(_free_port())
    command = [Path(sys.executable).with_name("dagster"), "dev", "-w", "workspace.yaml", "-h", "127.0.0.1"]
    with (project / "dev.log").open("w") as log:
        process = subprocess.Popen(
            [*map(str, command), "-p", str(server.port)],
            cwd=project,
            env={**os.environ, "DAGSTER_HOME": str(home.dagster)},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            _wait(lambda: _answers(server), 120, lambda: (project / "dev.log").read_text()[-3000:])
            yield server
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)


def _answers(server: Server) -> bool:
    try:
        return bool(server.ask(NODES)["assetNodes"])
    except OSError:
        return False


def _wait(done: Callable[[], bool], limit_s: float, why: Callable[[], str]) -> None:
    end = time.monotonic() + limit_s
    while not done():
        assert time.monotonic() < end, why()
        time.sleep(0.5)


@pytest.fixture
def small_project(fresh_project: Path, copy_of: Callable[[Path], Path]) -> Path:
    """One shard, one batch: every run of the UI starts a process of its own."""
    project = copy_of(fresh_project)
    (project / "assets" / "tiny" / "defs.yaml").write_text(TINY_STUDY.replace("SHARDS", "1").replace("BATCHES", "1"))
    return project


def test_the_ui_shows_the_graph_and_builds_it_and_build_finds_nothing_left(small_project: Path) -> None:
    with dagster_dev(small_project) as server:
        nodes = {"/".join(node["assetKey"]["path"]): node for node in server.ask(NODES)["assetNodes"]}
        assert {
            "corpus/text/source",
            "index/words/table/L02",
            "study/tiny/latentlens/V01",
            "study/tiny/catalog",
        } <= set(nodes)
        assert all(node["groupName"] != "default" and node["description"] for node in nodes.values())
        assert nodes["study/tiny/latentlens/V01"]["kinds"]
        with opened(small_project) as one:
            one.observe(one.select())  # as the UI's "Observe sources" does
        assets = [{"path": node["assetKey"]["path"]} for node in nodes.values() if not node["isObservable"]]
        launched = server.ask(LAUNCH, params={"assetSelection": assets, "allPartitions": True})[
            "launchPartitionBackfill"
        ]
        assert launched["__typename"] == "LaunchBackfillSuccess", launched

        def state() -> Any:
            return server.ask(STATUS, id=launched["backfillId"])["partitionBackfillOrError"]

        ended = {"COMPLETED_SUCCESS", "COMPLETED_FAILED", "FAILED", "CANCELED"}
        _wait(lambda: state()["status"] in ended, 420, lambda: (small_project / "dev.log").read_text()[-3000:])
        assert state()["status"] == "COMPLETED_SUCCESS", (small_project / "dev.log").read_text()[-3000:]
    assert build(small_project) == []
