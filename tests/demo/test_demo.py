"""The demo as it is shipped: its files fit each other, and its study says what its card says."""

import gzip
import os
from collections.abc import Sequence
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest

from latentlens_dag.storage.home import Home

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "assets" / "demo"


def _build(home: Home, studies: Sequence[str], names: Sequence[str] = ()) -> None:
    from latentlens_dag.dag.building.opening import open_project

    before = Path.cwd()
    os.chdir(ROOT)
    try:
        with open_project(home) as project:
            selection = project.select(studies, names)
            project.observe(selection)
            project.build(selection)
            assert project.plan(selection) == []
    finally:
        os.chdir(before)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """The demo study, built into a home of its own."""
    found = Home(tmp_path_factory.mktemp("demo_home"))
    _build(found, ["demo"])
    return found


def _concrete(home: Home, lens: str, group: str) -> dict[int, float]:
    rows = pq.read_table(home.warehouse.summary("demo", "interpretability")).to_pylist()
    return {r["visual_layer"]: r["concrete"] for r in rows if (r["lens"], r["patch_group"]) == (lens, group)}


def test_every_model_check_passes(home: Home) -> None:
    import json

    facts = json.loads(home.warehouse.model_checks("demo").read_text())
    assert {check["name"]: check["passed"] for check in facts["checks"]} == {
        "causality": True,
        "padding_invariance": True,
        "logits_reproduced": True,
        "visual_token_count": True,
        "localization": True,
    }
    assert facts["prompt"] == "<image>\nDescribe this image in detail.\n"


def test_all_shipped_scenes_are_judged_on_every_patch(home: Home) -> None:
    from latentlens_dag import open_dataset

    with open_dataset(home.root) as data:
        counted = data.sql("SELECT count(DISTINCT image_id), count(*) FROM visual_tokens").fetchall()
        judged = data.sql("SELECT lens, visual_layer, count(*) FROM judgements GROUP BY ALL").fetchall()
    assert counted == [(64, 64 * 144)]
    assert len(judged) == 3 * 8
    assert {tokens for _, _, tokens in judged} == {64 * 144}


def test_the_demo_release_is_small_and_an_image_more_would_upload_at_most_twice_its_own_data(home: Home) -> None:
    _build(home, [], ["release/demo_release"])
    folder = home.warehouse.release("demo_release")
    sizes = {path: path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    assert sum(sizes.values()) <= 15_000_000
    assert sizes[folder / "examples" / "demo.webp"] <= 60_000
    images = [path.stem for path in (folder / "images").iterdir()]
    own = [sum(size for path, size in sizes.items() if path.stem == image) for image in images]
    of_all = ("README.md", "manifest.json", "interpretability.parquet", "layer_alignment.parquet", "diversity.parquet")
    assert len(images) == 64
    assert min(own) >= sum(sizes[folder / name] for name in of_all)


@pytest.mark.soak
def test_fresh_scenes_are_read_and_an_untrained_connector_says_nothing(tmp_path: Path) -> None:
    """The control: what the lens reads was learned, and is not in the judge, the words or the index."""
    import torch

    from latentlens_dag.demo.measure import FRESH, UNTRAINED, measure
    from latentlens_dag.demo.scenes import SceneSource
    from latentlens_dag.models.loading import load_vlm

    vlm = load_vlm(DEMO / "model", device="cpu")
    torch.manual_seed(0)
    for module in vlm.model.model.multi_modal_projector.modules():
        if isinstance(module, torch.nn.Linear):
            torch.nn.init.normal_(module.weight, std=module.in_features**-0.5)
            torch.nn.init.zeros_(module.bias)
    vlm.model.save_pretrained(tmp_path / "untrained")
    vlm.processor.save_pretrained(tmp_path / "untrained")
    found = measure(SceneSource.open(), DEMO / "model", tmp_path / "untrained", tmp_path / "project", scenes=8)
    assert found[UNTRAINED]["latentlens"]["object"]["mean"] < 0.05
    assert found[FRESH]["latentlens"]["object"]["mean"] > 0.5
    assert found[FRESH]["latentlens"]["all"]["mean_excess"] > 0.5


def test_fresh_scenes_are_measured_with_the_settings_of_the_demo_study() -> None:
    import yaml

    from latentlens_dag.demo.measure import CONTEXTS_PER_TOKEN, UNIQUE

    declared = {
        part["type"].split(".")[-1]: part["attributes"]
        for part in yaml.safe_load_all((DEMO / "defs.yaml").read_text(encoding="utf-8"))
    }
    assert declared["Index"]["contexts_per_token"] == CONTEXTS_PER_TOKEN
    assert declared["Study"]["unique"] == UNIQUE


def test_the_corpus_has_as_many_sentences_as_it_says_and_none_twice() -> None:
    lines = gzip.decompress((DEMO / "corpus.txt.gz").read_bytes()).decode().splitlines()
    assert len(set(lines)) == len(lines) >= 20_000


def test_every_region_is_of_a_shipped_scene_and_they_cover_it() -> None:
    regions = pl.read_parquet(DEMO / "regions.parquet")
    assert set(regions["file_name"]) == {path.name for path in (DEMO / "scenes").iterdir()}
    for _, rows in regions.group_by("file_name"):
        shown = sum(sum(runs[1::2]) for runs in rows["mask"].to_list())
        assert shown == 192 * 192


def test_the_weights_are_safetensors_of_at_most_25_mb() -> None:
    weights = [path for path in (DEMO / "model").iterdir() if path.stat().st_size > 1_000_000]
    assert [path.suffix for path in weights] == [".safetensors"]
    assert weights[0].stat().st_size <= 25e6
