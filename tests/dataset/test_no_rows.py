"""What `query` says where a query has no rows: the reason, and of the study that was asked."""

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from latentlens_dag.dataset.dataset import Dataset, open_dataset
from latentlens_dag.dataset.named_queries import named_queries
from latentlens_dag.dataset.no_rows import _DECLARED, _NEEDED, no_rows_note
from tests.helpers.small_dataset import AWKWARD, write_warehouse

PARAMS = {
    "layer": "0",
    "other_layer": "8",
    "word": "dog",
    "words": "dog",
    "token_index": "0",
    "study": "one",
    "other_study": AWKWARD,
}


@pytest.fixture(scope="module")
def half_judged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dataset]:
    """Study `one` without a judge, the other one with all; no study has shared candidates."""
    warehouse = write_warehouse(tmp_path_factory.mktemp("home") / "warehouse")
    shutil.rmtree(warehouse.study("one") / "judgements")
    for name in ("interpretability", "lens_differences", "corpus_ablation"):
        warehouse.summary("one", name).unlink()
    with open_dataset(warehouse) as opened:
        yield opened


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("interpretability", "no verdicts of one: either its defs.yaml names no judge"),
        ("lens_differences", "no verdicts of one: either its defs.yaml names no judge"),
        ("corpus_ablation", "no answers from smaller indexes of one: either its defs.yaml has no `corpus_ablation:"),
        ("candidates", "no shared candidates of one: either its defs.yaml has no `candidates: [all, shared]`"),
    ],
)
def test_the_reason_is_of_the_study_that_was_asked_and_of_what_was_asked(
    half_judged: Dataset, query: str, words: str
) -> None:
    assert half_judged.collect(query, study="one").is_empty()
    assert words in str(no_rows_note(half_judged, query, {"study": "one"}))
    for judge in ("nobody", None):  # of the other study, which has rows, no other study's reason is told
        told = no_rows_note(half_judged, query, {"study": AWKWARD, **({"judge": judge} if judge else {})})
        if query == "candidates":
            assert AWKWARD in str(told)
        else:
            assert told is None if judge is None else f"`judge={judge}`: no answer here has it. There are:" in str(told)


def test_without_a_study_the_reason_is_of_all_that_lack_something(half_judged: Dataset) -> None:
    assert "no verdicts of one:" in str(no_rows_note(half_judged, "SELECT 1 FROM judgements WHERE false", {}))
    assert f"of {AWKWARD}, one:" in str(no_rows_note(half_judged, "candidates", {}))
    assert no_rows_note(half_judged, "SELECT judgements FROM (SELECT 1 AS judgements) WHERE false", {}) is None


@pytest.mark.parametrize(
    ("query", "params", "words"),
    [
        ("where_word", {"word": "dog", "study": "on"}, r"`study=on`: no answer here has it. There are: "),
        ("where_word", {"word": "dog", "lens": "latent"}, r"`lens=latent`: no answer here has it. There are: "),
        ("words_by_layer", {"words": "dog", "study": ""}, "`study=`: no answer here has it."),
        ("interpretability", {"study": "two"}, "`study=two`: no answer"),
        ("patches", {"image_id": "x", "layer": "0"}, "`image_id=x`: no answer here has it."),
        ("where_word", {"word": "dog", "layer": "7"}, "`layer=7`: no answer here has it. There are: 0, 8."),
        ("interpretability", {"study": AWKWARD, "k": "0"}, "`k=0`: no answer here has it. There are: 1, 2."),
        ("interpretability", {"study": AWKWARD, "measure": "concret"}, "There are: abstract, concrete, global, "),
        ("lens_differences", {"study": AWKWARD, "comparison": "lens"}, "`comparison=lens`: no answer here has it."),
        ("training_steps", {"connector": "clap"}, "`connector=clap`: no answer here has it. There are: clip."),
        ("training_steps", {"connector": "clip", "judge": "nobody"}, "`judge=nobody`: no answer here has it."),
        ("neighbor_overlap", {"study": "one", "other_study": "two"}, "`other_study=two`: no answer here has it."),
        ("neighbor_overlap", {"study": "one", "other_study": "one"}, "no visual token at the same place"),
        ("where_word", {"word": "dog", "layer": 0}, None),
        ("where_word", {"word": "zebra", "study": "one"}, None),
        ("find_images", {"layer": "0", "study": "one", "words": "zebra"}, None),
    ],
)
def test_a_parameter_that_nothing_has_is_the_reason(
    half_judged: Dataset, query: str, params: Mapping[str, str | int], words: str | None
) -> None:
    told = no_rows_note(half_judged, query, params)
    assert told is None if words is None else words in str(told)


def test_the_steps_of_a_training_need_a_study_of_a_connector_and_a_judge(half_judged: Dataset, tmp_path: Path) -> None:
    unconnected, unjudged = tmp_path / "unconnected" / "warehouse", tmp_path / "unjudged" / "warehouse"
    for folder, studies in ((unconnected, ("one", AWKWARD)), (unjudged, (AWKWARD,))):
        warehouse = write_warehouse(folder)
        for study in ("one", AWKWARD):
            warehouse.summary(study, "interpretability").unlink()
        for study in studies:
            warehouse.summary(study, "study_connectors").unlink()
    with open_dataset(unconnected) as dataset:
        assert dataset.collect("training_steps").is_empty()
        told = no_rows_note(dataset, "training_steps", {})
        assert f"no connectors of {AWKWARD}, one: either its defs.yaml has no `vlm: {{connector: NAME}}`" in str(told)
    with open_dataset(unjudged) as dataset:
        assert dataset.collect("training_steps").is_empty()
        assert "no verdicts of one: either its" in str(no_rows_note(dataset, "training_steps", {}))


def test_the_tables_that_queries_need_are_those_without_which_they_have_no_rows(tmp_path: Path) -> None:
    """By trying: each query on all tables, and on all but one."""
    whole = write_warehouse(tmp_path / "whole" / "warehouse")
    found: dict[str, str] = {}
    without_rows = ("candidates", "captions")  # of these the studies here have none
    for table in _DECLARED:
        folder = tmp_path / table / "warehouse"
        shutil.copytree(whole.root, folder)
        for study in ("one", AWKWARD):
            shutil.rmtree(folder / "study" / study / table, ignore_errors=True)
            (folder / "study" / study / f"{table}.parquet").unlink(missing_ok=True)
        with open_dataset(whole.root) as full, open_dataset(folder) as without:
            image = full.collect("SELECT image_id FROM neighbors WHERE study = 'one' LIMIT 1")["image_id"][0]
            for name, query in named_queries().items():
                needed = {p.name for p in query.parameters if p.required}
                params = {key: value for key, value in {**PARAMS, "image_id": image}.items() if key in needed}
                if not full.collect(name, **params).is_empty() and without.collect(name, **params).is_empty():
                    found[name] = table
    assert found == {name: table for name, table in _NEEDED.items() if name not in without_rows}
