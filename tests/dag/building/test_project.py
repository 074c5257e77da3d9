"""What a build runs, and what it leaves alone."""

import json
import os
import random
from collections.abc import Callable
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.dag.conftest import build, opened

Copy = Callable[[Path], Path]


def _edit(project: Path, old: str, new: str) -> None:
    file = project / "assets" / "tiny" / "defs.yaml"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def _steps(ran: list[str]) -> set[str]:
    """study/tiny/latentlens for study/tiny/latentlens/V01[00]."""
    return {"/".join(label.split("[")[0].split("/")[:3]) for label in ran}


def _files(warehouse: Path) -> dict[str, bytes]:
    """Every Parquet and JSON file of a warehouse, but what was observed, by its name."""
    files = [p for p in warehouse.rglob("*") if p.suffix in {".parquet"} and "observed" not in p.parts]
    return {p.relative_to(warehouse).as_posix(): p.read_bytes() for p in files}


def test_a_second_build_runs_nothing_and_plans_nothing(built_project: Path, copy_of: Copy) -> None:
    project = copy_of(built_project)
    assert build(project) == []
    with opened(project) as one:
        assert one.plan(one.select()) == []


def test_a_build_runs_what_was_planned_and_writes_the_bytes_of_another_build(
    built_project: Path, fresh_project: Path, copy_of: Copy
) -> None:
    project = copy_of(fresh_project)
    with opened(project) as one:
        planned = sorted(f"{n.key.to_user_string()}[{n.partition}]" for n in one.plan(one.select()))
        one.observe(one.select())
        ran = one.build(one.select())
    assert sorted(f"{n.key.to_user_string()}[{n.partition}]" for run in ran for n in run.targets) == planned

    one, other = (_files(p / ".latentlens" / "warehouse") for p in (built_project, project))
    assert len(one) > 30
    assert {name: one[name] == other.get(name) for name in one} == dict.fromkeys(one, True)


def test_a_corpus_in_another_order_runs_nothing_after_its_sentences(built_project: Path, copy_of: Copy) -> None:
    project = copy_of(built_project)
    corpus = project / "assets" / "tiny" / "corpus.txt"
    lines = corpus.read_text().splitlines()
    corpus.write_text("\n".join(random.Random(1).sample(lines, len(lines))))
    assert build(project) == ["corpus/text/sentences"]


def test_a_touched_source_a_comment_and_reordered_keys_run_nothing(built_project: Path, copy_of: Copy) -> None:
    project = copy_of(built_project)
    for file in (project / "assets").rglob("*"):
        os.utime(file)
    _edit(project, "  name: tiny\n  vlm: {path: model}\n", "  # a comment\n  vlm: {path: model}\n  name: tiny\n")
    assert build(project) == []


@pytest.mark.parametrize(
    ("old", "new", "steps"),
    [
        (
            "top_k: 3",
            "top_k: 2",
            {
                "latentlens",
                "logitlens",
                "embeddinglens",
                "judgements",
                "interpretability",
                "lens_differences",
                "layer_alignment",
                "diversity",
                "state_statistics",
                "catalog",
            },
        ),
        ("  judge: {regions: {}}", "  judge: none", {"catalog", "model_checks"}),  # whose localization now only warns
    ],
)
def test_a_changed_field_runs_the_steps_that_read_it_and_what_follows(
    built_project: Path, copy_of: Copy, old: str, new: str, steps: set[str]
) -> None:
    project = copy_of(built_project)
    _edit(project, old, new)
    assert _steps(build(project)) == {f"study/tiny/{step}" for step in steps}


def test_another_prompt_that_comes_after_the_image_changes_no_state_and_nothing_after_it(
    built_project: Path, copy_of: Copy
) -> None:
    project = copy_of(built_project)
    _edit(project, "  top_k: 3", "  top_k: 3\n  prompt: What is this?")
    assert _steps(build(project)) == {"study/tiny/visual", "study/tiny/visual_tokens", "study/tiny/model_checks"} | {
        "study/tiny/catalog"
    }


def test_a_text_before_the_image_changes_the_states_above_layer_0_and_what_follows_from_them(
    built_project: Path, copy_of: Copy
) -> None:
    from latentlens_dag.index.state_tables import read_states

    project = copy_of(built_project)
    _edit(project, "  top_k: 3", "  top_k: 3\n  prompt: {before: A dog., system: Look at it.}")
    ran = build(project)
    assert not any("V00" in label for label in ran if not label.startswith("study/tiny/visual/"))
    assert {"study/tiny/latentlens", "study/tiny/logitlens", "study/tiny/interpretability"} <= _steps(ran)
    for layer in (0, 1, 2):
        name = f".latentlens/warehouse/study/tiny/visual/layer_0{layer}/batch_00.lance"
        one, other = (read_states(place / name).states for place in (built_project, project))
        assert np.allclose(one, other, atol=1e-5) == (layer == 0)
    checks = json.loads((project / ".latentlens/warehouse/study/tiny/model_checks.json").read_text())
    assert checks["prompt"] == "<bos>Look at it.\nA dog.\n<image>Describe this image in detail.\n"
    _edit(project, "{before: A dog., system: Look at it.}", "{after: Describe this image in detail.}")
    build(project)
    whole, again = (_files(place / ".latentlens" / "warehouse") for place in (built_project, project))
    assert {name: again[name] == content for name, content in whole.items()} == dict.fromkeys(whole, True)


def test_a_new_visual_layer_runs_that_layer_only(built_project: Path, copy_of: Copy) -> None:
    project = copy_of(built_project)
    _edit(project, "layers: [0, 1, 2]", "layers: [0, 2]")
    without = build(project)
    assert not any("V" in label for label in without)
    _edit(project, "layers: [0, 2]", "layers: [0, 1, 2]")
    again = build(project)
    assert not any("V00" in label or "V02" in label for label in again)


