"""`candidates` of a study: which lenses it has, what is built for them, and that the sets and answers are right."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from latentlens_dag.dataset.dataset import open_dataset
from latentlens_dag.storage.hashing import hash_file
from latentlens_dag.storage.warehouse import Warehouse
from tests.dag.conftest import build
from tests.helpers.command_line import run_command

Copy = Callable[[Path], Path]
DECLARED = ("latentlens", "logitlens", "embeddinglens")
SHARED = ("logitlens_shared", "embeddinglens_shared")
TEXTS = """\
type: latentlens_dag.dag.components.Corpus
attributes: {name: text, source: {lines: corpus.txt}, shards: 1}
---
type: latentlens_dag.dag.components.TextSet
attributes: {name: sayings, source: {lines: corpus.txt}, batches: 1}
---
type: latentlens_dag.dag.components.Index
attributes: {name: words, language_model: {path: model}, corpus: text, layers: [1]}
---
type: latentlens_dag.dag.components.Study
attributes:
  name: tiny
  language_model: {path: model}
  texts: sayings
  index: words
  layers: [0, 1]
  top_k: 2
  candidates: shared
"""


def _declare(project: Path, candidates: str) -> None:
    path = project / "assets" / "tiny" / "defs.yaml"
    text = re.sub(r"\n  candidates: .*", "", path.read_text())
    path.write_text(text.replace("  top_k: 3", f"  top_k: 3\n  candidates: {candidates}"))


def _hashes(warehouse: Warehouse, lenses: tuple[str, ...]) -> dict[str, str]:
    files = [file for lens in lenses for file in warehouse.study("tiny").glob(f"{lens}/**/*.parquet")]
    return {file.relative_to(warehouse.root).as_posix(): hash_file(file) for file in files}


def _steps(ran: list[str]) -> set[str]:
    return {label.split("/")[2].split("[")[0] for label in ran}


@pytest.fixture(scope="module")
def both(built_project: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """The project with both sets of candidates, built on from one with all; and what was built. Only read it."""
    import shutil

    project = Path(shutil.copytree(built_project, tmp_path_factory.mktemp("both") / "project"))
    _declare(project, "[all, shared]")
    return project, build(project)


def _warehouse(project: Path) -> Warehouse:
    return Warehouse(project / ".latentlens" / "warehouse")


def test_shared_candidates_beside_all_cost_only_their_own_answers_and_what_sums_them_up(
    built_project: Path, both: tuple[Path, list[str]]
) -> None:
    project, ran = both
    summed_up = {"judgements", "interpretability", "lens_differences", "diversity", "catalog"}
    assert _steps(ran) == {"candidates", *SHARED, *summed_up}
    assert _hashes(_warehouse(project), DECLARED) == _hashes(_warehouse(built_project), DECLARED)
    assert build(project) == []


def test_of_two_sets_in_one_step_only_what_is_missing_is_written(built_project: Path, copy_of: Copy) -> None:
    project = copy_of(built_project)
    gone = _warehouse(project).neighbors("tiny", "logitlens", 1, 0)
    before = _hashes(_warehouse(project), DECLARED)
    gone.unlink()
    _declare(project, "[all, shared]")
    ran = build(project, names=["study/tiny/logitlens", "study/tiny/logitlens_shared"])
    of_shared = {f"study/tiny/logitlens_shared/V{layer:02d}[{batch:02d}]" for layer in range(3) for batch in range(2)}
    assert set(ran) == {"study/tiny/candidates", "study/tiny/logitlens/V01[00]", *of_shared}
    assert _hashes(_warehouse(project), DECLARED) == before


def test_built_at_once_or_one_after_the_other_the_answers_are_the_same_bytes(
    fresh_project: Path, both: tuple[Path, list[str]], copy_of: Copy
) -> None:
    project = copy_of(fresh_project)
    _declare(project, "[shared, all]")
    build(project)
    found, expected = (_hashes(_warehouse(one), (*DECLARED, *SHARED)) for one in (project, both[0]))
    assert len(expected) == 5 * 3 * 2 and found == expected  # lenses, layers, batches


def test_one_query_shows_that_the_candidates_of_the_shared_lenses_and_of_latentlens_are_equal_sets(
    both: tuple[Path, list[str]],
) -> None:
    with open_dataset(both[0] / ".latentlens") as data:
        of_index = set(data.collect("SELECT DISTINCT token_id FROM occurrences")["token_id"])
        found = data.collect("candidates", study="tiny")
        assert found.rows() == [("tiny", lens, len(of_index), 0, 0) for lens in sorted(("latentlens", *SHARED))]
        pairs = data.collect("FROM candidates").rows()
        assert set(pairs) == {("tiny", lens, token) for lens in ("latentlens", *SHARED) for token in of_index}
        answers = data.collect("SELECT lens, list(DISTINCT token_id) AS tokens FROM neighbors GROUP BY lens")
    used = {lens: set(tokens) for lens, tokens in answers.rows()}
    assert all(used[lens] <= of_index for lens in ("latentlens", *SHARED))
    assert not used["logitlens"] <= of_index and not used["embeddinglens"] <= of_index


def test_the_query_counts_what_only_one_side_may_answer_with(both: tuple[Path, list[str]], copy_of: Copy) -> None:
    project = copy_of(both[0])
    path = _warehouse(project).summary("tiny", "candidates")
    table = pl.read_parquet(path)
    of_shared = pl.col("lens") == "logitlens_shared"
    left_out, new = table.filter(of_shared)["token_id"][0], table["token_id"].max() + 1  # type: ignore[operator]
    more = table.filter(of_shared).head(1).with_columns(token_id=pl.lit(new, pl.Int32))
    pl.concat([table.filter(~(of_shared & (pl.col("token_id") == left_out))), more]).write_parquet(path)
    with open_dataset(_warehouse(project)) as data:
        rows = {
            row["lens"]: (row["only_here"], row["only_latentlens"]) for row in data.named("candidates").pl().to_dicts()
        }
    assert rows == {"latentlens": (0, 0), "embeddinglens_shared": (0, 0), "logitlens_shared": (1, 1)}


def test_every_table_names_the_lenses_apart_and_says_their_candidates(both: tuple[Path, list[str]]) -> None:
    every = sorted((*DECLARED, *SHARED))
    with open_dataset(both[0] / ".latentlens") as data:
        for table in ("neighbors", "judgements", "interpretability", "diversity", "lens_differences"):
            assert data.collect(f"SELECT DISTINCT lens FROM {table} ORDER BY lens")["lens"].to_list() == every
        for table in ("interpretability", "diversity"):
            said = data.collect(f"SELECT DISTINCT lens, candidates FROM {table}").rows()
            assert (
                dict(said) == {lens: "shared" if lens in (*SHARED, "latentlens") else "all" for lens in every}
                and len(said) == 5
            )
        pairs = data.collect(
            "SELECT lens, other_lens, count(*) AS n FROM lens_differences WHERE comparison = 'lenses' AND k = 3 "
            "AND measure = 'concrete' AND patch_group = 'all' AND visual_layer = 0 GROUP BY ALL"
        )
        wide = data.collect("interpretability").columns
    assert len({frozenset(pair) for pair in pairs.select("lens", "other_lens").rows()}) == len(pairs) == 10
    assert set(pairs["n"]) == {1}
    assert {*every, *(f"{lens}_chance" for lens in every)} <= set(wide)


def test_a_study_that_has_shared_candidates_no_more_has_no_answer_of_theirs(
    both: tuple[Path, list[str]], copy_of: Copy
) -> None:
    project = copy_of(both[0])
    _declare(project, "all")
    build(project)
    with open_dataset(project / ".latentlens") as data:
        assert set(data.collect("SELECT DISTINCT lens FROM neighbors")["lens"]) == set(DECLARED)
        assert set(data.collect("SELECT DISTINCT lens FROM judgements")["lens"]) == set(DECLARED)
        assert data.collect("FROM candidates").is_empty()


def test_a_study_of_texts_may_have_shared_candidates_alone(tmp_path: Path) -> None:
    from latentlens_dag.testing import tiny_project

    project = tiny_project(tmp_path / "project")
    (project / "assets" / "tiny" / "defs.yaml").write_text(TEXTS)
    build(project)
    with open_dataset(project / ".latentlens") as data:
        assert set(data.collect("SELECT DISTINCT lens FROM neighbors")["lens"]) == {"latentlens", *SHARED}
        assert data.collect("candidates").select("only_here", "only_latentlens").sum().row(0) == (0, 0)


def test_fewer_tokens_in_the_index_than_answers_are_refused_before_any_lens_runs(
    built_project: Path, copy_of: Copy
) -> None:
    project = copy_of(built_project)
    _declare(project, "shared")
    path = project / "assets" / "tiny" / "defs.yaml"
    path.write_text(path.read_text().replace("top_k: 3", "top_k: 80"))
    run = run_command(project, "build")
    assert run.returncode == 2 and "Traceback" not in run.stderr
    told = run.stderr.replace("\n", " ")
    assert "`top_k: 80` and `candidates: shared` of Study tiny ask for more answers than its index has" in told
    assert not list(_warehouse(project).study("tiny").glob("logitlens_shared/**/*.parquet"))
