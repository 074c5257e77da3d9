"""A real `dagster dev` on a project, and what one asks it over its GraphQL."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

REPOSITORY = {"repositoryLocationName": "latentlens-dag", "repositoryName": "__repository__"}
NODES = "{ assetNodes { assetKey { path } groupName kinds description isPartitioned isObservable opName } }"
MATERIALIZE = """
mutation ($params: ExecutionParams!) { launchPipelineExecution(executionParams: $params) {
  __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message }
  ... on PipelineNotFoundError { message } ... on RunConfigValidationInvalid { errors { message } } } }
"""
RETRY = """
mutation ($params: ReexecutionParams!) { launchRunReexecution(reexecutionParams: $params) {
  __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }
"""
RUN = """
query ($id: ID!) { runOrError(runId: $id) { ... on Run { status jobName stepStats { stepKey status } } } }
"""
RUNS = "query ($filter: RunsFilter!) { runsOrError(filter: $filter) { ... on Runs { results { runId status } } } }"
BACKFILL = """
mutation ($params: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $params) {
  __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } } }
"""
BACKFILL_STATUS = """
query ($id: String!) { partitionBackfillOrError(backfillId: $id) {
  __typename ... on PartitionBackfill { status error { message } } } }
"""
NO_TAGS: Mapping[str, str] = {}
ENDED = {"SUCCESS", "FAILURE", "CANCELED", "COMPLETED_SUCCESS", "COMPLETED_FAILED", "FAILED"}


class Server:
    """A running `dagster dev`, and the project that it shows."""

    def __init__(self, project: Path, port: int) -> None:
        self.project, self.port, self.session = project, port, 0

    def ask(self, query: str, **variables: Any) -> Any:
        """The answer to one query, without the name of its only field."""
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/graphql", body, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=120) as answer:
            found = json.load(answer)
        assert "errors" not in found, found["errors"]
        return next(iter(found["data"].values()))

    def cpu_s(self) -> float:
        """The processor's time that its processes took so far (Linux only)."""
        facts = [stat.read_text().rpartition(")")[2].split() for stat in Path("/proc").glob("[0-9]*/stat")]
        ticks = [int(fact[11]) + int(fact[12]) for fact in facts if int(fact[3]) == self.session]
        return sum(ticks) / os.sysconf("SC_CLK_TCK")

    def log(self) -> str:
        return (self.project / "dev.log").read_text()[-5000:]

    def answers(self) -> bool:
        try:
            return bool(self.ask(NODES))
        except OSError:
            return False

    def backfill(self, keys: list[str]) -> str:
        """Materialize all partitions of some assets, and give how that ended."""
        params = {"assetSelection": [asset_key(key) for key in keys], "allPartitions": True}
        launched = self.ask(BACKFILL, params=params)
        assert launched["__typename"] == "LaunchBackfillSuccess", launched
        return self._end(lambda: self.ask(BACKFILL_STATUS, id=launched["backfillId"])["status"])

    def materialize(self, keys: list[str], partition: str | None = None, tags: Mapping[str, str] = NO_TAGS) -> str:
        """Materialize a selection in one run, and give the run."""
        selector = {**REPOSITORY, "jobName": "__ASSET_JOB", "assetSelection": [asset_key(key) for key in keys]}
        all_tags = {**tags, **({"dagster/partition": partition} if partition else {})}
        listed = [{"key": key, "value": value} for key, value in all_tags.items()]
        params = {"selector": selector, "mode": "default", "runConfigData": {}, "executionMetadata": {"tags": listed}}
        return self._launched(self.ask(MATERIALIZE, params=params))

    def retry(self, run: str) -> str:
        """`Re-execute from failure`."""
        return self._launched(self.ask(RETRY, params={"parentRunId": run, "strategy": "FROM_FAILURE"}))

    def ended(self, run: str) -> str:
        """How a run ended."""
        return self._end(lambda: self.ask(RUN, id=run)["status"])

    def steps(self, run: str) -> dict[str, str]:
        """The steps that a run executed, and how they ended."""
        return {step["stepKey"]: step["status"] for step in self.ask(RUN, id=run)["stepStats"]}

    def runs_of(self, job: str) -> list[str]:
        """The runs of a job, the newest first."""
        return [run["runId"] for run in self.ask(RUNS, filter={"pipelineName": job})["results"]]

    def wait(self, done: Callable[[], bool], limit_s: float = 1500) -> None:
        end = time.monotonic() + limit_s
        while not done():
            assert time.monotonic() < end, self.log()
            time.sleep(0.5)

    def _launched(self, answer: Any) -> str:
        assert answer["__typename"] == "LaunchRunSuccess", answer
        return str(answer["run"]["runId"])

    def _end(self, status: Callable[[], str]) -> str:
        self.wait(lambda: status() in ENDED)
        return status()


def asset_key(key: str) -> dict[str, list[str]]:
    return {"path": key.split("/")}


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextmanager
def dagster_dev(project: Path, *on_path: Path) -> Iterator[Server]:
    """Start the server in a session of its own, wait until it answers, and end all of it afterwards.

    Args:
        project: its folder; its home is `.latentlens/` in it.
        on_path: folders that Python looks into first.
    """
    from latentlens_dag.storage.home import Home

    home = Home(project / ".latentlens")
    home.prepare()
    server = Server(project, _free_port())
    command = [Path(sys.executable).with_name("dagster"), "dev", "-w", "workspace.yaml", "-h", "127.0.0.1"]
    path = os.pathsep.join([*map(str, on_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    with (project / "dev.log").open("w") as log:
        process = subprocess.Popen(
            [*map(str, command), "-p", str(server.port)],
            cwd=project,
            env={**os.environ, "DAGSTER_HOME": str(home.dagster), "PYTHONPATH": path},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        server.session = process.pid
        try:
            server.wait(server.answers)
            yield server
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
