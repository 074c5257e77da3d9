"""Parts of an index, end to end: what they are worth, where it is published, and what is refused."""

import re
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from latentlens_dag.dag.loading import load_definitions
from latentlens_dag.dataset.dataset import open_dataset
from latentlens_dag.errors import UserError
from latentlens_dag.release.manifest import MANIFEST, read_manifest
from latentlens_dag.storage.home import Home
from latentlens_dag.testing import TINY_STUDY, tiny_project
from tests.dag.conftest import build
from tests.helpers.command_line import run_command

Copy = Callable[[Path], Path]
INDEX = "language_model: {path: model}, corpus: text, layers: [1, 2], contexts_per_token: 5"
JUDGE = "judge: {regions: {}}"
STUDY = (
    TINY_STUDY.replace("SHARDS", "2")
    .replace("BATCHES", "2")
    .replace(INDEX, INDEX.replace("token: 5", "token: 50, fraction: 0.7"))
    .replace(JUDGE, f"{JUDGE}\n  unique: sentence\n  corpus_ablation: [0.55, 1.0]")
)
"""Of every sentence every prefix is kept."""
SMALLER = f"""\
---
type: latentlens_dag.dag.components.Index
attributes: {{name: part, {INDEX.replace("token: 5", "token: 50, fraction: 0.385")}}}
---
type: latentlens_dag.dag.components.Study
attributes:
  name: smaller
  vlm: {{path: model}}
  index: part
  images: pictures
  layers: [0, 1, 2]
  lenses: [latentlens]
  top_k: 3
  unique: sentence
  {JUDGE}
---
type: latentlens_dag.dag.components.Release
attributes: {{name: out, studies: [tiny], repo_id: user/out, license: mit}}
"""
"""The same study through an index of 0.55 * 0.7 of the sentences."""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A built project. Do not write to it: copy it."""
    folder = tiny_project(tmp_path_factory.mktemp("ablation") / "project")
    (folder / "assets" / "tiny" / "defs.yaml").write_text(STUDY + SMALLER)
    build(folder)
    return folder


def _collect(project: Path, sql: str) -> pl.DataFrame:
    with open_dataset(project / ".latentlens") as dataset:
        return dataset.collect(sql)


def _shares(project: Path, study: str) -> pl.DataFrame:
    sql = f"FROM interpretability WHERE study = '{study}' AND lens = 'latentlens'"
    return _collect(project, f"SELECT * EXCLUDE (study, lens, candidates) {sql} ORDER BY ALL")


def _part(project: Path, fraction: float) -> pl.DataFrame:
    sql = "SELECT * EXCLUDE (study, fraction, occurrences, sentences, token_ids) FROM corpus_ablation "
    return _collect(project, f"{sql} WHERE fraction = {fraction} ORDER BY ALL")


def test_the_whole_index_has_the_rows_of_latentlens_itself(project: Path) -> None:
    assert _part(project, 1.0).equals(_shares(project, "tiny"))
    assert len(_part(project, 1.0)) == 3 * 3 * 4 * 2  # visual layers, patch groups, measures, k


def test_a_part_has_the_rows_of_a_study_through_an_index_of_its_sentences_where_the_cap_does_not_bind(
    project: Path,
) -> None:
    assert _part(project, 0.55).equals(_shares(project, "smaller"))
    assert not _part(project, 0.55).equals(_part(project, 1.0))
    sizes = _collect(
        project,
        "SELECT count(*), count(DISTINCT sentence_id), count(DISTINCT token_id) FROM occurrences WHERE index = 'part'",
    )
    columns = "SELECT DISTINCT occurrences, sentences, token_ids FROM corpus_ablation WHERE fraction = 0.55"
    assert _collect(project, columns).rows() == sizes.rows()


def test_the_table_is_released_named_on_the_card_and_printed(project: Path) -> None:
    folder = project / ".latentlens" / "warehouse" / "release" / "out"
    rows = _collect(project, "FROM corpus_ablation")
    assert read_manifest(folder / MANIFEST).tables["corpus_ablation"].rows == len(rows) == 2 * 72
    card = (folder / "README.md").read_text()
    (titles,) = (line for line in card.splitlines() if re.match(r"\| visual layer \| \d+ \(55 %", line))
    sizes = dict(rows.select("fraction", "occurrences").unique().rows())
    assert titles == f"| visual layer | {sizes[0.55]} (55 % of its sentences) | {sizes[1.0]} (100 % of its sentences) |"
    result = run_command(project, "summary", "tiny", "--home", str(project / ".latentlens"))
    lines = [line.split() for line in result.stdout.splitlines()]
    everyone = rows.filter(patch_group="all", measure="interpretable", k=3)
    for fraction, text in ((0.55, "55"), (1.0, "100")):
        (line,) = (line for line in lines if line[:3] == [text, "%", str(sizes[fraction])])
        share, chance = everyone.filter(fraction=fraction).select(pl.mean("share", "chance") * 100).row(0)
        assert (line[3], line[5]) == (f"{share:.1f}", f"{chance:.1f}")


def test_a_study_that_no_longer_declares_it_has_no_rows(project: Path, copy_of: Copy) -> None:
    changed = copy_of(project)
    file = changed / "assets" / "tiny" / "defs.yaml"
    file.write_text(file.read_text().replace("  corpus_ablation: [0.55, 1.0]\n", ""))
    assert build(changed) == ["study/tiny/catalog", "release/out/dataset"]
    assert _collect(changed, "FROM corpus_ablation").is_empty()
    assert "LatentLens from parts" not in (changed / ".latentlens/warehouse/release/out/README.md").read_text()
    _clean(changed)
    assert not (changed / ".latentlens/warehouse/study/tiny/ablation_neighbors").exists()
    assert not (changed / ".latentlens/warehouse/study/tiny/corpus_ablation.parquet").exists()


def test_answers_of_a_fraction_that_is_no_longer_declared_are_removed_by_clean(project: Path, copy_of: Copy) -> None:
    changed = copy_of(project)
    file = changed / "assets" / "tiny" / "defs.yaml"
    file.write_text(file.read_text().replace("[0.55, 1.0]", "[0.8, 1.0]"))
    build(changed)
    answers = changed / ".latentlens/warehouse/study/tiny/ablation_neighbors"
    assert {one.name for one in answers.iterdir()} == {"fraction_0.55", "fraction_0.8"}
    _clean(changed)
    assert {one.name for one in answers.iterdir()} == {"fraction_0.8"}
    assert build(changed) == []


def _clean(project: Path) -> None:
    assert run_command(project, "clean", "--yes", "--home", str(project / ".latentlens")).returncode == 0


REFUSED = {
    "[0.1, 2.0]": "has 2.0: a fraction of the index's sentences is above 0 and at most 1",
    "[0.0, 1.0]": "has 0.0: a fraction",
    "[.nan]": "has nan: a fraction",
    "[0.5, 0.1]": "must be ascending, each fraction once, as in [0.01, 0.1, 1.0]",
    "[0.5, 0.5]": "must be ascending",
}


def _refusal(folder: Path, old: str, new: str) -> str:
    file = folder / "assets" / "tiny" / "defs.yaml"
    text = STUDY.replace("[0.55, 1.0]", "[0.1, 1.0]").replace("  unique: sentence\n", "")
    assert text.count(old) == 1
    file.write_text(text.replace(old, new))
    with pytest.raises(UserError) as caught:
        load_definitions(folder, Home(folder / ".latentlens"))
    return str(caught.value)


@pytest.mark.parametrize("fractions", REFUSED)
def test_fractions_that_are_none_or_out_of_order_are_refused(
    fresh_project: Path, copy_of: Copy, fractions: str
) -> None:
    assert REFUSED[fractions] in _refusal(copy_of(fresh_project), "[0.1, 1.0]", fractions)


def test_a_study_that_nobody_judges_or_without_latentlens_is_refused(fresh_project: Path, copy_of: Copy) -> None:
    folder = copy_of(fresh_project)
    assert "but nobody judges them (`judge: none`)" in _refusal(folder, JUDGE, "judge: none")
    found = _refusal(folder, "top_k: 3", "top_k: 3\n  lenses: [logitlens, embeddinglens]")
    assert "`lenses` has only logitlens, embeddinglens. Add it" in found


def test_a_study_of_texts_is_refused(fresh_project: Path, copy_of: Copy) -> None:
    texts = "language_model: {path: model}\n  texts: sayings"
    sayings = (
        "type: latentlens_dag.dag.components.TextSet\nattributes: {name: sayings, source: {lines: corpus.txt}}\n---\n"
    )
    folder = copy_of(fresh_project)
    text = STUDY.replace("vlm: {path: model}", texts).replace("  images: pictures\n", "").replace(JUDGE, "judge: none")
    (folder / "assets" / "tiny" / "defs.yaml").write_text(sayings + text)
    with pytest.raises(UserError, match=r"`corpus_ablation: \[0\.55, 1\.0\]` of Study tiny .* texts have none"):
        load_definitions(folder, Home(folder / ".latentlens"))


def test_a_part_with_too_few_sentences_stops_its_step_and_names_the_field(project: Path, copy_of: Copy) -> None:
    changed = copy_of(project)
    file = changed / "assets" / "tiny" / "defs.yaml"
    file.write_text(file.read_text().replace("[0.55, 1.0]", "[0.001, 1.0]"))
    result = run_command(changed, "build", "--home", str(changed / ".latentlens"))
    assert result.returncode
    assert (
        "than its index has different sentences (0) in 0.0007 of its corpus (`corpus_ablation`)"
        in result.stdout + result.stderr
    )
