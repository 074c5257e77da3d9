"""The page of an image says what the study's model itself says of it."""

from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest
from streamlit.testing.v1 import AppTest

from latentlens_dag.dataset.study_catalog import write_catalog
from latentlens_dag.schema import GENERATED_CAPTIONS
from latentlens_dag.storage.parquet import write_parquet
from tests.dashboards.test_pages import APP, _html, _opened
from tests.helpers.released import write_warehouse

CAPTION = "A <b>dog</b> & a cat"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Study `one`, of whose images the first has a caption and the second an empty one."""
    home = tmp_path_factory.mktemp("captions")
    warehouse = write_warehouse(home / "warehouse")
    rows = [
        {"study": "one", "image_id": image, "caption": caption}
        for image, caption in zip(_images(home), (CAPTION, ""), strict=False)
    ]
    write_parquet(
        pa.Table.from_pylist(rows, GENERATED_CAPTIONS), warehouse.generated_captions("one", 0), GENERATED_CAPTIONS
    )
    write_catalog(warehouse, "one", warehouse.catalog("one"))
    return home


def _images(home: Path) -> list[str]:
    files = home.glob("warehouse/study/one/visual_tokens/*.parquet")
    return sorted(pl.concat([pl.read_parquet(file) for file in files])["image_id"].unique())


@pytest.fixture
def app(home: Path, monkeypatch: pytest.MonkeyPatch) -> AppTest:
    monkeypatch.setenv("LATENTLENS_BROWSE", str(home))
    monkeypatch.syspath_prepend(str(APP.parent))
    return AppTest.from_file(str(APP), default_timeout=120)


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (0, 'The model\'s caption: <bdi dir="auto">A &lt;b&gt;dog&lt;/b&gt; &amp; a cat</bdi>'),
        (1, "The model's caption: (empty)"),
        (2, None),
    ],
)
def test_the_caption_of_the_model_stands_below_the_picture_where_there_is_one(
    home: Path, app: AppTest, number: int, said: str | None
) -> None:
    html = _html(_opened(app, study="one", image=_images(home)[number]))
    assert said in html if said else "caption:" not in html
