"""What a page asks with text: the study's model is found, and read by one thread at a time."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from latentlens_dag import ContextualIndex, load_vlm
from latentlens_dag.browse.text_search import TextSearch, build_times, home_warehouse, open_study_index
from latentlens_dag.errors import UserError
from latentlens_dag.storage.files import write_json
from latentlens_dag.storage.warehouse import Warehouse
from latentlens_dag.study.query_states import QueryStates
from latentlens_dag.testing import SENTENCES, tiny_project
from tests.helpers.released import stage
from tests.helpers.released import write_warehouse as write_released


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project that declares study `tiny`, with its index."""
    folder = tiny_project(tmp_path_factory.mktemp("project"))
    vlm = load_vlm(folder / "assets" / "tiny" / "model", device="cpu")
    index = Warehouse(folder / ".latentlens" / "warehouse").index("words").root
    ContextualIndex.build(vlm, vlm.processor.tokenizer, SENTENCES, [1, 2], path=index)
    return folder


@pytest.fixture(scope="module")
def search(project: Path) -> TextSearch:
    model = load_vlm(project / "assets" / "tiny" / "model", device="cpu").language_model
    return TextSearch(model, open_study_index(Warehouse(project / ".latentlens" / "warehouse"), "tiny", "words"))


def test_a_word_is_nearest_to_itself_in_a_sentence_of_the_same_beginning_but_not_in_its_own(search: TextSearch) -> None:
    whole, text = SENTENCES[0], SENTENCES[0].removesuffix(".")
    tokens = search.encode(text, 1).tokens
    place = tokens.index(" dog")
    found = search.neighbors(text, 1, place, 3, (1,), None)
    assert (found.rows[0]["sentence"], found.rows[0]["word"]) == (whole, "dog")
    assert whole not in {row["sentence"] for row in search.neighbors(whole, 1, place, 3, (1,), None).rows}
    assert found.rows[0]["cosine"] == pytest.approx(1, abs=1e-5) and found.method.startswith("exact")
    different = [row["word"] for row in search.neighbors(text, 1, place, 5, None, "word").rows]
    assert len({word.lower() for word in different}) == 5


def test_a_text_is_cut_where_it_is_longer_than_a_page_asks(search: TextSearch) -> None:
    assert search.encode("dog " * 10_000, 1).tokens == search.encode(("dog " * 10_000)[:400], 1).tokens


def test_two_threads_do_not_read_with_the_model_at_the_same_time(
    search: TextSearch, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside: list[int] = []
    most: list[int] = []

    def slow(*_: Any) -> QueryStates:
        inside.append(1)
        most.append(len(inside))
        time.sleep(0.05)
        inside.pop()
        return QueryStates([], 0, np.empty((0, 1), np.float32))

    monkeypatch.setattr("latentlens_dag.browse.text_search.encode_query", slow)
    threads = [threading.Thread(target=search.encode, args=(f"text {number}", 1)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 4


def test_only_a_home_can_be_asked_with_text(project: Path, tmp_path: Path) -> None:
    home = project / ".latentlens"
    assert home_warehouse(str(home)) == home_warehouse(str(home / "warehouse")) == Warehouse(home / "warehouse")
    released = write_released(tmp_path / "warehouse")
    stage(released)
    for source in (released.release("small"), released.catalog("one"), "user/name@v1"):
        with pytest.raises(UserError, match=r"is no home.*latentlens-dag browse"):
            home_warehouse(str(source))
    with pytest.raises(UserError, match=r"Study one has no index here yet.*latentlens-dag build one"):
        open_study_index(released, "one", "words2")


def test_what_is_remembered_is_forgotten_when_a_build_writes(project: Path, tmp_path: Path) -> None:
    house = Warehouse(tmp_path)
    before = build_times(house, "s", "words")
    write_json({"layers": [1]}, house.index("words").shape)
    with_index = build_times(house, "s", "words")
    house.visual("s", 4, 0).mkdir(parents=True)
    assert len({before, with_index, build_times(house, "s", "words")}) == 3
