"""A study of texts, end to end: a language model without vision, whose text tokens are described as visual ones are."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import lance
import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from latentlens_dag.cli.main import cli
from latentlens_dag.dag.assets import states
from latentlens_dag.dag.loading import find_study, load_definitions
from latentlens_dag.dataset.dataset import open_dataset
from latentlens_dag.errors import UserError
from latentlens_dag.figures.contact_sheet import write_sheet
from latentlens_dag.index.state_tables import read_states
from latentlens_dag.models.loading import load_with_language_model
from latentlens_dag.models.model_cache import ModelCache
from latentlens_dag.models.model_ref import ModelRef
from latentlens_dag.models.text_states import TextStates, text_states
from latentlens_dag.release.manifest import MANIFEST, read_manifest
from latentlens_dag.storage.hashing import text_id
from latentlens_dag.storage.home import Home
from latentlens_dag.testing import SENTENCES, tiny_llava, tiny_tokenizer
from tests.dag.conftest import build, opened
from tests.helpers.command_line import run_command
from tests.helpers.family_studies import check_answers, study_of
from tests.models.test_language_families import tiny_language_model

Copy = Callable[[Path], Path]
TEXTS = [*SENTENCES[:3], "An elephant sleeps near a boat.", "The dog reads."]
ORDER = ["image_id", "token_index"]
DEFS = """\
type: latentlens_dag.dag.components.Corpus
attributes: {name: text, source: {lines: corpus.txt}, shards: 1}
---
type: latentlens_dag.dag.components.TextSet
attributes: {name: sayings, source: {lines: texts.txt}, batches: 2}
---
type: latentlens_dag.dag.components.Index
attributes: {name: words, language_model: {path: model}, corpus: text, layers: [1, 2]}
---
type: latentlens_dag.dag.components.Study
attributes:
  name: tiny
  language_model: {path: model}
  index: words
  texts: sayings
  layers: [0, 1, 2]
  top_k: 3
"""


def _project(folder: Path, defs: str = DEFS) -> Path:
    here = folder / "assets" / "tiny"
    here.mkdir(parents=True)
    (folder / "workspace.yaml").write_text("load_from: []\n")
    (here / "defs.yaml").write_text(defs)
    (here / "corpus.txt").write_text("\n".join(SENTENCES))
    (here / "texts.txt").write_text("\n".join(TEXTS))
    return folder


def _save(folder: Path, seed: int = 0) -> None:
    tiny_language_model("Llama", seed).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of texts of a tiny Llama, built. Do not write to it: copy it."""
    folder = _project(tmp_path_factory.mktemp("texts"))
    _save(folder / "assets" / "tiny" / "model")
    build(folder)
    return folder


@pytest.fixture(scope="module")
def tokens(project: Path) -> pl.DataFrame:
    return pl.read_parquet(study_of(project) / "text_tokens" / "*.parquet").sort("image_id", "token_index")


def _neighbors(project: Path, lens: str) -> pl.DataFrame:
    return pl.read_parquet(study_of(project) / lens / "*" / "*.parquet")


def _check_stored_states(project: Path, tokens: pl.DataFrame) -> None:
    """Compare with one text at a time and `output_hidden_states`."""
    model, language_model = load_with_language_model(project / "assets" / "tiny" / "model", device="cpu")
    for text in TEXTS:
        encoded = language_model.tokenizer(text, return_tensors="pt")
        with torch.inference_mode():
            inputs = {"input_ids": encoded["input_ids"], "output_hidden_states": True}
            slow = model(**inputs).hidden_states
        mine = tokens.filter(image_id=text_id(text))
        assert mine["token_id"].to_list() == encoded["input_ids"][0, 1:].tolist()  # without <bos>
        for layer in (0, 1, 2):
            stored = [
                read_states(batch, text_id(text))
                for batch in (study_of(project) / "visual" / f"layer_{layer:02d}").glob("*.lance")
            ]
            (found,) = (one for one in stored if len(one.image_ids))
            assert found.token_index.tolist() == mine["token_index"].to_list()
            assert np.allclose(found.states, slow[layer][0, 1:].numpy(), atol=1e-5)


