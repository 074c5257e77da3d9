"""A family of VLMs whose visual tokens are merged patches, end to end; `make soak` has all families.

And one whose region map is not known.
"""

from pathlib import Path

import dagster as dg
import polars as pl
import pytest
from PIL import Image

from latentlens_dag.dataset.dataset import open_dataset
from latentlens_dag.errors import UserError
from latentlens_dag.figures.contact_sheet import _read_scene, write_sheet
from latentlens_dag.models.families import registry
from latentlens_dag.testing import tiny_project
from tests.dag.conftest import build, opened
from tests.helpers.family_studies import check_answers, check_tables, study_of


def test_a_study_has_every_token_of_the_model_and_every_answer(tmp_path: Path) -> None:
    check_tables("qwen2_vl", tmp_path)


def _add_a_wide_picture(assets: Path) -> None:
    """120 x 40 pixels, with one region; of a square around it, half is padding."""
    Image.effect_noise((120, 40), 90).convert("RGB").save(assets / "pictures" / "wide.png")
    regions = pl.read_parquet(assets / "regions.parquet")
    grass = regions[:1].with_columns(
        file_name=pl.lit("wide.png"), x1=pl.lit(120, pl.Float32), y1=pl.lit(40, pl.Float32)
    )
    pl.concat([regions, grass]).write_parquet(assets / "regions.parquet")


def test_padding_is_told_and_answered_and_judged_but_not_in_pictures(tmp_path: Path) -> None:
    project = tiny_project(tmp_path, family="deepseek_vl")
    _add_a_wide_picture(project / "assets" / "tiny")
    build(project)
    tokens = pl.read_parquet(study_of(project) / "visual_tokens" / "*.parquet")
    check_answers(study_of(project), tokens)
    (wide,) = tokens.filter(view="padding")["image_id"].unique().to_list()
    of_wide = tokens.filter(image_id=wide).sort("token_index")
    assert of_wide["view"].to_list() == ["padding"] * 4 + ["global"] * 8 + ["padding"] * 4
    assert (of_wide["y1"] <= 0).to_list() == [True] * 4 + [False] * 12
    truth = pl.read_parquet(study_of(project) / "patch_truth" / "*.parquet").filter(image_id=wide).sort("token_index")
    assert truth["token_index"].to_list() == list(range(16))
    shows = truth["concrete_words"].list.len() > 0
    assert shows.to_list() == [False] * 4 + [True] * 8 + [False] * 4
    with open_dataset(project / ".latentlens") as dataset:
        scene = _read_scene(dataset, "tiny", 1, ["latentlens"], wide, "wide.png")
    shown = of_wide.filter(view="global").select("x0", "y0", "x1", "y1").to_numpy().tolist()
    assert scene.boxes.tolist() == shown
    _rename_view(study_of(project), "global", "tile")  # which is after `padding` by name
    with open_dataset(project / ".latentlens") as dataset:
        assert _read_scene(dataset, "tiny", 1, ["latentlens"], wide, "wide.png").boxes.tolist() == shown


def _rename_view(study: Path, old: str, new: str) -> None:
    (study / "catalog.duckdb").unlink()  # so that the files are read
    for file in (study / "visual_tokens").glob("*.parquet"):
        tokens = pl.read_parquet(file)
        tokens.with_columns(pl.col("view").replace(old, new)).write_parquet(file)


def test_a_study_of_a_family_that_is_not_known_has_answers_but_no_places_and_is_not_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(registry._MODULES, "qwen2_vl")
    project = tiny_project(tmp_path, family="qwen2_vl")
    with pytest.raises(UserError, match=r"`judge` of Study tiny .*family `qwen2_vl`.*set `judge: none`"):
        build(project)
    assert not (project / ".latentlens" / "warehouse" / "study").exists()

    file = project / "assets" / "tiny" / "defs.yaml"
    file.write_text(file.read_text().replace("judge: {regions: {}}", "judge: none"))
    ran = build(project)
    assert "study/tiny/catalog" in ran
    with opened(project) as one:
        key = dg.AssetCheckKey(dg.AssetKey(["study", "tiny", "model_checks"]), "localization")
        record = one.instance.event_log_storage.get_latest_asset_check_execution_by_key([key])[key]
    told = record.event.dagster_event.asset_check_evaluation_data
    assert (told.passed, told.blocking, told.severity) == (False, False, dg.AssetCheckSeverity.WARN)
    assert "not checked" in str(told.metadata["problems"].value)
    assert "no region map that could be checked" in str(told.metadata["problems"].value)
    assert not [label for label in ran if "judgements" in label]
    tokens = pl.read_parquet(study_of(project) / "visual_tokens" / "*.parquet")
    assert tokens["view"].unique().to_list() == ["unmapped"]
    assert tokens.drop("study", "image_id", "token_index", "view").null_count().row(0) == (len(tokens),) * 7
    check_answers(study_of(project), tokens)
    with (
        open_dataset(project / ".latentlens") as dataset,
        pytest.raises(UserError, match="cannot be drawn: no visual token of"),
    ):
        write_sheet(dataset, "tiny", lambda *_: pytest.fail("no picture is needed"), tmp_path / "tiny.png")


def test_a_family_whose_tokens_can_have_no_place_is_refused_before_anything_runs(tmp_path: Path) -> None:
    project = tiny_project(tmp_path)
    config = project / "assets" / "tiny" / "model" / "config.json"
    config.write_text(config.read_text().replace('"model_type": "llava"', '"model_type": "mllama"'))
    with pytest.raises(UserError, match="family `mllama` and cannot be read: its images enter by cross-attention"):
        build(project)
    assert not list((project / ".latentlens" / "warehouse").iterdir())
