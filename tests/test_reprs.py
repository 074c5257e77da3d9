"""What public objects look like at a prompt and in a notebook: short, and with every text from data escaped."""

from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from PIL import Image

from latentlens_dag.dataset.dataset import open_dataset
from latentlens_dag.index.contextual_index import ContextualIndex
from latentlens_dag.models.loading import load_vlm
from latentlens_dag.models.vlm import Vlm
from latentlens_dag.testing import SENTENCES, tiny_vlm
from latentlens_dag.text.html import table_html
from tests.helpers.small_dataset import write_warehouse

MARKED = "<script>alert(1)</script> & the dog"


class _Tags(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.cells = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.add(tag)
        self.cells += tag == "td"


def _check(one: object, *texts: str) -> None:
    shown, html = repr(one), one._repr_html_()  # type: ignore[attr-defined]
    assert "\n" not in shown and len(shown) < 500
    assert _Tags(html).tags <= {"div", "strong", "table", "tr", "th", "td", "small"} and len(html) < 20_000
    for text in texts:
        assert text in shown


@pytest.fixture(scope="module")
def vlm(tmp_path_factory: pytest.TempPathFactory) -> Vlm:
    return load_vlm(tiny_vlm("llava", tmp_path_factory.mktemp("model") / "<b>model"))


@pytest.fixture(scope="module")
def index(vlm: Vlm, tmp_path_factory: pytest.TempPathFactory) -> ContextualIndex:
    model = vlm.language_model
    texts = [*SENTENCES, MARKED]
    return ContextualIndex.build(model, model.tokenizer, texts, [1, 2], path=tmp_path_factory.mktemp("index") / "<i>")


def test_models_and_states_are_a_line_and_a_small_table(vlm: Vlm) -> None:
    _check(vlm, "<Vlm ", "blocks")
    _check(vlm.language_model, "<LanguageModel ")
    visual = vlm.visual_states([Image.new("RGB", (60, 60))] * 3, layers=[0, 2])
    _check(visual, f"<VisualStates of {visual.tokens.height} visual tokens at layers 0, 2; width 32>")
    texts = vlm.language_model.text_states([MARKED, "dog"], [1])
    _check(texts, f"<TextStates of {texts.tokens.height} tokens at layers 1; width 32>")


def test_found_neighbors_are_a_line_and_their_sentences_with_the_word_marked(vlm: Vlm, index: ContextualIndex) -> None:
    _check(index, "ContextualIndex(")
    states = vlm.language_model.text_states([MARKED], [1]).only_layer()
    found = index.search(states, 3)
    _check(found, f"<SearchResult: {len(states)} queries, 3 neighbors each, of layers ", "exact>")
    html = found._repr_html_()
    assert _Tags(html).cells == 5 * min(len(states), 5) * 3
    assert "to_polars() gives all" in html
    last = index.search(states[-1:], 3)._repr_html_()
    assert "&lt;script&gt;" in last and "[dog]" in last and "to_polars" not in last
    assert repr(index.search(torch.zeros(0, states.shape[1]), 3)).startswith("<SearchResult: 0 queries")


def test_a_dataset_names_its_tables_with_rows_and_columns_until_it_is_closed(tmp_path: Path) -> None:
    dataset = open_dataset(write_warehouse(tmp_path / "warehouse"))
    _check(dataset, "neighbors", f"<Dataset of {len(dataset.tables)} tables: ")
    (rows,) = dataset.sql("SELECT count(*) FROM neighbors").fetchall()[0]
    assert f"<td>neighbors</td><td>{rows:,}</td><td>study, " in dataset._repr_html_()
    dataset.close()
    _check(dataset, "<Dataset, closed>")


def test_a_title_a_header_a_cell_and_a_foot_are_escaped() -> None:
    html = table_html("<a>", ["<b>"], [["<c>", 1]], "<d>")
    assert _Tags(html).tags == {"div", "strong", "table", "tr", "th", "td", "small"}
