"""What a change costs, counted in what the models read: rows of the index, and images.

Only the passes that make results are counted; the checks of a model show it noise, whenever the model or what is asked
of it changes.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from latentlens_dag.index.lance_files import open_table
from latentlens_dag.index.layer_tables import version_files
from latentlens_dag.index.state_tables import read_states
from latentlens_dag.storage.hashing import shard_of, text_id
from latentlens_dag.testing import SENTENCES, TINY_STUDY, tiny_project
from tests.dag.conftest import build
from tests.helpers.image_files import list_images

Copy = Callable[[Path], Path]
STATES = ["visual_tokens", *(f"study/tiny/visual/V{layer:02d}" for layer in (0, 2))]
NEW = "A small bird sings in the old tree near the lake."
STUDY = (
    TINY_STUDY.replace("SHARDS", "2")
    .replace("BATCHES", "2")
    .replace("layers: [0, 1, 2]", "layers: [0, 2]")
    .replace("layers: [1, 2], contexts_per_token: 5", "layers: [1], contexts_per_token: 50")
)
"""Of every sentence every prefix is kept, and of a model of three blocks there are layers left to add."""


@dataclass
class Forwarded:
    """What the models read to make results."""

    rows: list[tuple[str, str]] = field(default_factory=list)
    """Key and sentence of every row that a pass of the language model was for."""
    text_layers: set[int] = field(default_factory=set)
    images: list[str] = field(default_factory=list)
    """The id of every image that the VLM was shown."""
    visual_layers: set[int] = field(default_factory=set)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A built project. Do not write to it: copy it."""
    folder = tiny_project(tmp_path_factory.mktemp("costs") / "project")
    (folder / "assets" / "tiny" / "defs.yaml").write_text(STUDY)
    build(folder)
    return folder


@pytest.fixture
def forwarded(monkeypatch: pytest.MonkeyPatch) -> Forwarded:
    """Filled by every build of the test."""
    found = Forwarded()
    _count_rows(monkeypatch, found)
    _count_images(monkeypatch, found)
    return found


def _count_rows(monkeypatch: pytest.MonkeyPatch, found: Forwarded) -> None:
    from latentlens_dag.index import encode as module

    real = module.encode

    def encode(model: Any, rows: Any, sentences: Any, layers: list[int], *rest: Any, **options: Any) -> Any:
        found.rows += zip(rows["key"].to_pylist(), rows["sentence_id"].to_pylist(), strict=True)
        found.text_layers |= set(layers if len(rows) else [])
        return real(model, rows, sentences, layers, *rest, **options)

    monkeypatch.setattr(module, "encode", encode)


def _count_images(monkeypatch: pytest.MonkeyPatch, found: Forwarded) -> None:
    """Count the files that are read for passes of `Vlm.states_in_passes`."""
    from latentlens_dag.models.vlm import Vlm
    from latentlens_dag.study import stored_states

    real_read, real_states = stored_states.read_in_chunks, Vlm.states_in_passes

    def read(files: Any, size: int) -> Any:
        found.images += [file.image_id for file in files]
        return real_read(files, size)

    def states(vlm: Vlm, passes: Any, layers: list[int], *rest: Any) -> Any:
        if passes.__name__ == stored_states._reported.__name__:  # not those of a check of the model
            found.visual_layers |= set(layers)
        return real_states(vlm, passes, layers, *rest)

    monkeypatch.setattr(stored_states, "read_in_chunks", read)
    monkeypatch.setattr(Vlm, "states_in_passes", states)


def _here(project: Path) -> Path:
    return project / "assets" / "tiny"


def _house(project: Path) -> Path:
    return project / ".latentlens" / "warehouse"


def _edit(project: Path, old: str, new: str) -> None:
    file = _here(project) / "defs.yaml"
    assert file.read_text().count(old) == 1
    file.write_text(file.read_text().replace(old, new))


def _steps(ran: list[str]) -> set[str]:
    """latentlens for study/tiny/latentlens/V01[00]."""
    return {label.split("[")[0].split("/")[2] for label in ran if label.startswith("study/")}


