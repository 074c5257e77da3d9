"""Connectors, trained by a build: features that they share, models that they become part of, and what is made again."""

import hashlib
import json
import os
import random
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText

from latentlens_dag.dag.building import integrity
from latentlens_dag.dag.building.integrity import check_project
from latentlens_dag.dataset.dataset import open_dataset
from latentlens_dag.errors import UserError
from latentlens_dag.models.captioning import CAPTION_TOKENS
from latentlens_dag.models.loading import load_vlm
from latentlens_dag.models.model_cache import ModelCache
from latentlens_dag.models.vlm import Vlm
from latentlens_dag.schema import REGIONS
from latentlens_dag.storage.hashing import hash_file
from latentlens_dag.storage.home import Home
from latentlens_dag.testing import SENTENCES
from latentlens_dag.training.connector_file import load_connector
from tests.dag.conftest import build, opened
from tests.helpers.command_line import run_command
from tests.helpers.warm_process import WarmProcess
from tests.training import parts

Copy = Callable[[Path], Path]
IMAGES = """\
type: latentlens_dag.dag.components.ImageSet
attributes: {name: pictures, source: {folder: pictures}, captions: {folder: pictures}, batches: 2}
---
type: latentlens_dag.dag.components.VisionFeatures
attributes: {name: clip, vision_encoder: {path: encoder}, images: pictures, layer: -1}
"""
CONNECTOR = """\
---
type: latentlens_dag.dag.components.Connector
attributes:
  name: {name}
  language_model: {{path: model}}
  features: clip
  kind: {kind}
  seed: {seed}
  steps: {steps}
  checkpoints: [0, 4]
  tokens: 200
  warmup: 3
"""
LONG = {"kind": "mlp", "seed": 0, "steps": 150}
_OFTEN_SAVED = (
    "from latentlens_dag.dag.assets import training; training._CHECKPOINT_S = -1\n"
    "from latentlens_dag.cli.main import main; main()"
)
GRID = {f"{kind}_{seed}": {"kind": kind, "seed": seed, "steps": 12} for kind in ("mlp", "linear") for seed in (0, 1)}


def _project(folder: Path, connectors: dict[str, dict[str, object]]) -> Path:
    here = folder / "assets" / "tiny"
    here.mkdir(parents=True)
    (folder / "workspace.yaml").write_text("load_from: []\n")
    parts.save_encoder("clip", here / "encoder")
    parts.save_language_model("Llama", here / "model")
    (here / "pictures").mkdir()
    for number, (picture, captions) in enumerate(zip(*parts.pictures(12), strict=True)):
        picture.putpixel((0, 0), (number, number, number))  # no two are equal
        picture.save(here / "pictures" / f"p{number:02d}.png")
        (here / "pictures" / f"p{number:02d}.txt").write_text("\n".join(captions))
    defs = "".join(CONNECTOR.format(name=name, **fields) for name, fields in connectors.items())
    (here / "defs.yaml").write_text(IMAGES + defs)
    return folder


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Counter[str]]:
    """Two kinds with two seeds, built; and how often each model was loaded. Do not write to it: copy it."""
    loads, folder = Counter[str](), _project(tmp_path_factory.mktemp("grid") / "project", GRID)
    load, encode = ModelCache._load, parts.load_vision_encoder
    with pytest.MonkeyPatch.context() as patch:
        cached = lambda cache, source, dtype: loads.update([source.name]) or load(cache, source, dtype)  # noqa: E731
        patch.setattr(ModelCache, "_load", cached)
        patch.setattr(
            "latentlens_dag.training.vision_encoder.load_vision_encoder",
            lambda *arguments: loads.update(["encoder"]) or encode(*arguments),
        )
        build(folder)
    return folder, loads


