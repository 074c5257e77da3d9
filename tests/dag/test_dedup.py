"""A language model that reads text in both directions: no index of prefixes, an index of whole sentences, a study."""

import shutil
from pathlib import Path

import polars as pl
import pytest

from latentlens_dag.errors import UserError
from latentlens_dag.testing import tiny_llava
from tests.dag.conftest import build, opened


def test_an_index_of_prefixes_is_refused_and_one_of_whole_sentences_carries_a_study(
    fresh_project: Path, tmp_path: Path
) -> None:
    project = Path(shutil.copytree(fresh_project, tmp_path / "project"))
    here = project / "assets" / "tiny"
    shutil.rmtree(here / "model")
    tiny_llava(here / "model", bidirectional=True)
    for asset in ("index/words", "study/tiny/model_checks"):  # whichever comes first
        with (
            opened(project) as one,
            pytest.raises(UserError, match=r"Index words .*`dedup: prefix`.*Set `dedup: sentence` in Index words"),
        ):
            selection = one.select(names=[asset])
            one.observe(selection)
            one.build(selection)
    index = project / ".latentlens" / "warehouse" / "index" / "words"
    assert (index / "occurrences").is_dir()
    assert not list(index.rglob("*.lance"))

    text = (here / "defs.yaml").read_text()
    (here / "defs.yaml").write_text(text.replace("contexts_per_token: 5", "contexts_per_token: 5, dedup: sentence"))
    ran = build(project)
    assert "index/words/candidates[00]" in ran
    assert "study/tiny/catalog" in ran
    assert build(project) == []
    occurrences = pl.read_parquet(index / "occurrences" / "*.parquet")
    neighbors = pl.read_parquet(
        project / ".latentlens" / "warehouse" / "study" / "tiny" / "latentlens" / "**/*.parquet"
    )
    assert len(neighbors) > 0
    assert set(neighbors["key"]) <= set(occurrences["key"])


def test_what_is_built_by_default_has_the_versions_that_it_had_before_there_was_a_choice(fresh_project: Path) -> None:
    with opened(fresh_project) as one:
        versions = {
            "/".join(key.path): one.graph.get(key).code_version
            for key, _ in one.select().targets
            if key.path[0] == "index" or key.path[-1] == "model_checks"
        }
    assert versions == {
        "index/words/candidates": "3-ec1d15fb08ec77cf",
        "index/words/contextual/L01": "1",
        "index/words/contextual/L02": "1",
        "index/words/language_model": None,
        "index/words/occurrences": "1-9beefad9053b9d05",
        "index/words/selection": "1-d947367065821f43",
        "index/words/table/L01": "2-9dfaca23e289698c",
        "index/words/table/L02": "2-9dfaca23e289698c",
        "study/tiny/model_checks": "3-c4c57dd7f36739a6",
    }
