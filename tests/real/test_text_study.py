"""A study of a real language model, built from its YAML: what it finds is the sense of an ambiguous word."""

from pathlib import Path

import polars as pl
import pytest

from latentlens_dag.storage.hashing import text_id
from tests.dag.conftest import build
from tests.real.senses import sentences_by_sense, texts_and_corpus

DEFS = """\
type: latentlens_dag.dag.components.Corpus
attributes: {name: sentences, source: {lines: corpus.txt}, shards: 1}
---
type: latentlens_dag.dag.components.TextSet
attributes: {name: texts, source: {lines: texts.txt}}
---
type: latentlens_dag.dag.components.Index
attributes: {name: senses, language_model: {path: model}, corpus: sentences, layers: [1, 16, 24]}
---
type: latentlens_dag.dag.components.Study
attributes:
  name: senses
  language_model: {path: model}
  index: senses
  texts: texts
  layers: [1, 16, 24]
  lenses: [latentlens]
  top_k: 3
"""


@pytest.fixture(scope="module")
def study(smollm2_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 texts that end in an ambiguous word, read through 120 sentences that do."""
    project = tmp_path_factory.mktemp("senses")
    here = project / "assets" / "senses"
    here.mkdir(parents=True)
    (project / "workspace.yaml").write_text("load_from: []\n")
    (here / "defs.yaml").write_text(DEFS)
    for name, lines in zip(("texts.txt", "corpus.txt"), texts_and_corpus(), strict=True):
        (here / name).write_text("\n".join(lines))
    (here / "model").symlink_to(smollm2_folder)
    build(project)
    return project / ".latentlens" / "warehouse" / "study" / "senses"


@pytest.fixture(scope="module")
def nearest(study: Path) -> pl.DataFrame:
    """Per text and layer, the nearest neighbor of the ambiguous word: its own sense, and its neighbor's."""
    senses = [
        {"word": word, "sense": f"{word}, {sense}", "sentence_id": text_id(sentence)}
        for (word, sense), sentences in sentences_by_sense().items()
        for sentence in sentences
    ]
    of_sentence = pl.DataFrame(senses)
    tokens = pl.read_parquet(study / "text_tokens" / "*.parquet").join(
        of_sentence, left_on=["image_id", "word"], right_on=["sentence_id", "word"]
    )
    words = tokens.group_by("image_id", "sense").agg(pl.col("token_index").max())
    first = pl.read_parquet(study / "latentlens" / "*" / "*.parquet").filter(rank=1)
    found = first.join(words, on=["image_id", "token_index"])
    return found.join(of_sentence.select("sentence_id", found="sense"), on="sentence_id")


def _share_of_the_right_sense(nearest: pl.DataFrame, layer: int) -> float:
    mine = nearest.filter(visual_layer=layer)
    assert len(mine) == 40
    return (mine["sense"] == mine["found"]).sum() / 40


def test_deep_layers_find_sentences_of_the_right_sense_where_the_first_finds_the_word(nearest: pl.DataFrame) -> None:
    """Each word has two senses with six sentences each, so who knows the word only is right in half of the cases."""
    assert _share_of_the_right_sense(nearest, 1) < 0.7
    assert _share_of_the_right_sense(nearest, 16) > 0.85
    assert _share_of_the_right_sense(nearest, 24) > 0.85


def test_a_deep_layer_is_answered_from_a_deep_layer(nearest: pl.DataFrame) -> None:
    deep = nearest.filter(pl.col("visual_layer") > 1)
    assert (deep["contextual_layer"] == deep["visual_layer"]).mean() > 0.9
