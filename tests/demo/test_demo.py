"""The demo as it is shipped: its files fit each other, and its study says what its card says."""

import copy
import gzip
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from latentlens_dag.demo.card import write_card
from latentlens_dag.demo.claims import support
from latentlens_dag.demo.world import load_world
from latentlens_dag.publish.card import escape_markdown
from latentlens_dag.schema import LENSES
from latentlens_dag.storage.home import Home
from latentlens_dag.storage.warehouse import Warehouse
from tests.benchmarks.results import read_results
from tests.demo.claims import Figures, figures, readme_pieces

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
def found(home: Home) -> Figures:
    return figures(home.warehouse)


def _flat(text: str) -> str:
    return " ".join(text.replace("**", "").split())


def test_the_readme_says_of_the_demo_what_its_tables_and_results_say(found: Figures) -> None:
    text = _flat((ROOT / "README.md").read_text(encoding="utf-8"))
    assert [piece for piece in readme_pieces(found) if piece not in text] == []


def test_every_figure_of_the_readme_on_the_demo_is_compared(found: Figures) -> None:
    """What is left without the pieces that are compared has no figures but these."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    left = _flat(text[text.index("On the 64 shipped scenes") : text.index("## A real language model")])
    for piece in readme_pieces(found):
        left = left.replace(piece, "")
    assert re.findall(r"\d[\d.,]*", left.replace("On the 64 shipped scenes", "")) == ["1", "7,", "13"]  # layers 1 to 7
    objects = found.shares.filter(lens="latentlens", visual_layer=1, measure="concrete").rows_by_key(
        "patch_group", named=True
    )
    assert round(100 * objects["object"][0]["tokens"] / objects["all"][0]["tokens"]) == 13


def test_another_cell_of_a_table_is_not_what_the_readme_says(found: Figures) -> None:
    text = _flat((ROOT / "README.md").read_text(encoding="utf-8"))

    def true(**changed: Any) -> bool:
        return all(piece in text for piece in readme_pieces(found._replace(**changed)))

    assert true()
    shares = found.shares.with_row_index()
    shown = shares.filter(
        pl.col("visual_layer") >= 1,
        pl.col("patch_group").is_in(["all", "object"]),
        pl.col("measure").is_in(["interpretable", "concrete"]),
    )
    assert len(shown) == len(LENSES) * 7 * 2 * 2
    for row, column in product(shown["index"], ("share", "chance")):
        more = pl.when(pl.col("index") == row).then(pl.col(column) + 0.1).otherwise(pl.col(column))
        assert not true(shares=shares.with_columns(more.alias(column))), shares.row(row)
    for cell in ((0, 1), (0, 2), (0, 3), (7, 1), (7, 7)):
        here = (pl.col("visual_layer") == cell[0]) & (pl.col("contextual_layer") == cell[1])
        more = pl.when(here).then(pl.col("share") + 0.01).otherwise(pl.col("share"))
        assert not true(alignment=found.alignment.with_columns(more.alias("share"))), cell
    for path in (
        ("fresh", "latentlens", "all", "mean"),
        ("fresh", "latentlens", "object", "mean"),
        ("fresh", "latentlens", "all", "interpretable", "mean"),
        ("fresh", "latentlens", "object", "interpretable", "mean_chance"),
        ("fresh_untrained", "latentlens", "all", "mean"),
        ("fresh_real_sentences", "latentlens", "all", "mean"),
    ):
        changed = copy.deepcopy(found.fresh)
        place = changed
        for name in path[:-1]:
            place = place[name]
        place[path[-1]] += 0.01
        assert not true(fresh=changed), path


def _card(source: Warehouse, training: dict[str, Any], out: Path) -> str:
    stages = training["stages"] | {"measure": read_results("demo_fresh_scenes")}
    write_card(load_world(), stages, source, out, training["seeds"], read_results("demo_choices"))
    return out.read_text(encoding="utf-8")


def test_the_card_of_the_model_is_what_its_results_say(home: Home, found: Figures, tmp_path: Path) -> None:
    card = (DEMO / "model" / "README.md").read_text(encoding="utf-8")
    assert _card(home.warehouse, found.training, tmp_path / "README.md") == card


def test_another_cell_of_the_study_makes_another_card(home: Home, found: Figures, tmp_path: Path) -> None:
    card = (DEMO / "model" / "README.md").read_text(encoding="utf-8")
    copied = Warehouse(tmp_path)
    copied.study("demo").mkdir(parents=True)
    shutil.copy(home.warehouse.summary("demo", "layer_alignment"), copied.summary("demo", "layer_alignment"))
    rows = pl.read_parquet(home.warehouse.summary("demo", "interpretability")).with_row_index()
    shown = rows.filter(
        pl.col("k") == 5,
        pl.col("patch_group").is_in(["all", "object", "background"]),
        pl.col("measure").is_in(["interpretable", "concrete"]),
    )
    assert len(shown) == len(LENSES) * 8 * 3 * 2
    for row in shown["index"]:
        more = pl.when(pl.col("index") == row).then(pl.col("share") + 0.02).otherwise(pl.col("share"))
        rows.with_columns(share=more).drop("index").write_parquet(copied.summary("demo", "interpretability"))
        assert _card(copied, found.training, tmp_path / "README.md") != card, rows.row(row)


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


@pytest.fixture(scope="module")
def release(home: Home) -> Path:
    _build(home, [], ["release/demo_release"])
    return home.warehouse.release("demo_release")


def _card_cells(card: str) -> Iterator[tuple[tuple[int, str, int, str], list[float]]]:
    """Of the tables of the release's card: (k, lens, layer, measure), and share, chance, excess with their ends."""
    k, measures = 0, []
    for line in card.splitlines():
        if heading := re.match(r"\*\*Judged by (the nearest answer alone|\d+ answers)\*\*", line):
            k = int(heading[1].split()[0]) if heading[1][0].isdigit() else 1
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if cells[0] == "lens" and k:
            measures = cells[2:-1]
        if cells[0] in {lens.title for lens in LENSES.values()} and k:
            for measure, cell in zip(measures, cells[2:-1], strict=True):
                yield (k, cells[0], int(cells[1]), measure), [float(x) for x in re.findall(_NUMBER, cell)]


