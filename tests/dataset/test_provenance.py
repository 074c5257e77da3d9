"""Where a study comes from and under which terms: of releases, homes, and of what a stranger may have written."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from latentlens_dag.dataset.dataset import Dataset, open_dataset
from latentlens_dag.dataset.provenance import LicenseTerms, license_terms, model_label, study_declaration, summary_rows
from latentlens_dag.storage.files import write_json
from latentlens_dag.storage.records import ArtifactStore
from latentlens_dag.storage.warehouse import Warehouse
from tests.helpers.records import artifact_record
from tests.helpers.released import ABOUT, DECLARED, INDEX, stage, write_warehouse

AWKWARD = replace(ABOUT, image_license="<b>CC-BY 4.0</b> & others_", text_license=None)


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    made = write_warehouse(tmp_path_factory.mktemp("origin") / "warehouse", images=1, batches=1)
    stage(made, about=AWKWARD)
    return made


@pytest.fixture
def release(warehouse: Warehouse, tmp_path: Path) -> Path:
    return Path(shutil.copytree(warehouse.release("small"), tmp_path / ("a" * 40)))


def test_the_terms_of_a_release_are_those_of_its_card_and_none_where_it_has_no_card(release: Path) -> None:
    with open_dataset(release) as data:
        (said,) = license_terms(str(release), data)
        assert said == LicenseTerms(
            *("small", "apache-2.0", "<b>CC-BY 4.0</b> & others_", "as of where they come from, see above"),
            commit="a" * 40,
            package=data.release.package_version if data.release else None,
        )
        (named,) = license_terms("user/small@v1.0.0", data)
        assert (named.repo, named.commit) == ("user/small", "a" * 40)
        (release / "README.md").unlink()
        (bare,) = license_terms(str(release), data)
        assert (bare.tables, bare.pictures, bare.texts) == (None, None, None)


def test_what_was_declared_is_told_in_lines(release: Path) -> None:
    with open_dataset(release) as data:
        facts = study_declaration(str(release), data, "one")
        lines = dict(summary_rows(facts))
        assert study_declaration(str(release), data, "other") == {}
    assert (
        model_label(facts) == "model"
        and model_label({"model": {"name": "u/m", "revision": "c" * 40}}) == f"u/m@{'c' * 12}"
    )
    assert lines["Images"] == "1, pictures, from pictures" and lines["Visual layers"] == "0, 4"
    assert lines["Corpus"] == "64 sentences, text, from corpus.txt" and lines["Prompt"] == "What is this?"


def test_the_text_around_the_image_is_listed_in_its_order() -> None:
    rows = summary_rows({**DECLARED, "prompt_before": "A dog.", "system_prompt": "Be brief."})
    named = [(name, text) for name, text in rows if "rompt" in name]
    assert named == [("System prompt", "Be brief."), ("Prompt before the image", "A dog."), ("Prompt", "What is this?")]


@pytest.mark.parametrize("odd", [None, 7, "text", [], {}, {"name": None}, [["x"]], {"name": {"a": 1}}])
def test_what_a_stranger_wrote_is_told_or_left_out_and_never_an_error(odd: Any) -> None:
    for facts in (dict.fromkeys(DECLARED, odd), {"index": dict.fromkeys(INDEX, odd)}):
        assert all(isinstance(value, str) and len(value) <= 300 for _, value in summary_rows(facts))
        assert (model_label(facts) is None) == (odd != {"name": {"a": 1}} or "model" not in facts)


def test_a_home_tells_what_its_last_release_declared_and_without_one_what_it_recorded(tmp_path: Path) -> None:
    house = write_warehouse(tmp_path / "warehouse", images=1, batches=1)
    manifest = ArtifactStore(house.root)
    with open_dataset(tmp_path) as home:
        assert license_terms(tmp_path, home) == [] and study_declaration(tmp_path, home, "one") == {}
        write_json({str(tmp_path / "llava" / "config.json"): [1, 2, "3"]}, house.observed("study.one.vlm"))
        manifest.write(artifact_record("study/one/catalog", settings={"index": "words"}))
        manifest.write(artifact_record("study/one/visual_tokens", inputs={"study/one/vlm": "f" * 16}))
        recorded = dict(summary_rows(study_declaration(tmp_path, home, "one")))
        assert recorded["Model"] == f"llava, files {'f' * 16}" and recorded["Index"] == "words"
        assert recorded["Contextual layers"] == "1, 2"
        for number, made in ((1, "2026-02-02"), (2, "2026-01-31")):
            said = {"name": f"out{number}", "repo_id": "user/out", "license": "mit", "image_license": None}
            prompt = {**DECLARED, "prompt": f"prompt {number}"}
            manifest.write(
                artifact_record(f"release/out{number}/dataset", made, settings={**said, "studies": {"one": prompt}})
            )
        assert [one.release for one in license_terms(tmp_path, home)] == ["out2", "out1"]
        assert license_terms(tmp_path, home)[1] == LicenseTerms("out1", "mit", None, None, "user/out", package="9")
        lines = dict(summary_rows(study_declaration(tmp_path, home, "one")))
        assert lines["Prompt"] == "prompt 1" and lines["Model"] == f"model, files {'f' * 16}"


def test_a_catalog_alone_knows_nothing_of_where_it_comes_from(warehouse: Warehouse) -> None:
    file = warehouse.catalog("one")
    with open_dataset(file) as data:
        assert (
            isinstance(data, Dataset) and license_terms(file, data) == [] and study_declaration(file, data, "one") == {}
        )


def test_a_record_that_is_no_json_is_passed_over(tmp_path: Path) -> None:
    house = write_warehouse(tmp_path / "warehouse", images=1, batches=1)
    house.observed("study.one.vlm").parent.mkdir()
    house.observed("study.one.vlm").write_text(json.dumps([1]))
    with open_dataset(tmp_path) as home:
        assert study_declaration(tmp_path, home, "one") == {}
