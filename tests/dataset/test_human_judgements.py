from __future__ import annotations

import fcntl
import json
import multiprocessing
import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import polars as pl
import pytest

from latentlens_dag.browse.browser_data import open_browser_data, source_fingerprint
from latentlens_dag.browse.judging import current_ratings, item_answers, item_box, patches_by_image
from latentlens_dag.dataset.dataset import open_dataset
from latentlens_dag.dataset.human_judgements import (
    HumanJudgement,
    Item,
    JudgingFolder,
    Verdict,
    draw_sample,
    judging_folder,
    latest_judgements,
    person_name,
)
from latentlens_dag.errors import UserError
from latentlens_dag.schema import HUMAN_JUDGEMENTS, NEIGHBORS, VISUAL_TOKENS
from latentlens_dag.storage.parquet import write_parquet
from tests.helpers.small_dataset import image_id, write_warehouse

PATCHES = {image: list(range(6)) for image in ("a", "b", "c")}
LENSES, LAYERS = ("latentlens", "logitlens"), (0, 4, 8)


def said(
    person: str = "ab",
    verdict: Verdict = "none",
    token: int = 0,
    answers: tuple[str, ...] = ("dog", "tree"),
    **more: str,
) -> HumanJudgement:
    """A judgement of the dog's image by LatentLens at layer 8."""
    item = {"study": "one", "image_id": image_id("dog"), "token_index": token, "visual_layer": 8, "lens": "latentlens"}
    facts = {"person": person, "verdict": verdict, "made": "2026-01-01T00:00:00Z", "answers": answers}
    return HumanJudgement.model_validate({**item, **facts, "sentences": False, **more})


def test_a_sample_is_the_same_for_everyone_and_another_for_another_seed() -> None:
    drawn = draw_sample(PATCHES, LENSES, LAYERS, 30, 7)
    turned = {image: PATCHES[image][::-1] for image in reversed(PATCHES)}
    assert draw_sample(turned, LENSES[::-1], LAYERS[::-1], 30, 7) == drawn
    assert draw_sample(PATCHES, LENSES, LAYERS, 30, 8) != drawn
    assert len(set(drawn)) == 30


@pytest.mark.parametrize("count", [1, 5, 6, 17, 18, 60])
def test_any_beginning_of_it_has_equally_many_of_every_lens_and_layer_and_of_every_image(count: int) -> None:
    drawn = draw_sample(PATCHES, LENSES, LAYERS, 108, 3)[:count]
    assert drawn == draw_sample(PATCHES, LENSES, LAYERS, count, 3)
    strata = Counter((item.lens, item.visual_layer) for item in drawn)
    assert max(strata.values()) - min(strata.values() if len(strata) == 6 else [0]) <= 1
    for stratum in strata:
        images = Counter(item.image_id for item in drawn if (item.lens, item.visual_layer) == stratum)
        assert max(images.values()) - min(images.values() if len(images) == 3 else [0]) <= 1


def test_neither_the_place_in_the_sample_nor_the_image_before_tells_the_lens() -> None:
    patches = {str(image): [0, 1] for image in range(40)}
    drawn = draw_sample(patches, LENSES, LAYERS, 60, 5)
    rounds = [tuple((item.lens, item.visual_layer) for item in drawn[at : at + 6]) for at in range(0, 60, 6)]
    assert len(set(rounds)) > 8
    assert all(len({item.image_id for item in drawn[at : at + 6]}) > 2 for at in range(0, 60, 6))


def test_a_lens_less_leaves_the_patches_of_the_others_as_they_are() -> None:
    of_one = draw_sample(PATCHES, LENSES[:1], LAYERS, 30, 3)
    assert set(of_one) == {item for item in draw_sample(PATCHES, LENSES, LAYERS, 60, 3) if item.lens == LENSES[0]}


def test_a_sample_ends_where_there_are_no_more_patches() -> None:
    assert len(draw_sample({"a": [0, 1], "b": [5]}, LENSES, LAYERS, 1000, 0)) == 18
    assert draw_sample({}, LENSES, LAYERS, 10, 0) == draw_sample({"a": []}, LENSES, LAYERS, 10, 0) == []


