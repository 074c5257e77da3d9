"""Models of the Hub through Dagster: what is built from them, when the Hub is asked, and what is checked when."""

import json
from pathlib import Path

import pytest

from latentlens_dag.testing import tiny_llava, tiny_project
from tests.dag.conftest import build
from tests.helpers.hub_server import COMMIT, HubServer, Repo
from tests.models.test_hub_models import UNWANTED, files_of

CLI = "from latentlens_dag.cli.main import main\nos.chdir(sys.argv.pop(1))\nmain()"
OTHER = "f" * 40
MODEL = f"{{hub: user/vlm, revision: {COMMIT}}}"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return tiny_project(tmp_path / "project", shards=1, batches=1)


@pytest.fixture
def hub(project: Path) -> HubServer:
    hub = HubServer()
    hub.add(Repo("user/vlm", {**files_of(project / "assets" / "tiny" / "model"), **UNWANTED}, "model"))
    return hub


def _declare(project: Path, *changes: tuple[str, str]) -> None:
    file = project / "assets" / "tiny" / "defs.yaml"
    text = file.read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    file.write_text(text)


def _run(hub: HubServer, project: Path, *arguments: str, code: int = 0, **environment: str) -> str:
    run = hub.run(CLI, str(project), *arguments, home=project.parent / "hub_home", **environment)
    assert run.returncode == code, run.stdout + run.stderr
    return " ".join(run.stderr.split()) if code else run.stdout


def _plan(hub: HubServer, project: Path) -> dict[str, str]:
    found = json.loads(_run(hub, project, "plan", "--json", "--home", str(project / "hub")))["parts"]
    return {step["asset"]: step["reason"] for step in found}


def _answers(project: Path, home: str) -> dict[str, bytes]:
    study = project / home / "warehouse" / "study" / "tiny"
    return {str(file.relative_to(study)): file.read_bytes() for file in study.rglob("*.parquet")}


def test_a_study_of_a_model_of_the_hub_is_that_of_its_folder_and_asks_the_hub_only_once(
    hub: HubServer, project: Path
) -> None:
    build(project, project / "local")
    _declare(project, ("{path: model}", MODEL))
    _run(hub, project, "plan")
    assert not hub.requests
    _run(hub, project, "build", "--home", str(project / "hub"))
    assert hub.asked("model.safetensors") and not hub.asked("pytorch_model|modeling_own|consolidated")
    assert len(_answers(project, "local")) > 9
    assert _answers(project, "hub") == _answers(project, "local")

    hub.down, asked = True, len(hub.requests)
    assert _plan(hub, project) == {}
    _declare(project, ("layers: [0, 1, 2]", "layers: auto"), ("layers: [1, 2], c", "layers: auto, c"))
    assert _plan(hub, project) == {}  # the config is here now, and says the same
    _run(hub, project, "search", "--study", "tiny", "--text", "a dog", "--home", str(project / "hub"))
    _declare(project, (COMMIT, OTHER), ("layers: auto, c", "layers: [1, 2], c"), ("layers: auto", "layers: [0, 1, 2]"))
    plan = _plan(hub, project)
    assert "study/tiny/vlm changed" in plan["study/tiny/model_checks"]
    assert "index/words/language_model changed" in plan["index/words/candidates"]
    assert len(hub.requests) == asked


def test_the_candidates_of_an_index_need_no_weights(hub: HubServer, project: Path) -> None:
    _declare(project, ("{path: model}", MODEL))
    _run(hub, project, "build", "--select", "index/words/candidates")
    assert hub.asked("tokenizer.json") and not hub.asked("/resolve/.*safetensors")


LOADED = {
    "a revision that moves": (
        MODEL.replace(COMMIT, "main"),
        "`language_model.revision: main` of Index words .* no full",
    ),
    "no revision": ("{hub: user/vlm}", r"`language_model` of Index words .*: say the `revision` of user/vlm"),
    "no name": (MODEL.replace("user/vlm", "vlm"), r"`language_model\.hub: vlm` of Index words .* user/name"),
    "a folder too": (MODEL.replace("{", "{path: model, "), "`language_model` of Index words .* must name one model"),
    "nothing": ("{}", "`language_model` of Index words .* must name one model"),
    "a commit of a folder": (f"{{path: model, revision: {COMMIT}}}", "`revision` belongs to a model of the Hub"),
}


@pytest.mark.parametrize("mistake", LOADED)
def test_a_model_that_is_not_named_rightly_is_told_when_definitions_load(project: Path, mistake: str) -> None:
    from latentlens_dag.dag.loading import load_definitions
    from latentlens_dag.errors import UserError
    from latentlens_dag.storage.home import Home

    model, message = LOADED[mistake]
    _declare(project, ("language_model: {path: model}", f"language_model: {model}"))
    with pytest.raises(UserError, match=message):
        load_definitions(project, Home(project / "home"))


def test_what_depends_on_a_config_that_is_not_here_is_asked_for_or_checked_at_the_run(
    hub: HubServer, project: Path
) -> None:
    _declare(project, ("vlm: {path: model}", f"vlm: {MODEL}"), ("layers: [0, 1, 2]", "layers: auto"))
    told = _run(hub, project, "plan", code=2)
    assert "`layers: auto` of Study tiny" in told and "Write the layers" in told
    assert f"`hf download user/vlm config.json --revision {COMMIT}`" in told
    _declare(project, ("layers: auto", "layers: [0, 9]"))
    assert "Layer 9 was asked for, but vlm has 3" not in _run(hub, project, "plan")
    assert not hub.requests
    told = _run(hub, project, "build", code=2)
    assert "Layer 9 was asked for, but user/vlm has 3 blocks" in told and "Study tiny" in told


def test_an_index_of_another_model_of_the_hub_is_refused_at_the_run(hub: HubServer, project: Path) -> None:
    hub.add(Repo("user/other", files_of(tiny_llava(project.parent / "other", blocks=4)), "model"))
    _declare(project, ("vlm: {path: model}", f"vlm: {MODEL.replace('user/vlm', 'user/other')}"))
    assert "another model" not in _run(hub, project, "plan")
    told = _run(hub, project, "build", code=2)
    assert "Study tiny cannot be read through Index words" in told
    told = _run(hub, project, "plan", code=2)  # by now the config is here
    assert "4 blocks, width 32" in told and "3 blocks, width 32" in told


def test_a_build_that_the_hub_refuses_ends_with_one_message_and_keeps_the_token_to_itself(
    hub: HubServer, project: Path
) -> None:
    hub.failing = {"safetensors": 403}
    _declare(project, ("{path: model}", MODEL))
    told = _run(hub, project, "--debug", "build", code=2, HF_TOKEN="hf_secret")
    assert "user/vlm of the Hub cannot be downloaded: the Hub answered with status 403" in told
    assert hub.tokens == {"Bearer hf_secret"} and "hf_secret" not in told
    files = [file for file in (project / ".latentlens").rglob("*") if file.is_file()]
    assert len(files) > 3
    assert [file for file in files if b"hf_secret" in file.read_bytes()] == []
