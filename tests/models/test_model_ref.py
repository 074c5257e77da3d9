"""What names a model: its place, its commit, and whether its own code may be run."""

import json
import os
from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import pytest

from latentlens_dag.dag.versions import content_version
from latentlens_dag.errors import UserError
from latentlens_dag.models.model_ref import ModelRef, model_ref

COMMIT = "0123456789" * 4
REFS = [
    ModelRef(path=Path("/m")),
    ModelRef(path=Path("/m"), trust_remote_code=True),
    ModelRef(path=Path("/other/m")),
    ModelRef(repo="u/m"),
    ModelRef(repo="u/m", revision=COMMIT),
    ModelRef(repo="u/m", revision=COMMIT, trust_remote_code=True),
    ModelRef(repo="u/m", revision="main"),
]


def test_models_are_equal_only_where_place_commit_and_trust_are() -> None:
    assert len(set(REFS)) == len(REFS)
    assert all(replace(one) == one and hash(replace(one)) == hash(one) for one in REFS)
    with pytest.raises(FrozenInstanceError):
        REFS[0].trust_remote_code = True  # type: ignore[misc]


@pytest.mark.parametrize("ref", REFS, ids=repr)
def test_a_model_is_the_same_after_it_was_written_as_json(ref: ModelRef) -> None:
    assert ModelRef.from_json(json.loads(json.dumps(ref.to_json()))) == ref


@pytest.mark.parametrize(
    "facts",
    [
        {},
        {"path": "/m", "hub": "u/m"},
        {"path": "/m", "revision": COMMIT},
        {"path": 3},
        {"hub": "../m"},
        {"path": "/m", "trust_remote_code": "false"},
        {"path": "/m", "trust_remote_code": 1},
    ],
)
def test_json_that_names_no_model_or_two_is_refused_and_only_true_is_trust(facts: dict) -> None:
    with pytest.raises(ValueError, match=r".+"):
        ModelRef.from_json(facts)


def test_a_model_is_called_by_its_folder_or_its_repository_and_commit() -> None:
    assert [one.name for one in REFS] == ["m"] * 3 + ["u/m"] * 4
    assert [str(one) for one in REFS[2:5]] == ["/other/m", "u/m", f"u/m@{COMMIT}"]


@pytest.mark.parametrize("source", [str, Path, lambda path: ModelRef(path=path)])
def test_a_folder_is_trusted_only_where_the_caller_says_so(tmp_path: Path, source: object) -> None:
    assert model_ref(source(tmp_path)) == ModelRef(path=tmp_path)
    assert model_ref(source(tmp_path), trust_remote_code=True) == ModelRef(path=tmp_path, trust_remote_code=True)


def test_a_named_model_keeps_its_trust_and_its_commit() -> None:
    assert [model_ref(one) for one in REFS] == REFS
    assert model_ref(REFS[4], revision=COMMIT) == REFS[4]
    assert model_ref("u/m", COMMIT) == REFS[4]
    with pytest.raises(UserError, match=r"`revision` main of u/m@0123456789\w+: it names another one"):
        model_ref(REFS[4], revision="main")


def test_a_folder_with_a_revision_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"`revision` main of .*: a folder has no revisions\. Leave it out"):
        model_ref(tmp_path, revision="main")


def test_only_a_commit_of_the_hub_is_a_version_that_needs_no_look_at_files(tmp_path: Path) -> None:
    for one in (REFS[0], REFS[3], REFS[6]):
        with pytest.raises(ValueError, match="not pinned"):
            _ = one.version


def test_versions_are_those_of_homes_that_were_built_before(tmp_path: Path) -> None:
    """The literals are of the code that named a trusted folder by a class of path; other ones make all homes stale."""
    folder = tmp_path / "model"
    files = {"config.json": "{}", "model.safetensors": "weights", "sub/extra.txt": "more", "README.md": "card"}
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    of_folder, of_hub = ModelRef(path=folder), ModelRef(repo="user/name", revision=COMMIT)
    trusted = [replace(one, trust_remote_code=True) for one in (of_folder, of_hub)]
    version = lambda one: content_version(one, tmp_path / "memory.json")  # noqa: E731
    assert version(of_folder) == version(folder) == "ba919ad1d32fba3a"
    assert version(trusted[0]) == "4ca0c5d8ad313029"
    assert version(of_hub) == of_hub.version == "ce8a32ffe75a73ff"
    assert version(trusted[1]) == trusted[1].version == "8f18cfbbde99ac11"


@pytest.mark.parametrize(
    "name",
    [
        ".DS_Store",
        "._config.json",
        ".git/index",
        ".cache/huggingface/download/config.json.metadata",
        "sub/.DS_Store",
        "README.md",
    ],
)
def test_files_that_no_loader_reads_are_not_part_of_a_model(tmp_path: Path, name: str) -> None:
    model, memory = _model(tmp_path), tmp_path / "memory.json"
    before = content_version(model, memory)
    (tmp_path / "model" / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "model" / name).write_text("1")
    assert content_version(model, memory) == before
    assert (content_version(tmp_path / "model", memory, hidden=True) == before) is (name == "README.md")


@pytest.mark.parametrize(
    "name", ["generation_config.json", "chat_template.jinja", "vocab.txt", "tokenizer.model", "own.py", "sub/more.json"]
)
def test_files_that_a_loader_may_read_are_part_of_a_model(tmp_path: Path, name: str) -> None:
    model, memory = _model(tmp_path), tmp_path / "memory.json"
    before = content_version(model, memory)
    (tmp_path / "model" / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "model" / name).write_text("1")
    assert content_version(model, memory) != before


def test_a_model_in_a_hidden_folder_has_a_version(tmp_path: Path) -> None:
    model, memory = _model(tmp_path / ".cache"), tmp_path / "memory.json"
    assert content_version(model, memory) == content_version(_model(tmp_path), memory)


def test_a_weight_file_with_one_changed_byte_is_a_new_version_of_the_model(tmp_path: Path) -> None:
    model, memory = _model(tmp_path), tmp_path / "memory.json"
    before = content_version(model, memory)
    weights = tmp_path / "model" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    os.utime(weights, ns=(0, 0))  # a clock may be too coarse to tell the two writes apart
    assert content_version(model, memory) != before


def _model(folder: Path) -> ModelRef:
    path = folder / "model"
    path.mkdir(parents=True)
    (path / "config.json").write_text("{}")
    (path / "model.safetensors").write_bytes(bytes(range(256)) * 17_000)  # of several blocks of the hash
    return ModelRef(path=path)
