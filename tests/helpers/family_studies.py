"""A whole study of a tiny model of any family, and what must hold of its tables."""

from pathlib import Path

import polars as pl

from latentlens_dag.inputs.images import read_image
from latentlens_dag.models.families.token_map import WITHOUT_BOX
from latentlens_dag.models.loading import load_vlm
from latentlens_dag.testing import tiny_project
from tests.dag.conftest import build
from tests.helpers.image_files import list_images

LAYERS, LENSES, TOP_K = 3, 3, 3  # of testing.TINY_STUDY
BOX = ["x0", "y0", "x1", "y1"]
WITH_NEWLINES = {"hunyuan_vl", "llava_next", "llava_next_video", "llava_onevision"}


def study_of(project: Path) -> Path:
    """The folder of the results of a tiny project's study."""
    return project / ".latentlens" / "warehouse" / "study" / "tiny"


def check_tables(family: str, folder: Path) -> None:
    """Build a study of the family, and compare its tables with what the model says of the same pictures."""
    project = tiny_project(folder, family=family)
    if family == "paligemma":  # which reads text in both directions
        file = project / "assets" / "tiny" / "defs.yaml"
        file.write_text(file.read_text().replace("contexts_per_token: 5", "contexts_per_token: 5, dedup: sentence"))
    build(project)
    tokens = pl.read_parquet(study_of(project) / "visual_tokens" / "*.parquet").sort("image_id", "token_index")
    expected = _tokens_of(project / "assets" / "tiny")
    assert tokens.drop("study", "image_id").equals(expected.drop("image_index", "prompt_index", "image_in_prompt"))
    assert tokens["image_id"].rle_id().to_list() == expected["image_index"].to_list()
    _check_boxes(family, tokens)
    check_answers(study_of(project), tokens)


def _tokens_of(here: Path) -> pl.DataFrame:
    """The tokens of the pictures, in the order of their ids."""
    images = [read_image(file) for file in list_images(here / "pictures")]
    return load_vlm(here / "model", device="cpu").visual_states(images, [0]).tokens


def _check_boxes(family: str, tokens: pl.DataFrame) -> None:
    assert (tokens["view"] == "newline").any() == (family in WITH_NEWLINES)
    no_box = tokens["view"].is_in(list(WITHOUT_BOX))
    for side in BOX:
        assert tokens[side].is_null().equals(no_box.alias(side))
    others = tokens.filter(~no_box)
    assert (others["x0"] < others["x1"]).all() and (others["y0"] < others["y1"]).all()


def check_answers(study: Path, tokens: pl.DataFrame) -> None:
    """Every token has `TOP_K` answers at every layer through every lens, and none has any other."""
    lenses = ("latentlens", "logitlens", "embeddinglens")
    answers = pl.concat([pl.read_parquet(study / lens / "*" / "*.parquet") for lens in lenses])
    assert len(answers) == len(tokens) * LAYERS * LENSES * TOP_K
    place = ["image_id", "token_index", "visual_layer", "lens"]
    assert answers.group_by(place).agg(pl.col("rank").sort())["rank"].to_list() == [[1, 2, 3]] * (len(answers) // TOP_K)
    assert len(answers.select(place).unique()) == len(tokens) * LAYERS * LENSES
    assert len(answers.join(tokens, on=place[:2], how="anti")) == 0
    assert (study / "catalog.duckdb").stat().st_size > 0