def _files(project: Path, pattern: str) -> dict[str, str]:
    """The hashes of files of the warehouse."""
    root = project / ".latentlens" / "warehouse"
    found = (path for path in sorted(root.glob(pattern)) if path.is_file())
    return {path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


def _made(project: Path) -> dict[str, str]:
    return _files(project, "connector/**/*")


def _edit(project: Path, old: str, new: str) -> None:
    file = project / "assets" / "tiny" / "defs.yaml"
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))


def test_a_grid_of_connectors_encodes_the_images_once_and_shares_the_frozen_weights(
    grid: tuple[Path, Counter[str]],
) -> None:
    project, loads = grid
    assert loads["encoder"] == 2  # for the features, and for the frozen weights
    weights = [*(project / ".latentlens").rglob("frozen-*.safetensors")]
    assert len(weights) == len(GRID) * 4  # frozen, and three models
    assert len({file.stat().st_ino for file in weights}) == 1


def test_kinds_and_seeds_give_different_weights_and_a_model_after_each_kept_step(
    grid: tuple[Path, Counter[str]],
) -> None:
    project, _ = grid
    files = _files(project, "connector/*/weights/*")
    assert [Path(file).stem for file in files] == ["S000000", "S000004", "S000012"] * 4
    assert len(set(files.values())) == len(files)
    for name, fields in GRID.items():
        folder = Home(project / ".latentlens").warehouse.checkpoint(name, 4)
        _, info = AutoModelForImageTextToText.from_pretrained(folder, output_loading_info=True)
        assert not any(info.values())
        _, facts = load_connector(Home(project / ".latentlens").warehouse.connector_file(name, 4))
        assert (facts.kind, facts.settings["seed"], facts.step) == (fields["kind"], fields["seed"], 4)
        assert facts.language_model_hash
        assert facts.vision_encoder_hash


def test_losses_and_settings_are_tables(grid: tuple[Path, Counter[str]]) -> None:
    dataset = open_dataset(grid[0] / ".latentlens")
    losses = dataset.sql("FROM losses ORDER BY connector, step").pl()
    assert losses.group_by("connector").agg(pl.col("step")).sort("connector").rows() == [
        (name, list(range(1, 13))) for name in sorted(GRID)
    ]
    assert losses["loss"].is_between(0, 20).all()
    assert (losses["caption_tokens"] > 0).all()
    connectors = dataset.sql("FROM connectors ORDER BY connector").pl()
    assert connectors["connector"].to_list() == sorted(GRID)
    assert connectors["images"].to_list() == [12] * 4
    assert json.loads(connectors["settings"][0])["steps"] == 12


def test_what_is_built_stays(grid: tuple[Path, Counter[str]], copy_of: Copy) -> None:
    project = copy_of(grid[0])
    assert build(project) == []
    run_command(project, "check", "--deep")
    assert "Nothing to remove" in run_command(project, "clean").stdout


def _with_links(project: Path, folder: Path) -> Path:
    """A copy in which files that are links to one another stay so."""
    subprocess.run(["cp", "-a", str(project), str(folder)], check=True)
    return folder


def test_clean_frees_shared_weights_with_the_last_of_their_models(
    grid: tuple[Path, Counter[str]], tmp_path: Path
) -> None:
    project = _with_links(grid[0], tmp_path / "project")
    weights = [*(project / ".latentlens").rglob("frozen-*.safetensors")]
    defs = project / "assets" / "tiny" / "defs.yaml"
    documents = defs.read_text().split("---\n")

    def freed(connectors: int) -> int:
        defs.write_text("---\n".join(documents[: 2 + connectors]))
        facts = json.loads(run_command(project, "clean", "--dry-run", "--json").stdout)
        return sum(one["size_bytes"] for one in facts["garbage"] if Path(one["path"]) in weights)

    assert (freed(4), freed(1), freed(0)) == (0, 0, weights[0].stat().st_size)


