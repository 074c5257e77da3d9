"""Captions of an image set through Dagster."""

from pathlib import Path

import pytest

from latentlens_dag.dataset.dataset import open_dataset
from tests.dag.conftest import build

BARE = """\
type: latentlens_dag.dag.components.ImageSet
attributes: {name: pictures, source: {folder: pictures}, batches: 2}
"""
CAPTIONED = BARE.replace("batches", "captions: {folder: texts}, batches")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    from PIL import Image

    here = tmp_path / "assets" / "tiny"
    (tmp_path / "workspace.yaml").write_text("load_from: []\n")
    (here / "pictures").mkdir(parents=True)
    (here / "texts").mkdir()
    for number in range(6):
        Image.new("RGB", (8, 6), (number, 0, 0)).save(here / "pictures" / f"{number}.png")
        (here / "texts" / f"{number}.txt").write_text(f"Picture {number}.\nA picture.\n")
    (here / "defs.yaml").write_text(CAPTIONED)
    return tmp_path


def _captions(project: Path) -> int:
    with open_dataset(project / ".latentlens") as dataset:
        ((count,),) = dataset.sql("SELECT count(*) FROM captions").fetchall()
    return int(count)


def test_captions_of_a_set_that_declares_none_any_more_are_in_no_table_and_come_back_with_it(project: Path) -> None:
    build(project)
    assert _captions(project) == 12
    (project / "assets" / "tiny" / "defs.yaml").write_text(BARE)
    build(project)
    assert len([*(project / ".latentlens").rglob("captions_*.parquet")]) == 2
    assert _captions(project) == 0
    (project / "assets" / "tiny" / "defs.yaml").write_text(CAPTIONED)
    assert {name.partition("[")[0] for name in build(project)} == {"images/pictures/pictures"}
    assert _captions(project) == 12
