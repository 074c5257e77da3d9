"""The demo as it is shipped: its files fit each other, and its study says what its card says."""

import gzip
import os
from collections.abc import Sequence
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest

from latentlens_dag.demo.card import shares_table
from latentlens_dag.schema import LENSES
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


@pytest.fixture(scope="module")
def shares(home: Home) -> pl.DataFrame:
    """Its table `interpretability`, judged by all answers."""
    found = pl.read_parquet(home.warehouse.summary("demo", "interpretability"))
    return found.filter(pl.col("k") == 5)


def _mean(shares: pl.DataFrame, **where: str) -> str:
    """`98.1 (10.9)`: means of share and chance over the layers 1 and up, in percent."""
    rows = shares.filter(pl.col("visual_layer") >= 1, **where)
    assert rows["visual_layer"].to_list() == list(range(1, 8))
    return "{:.1f} ({:.1f})".format(*(100 * rows[name].mean() for name in ("share", "chance")))


def test_the_table_of_the_readme_is_that_of_the_study(shares: pl.DataFrame) -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    for lens in LENSES.values():
        columns = [(group, measure) for group in ("all", "object") for measure in ("interpretable", "concrete")]
        cells = [_mean(shares, lens=lens.name, patch_group=group, measure=measure) for group, measure in columns]
        assert f"| {lens.title} | {' | '.join(cells)} |" in lines


def test_the_readme_says_of_logitlens_what_the_study_says(shares: pl.DataFrame) -> None:
    text = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    rows = shares.filter(visual_layer=5, lens="logitlens", patch_group="object").rows_by_key("measure", named=True)
    figures = {
        measure: {name: f"{100 * one:.1f}" for name, one in row.items() if isinstance(one, float)}
        for measure, (row,) in rows.items()
    }
    whole = figures["interpretable"]
    for sentence in (
        f"at layer 5, {whole['share']} % [{whole['low']}-{whole['high']}] of the patches on objects are interpretable",
        f"(chance {whole['chance']} % [{whole['chance_low']}-{whole['chance_high']}])",
        f"{figures['global']['share']} % by a word for what is elsewhere in the picture",
        f"{figures['concrete']['share']} % by a word for the object itself",
    ):
        assert sentence in text


def test_the_card_of_the_model_has_the_tables_of_the_study(home: Home) -> None:
    card = (DEMO / "model" / "README.md").read_text(encoding="utf-8")
    rows = pq.read_table(home.warehouse.summary("demo", "interpretability")).to_pylist()
    for measure in ("interpretable", "concrete"):
        assert shares_table(rows, measure) in card


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
    assert len(judged) == 5 * 8
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
    control = pl.read_parquet(tmp_path / "project/.latentlens/warehouse/study" / UNTRAINED / "interpretability.parquet")
    assert (control["excess_low"] > 0).mean() < 0.05 < (control["chance"] > 0.05).mean()
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
