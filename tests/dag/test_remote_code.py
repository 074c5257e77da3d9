"""Studies of models that bring their code: refused unless their defs.yaml allows it, built end to end where it does."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from latentlens_dag.errors import UserError
from latentlens_dag.models.model_ref import ModelRef
from tests.dag.conftest import build, opened
from tests.dag.test_hub_model import _run
from tests.helpers.hub_server import COMMIT, HubServer, Repo
from tests.helpers.remote_vlm import remote_vlm
from tests.models.test_hub_models import files_of


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    return tmp_path / "code_was_run"


@pytest.fixture
def project(fresh_project: Path, copy_of: Callable[[Path], Path], marker: Path) -> Path:
    project = copy_of(fresh_project)
    shutil.rmtree(project / "assets" / "tiny" / "model")
    remote_vlm(project / "assets" / "tiny" / "model", marker)
    _edit(project, ("judge: {regions: {}}", "judge: none"), ("shards: 2", "shards: 1"), ("batches: 2", "batches: 1"))
    return project


def test_a_folders_code_is_run_only_where_the_yaml_allows_it(project: Path, marker: Path) -> None:
    with pytest.raises(UserError, match=r"cannot be read without code that comes with it.*trust_remote_code: true"):
        build(project)
    assert not marker.exists()
    _edit(project, ("{path: model}", "{path: model, trust_remote_code: true}"))
    with opened(project) as one:
        assert not marker.exists()  # definitions run nothing
        plan = {need.key.to_user_string() for need in one.plan(one.select())}
    assert "study/tiny/catalog" in plan
    build(project)
    tokens = pq.read_table(project / ".latentlens" / "warehouse" / "study" / "tiny" / "visual_tokens")
    assert set(tokens["view"].to_pylist()) == {"unmapped"}
    assert _plan(project) == []
    code = project / "assets" / "tiny" / "model" / "modeling_own.py"
    code.write_text(code.read_text() + "\n# another version\n")
    assert any("study/tiny/vlm changed" in reason for reason in _plan(project))


def test_that_code_may_be_run_is_part_of_a_models_version(project: Path) -> None:
    of = ModelRef(repo="user/own", revision=COMMIT)
    assert of.version == replace(of, trust_remote_code=False).version != replace(of, trust_remote_code=True).version


def test_a_model_of_the_hub_with_code_is_read_at_its_commit(project: Path, marker: Path) -> None:
    hub = HubServer()
    hub.add(Repo("user/own", files_of(project / "assets" / "tiny" / "model"), "model"))
    model = f"{{hub: user/own, revision: {COMMIT}, trust_remote_code: true}}"
    _edit(project, ("{path: model}", model))
    _run(hub, project, "plan")
    assert not hub.requests and not marker.exists()
    _run(hub, project, "build")
    assert hub.asked(r"resolve/\w+/modeling_own\.py") and marker.exists()
    asked = len(hub.requests)
    assert json.loads(_run(hub, project, "plan", "--json"))["parts"] == [] and len(hub.requests) == asked


def _plan(project: Path) -> list[str]:
    with opened(project) as one:
        selection = one.select()
        one.observe(selection)
        return [need.reason for need in one.plan(selection)]


def _edit(project: Path, *changes: tuple[str, str]) -> None:
    file = project / "assets" / "tiny" / "defs.yaml"
    text = file.read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    file.write_text(text)
