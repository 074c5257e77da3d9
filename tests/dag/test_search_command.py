"""`latentlens-dag search`: the same answers as the study has, for what a person asks with."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from latentlens_dag import ContextualIndex
from latentlens_dag.cli.main import cli
from latentlens_dag.cli.query import _neighbor_table
from latentlens_dag.errors import UserError
from latentlens_dag.index.state_tables import read_states
from latentlens_dag.models.loading import load_language_model
from latentlens_dag.testing import SENTENCES


@pytest.fixture
def search(built_project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    monkeypatch.chdir(built_project)
    monkeypatch.delenv("LATENTLENS_HOME", raising=False)
    monkeypatch.setenv("COLUMNS", "160")

    def run(*arguments: str) -> str:
        cli.main(["search", "--study", "tiny", *arguments], standalone_mode=False)
        return capsys.readouterr().out

    return run


@pytest.fixture
def neighbors(built_project: Path) -> pl.DataFrame:
    folder = built_project / ".latentlens" / "warehouse" / "study" / "tiny" / "latentlens"
    return pl.read_parquet(list(folder.glob("layer_*/*.parquet")))


@pytest.mark.parametrize("layer", [0, 1, None])
def test_a_visual_token_gets_the_answers_that_the_study_has(
    search: Any, neighbors: pl.DataFrame, layer: int | None
) -> None:
    for image_id in sorted(set(neighbors["image_id"])):
        where = [] if layer is None else ["--layer", str(layer)]
        rows = json.loads(search("--image-id", image_id, "--token", "5", "-k", "3", "--json", *where))
        mine = neighbors.filter(image_id=image_id, token_index=5, visual_layer=2 if layer is None else layer).sort(
            "rank"
        )
        same = ["rank", "contextual_layer", "key", "word", "sentence_id", "char_start", "cosine"]
        assert pl.DataFrame(rows)[same].equals(mine[same].cast({"cosine": pl.Float64}))
        assert {row["layer"] for row in rows} == {2 if layer is None else layer}


def test_every_token_of_a_text_is_asked_about_at_the_layer(search: Any, built_project: Path) -> None:
    text = "A brown elephant"
    rows = json.loads(search("--text", text, "--layer", "1", "-k", "2", "--json", "--contextual-layers", "2"))
    model = load_language_model(built_project / "assets" / "tiny" / "model", device="cpu")
    ids = model.tokenizer(text, return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        states = model.decoder(input_ids=ids, output_hidden_states=True).hidden_states[1][0, 1:]  # without <bos>
    index = ContextualIndex.open(built_project / ".latentlens" / "warehouse" / "index" / "words")
    expected = index.search(states, k=2, layers=[2]).to_polars()
    assert [row["key"] for row in rows] == expected["key"].to_list()
    assert "".join(row["token"] for row in rows if row["rank"] == 1) == f" {text}"
    assert len(rows) == 2 * len(states)


def test_a_text_of_the_corpus_is_answered_from_itself_only_where_that_is_asked_for(search: Any) -> None:
    question = ("--text", SENTENCES[0], "--layer", "1", "-k", "3", "--json")
    assert SENTENCES[0] not in {row["sentence"] for row in json.loads(search(*question))}
    assert SENTENCES[0] in {row["sentence"] for row in json.loads(search(*question, "--own-sentence"))}


def test_centered_answers_are_of_states_without_the_mean_of_their_own_layer(search: Any, built_project: Path) -> None:
    warehouse = built_project / ".latentlens" / "warehouse"
    index = ContextualIndex.open(warehouse / "index" / "words")
    files = sorted((warehouse / "study" / "tiny" / "visual" / "layer_01").glob("*.lance"))
    stored = [read_states(file) for file in files]
    every = np.concatenate([found.states for found in stored]).astype(np.float64)
    image, token = stored[0].image_ids[7], int(stored[0].token_index[7])
    how = ("--layer", "1", "-k", "2", "--similarity", "centered", "--json")
    rows = json.loads(search("--image-id", image, "--token", str(token), *how))
    expected = index.search(every[[7]], 2, similarity="centered", query_mean=every.mean(0))
    assert [row["key"] for row in rows] == expected.to_polars()["key"].to_list()
    assert {row["method"] for row in rows} == {"exact, by centered cosine"}

    rows = json.loads(search("--text", "A brown elephant", *how))
    model = load_language_model(built_project / "assets" / "tiny" / "model", device="cpu")
    found = index.search(model.text_states(["A brown elephant"], [1]), 2, similarity="centered")
    assert [row["key"] for row in rows] == found.to_polars()["key"].to_list()
    assert "by centered cosine" in search("--text", "A brown elephant", *how[:-1])


def test_the_table_marks_the_word_in_its_sentence(search: Any) -> None:
    lines = search("--text", "A brown dog", "--layer", "1", "--contextual-layers", "1", "-k", "1").splitlines()
    assert lines[0] == "The text states at layer 1 are nearest to:"
    assert lines[1].split() == ["token", "rank", "cosine", "layer", "sentence"]
    assert lines[-1].split(maxsplit=4)[:4] == ["dog", "1", "1.000", "1"]
    assert "A brown [dog] sleeps on the warm carpet near the door." in lines[-1]


def test_answers_are_of_the_word_or_of_different_words(search: Any) -> None:
    rows = json.loads(search("--text", "dog", "-k", "1", "--word", "CATS", "--json"))
    assert {row["word"] for row in rows} == {"cats"}
    words = [row["word"].lower() for row in json.loads(search("--text", "x", "-k", "9", "--unique", "word", "--json"))]
    assert len(set(words[:9])) == 9


def test_text_from_data_does_not_drive_the_terminal() -> None:
    row = {"token": "\x1b[31m", "rank": 1, "cosine": 0.5, "contextual_layer": 2, "char_start": 4, "char_end": 7}
    lines = _neighbor_table([{**row, "sentence": "red\r\x1b[2J\nend"}], 160).splitlines()
    assert len(lines) == 2
    assert not any(character < " " or "\x7f" <= character < "\xa0" for character in lines[1])


def test_a_long_sentence_is_cut_around_its_word_on_a_terminal_and_whole_elsewhere() -> None:
    row = {"token": "dog", "rank": 1, "cosine": 0.5, "contextual_layer": 2, "char_start": 5000, "char_end": 5003}
    row |= {"sentence": "a" * 5000 + "dog" + "b" * 5000}
    line = _neighbor_table([row], 160).splitlines()[1]
    assert "a[dog]b" in line
    assert line.count("…") == 2
    assert 150 < len(line) <= 160
    assert _neighbor_table([row], None).splitlines()[1].endswith("a" * 5000 + "[dog]" + "b" * 5000)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["--text TEXT", "--image-id ID --token NUMBER"]),
        (["--text", "a", "--image-id", "0123456789abcdef", "--token", "1"], ["one of the two"]),
        (["--image-id", "0123456789abcdef"], ["one of the two"]),
        (["--image-id", "0123456789abcdef", "--token", "1"], ["no image '0123456789abcdef'"]),
        (["--image-id", "' OR true --", "--token", "1"], ["no image"]),
        (["--image-id", "IMAGE", "--token", "9"], ["no visual token 9", "0 to 8"]),
        (["--image-id", "IMAGE", "--token", "1", "--layer", "7"], ["no visual layer 7", "0, 1, 2"]),
        (["--text", "a", "--layer", "7"], ["Layer 7"]),
        (["--text", " "], ["no token"]),
        (["--text", "a", "--contextual-layers", "5"], ["no contextual layer 5", "1, 2"]),
        (["--text", "a", "--contextual-layers", "1;2"], ["with commas"]),
        (["--text", "a", "--word", "zebra"], ["'zebra'"]),
        (["--text", "a", "-k", "0"], ["at least 1"]),
        (["--text", "a", "--study", "huge"], ["no study 'huge'", "tiny"]),
        (["--text", "a", "--home", "nowhere"], ["no index here yet", "nowhere", "latentlens-dag build tiny"]),
    ],
)
def test_a_wrong_question_is_told(search: Any, neighbors: pl.DataFrame, arguments: list[str], words: list[str]) -> None:
    image_id = neighbors["image_id"][0]
    with pytest.raises(UserError) as error:
        search(*[image_id if argument == "IMAGE" else argument for argument in arguments])
    assert all(word in str(error.value) for word in words), error.value


def test_an_image_of_a_study_that_is_not_built_is_told(search: Any, built_project: Path, tmp_path: Path) -> None:
    house = tmp_path / "warehouse"
    house.mkdir()
    for kind in ("index", "corpus"):
        (house / kind).symlink_to(built_project / ".latentlens" / "warehouse" / kind)
    assert "dog" in search("--text", "a dog", "--home", str(tmp_path))
    with pytest.raises(UserError, match="Study tiny is not built yet"):
        search("--image-id", "0123456789abcdef", "--token", "1", "--home", str(tmp_path))


def test_a_recall_is_asked_of_the_tables_indexes_and_the_answer_says_how_it_was_found(search: Any) -> None:
    (first, *_) = json.loads(search("--text", "dog", "--json"))
    assert first["method"] == "exact"
    told = search("--text", "dog", "--recall", "0.9").splitlines()[-1]
    assert told.startswith("exact: contextual layer 1 has no index")
    with pytest.raises(UserError, match="`recall=2"):
        search("--text", "dog", "--recall", "2")