@pytest.mark.parametrize("name", ["../ab", "..", "a/b", "a\\b", "", " ", "a.b", "x" * 33, "a\0b", "~"])
def test_a_name_that_could_leave_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    folder = JudgingFolder(tmp_path / "judging")
    with pytest.raises(UserError, match="cannot be used as a name"):
        folder.append(said(person=name))
    with pytest.raises(UserError, match="no folder can have"):
        folder.append(said(study=f"../{name}"))
    assert not list(tmp_path.rglob("*.jsonl"))


def test_a_name_is_the_same_however_it_is_written() -> None:
    assert person_name(" AB ") == "ab" and person_name("u\u0308") == person_name("Ü") == "ü"


def test_what_was_said_last_counts_and_what_was_skipped_at_last_does_not() -> None:
    lines = [said(verdict="none"), said("cd", "global"), said(verdict="concrete"), said(token=1), said(token=1)]
    lines += [said(token=2), said(token=2, verdict="skipped")]
    found = [(one.person, one.token_index, one.verdict) for one in latest_judgements(lines)]
    assert found == [("ab", 0, "concrete"), ("cd", 0, "global"), ("ab", 1, "none")]


def test_a_line_cut_short_by_a_crash_costs_that_line_only(tmp_path: Path) -> None:
    folder = JudgingFolder(tmp_path / "judging")
    folder.append(said(token=0))
    folder.append(said(token=1))
    file = folder.path("one", "ab")
    whole = file.read_bytes()
    for cut in range(1, len(whole) // 2):
        file.write_bytes(whole[:-cut])
        folder.append(said(token=2))
        kept = folder.read("one")
        tokens = [one.token_index for one in kept.judgements]
        assert (tokens, kept.unreadable) in ([([0, 1, 2], 0)] if cut == 1 else [([0, 2], 1), ([0, 2], 0)])


def _append_many(root: str, person: str, start: int) -> None:
    for token in range(start, start + 40):
        JudgingFolder(Path(root)).append(said(person, token=token))


def test_people_and_two_windows_of_one_person_write_at_the_same_time_and_nothing_is_lost(tmp_path: Path) -> None:
    root = tmp_path / "judging"
    jobs = [("ab", 0), ("ab", 40), ("cd", 0)]
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_append_many, args=(str(root), *job)) for job in jobs]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    kept = JudgingFolder(root).read("one")
    assert kept.unreadable == 0
    assert sorted((one.person, one.token_index) for one in kept.judgements) == [
        *(("ab", token) for token in range(80)),
        *(("cd", token) for token in range(40)),
    ]


def test_who_writes_waits_for_who_is_writing(tmp_path: Path) -> None:
    folder = JudgingFolder(tmp_path / "judging")
    folder.append(said())
    with folder.path("one", "ab").open("ab") as file, ThreadPoolExecutor(1) as pool:
        fcntl.flock(file, fcntl.LOCK_EX)
        writing = pool.submit(folder.append, said(token=1))
        with pytest.raises(TimeoutError):
            writing.result(timeout=0.3)
        fcntl.flock(file, fcntl.LOCK_UN)
        writing.result(timeout=20)
    assert len(folder.read("one").judgements) == 2


def test_a_line_is_on_disk_when_it_was_appended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[tuple[int, bytes]] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        synced.append((descriptor, path.read_bytes() if path.is_file() else b"folder"))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    JudgingFolder(tmp_path / "judging").append(said())
    assert json.loads(synced[0][1])["person"] == "ab"
    assert [content for _, content in synced[1:]] == [b"folder"] * 3  # judging/one, judging, the home


@pytest.fixture
def home(tmp_path: Path) -> Path:
    write_warehouse(tmp_path / "warehouse")
    return tmp_path


def test_only_a_home_keeps_judgements(home: Path) -> None:
    assert judging_folder(home) == JudgingFolder(home / "judging")
    assert judging_folder(home / "warehouse") is None and judging_folder("user/name") is None
    folder = JudgingFolder(home / "judging")
    assert folder.problem() is None and not folder.root.exists()
    folder.root.write_text("in the way")
    assert folder.problem() == f"{folder.root} is no folder"
    with pytest.raises(OSError):
        folder.append(said())