def test_the_connectors_output_is_an_asset_of_its_own_and_only_its_statistics_follow(
    built_project: Path, copy_of: Copy
) -> None:
    from latentlens_dag.index.state_tables import read_states

    project = copy_of(built_project)
    _edit(project, "  top_k: 3", "  top_k: 3\n  connector: true")
    follows = ["study/tiny/state_statistics", "study/tiny/catalog"]
    assert build(project) == [*(f"study/tiny/visual/connector[{batch:02d}]" for batch in range(2)), *follows]
    visual = project / ".latentlens" / "warehouse" / "study" / "tiny" / "visual"
    for batch in range(2):
        at_0, connector = (read_states(visual / of / f"batch_{batch:02d}.lance") for of in ("layer_00", "connector"))
        assert connector.image_ids == at_0.image_ids
        assert (connector.token_index == at_0.token_index).all()
        assert np.allclose(connector.states, at_0.states, atol=1e-5)


def test_a_new_sentence_changes_only_what_it_reaches(built_project: Path, copy_of: Copy) -> None:
    project = copy_of(built_project)
    corpus = project / "assets" / "tiny" / "corpus.txt"
    corpus.write_text(corpus.read_text() + "A small bird sings in the old tree near the lake.\n")
    ran = build(project)
    assert len([label for label in ran if label.startswith("corpus/text/shards")]) == 2  # both are looked at again
    assert len([label for label in ran if label.startswith("index/words/candidates")]) == 1  # one is another now
    assert not _steps(ran) & {"study/tiny/visual", "study/tiny/logitlens", "study/tiny/embeddinglens"}


def test_another_name_of_a_region_reaches_the_catalog_though_no_answer_changes(
    built_project: Path, copy_of: Copy
) -> None:
    project = copy_of(built_project)
    file = project / "assets" / "tiny" / "regions.parquet"
    regions = pq.read_table(file)
    names = pa.array([name.upper() for name in regions["name"].to_pylist()])
    pq.write_table(regions.set_column(regions.schema.get_field_index("name"), "name", names), file)
    assert _steps(build(project)) == {"images/pictures/regions", "study/tiny/patch_truth", "study/tiny/catalog"}
    with duckdb.connect(str(project / ".latentlens/warehouse/study/tiny/catalog.duckdb"), read_only=True) as catalog:
        assert catalog.sql("SELECT DISTINCT name FROM regions ORDER BY name").fetchall() == [("DOG",), ("GRASS",)]


def test_what_is_selected_is_built_with_what_it_is_made_from_and_nothing_else(
    fresh_project: Path, copy_of: Copy
) -> None:
    project = copy_of(fresh_project)
    with opened(project) as one:
        selection = one.select(["tiny"], ["study/tiny/logitlens/V01"])
        one.observe(selection)
        ran = {n.key.to_user_string() for run in one.build(selection) for n in run.targets}
    images = {"images/pictures/names", "images/pictures/pictures"}
    assert ran == images | {"study/tiny/model_checks", "study/tiny/visual/V01", "study/tiny/logitlens/V01"}


def test_force_runs_everything_once_and_writes_the_same_bytes(built_project: Path, copy_of: Copy) -> None:
    project = copy_of(built_project)
    before = _files(project / ".latentlens" / "warehouse")
    ran = build(project, force=True)
    assert len(ran) == len(set(ran)) > 50
    assert _files(project / ".latentlens" / "warehouse") == before


def test_a_blocking_check_that_fails_stops_the_build_and_the_next_one_tries_again(
    fresh_project: Path, copy_of: Copy, monkeypatch: pytest.MonkeyPatch
) -> None:
    from latentlens_dag.dag.assets import study
    from latentlens_dag.dag.building.project import BuildError

    project = copy_of(fresh_project)
    with monkeypatch.context() as patch:
        patch.setattr(study, "neighbor_problems", lambda *args: ["answers are not sorted"])
        with pytest.raises(BuildError, match=r"sorted_neighbors.*answers are not sorted"):
            build(project)
    ran = build(project)
    assert "study/tiny/embeddinglens/V00[00]" in ran
    assert "corpus/text/sentences" not in ran
    assert build(project) == []


@pytest.mark.parametrize(("share", "why"), [(0.75, None), (None, "its vision tower was not found")])
def test_a_study_that_is_judged_by_regions_needs_tokens_that_lie_where_the_map_says(
    fresh_project: Path, copy_of: Copy, monkeypatch: pytest.MonkeyPatch, share: float | None, why: str | None
) -> None:
    from latentlens_dag.dag.building.project import BuildError
    from latentlens_dag.models import self_checks, text_checks

    project = copy_of(fresh_project)
    found = text_checks.ModelCheck("localization", False, share, "share of tokens", why)
    told = rf"localization.*share of tokens: {share if why is None else f'not checked: {why}'} .*set `judge: none` in"
    with monkeypatch.context() as patch:
        patch.setattr(self_checks, "localization_if_possible", lambda *args: found)
        with pytest.raises(BuildError, match=told):
            build(project)
        assert not list((project / ".latentlens" / "warehouse" / "study" / "tiny").rglob("*.lance"))
        _edit(project, "  judge: {regions: {}}", "  judge: none")
        assert "study/tiny/catalog" in build(project)


def test_a_check_that_is_added_runs_the_checks_and_nothing_after_them(
    built_project: Path, copy_of: Copy, monkeypatch: pytest.MonkeyPatch
) -> None:
    from latentlens_dag.dag.assets import states

    monkeypatch.setattr(states, "_MODEL_CHECKS", states._MODEL_CHECKS + 1)
    assert build(copy_of(built_project)) == ["study/tiny/model_checks"]
