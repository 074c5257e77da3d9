"""Releases that older versions of this package staged: they open, with their tables as those of today."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from click.testing import CliRunner

from latentlens_dag.cli.main import cli
from latentlens_dag.dataset.dataset import Dataset, open_dataset
from latentlens_dag.dataset.named_queries import named_queries
from latentlens_dag.release.migrations import migration_note
from latentlens_dag.schema import TABLES
from tests.release.test_reader import PARAMETERS

OF_0_1 = Path(__file__).parent / "data" / "release_0_1.tar.gz"
"""Staged by version 0.1.0: four pictures, three layers, three answers each."""


@pytest.fixture
def older(tmp_path: Path) -> Path:
    """A release of version 0.1."""
    with tarfile.open(OF_0_1) as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path / "tiny_release"


def _old(folder: Path, table: str) -> list[dict[str, Any]]:
    return [row for file in sorted(folder.glob(f"{table}/**/*.parquet")) for row in pl.read_parquet(file).to_dicts()]


def _new(dataset: Dataset, table: str) -> list[dict[str, Any]]:
    return dataset.collect(f"FROM {table}").to_dicts()


def test_a_release_of_0_1_opens_with_the_tables_of_today(older: Path) -> None:
    with open_dataset(older) as opened:
        for table, schema in TABLES.items():
            assert opened.collect(f"FROM {table} LIMIT 0").columns == schema.names
        assert opened.collect("SELECT count(*) FROM neighbors").item() == 972
        for name in named_queries():
            values = {"study": "tiny"} if "study" in PARAMETERS[name] else {}
            opened.collect(name, **PARAMETERS[name] | values)


def test_its_shares_are_those_that_it_had_and_what_it_does_not_say_is_null(older: Path) -> None:
    before = pl.read_parquet(older / "interpretability.parquet").to_dicts()
    with open_dataset(older) as opened:
        after = _new(opened, "interpretability")
    assert len(after) == 4 * len(before)
    place = ("study", "lens", "visual_layer", "judge", "patch_group")
    found = {(*(row[name] for name in place), row["measure"]): row for row in after}
    chances = {"interpretable": "chance", "concrete": "concrete_chance", "abstract": None, "global": None}
    for old in before:
        for measure, column in chances.items():
            new = found[(*(old[name] for name in place), measure)]
            assert (new["share"], new["tokens"], new["k"]) == (old[measure], old["tokens"], 3)
            chance = None if column is None else old[column]
            assert new["chance"] == chance
            excess = None if chance in (None, 1) else (new["share"] - chance) / (1 - chance)
            assert new["excess"] == (None if excess is None else pytest.approx(excess))
            assert new["candidates"] == ("shared" if old["lens"] == "latentlens" else "all")
            known = {*place, "candidates", "measure", "share", "tokens", "k", "chance", "excess"}
            assert {name for name, value in new.items() if value is not None} <= known


def test_its_distinct_words_are_those_that_it_had_without_an_interval(older: Path) -> None:
    before = pl.read_parquet(older / "diversity.parquet").to_dicts()
    with open_dataset(older) as opened:
        after = _new(opened, "diversity")
    assert [{name: row[name] for name in before[0]} for row in after] == before
    for row in after:
        assert row["candidates"] == ("shared" if row["lens"] == "latentlens" else "all")
        assert row["images"] is row["low"] is row["high"] is None


def test_its_judgements_are_those_of_all_answers_with_one_chance_patch_each(older: Path) -> None:
    before = _old(older, "judgements")
    with open_dataset(older) as opened:
        after = _new(opened, "judgements")
    assert [{name: row[name] for name in before[0]} for row in after] == before
    verdicts = ("concrete", "abstract", "global", "none")
    for row in after:
        assert row["first_verdict"] is row["first_chance_counts"] is None
        assert row["chance_counts"] == [int(row["chance_verdict"] == verdict) for verdict in verdicts]


@pytest.mark.parametrize("top_k", [None, "3", True, 0, 10**9, "3 END FROM neighbors --"])
def test_how_many_answers_were_judged_is_unknown_where_the_manifest_says_nothing_sensible(
    older: Path, top_k: object
) -> None:
    manifest = older / "manifest.json"
    text = manifest.read_text()
    assert text.count('"top_k":3') == 1
    manifest.write_text(text.replace('"top_k":3', f'"top_k":{json.dumps(top_k)}'))
    with open_dataset(older) as opened:
        assert opened.collect("SELECT DISTINCT k FROM interpretability").rows() == [(None,)]
        assert len(opened.collect("interpretability", measure="concrete")) == 3


def test_the_command_line_says_what_is_null(older: Path) -> None:
    def run(*arguments: str) -> Any:
        return CliRunner().invoke(cli, [*arguments, "--data", str(older)], catch_exceptions=False)

    shown = run("summary", "tiny")
    assert "made by latentlens-dag 0.1.0. Its verdicts are on all answers" in shown.stderr
    assert "by 3 answers" in shown.stdout
    assert "-" in run("summary", "tiny", "--measure", "global").stdout
    assert "0.1.0" not in run("query", "interpretability").stdout


def test_a_release_of_today_needs_no_note() -> None:
    from latentlens_dag.release.manifest import SCHEMA_VERSION

    assert migration_note(SCHEMA_VERSION, "0.2.0") is None
