"""Words of all scripts through the commands: index, search, queries, browser and pictures."""

import io
import json
import unicodedata
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from PIL import Image

from latentlens_dag.browse.browser_data import open_browser_data, parse_words
from latentlens_dag.cli.main import cli
from latentlens_dag.drawing import drawable_text
from latentlens_dag.figures import contact_sheet
from latentlens_dag.testing import tiny_project
from latentlens_dag.text.words import fold_word, whole_characters
from tests.dag.conftest import build
from tests.text.test_words import UNSPACED, WHOLE

SPELLED = {**WHOLE, **UNSPACED}
TEXT_STUDY = """
---
type: latentlens_dag.dag.components.TextSet
attributes: {name: sayings, source: {lines: corpus.txt}, batches: 1}
---
type: latentlens_dag.dag.components.Study
attributes: {name: read, language_model: {path: model}, index: words, texts: sayings, layers: [1], top_k: 3}
"""
Run = Callable[..., str]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Studies of pictures and of texts, with an index of words of all scripts, a sentence each. Do not write to it."""
    project = tiny_project(tmp_path_factory.mktemp("scripts"), shards=1, batches=1)
    here = project / "assets" / "tiny"
    (here / "corpus.txt").write_text("\n".join(f"a {word}, b" for word in SPELLED.values()), encoding="utf-8")
    defs = (here / "defs.yaml").read_text().replace("contexts_per_token: 5", "contexts_per_token: 1000")
    (here / "defs.yaml").write_text(defs.rstrip() + TEXT_STUDY)
    build(project)
    return project


@pytest.fixture
def run(project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    monkeypatch.chdir(project)
    monkeypatch.delenv("LATENTLENS_HOME", raising=False)

    def command(*arguments: str) -> str:
        cli.main([*arguments], standalone_mode=False)
        return capsys.readouterr().out

    return command


def _words(kind: str) -> set[str]:
    """What may be said of a token of the word: all of it, or a character where words are not seen."""
    return {WHOLE[kind]} if kind in WHOLE else set(whole_characters(UNSPACED[kind]))


ALLOWED = {
    "a",
    "b",
    ",",
    *(word for kind in SPELLED for word in _words(kind)),
    "",
}  # the last of a token that is a space


def _tokens_of(project: Path, table: str) -> pl.DataFrame:
    return pl.read_parquet(project / ".latentlens" / "warehouse" / table)


@pytest.mark.parametrize("table", ["index/words/occurrences/*.parquet", "study/read/text_tokens/*.parquet"])
def test_tokens_have_whole_words_in_the_index_and_in_the_texts(project: Path, table: str) -> None:
    assert set(_tokens_of(project, table)["word"]) - {"a"} == ALLOWED - {"a"}  # the first token is in no index


def test_answers_are_whole_words(project: Path) -> None:
    found = _tokens_of(project, "study/*/latentlens/*/*.parquet")["word"]
    assert set(found) <= ALLOWED and not all(word.isascii() for word in found)


@pytest.mark.parametrize("kind", SPELLED)
def test_search_finds_a_word_and_marks_it_whole(run: Run, kind: str) -> None:
    for word in _words(kind):
        for form in ("NFC", "NFD"):
            asked = unicodedata.normalize(form, word)
            out = run(
                "search", "--study", "tiny", "--text", "a dog", "--layer", "1", "--word", asked, "-k", "1", "--json"
            )
            rows = json.loads(out)
            assert rows and {fold_word(row["word"]) for row in rows} == {fold_word(word)}
            assert {row["sentence"][row["char_start"] : row["char_end"]] for row in rows} <= ALLOWED


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_queries_find_the_words_among_the_answers_however_they_are_stored(project: Path, run: Run, form: str) -> None:
    neighbors = _tokens_of(project, "study/tiny/latentlens/*/*.parquet")
    words = [word for word in neighbors["word"].unique().to_list() if not word.isascii()]
    assert words
    data = open_browser_data(project / ".latentlens")
    for word in words:
        asked = unicodedata.normalize(form, word)
        same = neighbors.filter(pl.col("word").map_elements(fold_word, pl.String) == fold_word(word))
        expected = same.select("image_id", "token_index", "visual_layer").n_unique()
        query = ("query", "where_word", "--param", f"word={asked}", "--param", "lens=latentlens", "--format", "json")
        assert sum(row["patches"] for row in json.loads(run(*query)) if row["study"] == "tiny") == expected
        page = data.collect("tiny", "words_by_layer", words=parse_words(asked))
        assert page.filter(lens="latentlens")["patches"].sum() == expected
    frequent = json.loads(run("query", "frequent_words", "--param", "study=tiny", "--format", "json"))
    assert {row["word"] for row in frequent} <= {fold_word(word) for word in ALLOWED}


def test_the_texts_are_asked_for_whole_words(run: Run) -> None:
    for kind, word in WHOLE.items():
        rows = json.loads(run("query", "word_in_texts", "--param", f"word={word}", "--format", "json"))
        assert {row["text"] for row in rows} >= {f"a {word}, b"}, kind


def test_a_picture_has_whole_words_or_the_names_of_their_scripts(
    project: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn, draw_plate = list[str](), contact_sheet.draw_plate
    monkeypatch.setattr(contact_sheet, "draw_plate", lambda *plate: drawn.append(plate[2]) or draw_plate(*plate))
    run("summary", "tiny", "--picture", str(tmp_path / "sheet.png"))
    assert Image.open(io.BytesIO((tmp_path / "sheet.png").read_bytes())).size > (100, 100)
    whole = {drawable_text(word) for word in ALLOWED}
    shown = [text for text in drawn if not text.endswith("..")]  # of what is too long for its plate, the beginning
    assert any(not text.isascii() or text.startswith("(") for text in shown)
    vocabulary = {answer.strip() for answer in _tokens_of(project, "study/tiny/*lens/*/*.parquet")["token_str"]}
    assert set(shown) <= whole | {drawable_text(text) for text in vocabulary}