def _rows(project: Path) -> dict[str, str]:
    """The sentence of every key of the index."""
    files = (_house(project) / "index" / "words" / "occurrences").glob("*.parquet")
    return {row["key"]: row["sentence_id"] for file in files for row in pq.read_table(file).to_pylist()}


def _images(project: Path) -> set[str]:
    return {file.image_id for file in list_images(_here(project) / "pictures")}


def _states(project: Path) -> dict[tuple[int, str], bytes]:
    """The states of every image at every layer, wherever its batch lies."""
    found = {}
    for path in (_house(project) / "study" / "tiny" / "visual").glob("layer_*/*.lance"):
        batch = read_states(path)
        for image in set(batch.image_ids):
            mine = np.array(batch.image_ids) == image
            found[int(path.parent.name[-2:]), image] = batch.states[mine].tobytes()
    return found


def test_nothing_changed_costs_nothing(project: Path, copy_of: Copy, forwarded: Forwarded) -> None:
    assert build(copy_of(project)) == []
    assert forwarded == Forwarded()


@pytest.mark.parametrize("replaced", [[], [3]])
def test_new_sentences_cost_a_pass_over_their_own_new_rows(
    project: Path, copy_of: Copy, forwarded: Forwarded, replaced: list[int]
) -> None:
    """One sentence of eight is added, or takes the place of another."""
    changed, before = copy_of(project), _rows(project)
    kept = [sentence for number, sentence in enumerate(SENTENCES) if number not in replaced]
    (_here(changed) / "corpus.txt").write_text("\n".join([*kept, NEW]))
    ran = build(changed)
    assert len([label for label in ran if label.startswith("corpus/text/shards")]) == 2  # both are looked at again
    new = {key: sentence for key, sentence in _rows(changed).items() if key not in before}
    assert dict(forwarded.rows) == new
    assert len(forwarded.rows) == len(new)
    assert set(new.values()) == {text_id(NEW)}
    assert forwarded.images == []
    assert not _steps(ran) & {"visual", "logitlens", "embeddinglens"}


def test_another_number_of_shards_and_another_order_cost_no_pass(
    project: Path, copy_of: Copy, forwarded: Forwarded
) -> None:
    changed = copy_of(project)
    _edit(changed, "shards: 2", "shards: 3")
    (_here(changed) / "corpus.txt").write_text("\n".join(random.Random(1).sample(SENTENCES, len(SENTENCES))))
    ran = build(changed)
    assert len([label for label in ran if label.startswith("index/words/contextual/L01")]) == 3
    assert forwarded == Forwarded()


def test_a_contextual_and_a_visual_layer_that_are_added_cost_a_pass_for_them_only(
    project: Path, copy_of: Copy, forwarded: Forwarded
) -> None:
    changed, before = copy_of(project), _states(project)
    table = _house(changed) / "index" / "words" / "layer_01.lance"
    version, files = open_table(table).version, {file: file.read_bytes() for file in version_files(table)}
    _edit(changed, "layers: [1]", "layers: [1, 2]")
    _edit(changed, "layers: [0, 2]", "layers: [0, 1, 2]")
    ran = build(changed)
    assert (sorted(forwarded.rows), forwarded.text_layers) == (sorted(_rows(project).items()), {2})
    assert (sorted(forwarded.images), forwarded.visual_layers) == (sorted(_images(project)), {1})
    assert open_table(table).version == version
    assert {file: file.read_bytes() for file in version_files(table)} == files
    assert {place: _states(changed)[place] for place in before} == before
    assert {label for label in ran if "/V00" in label} == {
        f"study/tiny/{step}/V00[{batch:02d}]" for step in ("latentlens", "judgements") for batch in range(2)
    }


