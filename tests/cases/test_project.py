"""Projects and homes as people have them that were not foreseen: each works, or is refused by name.

Strict expected failures as in `test_inputs`.
"""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from latentlens_dag.cli.main import cli
from latentlens_dag.dag.loading import load_definitions
from latentlens_dag.errors import UserError
from latentlens_dag.schema import IMAGES
from latentlens_dag.storage.home import Home


@pytest.mark.xfail(strict=True, reason="the writer of JSON does not know bytes, and panics")
def test_thumbnails_can_be_queried_as_json(tmp_path: Path) -> None:
    file = tmp_path / "warehouse/images/x/batch_00.parquet"
    file.parent.mkdir(parents=True)
    row = {"image_id": "0" * 16, "file_name": "a.png", "width": 1, "height": 1, "thumbnail": b"\xff"}
    pq.write_table(pa.Table.from_pylist([row], schema=IMAGES), file)
    answer = CliRunner().invoke(cli, ["query", "FROM images", "--format", "json", "--home", str(tmp_path)])
    assert answer.exit_code == 0, answer.output
    assert [image["file_name"] for image in json.loads(answer.stdout)] == ["a.png"]


COMPONENT = "type: latentlens_dag.dag.components.{}\nattributes: {{name: {}, source: {{lines: sentences.txt}}}}\n"


def _project(folder: Path, yaml: str) -> Path:
    (folder / "workspace.yaml").write_text("load_from: []\n")
    (folder / "assets/a").mkdir(parents=True)
    (folder / "assets/a/sentences.txt").write_text("one\n")
    (folder / "assets/a/defs.yaml").write_text(yaml)
    return folder


@pytest.mark.xfail(strict=True, raises=pytest.fail.Exception, reason="of equal keys, YAML takes the last")
def test_a_key_that_comes_twice_in_a_defs_yaml_is_refused(tmp_path: Path) -> None:
    forgotten = COMPONENT.format("Corpus", "x") + COMPONENT.format("TextSet", "y")  # the --- between them
    project = _project(tmp_path, forgotten)
    with pytest.raises(UserError, match=r"defs\.yaml"):
        load_definitions(project, Home(tmp_path / "home"))


def test_a_key_that_was_overwritten_by_an_alias_is_refused_with_its_place(tmp_path: Path) -> None:
    project = _project(tmp_path, COMPONENT.format("Corpus", "x").replace("attributes:", "attribu<<: *ates:"))
    with pytest.raises(UserError, match=r"defs\.yaml is not valid YAML: (?s:.*), line 2, "):
        load_definitions(project, Home(tmp_path / "home"))
