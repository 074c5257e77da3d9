"""A corpus of the Hub through Dagster: what it is built from, when the Hub is asked, and when it is built again."""

import json
from pathlib import Path

import pytest

from tests.helpers.hub_server import COMMIT, HubServer, Repo

LINES = ["A dog runs.", "A cat sleeps.", "Two birds sing.", "A dog runs."]
CORPORA = """\
type: latentlens_dag.dag.components.Corpus
attributes: {name: lines, source: {lines: corpus.txt}, shards: 2}
---
type: latentlens_dag.dag.components.Corpus
attributes:
  name: hub
  source: {hub: user/texts, split: train, column: said, revision: REVISION}
  shards: 2
"""
CLI = "from latentlens_dag.cli.main import main\nos.chdir(sys.argv.pop(1))\nmain()"
OTHER = "f" * 40


def _declare(project: Path, revision: str = COMMIT) -> None:
    (project / "assets" / "some" / "defs.yaml").write_text(CORPORA.replace("REVISION", revision))


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Two corpora of the same texts, one of lines and one of the Hub."""
    project = tmp_path / "project"
    (project / "assets" / "some").mkdir(parents=True)
    (project / "workspace.yaml").write_text("load_from: []\n")
    (project / "assets" / "some" / "corpus.txt").write_text("\n".join(reversed(LINES)))
    _declare(project)
    return project


@pytest.fixture
def hub() -> HubServer:
    hub = HubServer()
    rows = "".join(json.dumps({"id": number, "said": line}) + "\n" for number, line in enumerate(LINES))
    hub.add(Repo("user/texts", {"train.jsonl": rows.encode()}))
    return hub


def _run(hub: HubServer, project: Path, *arguments: str, code: int = 0, **environment: str) -> str:
    run = hub.run(CLI, str(project), *arguments, home=project.parent / "hub_home", **environment)
    assert run.returncode == code, run.stderr
    return run.stderr if code else run.stdout


def test_a_corpus_of_the_hub_is_that_of_the_same_lines_and_asks_the_hub_only_when_it_is_built(
    hub: HubServer, project: Path
) -> None:
    built = project / ".latentlens" / "warehouse" / "corpus"
    _run(hub, project, "build")
    assert hub.asked("train.jsonl") > 0
    for name in ("sentences", "shard_00", "shard_01"):
        assert (built / "hub" / f"{name}.parquet").read_bytes() == (built / "lines" / f"{name}.parquet").read_bytes()

    hub.down, asked = True, len(hub.requests)
    assert json.loads(_run(hub, project, "plan", "--json"))["parts"] == []
    _declare(project, OTHER)
    plan = {step["asset"]: step["reason"] for step in json.loads(_run(hub, project, "plan", "--json"))["parts"]}
    assert len(hub.requests) == asked
    assert "corpus/hub/source changed" in plan["corpus/hub/sentences"]
    assert not [step for step in plan if step.startswith("corpus/lines")]


def test_a_build_that_the_hub_refuses_ends_with_one_message_and_keeps_the_token_to_itself(
    hub: HubServer, project: Path
) -> None:
    hub.failing = {"jsonl": 403}
    told = _run(hub, project, "--debug", "build", code=2, HF_TOKEN="hf_secret")
    assert "Dataset user/texts of the Hub (config default, split train) cannot be read" in told
    assert "the Hub answered with status 403" in told
    assert hub.tokens == {"Bearer hf_secret"}
    assert "hf_secret" not in told
    files = [file for file in (project / ".latentlens").rglob("*") if file.is_file()]
    assert len(files) > 3
    assert [file for file in files if b"hf_secret" in file.read_bytes()] == []