def test_a_flipped_bit_in_shared_weights_is_found_by_one_reading_and_damages_all_their_models(
    grid: tuple[Path, Counter[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project, read = _with_links(grid[0], tmp_path / "project"), list[Path]()
    before = _made(project)
    monkeypatch.setattr(integrity, "hash_file", lambda file: read.append(file) or hash_file(file))
    shared = project / ".latentlens" / "warehouse" / "connector" / "mlp_0" / "frozen" / "frozen-00001.safetensors"
    content = bytearray(shared.read_bytes())
    content[-1] ^= 1
    with shared.open("r+b") as file:  # in its place, so that all links have it
        file.write(content)
    with opened(project) as one:
        damaged = check_project(one, one.select(), deep=True).damaged
    assert len([file for file in read if file.name == shared.name]) == 1
    assert {target.key.to_user_string() for target in damaged} == {
        f"connector/{name}/{part}"
        for name in GRID
        for part in ("frozen", *(f"checkpoint/S{step:06d}" for step in (0, 4, 12)))
    }
    build(project)
    assert _made(project) == before
    with opened(project) as one:
        assert check_project(one, one.select(), deep=True).damaged == []


def test_features_that_were_deleted_are_computed_again_with_the_same_bytes(
    grid: tuple[Path, Counter[str]], copy_of: Copy
) -> None:
    project = copy_of(grid[0])
    before = _files(project, "features/**/*")
    shutil.rmtree(project / ".latentlens" / "warehouse" / "features" / "clip")
    assert build(project) == ["features/clip/features[00]", "features/clip/features[01]"]
    assert _files(project, "features/**/*") == before


def test_a_model_that_was_deleted_is_trained_again_to_its_step_with_the_same_bytes(
    grid: tuple[Path, Counter[str]], copy_of: Copy
) -> None:
    project = copy_of(grid[0])
    before = _made(project)
    shutil.rmtree(Home(project / ".latentlens").warehouse.checkpoint("linear_1", 4))
    assert build(project) == ["connector/linear_1/checkpoint/S000004"]
    assert _made(project) == before


def test_another_seed_trains_that_connector_alone(grid: tuple[Path, Counter[str]], copy_of: Copy) -> None:
    project = copy_of(grid[0])
    before = _files(project, "connector/*/weights/*")
    _edit(
        project,
        "name: linear_1\n  language_model: {path: model}\n  features: clip\n  kind: linear\n  seed: 1",
        "name: linear_1\n  language_model: {path: model}\n  features: clip\n  kind: linear\n  seed: 7",
    )
    made = build(project)
    assert {asset.split("/")[1] for asset in made} == {"linear_1"}
    assert "connector/linear_1/frozen" not in made
    now = _files(project, "connector/*/weights/*")
    assert {name for name in now if now[name] != before[name]} == {name for name in now if "linear_1" in name}


def test_a_step_that_is_kept_in_addition_changes_no_other(grid: tuple[Path, Counter[str]], copy_of: Copy) -> None:
    project = copy_of(grid[0])
    before = _made(project)
    _edit(project, "checkpoints: [0, 4]", "checkpoints: [0, 4, 8]")
    assert build(project, names=["mlp_0"]) == ["connector/mlp_0/checkpoint/S000008"]
    assert before.items() <= _made(project).items()


def test_a_new_picture_is_encoded_with_its_batch_and_learned_from(
    grid: tuple[Path, Counter[str]], copy_of: Copy
) -> None:
    project = copy_of(grid[0])
    pictures = project / "assets" / "tiny" / "pictures"
    picture, captions = (found[-1] for found in parts.pictures(13, seed=1))
    picture.save(pictures / "new.png")
    (pictures / "new.txt").write_text(captions[0])
    made = build(project)
    assert len([asset for asset in made if asset.startswith("features/")]) == 1
    assert len([asset for asset in made if asset.endswith("/losses")]) == 4
    assert open_dataset(project / ".latentlens").sql("SELECT DISTINCT images FROM connectors").fetchall() == [(13,)]


def test_pictures_without_captions_are_left_out_and_told(tmp_path: Path) -> None:
    project = _project(tmp_path / "project", {"mlp_0": GRID["mlp_0"]})
    for number in (3, 5):
        (project / "assets" / "tiny" / "pictures" / f"p{number:02d}.txt").unlink()
    done = run_command(project, "build")
    assert "2 of 12 images have no caption" in done.stdout + done.stderr
    assert open_dataset(project / ".latentlens").sql("SELECT images FROM connectors").fetchall() == [(10,)]


def test_a_number_of_images_takes_the_first_by_their_ids(grid: tuple[Path, Counter[str]], copy_of: Copy) -> None:
    project = copy_of(grid[0])
    _edit(project, "name: mlp_0\n", "name: mlp_0\n  images: 5\n")
    build(project)
    dataset = open_dataset(project / ".latentlens")
    assert dataset.sql("SELECT images FROM connectors ORDER BY connector").fetchall() == [(12,), (12,), (5,), (12,)]
    assert dataset.sql("SELECT max(images) FROM losses WHERE connector = 'mlp_0'").fetchall()[0][0] <= 5


def test_a_training_that_is_killed_five_times_goes_on_and_ends_with_the_same_bytes(tmp_path: Path) -> None:
    whole, killed = _project(tmp_path / "whole", {"mlp_0": LONG}), _project(tmp_path / "killed", {"mlp_0": LONG})
    build(whole)
    moments, kills, state = random.Random(0), 0, killed / ".latentlens" / "warehouse" / "connector" / "mlp_0" / "run"
    while kills < 5:
        process = WarmProcess(_OFTEN_SAVED, "build", folder=killed, environment=os.environ)
        before = _newest(state)
        while _newest(state) == before and process.returncode is None:
            with suppress(subprocess.TimeoutExpired):
                process.wait(0.01)
        with suppress(subprocess.TimeoutExpired):
            process.wait(moments.uniform(0, 0.3))
        assert process.returncode is None, process.output()
        process.kill()
        process.wait()
        kills += 1
        assert "Nothing to remove" in run_command(killed, "clean").stdout  # the state is needed
    build(killed)
    assert _made(killed) == _made(whole)
    assert not state.exists()


def _newest(state: Path) -> int:
    return max((path.stat().st_mtime_ns for path in state.glob("*/checkpoint.safetensors")), default=0)


def test_a_model_of_a_connector_is_read_as_any_other(grid: tuple[Path, Counter[str]]) -> None:
    vlm = load_vlm(Home(grid[0] / ".latentlens").warehouse.checkpoint("linear_0", 12))
    states = vlm.visual_states(parts.pictures(2)[0], [0, 1])
    assert states.states[0].shape[0] == 2 * 16


STUDY = """\
---
type: latentlens_dag.dag.components.Corpus
attributes: {name: text, source: {lines: corpus.txt}, shards: 1}
---
type: latentlens_dag.dag.components.Index
attributes: {name: words, language_model: {path: model}, corpus: text, layers: [1]}
---
type: latentlens_dag.dag.components.Study
attributes: {name: said, vlm: {connector: mlp_0, step: 4}, index: words, images: pictures, layers: [0], top_k: 2,
  captions: true}
"""


def test_a_study_stores_what_its_model_says_of_each_image_and_which_things_it_names(
    grid: tuple[Path, Counter[str]], copy_of: Copy
) -> None:
    project = copy_of(grid[0])
    here = project / "assets" / "tiny"
    (here / "corpus.txt").write_text("\n".join(SENTENCES))
    columns = [pa.field("file_name", pa.string()), *(field for field in REGIONS if field.name != "image_id")]
    box = {"region_id": "0", "kind": "object", "words": ["red"], "x0": 0, "y0": 0, "x1": 9, "y1": 9}
    rows = [{"file_name": f"p{number:02d}.png", "name": ("boat", "ball")[number % 2], **box} for number in range(12)]
    pq.write_table(pa.Table.from_pylist(rows, pa.schema(columns)), here / "regions.parquet")
    _edit(project, "captions: {folder: pictures},", "captions: {folder: pictures}, regions: {masks: regions.parquet},")
    (here / "defs.yaml").write_text((here / "defs.yaml").read_text() + STUDY)
    build(project, names=["study/said"])
    home, dataset = Home(project / ".latentlens"), open_dataset(project / ".latentlens")
    vlm, names = load_vlm(home.warehouse.checkpoint("mlp_0", 4)), dataset.sql("FROM images").pl()
    said = dict(dataset.sql("SELECT image_id, caption FROM generated_captions").fetchall())
    assert len(said) == 12
    for image, name in names.select("image_id", "file_name").rows()[:3]:
        assert said[image] == _greedy(vlm, Image.open(here / "pictures" / name))
    objects = dataset.sql("FROM caption_objects").pl()
    assert objects.filter("present")["name"].value_counts().sort("name").rows() == [("ball", 6), ("boat", 6)]
    scores = dataset.sql("FROM caption_scores WHERE kind = 'all' AND measure = 'recall'").pl().to_dicts()[0]
    assert scores["share"] == objects.filter("present")["named"].mean()
    assert scores["objects"] == 12
    before = _files(project, "study/said/captions/*")
    assert build(project, names=["study/said"]) == []
    shutil.rmtree(home.warehouse.study("said") / "captions")
    build(project, names=["study/said"])
    assert _files(project, "study/said/captions/*") == before
    assert dataset.collect("captions", top=3)["caption"].to_list() == [said[image] for image in sorted(said)[:3]]
    with open_dataset(home.warehouse.catalog("said")) as catalog:
        tables = ("generated_captions", "caption_objects", "caption_scores", "captions", "connectors", "losses")
        for table in tables:
            assert catalog.sql(f"SELECT count(*) FROM {table}").fetchall()[0][0] > 0, table


def _greedy(vlm: Vlm, image: Image.Image) -> str:
    """The most likely token each time, one pass over everything for each."""
    ids, new = vlm.inputs([image]), list[int]()
    for _ in range(CAPTION_TOKENS):
        tokens = torch.cat([ids["input_ids"], torch.tensor([new], dtype=torch.int64)], dim=1)
        with torch.no_grad():
            logits = vlm.model(input_ids=tokens, pixel_values=ids["pixel_values"]).logits
        new.append(int(logits[0, -1].argmax()))
        if new[-1] == vlm.processor.tokenizer.eos_token_id:
            break
    return str(vlm.processor.tokenizer.decode(new, skip_special_tokens=True)).strip()


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("features: clip", "features: dino", "names no VisionFeatures. There are: clip"),
        ("steps: 12", "steps: 0", "`steps: 0` of Connector mlp_0"),
        ("checkpoints: [0, 4]", "checkpoints: [0, 14]", "has 14, but the training has the steps 0"),
        ("checkpoints: [0, 4]", "checkpoints: [4, 4]", "must name each step once"),
        ("tokens: 200", "tokens: 0", "`tokens: 0` of Connector mlp_0"),
        ("warmup: 3", "kept: {whole: -1}", "`kept: (('whole', -1"),
        ("warmup: 3", "images: 0", "`images: 0` of Connector mlp_0"),
        ("kind: mlp", "kind: conv", "kind"),
        (", captions: {folder: pictures}", "", "`images: pictures` of VisionFeatures clip"),
        ("layer: -1", "layer: -1, pool: 0", "`pool: 0` of VisionFeatures clip"),
    ],
)
def test_a_wrong_value_is_refused_with_its_field_and_component(old: str, new: str, said: str, tmp_path: Path) -> None:
    project = _project(tmp_path / "project", {"mlp_0": GRID["mlp_0"]})
    _edit(project, old, new)
    with pytest.raises(UserError) as raised, opened(project):
        pass
    assert said in str(raised.value)
    assert str(project / "assets" / "tiny" / "defs.yaml") in str(raised.value)
