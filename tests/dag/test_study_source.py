"""What a build writes of a study's model and index, and that homes which say nothing of it stay up to date."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from latentlens_dag.models.model_ref import ModelRef
from latentlens_dag.storage.records import ArtifactStore
from latentlens_dag.storage.warehouse import Warehouse
from latentlens_dag.study.source import study_source
from tests.dag.conftest import build, opened

STATES = [f"study/tiny/visual/V{layer:02d}[{batch:02d}]" for layer in range(3) for batch in range(2)]


@pytest.fixture
def project(built_project: Path, copy_of: Callable[[Path], Path]) -> Path:
    return copy_of(built_project)


def _house(project: Path) -> Warehouse:
    return Warehouse(project / ".latentlens" / "warehouse")


def _needs(project: Path) -> list[str]:
    with opened(project) as one:
        selection = one.select()
        one.observe(selection)
        return [str(need) for need in one.plan(selection)]


def test_a_build_says_which_model_and_index_it_used(project: Path) -> None:
    found = study_source(_house(project), "tiny")
    assert found == (ModelRef(path=project / "assets" / "tiny" / "model"), "words")
    with opened(project) as one:
        assert one.source_places()["study/tiny/vlm"] == str(found.model.path)


def test_states_that_are_read_again_keep_what_is_said_of_the_model(project: Path) -> None:
    shape = _house(project).shape("study", "tiny")
    before = shape.read_bytes()
    assert b'"model"' in before
    assert set(STATES) <= set(build(project, names=["visual"], force=True))
    assert shape.read_bytes() == before and _needs(project) == []


def test_a_home_that_does_not_say_it_stays_up_to_date_and_learns_it_from_the_catalogs_step(project: Path) -> None:
    house = _house(project)
    _forget(house)
    assert _needs(project) == []
    build(project, names=["visual"], force=True)
    assert _needs(project) == []
    assert study_source(house, "tiny") == (ModelRef(path=project / "assets" / "tiny" / "model"), "words")
    assert build(project, names=["study/tiny/catalog"], force=True) == ["study/tiny/catalog"]
    assert '"model"' in house.shape("study", "tiny").read_text() and _needs(project) == []


@pytest.mark.parametrize("name", [".DS_Store", ".git/index"])
def test_hidden_files_in_a_models_folder_make_nothing_stale_and_in_a_folder_of_pictures_they_do(
    project: Path, name: str
) -> None:
    for folder, stale in (("model", False), ("pictures", True)):
        file = project / "assets" / "tiny" / folder / name
        file.parent.mkdir(exist_ok=True)
        file.write_text("1")
        assert any("images/pictures/source changed" in need for need in _needs(project)) is stale


def test_a_weight_file_with_one_changed_byte_makes_the_study_stale(project: Path) -> None:
    weights = project / "assets" / "tiny" / "model" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-len(content) // 2] ^= 1
    weights.write_bytes(content)
    assert any("study/tiny/vlm changed" in need for need in _needs(project))


def _forget(house: Warehouse) -> None:
    """Make of a home what version 0.1 built: its `shape.json` has no model, and is recorded so."""
    shape = house.shape("study", "tiny")
    facts = {
        field: value for field, value in json.loads(shape.read_text()).items() if field[:5] not in ("model", "index")
    }
    shape.write_text(json.dumps(facts, indent=1, sort_keys=True) + "\n")
    manifest = ArtifactStore(house.root)
    record = manifest.read("study/tiny/catalog", None)
    assert record is not None
    files = manifest.file_facts([house.root / fact.path for fact in record.files])
    manifest.write(record.model_copy(update={"files": files}))
