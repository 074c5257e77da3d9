"""`sampling: first`: the order of the source counts, and only where it is asked for."""

import shutil
from pathlib import Path

import polars as pl
import pytest

from tests.dag.conftest import opened


def _build(project: Path) -> list[str]:
    """What was run to have the index's occurrences."""
    from latentlens_dag.dag.keys import label

    with opened(project) as one:
        selection = one.select(names=["index/words/occurrences"])
        one.observe(selection)
        return [label(need.key, need.partition) for ran in one.build(selection) for need in ran.targets]


def _edit(project: Path, old: str, new: str) -> None:
    file = project / "assets" / "tiny" / "defs.yaml"
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))


def _sentences(project: Path) -> set[str]:
    """The texts of the sentences that kept occurrences are in."""
    house = project / ".latentlens" / "warehouse"
    found = pl.scan_parquet(house / "index" / "words" / "occurrences" / "*.parquet")
    texts = pl.scan_parquet(house / "corpus" / "text" / "sentences.parquet")
    return set(texts.join(found, on="sentence_id", how="semi").collect()["text"].to_list())


@pytest.fixture
def project(fresh_project: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(fresh_project, tmp_path / "project"))


def test_the_first_sentences_of_the_source_are_kept_and_another_order_keeps_others(project: Path) -> None:
    """Of three sentences that differ in their second word: one occurrence of each token after it."""
    corpus = project / "assets" / "tiny" / "corpus.txt"
    lines = [f"She {verb} the red ball and the blue ball near the old house." for verb in ("put", "reads", "runs")]
    corpus.write_text("\n".join(lines))
    _edit(project, "contexts_per_token: 5", "contexts_per_token: 1, sampling: first, min_position: 3")
    assert {"corpus/text/order", "index/words/candidates[01]"} <= set(_build(project))
    assert _sentences(project) == {lines[0]}
    assert _build(project) == []
    corpus.write_text("\n".join(reversed(lines)))
    ran = _build(project)
    assert "corpus/text/order" in ran
    assert "corpus/text/shards[00]" not in ran
    assert _sentences(project) == {lines[2]}


def test_a_corpus_has_an_order_only_where_an_index_asks_for_it(project: Path) -> None:
    order = ["corpus", "text", "order"]
    for asked in (False, True):
        if asked:
            _edit(project, "contexts_per_token: 5", "contexts_per_token: 5, sampling: first")
        with opened(project) as one:
            assert (order in [list(key.path) for key, _ in one.select().targets]) is asked
