"""Earlier results: listed, compared, told where they came from."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tests.dag.conftest import build
from tests.helpers.command_line import run_command

Copy = Callable[[Path], Path]
ANSWER = ["contextual_layer", "token_id", "sentence_id", "position"]


def _ask(project: Path, *arguments: str) -> Any:
    run = run_command(project, *arguments, "--json")
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def _answers(project: Path, lens: str, layer: int) -> dict[tuple[str, int], list[tuple[Any, ...]]]:
    """Per visual token its answers, nearest first, read the slow way."""
    found: dict[tuple[str, int], list[tuple[Any, ...]]] = {}
    for file in sorted((project / f".latentlens/warehouse/study/tiny/{lens}/layer_{layer:02d}").glob("*.parquet")):
        for row in pl.read_parquet(file).sort("rank").to_dicts():
            answer = tuple(row[name] for name in ANSWER)
            found.setdefault((row["image_id"], row["token_index"]), []).append(answer)
    return found


@pytest.fixture(scope="module")
def changed(built_project: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[Any, Any]]:
    """The project built again with a sentence less and fewer answers; and what the answers were before."""
    import shutil

    project = Path(shutil.copytree(built_project, tmp_path_factory.mktemp("changed") / "project"))
    before = {(lens, 1): _answers(project, lens, 1) for lens in ("latentlens", "logitlens")}
    corpus, defs = project / "assets/tiny/corpus.txt", project / "assets/tiny/defs.yaml"
    corpus.write_text("\n".join(corpus.read_text().splitlines()[1:]) + "\n")
    defs.write_text(defs.read_text().replace("top_k: 3", "top_k: 2"))
    build(project)
    return project, before


def test_versions_are_what_builds_left_and_are_numbered_from_the_oldest(changed: tuple[Path, Any]) -> None:
    project, _ = changed
    found = _ask(project, "status", "--versions")["tiny"]
    assert [version["number"] for version in found] == [1, 2]
    assert found[0]["made"] <= found[1]["made"]
    assert "study/tiny/logitlens/V00[00]" in found[1]["changed"]
    assert build(project) == []
    assert _ask(project, "status", "tiny", "--versions")["tiny"] == found


@pytest.mark.parametrize("lens", ["latentlens", "logitlens"])
def test_a_difference_is_what_a_slow_comparison_of_the_answers_gives(changed: tuple[Path, Any], lens: str) -> None:
    project, before = changed
    one, other = before[lens, 1], _answers(project, lens, 1)
    tokens = sorted(set(one) & set(other))
    overlaps = [len(set(one[t]) & set(other[t])) / max(len(one[t]), len(other[t])) for t in tokens]
    nearest = [one[t][0] == other[t][0] for t in tokens]
    found = _ask(project, "diff", "tiny@1", "tiny")
    mine = next(row for row in found if (row["part"], row["visual_layer"]) == (lens, 1))
    assert mine["tokens"] == len(tokens) > 0
    assert mine["overlap"] == pytest.approx(sum(overlaps) / len(tokens))
    assert mine["same_nearest"] == pytest.approx(sum(nearest) / len(tokens))
    assert mine["same"] == 0  # one has three answers, the other two
    assert (mine["only_first"], mine["only_second"]) == (0, 0)


def test_a_study_is_the_same_as_itself(changed: tuple[Path, Any]) -> None:
    project, _ = changed
    found = _ask(project, "diff", "tiny", "tiny@2")
    assert {row["part"] for row in found} == {"latentlens", "logitlens", "embeddinglens", "judgements"}
    assert all(row["same"] == 1 for row in found)
    assert all(row["overlap"] == 1 for row in found if row["part"] != "judgements")


def _shares(project: Path) -> dict[tuple[str, int], float]:
    """Per lens and layer the share of tokens with a concrete first answer, sinks left out, read the slow way."""
    study = project / ".latentlens/warehouse/study/tiny"
    token = ["image_id", "token_index", "visual_layer"]
    rows = pl.concat(map(pl.read_parquet, sorted(study.glob("judgements/*/*.parquet"))))
    rows = rows.join(pl.read_parquet(study / "sinks.parquet"), on=token, how="anti")
    found = rows.group_by("lens", "visual_layer").agg((pl.col("first_verdict") == "concrete").mean())
    return {(lens, layer): share for lens, layer, share in found.rows()}


def test_shares_of_versions_are_compared_over_the_same_images(changed: tuple[Path, Any], built_project: Path) -> None:
    project, _ = changed
    before, now = _shares(built_project), _shares(project)
    found = {
        (row["lens"], row["visual_layer"]): row
        for row in _ask(project, "diff", "tiny@1", "tiny", "--shares")
        if (row["measure"], row["patch_group"]) == ("concrete", "all")
    }
    assert found.keys() == before.keys() == now.keys()
    for place, row in found.items():
        assert (row["study"], row["other_study"], row["images"]) == ("tiny@1", "tiny", 4)
        assert row["k"] == 1  # one has three answers, the other two
        assert (row["share"], row["other_share"]) == pytest.approx((before[place], now[place]))
        assert 0 < row["p_value"] <= row["adjusted_p_value"] <= 1
    shown = run_command(project, "diff", "tiny", "tiny", "--shares").stdout
    heads = shown.splitlines()[0]
    assert heads.split()[:3] == ["measure", "lens", "layer"] and heads.count("% of tokens in tiny") == 2
    assert re.search("difference +95 % interval +adjusted p-value +images$", heads)
    assert "first minus second, in percentage points" in shown
    assert "objects and background" in shown


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["tiny@9", "tiny"], "has no version 9: it has 1 to 2"),
        (["tiny@x", "tiny"], "a version is a number, as in tiny@1"),
        (["nobody", "tiny"], "Nothing is built of study 'nobody'"),
    ],
)
def test_what_cannot_be_compared_is_told(changed: tuple[Path, Any], names: list[str], message: str) -> None:
    run = run_command(changed[0], "diff", *names)
    assert run.returncode == 2
    assert message in run.stderr
    assert "Traceback" not in run.stderr


def test_a_lineage_goes_back_to_the_sources_with_settings_versions_and_times(changed: tuple[Path, Any]) -> None:
    project, _ = changed
    [found] = _ask(project, "status", "tiny", "--lineage", "study/tiny/latentlens/V01[00]")
    names = [one["artifact"] for one in found]
    assert names[0] == "study/tiny/latentlens/V01[00]"
    assert {"study/tiny/vlm", "corpus/text/source", "index/words/language_model", "images/pictures/source"} <= set(
        names
    )
    assert found[0]["settings"]["top_k"] == 2
    assert {"torch", "transformers", "pylance"} <= set(found[0]["packages"])
    assert found[0]["made"] and all(one["made"] for one in found if "made" in one)
    run = run_command(project, "status", "--lineage", "judgements/V00[1]")
    assert str(project / "assets/tiny/corpus.txt") in run.stdout
    assert "it changed since" not in run.stdout