def test_sql_sees_what_people_said_last_while_the_dataset_is_open(home: Path) -> None:
    folder, before = JudgingFolder(home / "judging"), source_fingerprint(home)
    with open_dataset(home) as dataset:
        assert dataset.collect("FROM human_judgements").is_empty()
        assert dataset.collect("FROM human_judgements").columns == HUMAN_JUDGEMENTS.names
    folder.append(said(verdict="abstract"))
    assert source_fingerprint(home) != before
    with open_dataset(home) as dataset:
        for verdict in ("none", "skipped", "concrete"):
            folder.append(said(verdict=verdict))
            with folder.path("one", "ab").open("a") as file:
                file.write("{cut\n")
            found = dataset.collect("FROM human_judgements").to_dicts()
            assert [one["verdict"] for one in found] == ([] if verdict == "skipped" else [verdict])
        assert found[0]["person"] == "ab" and found[0]["answers"] == ["dog", "tree"] and found[0]["judge"] == "human"
        with pytest.raises(UserError):
            dataset.collect(f"FROM read_text('{folder.path('one', 'ab')}')")
        assert dataset.scan("human_judgements").collect().height == 1
    with open_dataset(home / "warehouse") as dataset:
        assert "human_judgements" not in dataset.tables


def test_judgements_of_answers_that_are_answers_no_more_do_not_count(home: Path) -> None:
    library = open_browser_data(home)
    lines = [said(verdict="global"), said("cd", token=1, answers=("cat", "tree")), said("ef", token=77)]
    found = current_ratings(library, "one", lines)
    assert found.outdated == 2
    assert found.rows.select("rater", "token_index", "verdict").rows() == [
        ("ab", 0, "global"),
        ("regions (machine)", 0, "concrete"),
    ]
    assert current_ratings(library, "one", []).rows.is_empty()


@pytest.mark.parametrize(("word", "token_str", "shown"), [("", " ", " "), (None, "x", "x"), (None, None, "")])
def test_a_blank_answer_is_the_same_answer_when_it_is_looked_up_again(
    home: Path, word: str | None, token_str: str | None, shown: str
) -> None:
    for file in (home / "warehouse/study/one/latentlens/layer_08").iterdir():
        blank = pl.when(pl.col("rank") == 1)
        write_parquet(
            pl.read_parquet(file)
            .with_columns(
                blank.then(pl.lit(word)).otherwise("word").alias("word"),
                blank.then(pl.lit(token_str)).otherwise("token_str").alias("token_str"),
            )
            .to_arrow(),
            file,
            NEIGHBORS,
        )
    library, item = open_browser_data(home), Item(image_id("dog"), 0, 8, "latentlens")
    answers = tuple(row["word"] for row in item_answers(library, "one", item))
    assert answers[0] == shown
    assert current_ratings(library, "one", [said(answers=answers)]).outdated == 0


def test_padding_is_no_patch_to_judge(home: Path) -> None:
    (tokens,) = [one for one in (home / "warehouse/study/one/visual_tokens").iterdir() if "00" in one.name]
    rows = pl.read_parquet(tokens)
    lower = pl.when(pl.col("token_index") == 2).then(pl.col("y0") + 16).otherwise("y0").alias("y0")
    write_parquet(rows.with_columns(lower, y1=pl.col("y1") + 16).to_arrow(), tokens, VISUAL_TOKENS)
    found = patches_by_image(open_browser_data(home), "one")
    assert found[image_id("dog")] == [0, 1, 3] and found[image_id("owl")] == [0, 1, 2, 3]


def test_what_is_asked_of_a_library_is_the_patches_with_a_place_and_their_answers(home: Path) -> None:
    library, item = open_browser_data(home), Item(image_id("dog"), 0, 8, "latentlens")
    assert patches_by_image(library, "one")[image_id("dog")] == [0, 1, 2, 3]
    assert item_box(library, "one", item) == (0, 0, 16, 16)
    answers = item_answers(library, "one", item)
    assert [(one["rank"], one["word"], one["sentence"]) for one in answers] == [
        (1, "dog", "A dog is here."),
        (2, "tree", "A tree is here."),
    ]
