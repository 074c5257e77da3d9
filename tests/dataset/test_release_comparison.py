"""What differs between two releases: rows, images, studies and answers."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pyarrow as pa
import pytest
from click.testing import CliRunner

from latentlens_dag.cli.main import cli
from latentlens_dag.dataset.dataset import open_dataset
from latentlens_dag.dataset.release_comparison import ReleaseDifference, compare_releases
from latentlens_dag.errors import UserError
from latentlens_dag.schema import TABLES
from tests.helpers.small_dataset import ANIMALS, LAYERS, image_id
from tests.helpers.small_release import Tables, release_tables, write_release


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_release(tmp_path_factory.mktemp("releases") / "small")


def _compare(first: Path, second: Path) -> ReleaseDifference:
    with open_dataset(first) as one, open_dataset(second) as other:
        return compare_releases(one, other)


def test_equal_rows_in_other_parts_and_order_are_no_difference(release: Path, tmp_path: Path) -> None:
    def in_one_part(tables: Tables) -> None:
        paths = [path for path in tables if path.startswith("neighbors/one/")]
        rows = pa.concat_tables([tables.pop(path) for path in paths])
        tables["neighbors/one/all"] = rows.sort_by([("word", "descending"), ("rank", "descending")])

    found = _compare(release, write_release(tmp_path / "other", in_one_part))

    assert all(one.same and one.rows_first == one.rows_second for one in found.tables)
    assert {one.table for one in found.tables} == {*TABLES} and not found.not_compared
    assert not (found.images_added or found.images_removed or found.studies_added or found.studies_removed)
    assert all(one.same == 1 and not one.only_first for study in found.studies.values() for one in study)
    assert [(one.part, one.visual_layer) for one in found.studies["one"]] == [
        (part, layer) for part in ("embeddinglens", "latentlens", "logitlens", "judgements") for layer in LAYERS
    ]


def test_changed_answers_are_counted_where_they_are(release: Path, tmp_path: Path) -> None:
    def say_tree(tables: Tables) -> None:
        path = f"neighbors/one/{image_id('dog')}"
        rows = tables[path].to_pylist()
        for row in rows:
            if (row["lens"], row["visual_layer"], row["token_index"], row["rank"]) == ("logitlens", 8, 0, 1):
                row["token_id"] = 99
        tables[path] = pa.Table.from_pylist(rows, TABLES["neighbors"])

    found = _compare(release, write_release(tmp_path / "other", say_tree))

    changed = [one for study in found.studies.values() for one in study if one.same != 1]
    assert [(one.part, one.visual_layer, one.tokens) for one in changed] == [("logitlens", 8, 5 * len(ANIMALS))]
    assert changed[0].same == changed[0].same_nearest == 1 - 1 / 20
    assert changed[0] in found.studies["one"]
    assert [one.table for one in found.tables if not one.same] == ["neighbors"]


def test_an_image_and_a_study_more_are_named(release: Path, tmp_path: Path) -> None:
    fewer = write_release(tmp_path / "fewer", tables=release_tables({"one": ANIMALS[:3]}))

    found = _compare(fewer, release)

    assert found.images_added == (image_id("fox"),) and not found.images_removed
    assert found.studies_added == ("two",) and set(found.studies) == {"one"}
    assert _compare(release, fewer).images_removed == (image_id("fox"),)
    assert {(one.tokens, one.only_first, one.only_second) for one in found.studies["one"][:6]} == {(15, 0, 5)}
    images = next(one for one in found.tables if one.table == "images")
    assert (images.rows_first, images.rows_second, images.same) == (3, 4, False)


def test_a_table_that_was_not_pulled_is_told_and_left_out(release: Path, tmp_path: Path) -> None:
    part = Path(shutil.copytree(release, tmp_path / "part"))
    shutil.rmtree(part / "judgements")

    found = _compare(part, release)

    assert found.not_compared == ("judgements",)
    assert {one.part for one in found.studies["one"]} == {"embeddinglens", "latentlens", "logitlens"}


def test_the_command_compares_two_folders(release: Path, tmp_path: Path) -> None:
    fewer = write_release(tmp_path / "fewer", tables=release_tables({"one": ANIMALS[:3]}))
    runner = CliRunner()

    shown = runner.invoke(cli, ["diff", str(fewer), str(release)], catch_exceptions=False).output
    assert f"1 images or texts only in the second: {image_id('fox')}" in shown
    assert "1 studies only in the second: two" in shown and "Study one" in shown
    assert re.search(r"The same rows: .*\bsentences\b", shown) and re.search(r"latentlens +0 +15 +100", shown)
    assert re.search(r"\nimages +3 -> +4 rows\n", shown)
    facts = json.loads(runner.invoke(cli, ["diff", str(fewer), str(release), "--json"]).output)
    assert facts["images_added"] == [image_id("fox")] and len(facts["studies"]["one"]) == 8
    with pytest.raises(UserError, match="a study and a release cannot be compared"):
        runner.invoke(cli, ["diff", "one", str(release)], catch_exceptions=False)


def _none_of_one(tables: Tables) -> None:
    """Nothing is interpretable in study `one`."""
    for path in [path for path in tables if path.startswith("judgements/one/")]:
        rows = [row | {"verdict": "none", "first_verdict": "none"} for row in tables[path].to_pylist()]
        tables[path] = pa.Table.from_pylist(rows, TABLES["judgements"])


def test_shares_of_two_releases_are_compared_study_by_study_with_interval_and_p_value(
    release: Path, tmp_path: Path
) -> None:
    other = write_release(tmp_path / "other", _none_of_one)
    arguments = ["diff", str(release), str(other), "--shares"]
    rows = json.loads(CliRunner().invoke(cli, [*arguments, "--json"], catch_exceptions=False).output)
    with open_dataset(release) as data:
        asked = {"study": "one", "measure": "abstract", "patch_group": "all"}
        shares = data.sql(
            "SELECT lens, visual_layer, avg((verdict = 'abstract')::INT) FROM judgements "
            "ANTI JOIN sinks USING (study, image_id, token_index, visual_layer) "
            "WHERE study = 'one' AND patch_group IN ('object', 'background') GROUP BY ALL"
        ).fetchall()
    found = {
        (row["lens"], row["visual_layer"]): row
        for row in rows
        if row["study"] == f"one of {release}" and row["k"] is None
        if all(row[name] == asked[name] for name in ("measure", "patch_group"))
    }
    assert {place: row["share"] for place, row in found.items()} == pytest.approx({(a, b): c for a, b, c in shares})
    for row in found.values():
        assert row["other_share"] == 0 and row["low"] <= row["difference"] <= row["high"]
        assert 0 < row["p_value"] <= row["adjusted_p_value"] <= 1
    same = [row for row in rows if row["study"] == f"two of {release}"]
    assert same and {row["difference"] for row in same} == {0}
    shown = CliRunner().invoke(cli, arguments, catch_exceptions=False).output
    assert "adjusted p" in shown and "one of " in shown and "two of " in shown


def test_releases_of_one_study_each_are_compared_whatever_its_name(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_release(tmp_path / name, tables=release_tables({name: ANIMALS[:3]}))
    arguments = ["diff", str(tmp_path / "one"), str(tmp_path / "two"), "--shares", "--json"]
    rows = json.loads(CliRunner().invoke(cli, arguments, catch_exceptions=False).output)
    names = f"one of {tmp_path / 'one'}", f"two of {tmp_path / 'two'}"
    assert {(row["study"], row["other_study"]) for row in rows} == {names}


def test_releases_without_judgements_of_one_study_have_no_shares_to_compare(release: Path, tmp_path: Path) -> None:
    other = write_release(tmp_path / "other", tables=release_tables({"three": ANIMALS[:3]}))
    with pytest.raises(UserError, match=r"judgements of one, two, .* of three: no study of the same name"):
        CliRunner().invoke(cli, ["diff", str(release), str(other), "--shares"], catch_exceptions=False)