def test_stored_states_are_those_of_each_text_alone(project: Path, tokens: pl.DataFrame) -> None:
    assert set(tokens["image_id"]) == {text_id(text) for text in TEXTS}
    _check_stored_states(project, tokens)


def test_every_token_has_answers_through_every_lens_and_no_place_in_an_image(
    project: Path, tokens: pl.DataFrame
) -> None:
    placed = pl.read_parquet(study_of(project) / "visual_tokens" / "*.parquet").sort("image_id", "token_index")
    same = ["study", "image_id", "token_index"]
    assert placed.select(same).equals(tokens.select(same))
    assert placed["view"].unique().to_list() == ["text"]
    assert placed.drop(*same, "view").null_count().row(0) == (len(placed),) * 7
    check_answers(study_of(project), placed)


def test_a_text_of_the_corpus_is_answered_from_all_sentences_but_its_own(project: Path, tokens: pl.DataFrame) -> None:
    index = study_of(project).parent.parent / "index" / "words"
    rows = pl.concat(
        pl.from_arrow(lance.dataset(str(index / f"layer_{layer:02d}.lance")).to_table()).with_columns(
            layer=pl.lit(layer)
        )
        for layer in (1, 2)
    )
    vectors = np.array(rows["vector"].to_list(), np.float64)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    texts = {text_id(text) for text in TEXTS}
    assert len(texts & set(rows["sentence_id"])) == 3  # texts that are sentences of the corpus
    found = _neighbors(project, "latentlens").sort("image_id", "token_index", "rank")
    for layer in (1, 2):
        for batch in (study_of(project) / "visual" / f"layer_{layer:02d}").iterdir():
            states = read_states(batch)
            for text, token, state in zip(states.image_ids, states.token_index.tolist(), states.states, strict=True):
                cosine = vectors @ (state.astype(np.float64) / np.linalg.norm(state))
                cosine[(rows["sentence_id"] == text).to_numpy()] = -1
                mine = found.filter(image_id=text, token_index=token, visual_layer=layer)
                assert np.allclose(mine["cosine"], np.sort(cosine)[::-1][:3], atol=1e-5)
                assert text not in mine["sentence_id"].to_list()


def test_at_layer_0_embeddinglens_finds_every_token_itself(project: Path, tokens: pl.DataFrame) -> None:
    first = _neighbors(project, "embeddinglens").filter(rank=1, visual_layer=0)
    found = first.join(tokens, on=["image_id", "token_index"], suffix="_own")
    assert len(found) == len(tokens)
    assert found["token_id"].equals(found["token_id_own"].alias("token_id"))
    assert np.allclose(found["cosine"], 1, atol=1e-5)


def test_the_checks_are_those_of_a_language_model(project: Path) -> None:
    facts = json.loads((study_of(project) / "model_checks.json").read_text())
    assert [check["name"] for check in facts["checks"]] == ["causality", "padding_invariance", "logits_reproduced"]
    assert all(check["passed"] for check in facts["checks"])
    assert facts["prompt"] == ""


@pytest.mark.parametrize("source", [".latentlens", ".latentlens/warehouse/study/tiny/catalog.duckdb"])
def test_each_token_is_seen_with_its_neighbors_in_plain_words(project: Path, source: str) -> None:
    text = TEXTS[3]
    with open_dataset(project / source) as dataset:
        assert dataset.collect("FROM texts")["text"].sort().to_list() == sorted(TEXTS)
        rows = dataset.collect("text", text_id=text_id(text), layer=2)
        every = dataset.collect("FROM neighbors WHERE lens = 'latentlens' AND visual_layer = 2")
        assert "".join(rows["token"]) == f" {text}"
        for row in rows.to_dicts():
            mine = every.filter(image_id=text_id(text), token_index=row["token_index"]).sort("rank")
            assert row["neighbors"] == ", ".join(mine["word"])
            assert text_id(row["nearest_sentence"]) == mine["sentence_id"][0]
        found = dataset.collect("word_in_texts", word="DOG", layer=1)
        assert set(found["text"]) == {text for text in TEXTS if "dog" in text}
        (told,) = dataset.collect("studies").to_dicts()
        assert (told["images"], told["texts"]) == (0, len(TEXTS))


