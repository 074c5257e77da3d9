"""Which model and index a study was built with: what its home says, and what of that is believed."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from latentlens_dag.errors import UserError
from latentlens_dag.models.model_ref import ModelRef
from latentlens_dag.storage.files import write_json
from latentlens_dag.storage.records import ArtifactStore
from latentlens_dag.storage.warehouse import Warehouse
from latentlens_dag.study.source import StudySource, recorded_source_fields, source_fields, study_source
from tests.helpers.records import artifact_record

COMMIT = "0123456789" * 4
SHAPE = {"parts": 1, "visual_layers": [0], "lenses": ["logitlens"]}
AGAIN = r"Run `latentlens-dag build s --force --select study/s/catalog` in its project\.$"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with a model and a home, in which nothing is built yet."""
    project = tmp_path / "project"
    (project / "assets" / "model").mkdir(parents=True)
    (project / "workspace.yaml").write_text("load_from: []\n")
    return project


@pytest.fixture
def house(project: Path) -> Warehouse:
    return Warehouse(project / ".latentlens" / "warehouse")


def _write(house: Warehouse, model: ModelRef) -> None:
    write_json({**SHAPE, **source_fields(StudySource(model, "words"), house)}, house.shape("study", "s"))


@pytest.mark.parametrize("trusted", [True, False])
def test_a_home_says_which_model_and_index_a_study_was_built_with(
    house: Warehouse, project: Path, tmp_path: Path, trusted: bool
) -> None:
    (tmp_path / "elsewhere").mkdir()
    for model in (
        ModelRef(path=project / "assets" / "model"),
        ModelRef(path=project / "assets" / ".." / "assets" / "model"),
        ModelRef(path=tmp_path / "elsewhere"),
        ModelRef(repo="u/m", revision=COMMIT),
    ):
        named = replace(model, trust_remote_code=trusted)
        _write(house, named)
        found = study_source(house, "s", trust_remote_code=True)
        same = named if named.path is None else replace(named, path=named.path.resolve())
        assert found == StudySource(same, "words")


def test_a_project_may_be_moved_with_its_home_and_its_model(house: Warehouse, project: Path) -> None:
    _write(house, ModelRef(path=project / "assets" / "model"))
    moved = Path(shutil.move(project, project.parent / "moved"))
    found = study_source(Warehouse(moved / ".latentlens" / "warehouse"), "s")
    assert found.model.path == moved / "assets" / "model"


def test_a_home_may_be_moved_out_of_its_project(house: Warehouse, project: Path, tmp_path: Path) -> None:
    _write(house, ModelRef(path=project / "assets" / "model"))
    moved = Path(shutil.move(project / ".latentlens", tmp_path / "far"))
    assert study_source(Warehouse(moved / "warehouse"), "s").model.path == project / "assets" / "model"


def test_a_model_outside_of_the_project_stays_where_it_is_when_the_home_moves(
    house: Warehouse, project: Path, tmp_path: Path
) -> None:
    (tmp_path / "models").mkdir()
    _write(house, ModelRef(path=tmp_path / "models"))
    (tmp_path / "far" / "away" / "models").mkdir(parents=True)  # lies there as `models` lay beside the project
    moved = Path(shutil.move(project, tmp_path / "far" / "away"))
    found = study_source(Warehouse(moved / ".latentlens" / "warehouse"), "s")
    assert found.model.path == tmp_path / "models"


@pytest.mark.parametrize("place", ["folder", "hub"])
def test_what_a_home_says_of_trust_runs_no_code_without_the_word_of_who_asks(
    house: Warehouse, project: Path, place: str
) -> None:
    of = {"folder": {"path": project / "assets" / "model"}, "hub": {"repo": "u/m", "revision": COMMIT}}[place]
    _write(house, ModelRef(**of, trust_remote_code=True))
    with pytest.raises(UserError, match=r"code that comes with this model\. .*`latentlens-dag browse --trust-remote-c"):
        study_source(house, "s")
    assert study_source(house, "s", trust_remote_code=True).model.trust_remote_code
    _write(house, ModelRef(**of))
    assert not study_source(house, "s", trust_remote_code=True).model.trust_remote_code


def test_a_model_that_is_gone_is_reported_with_the_way_out(house: Warehouse, project: Path) -> None:
    _write(house, ModelRef(path=project / "assets" / "model"))
    (project / "assets" / "model").rmdir()
    with pytest.raises(UserError, match=rf"assets/model, which is not there\. .*{AGAIN}"):
        study_source(house, "s")


@pytest.mark.parametrize(
    "facts",
    [
        {"model": {}, "index": "words"},
        {"model": {"hub": "u/m", "trust_remote_code": "yes"}, "index": "words"},
        {"model": {"hub": "../m"}, "index": "words"},
        {"model": {"hub": "u/m"}},
    ],
)
def test_what_names_no_model_or_no_index_is_reported_as_damaged(house: Warehouse, facts: dict) -> None:
    write_json({**SHAPE, **facts}, house.shape("study", "s"))
    with pytest.raises(UserError, match=rf"shape\.json names no model and index .*damaged\. {AGAIN}"):
        study_source(house, "s")


@pytest.mark.parametrize(
    ("facts", "problem"),
    [
        ({"model": "m", "index": "words"}, "model: Input should be an object"),
        ({"model": {"hub": "u/m"}, "index": ["words"]}, "index: Input should be a valid string"),
        ({"model": {"hub": "u/m"}, "index": "../../words"}, r"index: Value error, '\.\./\.\./words' is no plain name"),
    ],
)
def test_fields_of_a_wrong_type_are_reported_as_damage(house: Warehouse, facts: dict, problem: str) -> None:
    write_json({**SHAPE, **facts}, house.shape("study", "s"))
    with pytest.raises(UserError, match=rf"study/s/shape\.json is damaged \({problem}\)\. Run `latentlens-dag check"):
        study_source(house, "s")


def test_a_study_that_is_not_built_or_not_to_its_end_is_to_be_built(house: Warehouse) -> None:
    for shape in (None, SHAPE):
        if shape is not None:
            write_json(shape, house.shape("study", "s"))
        with pytest.raises(UserError, match=r"Study s is not built .*yet: run `latentlens-dag build s`\.$"):
            study_source(house, "s")


def test_a_home_of_version_0_1_is_read_by_what_it_remembers_of_the_models_files(
    house: Warehouse, project: Path
) -> None:
    write_json(SHAPE, house.shape("study", "s"))
    _record_catalog(house, {"index": "words"})
    with pytest.raises(UserError, match=rf"does not say which model study s was read with: .*{AGAIN}"):
        study_source(house, "s")
    model = project / "assets" / "model"
    remembered = {str(model / name): [1, 2, "hash"] for name in ("config.json", "a/config.json", "model.safetensors")}
    write_json(remembered, house.observed("study.s.vlm"))
    assert study_source(house, "s", trust_remote_code=True) == StudySource(ModelRef(path=model), "words")


def test_what_an_earlier_step_keeps_is_what_the_last_one_wrote(house: Warehouse, project: Path) -> None:
    path = house.shape("study", "s")
    assert recorded_source_fields(path) == {}
    _write(house, ModelRef(repo="u/m"))
    assert recorded_source_fields(path) == {"index": "words", "model": ModelRef(repo="u/m").to_json()}
    path.write_text("{")
    assert recorded_source_fields(path) == {}


def _record_catalog(house: Warehouse, settings: dict) -> None:
    ArtifactStore(house.root).write(artifact_record("study/s/catalog", settings=settings))
    assert json.loads(next((house.root / "manifest").rglob("*.json")).read_text())["settings"] == settings
