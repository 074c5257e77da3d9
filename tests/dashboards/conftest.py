"""A home whose texts are as hostile as texts can be, for the pages to show."""

from __future__ import annotations

import io
from pathlib import Path

import polars as pl
import pytest
from PIL import Image

from latentlens_dag.dataset.study_catalog import write_catalog
from latentlens_dag.schema import IMAGES, NEIGHBORS, SENTENCES
from latentlens_dag.storage.hashing import text_id
from latentlens_dag.storage.parquet import write_parquet
from tests.helpers.small_dataset import LAYERS, SENTENCES_OF, write_warehouse

HOSTILE = "<img src=x onerror=alert(1)> sits \x07 on the lawn"
MARKED = HOSTILE[:28]
RIGHT_TO_LEFT = "\u202eشجرة"
LONG = "grassy" * 1700


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Study `one` of four images: markup for a dog, 10,000 letters for grass, right-to-left for a tree."""
    root = tmp_path_factory.mktemp("home")
    house = write_warehouse(root / "warehouse")
    for file in house.root.glob("corpus/*/*.parquet"):
        frame = pl.read_parquet(file)
        text = pl.when(pl.col("sentence_id") == text_id(SENTENCES_OF["dog"])).then(pl.lit(HOSTILE))
        write_parquet(frame.with_columns(text.otherwise(pl.col("text")).alias("text")).to_arrow(), file, SENTENCES)
    for file in house.root.glob("images/*/batch_*.parquet"):
        write_parquet(
            pl.read_parquet(file).with_columns(pl.lit(_picture()).alias("thumbnail")).to_arrow(), file, IMAGES
        )
    for layer in LAYERS:
        for batch in (0, 1):
            file = house.neighbors("one", "latentlens", layer, batch)
            write_parquet(_hostile(pl.read_parquet(file)).to_arrow(), file, NEIGHBORS)
    write_catalog(house, "one", house.catalog("one"))
    return root


def _hostile(frame: pl.DataFrame) -> pl.DataFrame:
    dog = pl.col("word") == "dog"
    words = pl.col("word").replace({"grass": LONG, "tree": RIGHT_TO_LEFT, "dog": MARKED})
    ends = pl.when(dog).then(28).otherwise(pl.col("char_end")).cast(pl.Int32)
    starts = pl.when(dog).then(0).otherwise(pl.col("char_start")).cast(pl.Int32)
    return frame.with_columns(words.alias("word"), starts.alias("char_start"), ends.alias("char_end"))


def _picture() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (32, 32), "#7a9b3c").save(file, "webp")
    return file.getvalue()