_NUMBER = r"(?:(?<=^)|(?<=[\[ ])|(?<=\d-))-?\d+\.\d"
_CELL = ("share", "low", "high", "chance", "chance_low", "chance_high", "excess", "excess_low", "excess_high")


def _differences(card: str, shares: pl.DataFrame) -> list[Any]:
    """The places of the release's card whose figures are not those of the table."""
    titles = {lens.title: name for name, lens in LENSES.items()}
    of_all = shares.filter(patch_group="all").rows_by_key(["k", "lens", "visual_layer", "measure"], named=True)
    found = dict(_card_cells(card))
    assert len(found) == len(of_all) == 2 * len(LENSES) * 8 * 4
    wrong = []
    for (k, title, layer, measure), figures_there in found.items():
        (row,) = of_all[k, titles[title], layer, measure]
        expected = [float(f"{100 * row[name]:.1f}") for name in _CELL if row[name] is not None]
        wrong += [(k, title, layer, measure)] if figures_there != expected else []
    return wrong


def test_the_card_of_the_release_has_the_figures_of_the_study_and_another_cell_is_found(
    home: Home, release: Path
) -> None:
    card = (release / "README.md").read_text(encoding="utf-8")
    shares = pl.read_parquet(home.warehouse.summary("demo", "interpretability")).with_row_index()
    assert _differences(card, shares) == []
    for row, column in product(shares.filter(patch_group="all")["index"], _CELL):
        more = pl.when(pl.col("index") == row).then(pl.col(column) + 0.002).otherwise(pl.col(column))
        assert len(_differences(card, shares.with_columns(more.alias(column)))) == 1, (shares.row(row), column)


def test_the_card_of_the_release_says_what_the_demo_can_show(found: Figures, release: Path) -> None:
    card = (release / "README.md").read_text(encoding="utf-8")
    accuracy = found.training["stages"]["vision"]["object_accuracy"]
    for sentence in support(found.shares.to_dicts(), found.alignment.to_dicts(), found.fresh, accuracy):
        assert escape_markdown(sentence) in card


def test_the_demo_release_is_small_and_an_image_more_would_upload_at_most_twice_its_own_data(release: Path) -> None:
    sizes = {path: path.stat().st_size for path in release.rglob("*") if path.is_file()}
    assert sum(sizes.values()) <= 15_000_000
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"The demo has one, {sum(sizes.values()) / 1e6:.0f} MB:" in readme
    assert sizes[release / "examples" / "demo.webp"] <= 60_000
    images = [path.stem for path in (release / "images").iterdir()]
    own = [sum(size for path, size in sizes.items() if path.stem == image) for image in images]
    of_all = ("README.md", "manifest.json", "interpretability.parquet", "layer_alignment.parquet", "diversity.parquet")
    assert len(images) == 64
    assert min(own) >= sum(sizes[release / name] for name in of_all)


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