def test_a_second_build_runs_nothing_and_texts_in_another_order_or_twice_run_nothing_after_them(
    project: Path, copy_of: Copy
) -> None:
    copy = copy_of(project)
    assert build(copy) == []
    (copy / "assets" / "tiny" / "texts.txt").write_text("\n".join([*reversed(TEXTS), "", TEXTS[1]]))
    assert build(copy) == ["texts/sayings/texts[00]", "texts/sayings/texts[01]"]
    (copy / "assets" / "tiny" / "texts.txt").write_text("\n".join([*TEXTS, "One more."]))
    with opened(copy) as one:
        one.observe(one.select())
        ran = [need for run in one.build(one.select(names=["study/tiny/visual"])) for need in run.targets]
    visual = {need.partition for need in ran if need.key.path[0] == "study"}
    assert visual == {f"{int(text_id('One more.')[8:], 16) % 2:02d}"}


def test_a_text_that_is_added_is_the_only_one_read_and_all_are_as_if_read_at_once(
    project: Path, copy_of: Copy, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed, read = copy_of(project), []

    def counted(model: Any, texts: list[str], *others: Any) -> TextStates:
        read.extend(texts)
        return text_states(model, texts, *others)

    monkeypatch.setattr("latentlens_dag.models.text_states.text_states", counted)
    new = "A small boat waits for the elephant."
    (changed / "assets/tiny/texts.txt").write_text("\n".join([new, *TEXTS[1:]]))
    build(changed)
    assert read == [new]
    monkeypatch.setattr(f"{__name__}.TEXTS", [new, *TEXTS[1:]])
    _check_stored_states(changed, pl.read_parquet(study_of(changed) / "text_tokens" / "*.parquet").sort(ORDER))


def test_a_stored_token_is_asked_about_by_the_search_command(
    project: Path, tokens: pl.DataFrame, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(project)
    monkeypatch.delenv("LATENTLENS_HOME", raising=False)

    def run(*arguments: str) -> str:
        cli.main(["search", "--study", "tiny", *arguments], standalone_mode=False)
        return capsys.readouterr().out

    image_id, mine = text_id(TEXTS[4]), _neighbors(project, "latentlens")
    asked = ("--image-id", image_id, "--token", "1", "--layer", "1", "-k", "3")
    rows = json.loads(run(*asked, "--json"))
    expected = mine.filter(image_id=image_id, token_index=1, visual_layer=1).sort("rank")
    assert [row["key"] for row in rows] == expected["key"].to_list()
    assert {row["token"] for row in rows} == set(tokens.filter(image_id=image_id, token_index=1)["token_str"])
    assert run(*asked).startswith("The text states at layer 1 are nearest to:")
    assert "dog" in run("--text", "a dog")
    with pytest.raises(UserError, match=r"has no text '0123456789abcdef' .*FROM texts"):
        run("--image-id", "0123456789abcdef", "--token", "1")
    with pytest.raises(UserError, match=rf"Text {image_id} has no token 99; it has 0 to "):
        run("--image-id", image_id, "--token", "99")


def test_there_is_nothing_to_draw_and_summary_says_so_after_its_figures(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(project)
    monkeypatch.delenv("LATENTLENS_HOME", raising=False)
    with pytest.raises(UserError, match=r"'tiny' cannot be drawn: it reads texts.*query text --param study=tiny"):
        cli.main(["summary", "tiny", "--picture", "never.png"], standalone_mode=False)
    assert "latentlens" in capsys.readouterr().out
    with (
        open_dataset(project / ".latentlens") as dataset,
        pytest.raises(UserError, match="cannot be drawn: it reads texts"),
    ):
        write_sheet(dataset, "tiny", lambda *_: pytest.fail("no picture is needed"), project / "never.png")


def test_an_index_of_other_weights_is_refused(project: Path, copy_of: Copy) -> None:
    copy = copy_of(project)
    _save(copy / "assets" / "tiny" / "other", seed=1)
    _edit(copy, "  language_model: {path: model}", "  language_model: {path: other}")
    with pytest.raises(UserError, match=r"Study tiny cannot be read through Index words: .*other weights"):
        build(copy)


def test_an_index_with_other_weights_in_one_block_is_refused_and_the_tensors_are_named(
    project: Path, copy_of: Copy
) -> None:
    copy = copy_of(project)
    here = copy / "assets" / "tiny"
    shutil.copytree(here / "model", here / "other")
    weights = load_file(here / "other" / "model.safetensors")
    name = "model.layers.1.mlp.up_proj.weight"
    save_file({**weights, name: weights[name] * 1.5}, here / "other" / "model.safetensors", metadata={"format": "pt"})
    _edit(copy, "  language_model: {path: model}", "  language_model: {path: other}")
    with pytest.raises(UserError, match=r"own in 1 of \d+ tensors \(layers\.1\.mlp\.up_proj\.weight\); perhaps"):
        build(copy)


def test_a_model_whose_embedding_has_rows_more_reads_the_index_of_the_smaller(project: Path, copy_of: Copy) -> None:
    copy = copy_of(project)
    here = copy / "assets" / "tiny"
    larger = AutoModelForCausalLM.from_pretrained(here / "model")
    larger.resize_token_embeddings(larger.get_input_embeddings().num_embeddings + 64)
    larger.save_pretrained(here / "larger")
    tiny_tokenizer().save_pretrained(here / "larger")
    _edit(copy, "  language_model: {path: model}", "  language_model: {path: larger}")
    assert "study/tiny/catalog" in build(copy)


def test_special_tokens_that_a_text_spells_out_have_no_state(project: Path, copy_of: Copy) -> None:
    copy = copy_of(project)
    (copy / "assets" / "tiny" / "texts.txt").write_text("The dog <eos> sleeps <pad>.")
    build(copy)
    tokens = pl.read_parquet(study_of(copy) / "text_tokens" / "*.parquet").sort("token_index")
    assert "".join(tokens["token_str"]).split() == ["The", "dog", "sleeps", "."]


def test_a_text_that_is_too_long_is_refused_by_its_name(project: Path, copy_of: Copy) -> None:
    copy, text = copy_of(project), "a dog and " * 2000
    (copy / "assets" / "tiny" / "texts.txt").write_text(text)
    with pytest.raises(UserError, match=rf"The text {text_id(text.strip())} .*never cut"):
        build(copy)


def test_the_language_model_of_a_vlm_that_reads_both_ways_is_studied_through_an_index_of_sentences(
    tmp_path: Path,
) -> None:
    defs = DEFS.replace("corpus: text, layers: [1, 2]", "corpus: text, layers: [1], dedup: sentence")
    project = _project(tmp_path, defs.replace("batches: 2", "batches: 1"))
    tiny_llava(project / "assets" / "tiny" / "model", bidirectional=True)
    with opened(project) as one:
        one.observe(one.select())
        for asset in ("study/tiny/visual_tokens", "study/tiny/text_tokens", "study/tiny/latentlens"):
            assert one.build(one.select(names=[asset]))
    found = pl.read_parquet(study_of(project) / "text_tokens" / "*.parquet").sort("image_id", "token_index")
    _check_stored_states(project, found)
    checks = json.loads((study_of(project) / "model_checks.json").read_text())["checks"]
    assert [check["name"] for check in checks if not check["passed"]] == ["causality"]


def _edit(project: Path, old: str, new: str) -> None:
    file = project / "assets" / "tiny" / "defs.yaml"
    assert file.read_text().count(old) == 1
    file.write_text(file.read_text().replace(old, new))


MODEL, TEXT = "  language_model: {path: model}\n", "  texts: sayings\n"
TOGETHER = r"needs either `vlm` and `images`, .*or `language_model` and `texts`"
MISTAKES = {
    "a VLM on texts": (MODEL, "  vlm: {path: model}\n", rf"Study tiny in .*has `vlm`, `texts`, but .*{TOGETHER}"),
    "a language model on images": (TEXT, "  images: sayings\n", rf"has `images`, `language_model`, but .*{TOGETHER}"),
    "no model": (MODEL, "", rf"has `texts`, but .*{TOGETHER}"),
    "no texts": (TEXT, "", rf"has `language_model`, but .*{TOGETHER}"),
    "both models": (MODEL, f"{MODEL}  vlm: {{path: model}}\n", rf"has `vlm`, `language_model`, `texts`, .*{TOGETHER}"),
    "nothing": (f"{MODEL}  index: words\n{TEXT}", "  index: words\n", rf"has no model, but .*{TOGETHER}"),
    "a judge": ("  top_k: 3", "  judge: {regions: {}}", r"`judge` of Study tiny .*TextSet sayings has texts: .*none"),
    "a prompt": ("  top_k: 3", "  prompt: Why?", r"`prompt` of Study tiny .*texts. are read as they stand"),
    "a connector": ("  top_k: 3", "  connector: true", r"`connector` of Study tiny .*texts. are read as they stand"),
    "unknown texts": (TEXT, "  texts: sayingz\n", r"`texts: sayingz` of Study tiny .*no TextSet\. There are: sayings"),
    "no such model": (
        MODEL,
        "  language_model: {path: modell}\n",
        r"`language_model.path` of Study tiny .*modell does",
    ),
    "no such file": ("lines: texts.txt", "lines: text.txt", r"`source.lines` of TextSet sayings .*text\.txt does not"),
    "too many batches": ("batches: 2", "batches: 97", r"`batches: 97` of TextSet sayings .*from 1 to 96"),
    "too deep a layer": ("[0, 1, 2]", "[0, 3]", r"Layer 3 .*has 3 blocks.*Study tiny"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_the_yaml_is_told_before_anything_runs(project: Path, tmp_path: Path, mistake: str) -> None:
    copy = Path(shutil.copytree(project, tmp_path / "copy", ignore=shutil.ignore_patterns(".latentlens")))
    old, new, message = MISTAKES[mistake]
    _edit(copy, old, new)
    with pytest.raises(UserError, match=message):
        load_definitions(copy, Home(tmp_path / "home"))


def test_a_wrong_pair_is_told_to_who_asks_for_the_studys_model_too(project: Path, tmp_path: Path) -> None:
    assert find_study("tiny", project).model_ref == ModelRef(path=project / "assets" / "tiny" / "model")
    copy = Path(shutil.copytree(project, tmp_path / "copy", ignore=shutil.ignore_patterns(".latentlens")))
    _edit(copy, TEXT, "")
    with pytest.raises(UserError, match=TOGETHER):
        _ = find_study("tiny", copy).model_ref


def test_another_rule_for_words_makes_the_tokens_of_texts_anew_without_a_model_or_a_state(
    project: Path, copy_of: Copy, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = copy_of(project)
    monkeypatch.setattr(states, "_TEXT_TOKENS", 99)
    with monkeypatch.context() as no_model:
        no_model.setattr(ModelCache, "language_model", lambda *_: pytest.fail("the model is not needed"))
        assert set(build(copy)) == {f"study/tiny/text_tokens[0{batch}]" for batch in (0, 1)}
    monkeypatch.setattr(states, "_TEXT_TOKENS", 100)
    texts = copy / "assets" / "tiny" / "texts.txt"
    texts.write_text(texts.read_text() + "\nA new text.")
    read: list[str] = []

    def counted(model: Any, texts: list[str], *options: Any) -> TextStates:
        read.extend(texts)
        return text_states(model, texts, *options)

    monkeypatch.setattr("latentlens_dag.models.text_states.text_states", counted)
    build(copy)
    assert read == ["A new text."]
    monkeypatch.setattr(states, "_TEXT_TOKENS", 101)
    with opened(copy) as one:  # tokens and states in one step, as from the UI
        job = load_definitions(copy, one.home).resolve_implicit_global_asset_job_def()
        chosen = [
            dg.AssetKey(["study", "tiny", *name]) for name in (["text_tokens"], ["visual_tokens"], ["visual", "V01"])
        ]
        assert job.execute_in_process(asset_selection=chosen, instance=one.instance, partition_key="00").success
    assert read == ["A new text."]
    stored = pl.read_parquet(study_of(copy) / "text_tokens" / "*.parquet")
    assert set(stored["image_id"]) == {text_id(text) for text in [*TEXTS, "A new text."]}


def test_a_study_of_images_has_the_versions_that_it_had_before_there_were_texts(fresh_project: Path) -> None:
    with opened(fresh_project) as one:
        found: dict[str, Any] = {
            "/".join(key.path[2:]): one.graph.get(key).code_version
            for key, _ in one.select().targets
            if key.path[0] == "study" and key.path[-1] not in ("V01", "V02")
        }
    assert found == {
        "catalog": "9-21375aae76ee47e9",
        "chance_patches": "3-ee705ae998005e67",
        "diversity": "4-d129e963dc34af4b",
        "embeddinglens/V00": "1-037f8689bdd5393e",
        "interpretability": "5-5163eb331120aa54",
        "judgements/V00": "3-fde575218ee7ab25",
        "latentlens/V00": "1-037f8689bdd5393e",
        "lens_differences": "3-5163eb331120aa54",
        "layer_alignment": "3-74407782e75243ed",
        "logitlens/V00": "1-037f8689bdd5393e",
        "model_checks": "3-c4c57dd7f36739a6",
        "patch_truth": "2",
        "sinks": "1-ee705ae998005e67",
        "state_statistics": "2-d129e963dc34af4b",
        "visual/V00": "2-c4c57dd7f36739a6",
        "visual_tokens": "2-c4c57dd7f36739a6",
        "vlm": None,
    }


RELEASE = """\
---
type: latentlens_dag.dag.components.Release
attributes: {name: said, studies: [tiny], repo_id: user/said, license: mit, text_license: mit}
"""


def test_a_study_of_texts_is_released_with_its_texts_and_without_images(project: Path, copy_of: Copy) -> None:
    copied = copy_of(project)
    file = copied / "assets" / "tiny" / "defs.yaml"
    file.write_text(file.read_text() + RELEASE)
    assert build(copied) == ["release/said/dataset"]
    folder = copied / ".latentlens" / "warehouse" / "release" / "said"
    made = read_manifest(folder / MANIFEST)
    assert set(made.tables) == {
        *(
            "neighbors",
            "visual_tokens",
            "text_tokens",
            "texts",
            "sentences",
            "layer_alignment",
            "diversity",
            "state_statistics",
        )
    }
    assert sorted(pl.read_parquet(folder / "texts" / "*.parquet")["text"]) == sorted(TEXTS)
    names = {f"{text_id(text)}.parquet" for text in TEXTS}
    assert {path.name for path in (folder / "text_tokens" / "tiny").iterdir()} == names
    assert (folder / "queries" / "word_in_texts.sql").is_file()
    assert made.studies["tiny"]["images"] == {"name": "sayings", "source": "texts.txt", "count": len(TEXTS)}
    card = (folder / "README.md").read_text()
    assert "- texts: 5 of `sayings`" in card and "- prompt" not in card and "- pictures" not in card


def test_text_id_joins_answers_and_texts_in_a_home_and_in_a_catalog(project: Path) -> None:
    home = Home(project / ".latentlens")
    slow = "SELECT text, word FROM neighbors JOIN texts ON texts.text_id = neighbors.image_id ORDER BY ALL"
    for source in (home.root, home.warehouse.catalog("tiny")):
        with open_dataset(source) as dataset:
            joined = dataset.collect("SELECT text, word FROM neighbors JOIN texts USING (text_id) ORDER BY ALL")
            assert joined.equals(dataset.collect(slow)) and len(joined)
            (same,) = dataset.collect("SELECT bool_and(text_id = image_id) FROM text_tokens").row(0)
            assert same


def test_a_word_in_texts_is_read_with_the_sentence_of_its_nearest_answer(project: Path) -> None:
    with open_dataset(project / ".latentlens") as dataset:
        rows = dataset.named("word_in_texts", word="dog").pl().to_dicts()
        assert rows
        for row in rows:
            nearest = dataset.collect(
                "SELECT sentences.text FROM neighbors JOIN sentences USING (sentence_id) WHERE rank = 1 AND image_id = "
                "$text AND token_index = $token AND visual_layer = $layer AND lens = 'latentlens'",
                text=row["text_id"],
                token=row["token_index"],
                layer=row["layer"],
            )
            assert [row["nearest_sentence"]] == nearest["text"].to_list()


def test_an_empty_table_of_verdicts_says_that_the_study_has_no_judge(project: Path) -> None:
    asked = run_command(project, "query", "interpretability")
    assert "0 rows" in asked.stdout
    assert "There are no verdicts of tiny: either its defs.yaml names no judge" in asked.stderr
    assert "verdicts" not in run_command(project, "query", "SELECT word FROM neighbors WHERE false").stderr
    assert "verdicts" in run_command(project, "query", "FROM judgements").stderr
