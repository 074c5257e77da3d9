"""A difference of a study with its own past after a layer was taken out of its YAML."""

import json
import shutil
from pathlib import Path

import pytest

from tests.dag.conftest import build
from tests.helpers.command_line import run_command

PARTS = {"embeddinglens", "judgements", "latentlens", "logitlens"}


@pytest.fixture(scope="module")
def project(built_project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = Path(shutil.copytree(built_project, tmp_path_factory.mktemp("fewer") / "project"))
    yaml = folder / "assets" / "tiny" / "defs.yaml"
    yaml.write_text(yaml.read_text().replace("layers: [0, 1, 2]", "layers: [0, 2]").replace("top_k: 3", "top_k: 2"))
    build(folder)
    return folder


def _diff(project: Path, first: str, second: str) -> list[dict[str, object]]:
    answer = run_command(project, "diff", first, second, "--json")
    assert answer.returncode == 0, answer.stderr
    found: list[dict[str, object]] = json.loads(answer.stdout)
    return found


def test_what_a_study_no_longer_has_is_no_part_of_what_it_is_now(project: Path) -> None:
    lies_there = project / ".latentlens/warehouse/study/tiny/logitlens/layer_01"
    assert [*lies_there.glob("*.parquet")]
    assert {(row["part"], row["visual_layer"]) for row in _diff(project, "tiny", "tiny")} == {
        (part, layer) for part in PARTS for layer in (0, 2)
    }


def test_what_only_one_side_has_is_counted_and_not_compared(project: Path) -> None:
    for names, counts in ((("tiny@1", "tiny"), (True, False)), (("tiny", "tiny@1"), (False, True))):
        rows = _diff(project, *names)
        alone = {row["part"]: row for row in rows if row["visual_layer"] == 1}
        assert set(alone) == PARTS
        for row in alone.values():
            assert (row["tokens"], row["same"], row["overlap"]) == (0, None, None)
            assert (bool(row["only_first"]), bool(row["only_second"])) == counts
        assert all(row["tokens"] for row in rows if row["visual_layer"] != 1)


def test_the_table_explains_its_columns_and_names_both_sides(project: Path) -> None:
    shown = run_command(project, "diff", "tiny@1", "tiny").stdout
    header = shown.splitlines()[0]
    assert "only in tiny@1" in header and header.endswith("only in tiny")
    for column in ("tokens", "same", "nearest", "overlap", "only in"):
        assert f"\n{column}  " in shown