def test_images_that_are_added_are_the_only_ones_shown_and_one_that_is_removed_costs_nothing(
    project: Path, copy_of: Copy, forwarded: Forwarded
) -> None:
    changed, before, known = copy_of(project), _states(project), _images(project)
    pictures = _here(changed) / "pictures"
    for number in (4, 5):
        noise = np.random.default_rng(number).integers(0, 256, (60, 48, 3), dtype=np.uint8)
        Image.fromarray(noise).save(pictures / f"picture_{number}.png")
    build(changed, names=STATES)
    assert sorted(forwarded.images) == sorted(_images(changed) - known)
    assert len(forwarded.images) == 2
    assert {place: _states(changed)[place] for place in before} == before

    forwarded.images.clear()
    (pictures / "picture_1.png").unlink()
    assert "visual" in _steps(build(changed, names=STATES))
    assert forwarded.images == forwarded.rows == []
    assert {image for _, image in _states(changed)} == _images(changed)
    assert {(place, states) for place, states in _states(changed).items() if place in before} < set(before.items())


def test_fewer_answers_and_another_judge_cost_no_pass(project: Path, copy_of: Copy, forwarded: Forwarded) -> None:
    changed, judged = copy_of(project), {"judgements", "interpretability", "lens_differences", "catalog"}
    lenses = {"latentlens", "logitlens", "embeddinglens"}
    _edit(changed, "top_k: 3", "top_k: 2")
    assert _steps(build(changed)) == lenses | judged | {"diversity", "layer_alignment"}
    _edit(changed, "judge: {regions: {}}", "judge: none")
    build(changed)
    _edit(changed, "judge: none", "judge: {regions: {}}")
    truth = {"patch_truth", "chance_patches"}
    assert _steps(build(changed)) <= judged | truth | {"model_checks"}  # which now must know where tokens lie
    assert forwarded == Forwarded()


def test_parts_of_the_index_cost_no_pass_and_no_second_search_of_the_whole(
    project: Path, copy_of: Copy, forwarded: Forwarded
) -> None:
    changed, neighbors = copy_of(project), _house(project) / "study" / "tiny" / "latentlens"
    _edit(changed, "judge: {regions: {}}", "judge: {regions: {}}\n  corpus_ablation: [0.4, 1.0]")
    assert _steps(build(changed)) == {"ablation_neighbors", "corpus_ablation", "catalog"}
    _edit(changed, "[0.4, 1.0]", "[1.0]")
    assert _steps(build(changed)) == {"corpus_ablation", "catalog"}
    assert forwarded == Forwarded()
    for file in neighbors.rglob("*.parquet"):
        own = _house(changed) / file.relative_to(_house(project))
        assert own.stat().st_mtime_ns == file.stat().st_mtime_ns


def test_another_number_of_batches_costs_a_pass_over_the_images_that_come_into_another_batch(
    project: Path, copy_of: Copy, forwarded: Forwarded
) -> None:
    """A batch takes states only of what was the batch of its number."""
    changed = copy_of(project)
    _edit(changed, "batches: 2", "batches: 4")
    build(changed, names=STATES)
    moved = {image for image in _images(project) if shard_of(image, 4) != shard_of(image, 2)}
    assert sorted(forwarded.images) == sorted(moved)
    assert 0 < len(moved) < 4
    assert forwarded.rows == []


def test_another_prompt_costs_a_pass_over_all_images(project: Path, copy_of: Copy, forwarded: Forwarded) -> None:
    changed = copy_of(project)
    _edit(changed, "top_k: 3", "top_k: 3\n  prompt: What is this?")
    build(changed)
    assert sorted(forwarded.images) == sorted(_images(project))
    assert forwarded.rows == []


@pytest.mark.parametrize("force", [False, True])
def test_another_model_costs_a_pass_over_everything_and_so_does_force(
    project: Path, copy_of: Copy, forwarded: Forwarded, force: bool
) -> None:
    changed = copy_of(project)
    if not force:
        (_here(changed) / "model" / "notes.txt").write_text("another content of the model's folder")
    build(changed, force=force)
    assert sorted(forwarded.images) == sorted(_images(project))
    assert sorted(forwarded.rows) == sorted(_rows(project).items())
