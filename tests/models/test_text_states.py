"""The states of texts: those of each text alone, whatever the family and however texts are batched."""

from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from latentlens_dag.errors import UserError
from latentlens_dag.index.occurrences import candidates
from latentlens_dag.inputs.texts import TextFile, texts_by_batch, write_batch
from latentlens_dag.models import text_batches
from latentlens_dag.models.language_model import LanguageModel
from latentlens_dag.models.loading import language_model_of
from latentlens_dag.models.self_checks import TEXT_CHECKS, check_language_model
from latentlens_dag.models.text_states import TextStates, text_states
from latentlens_dag.models.vlm import Vlm
from latentlens_dag.schema import SENTENCES as SENTENCE_ROWS
from latentlens_dag.storage.hashing import shard_of, text_id
from latentlens_dag.storage.split_input import rows_of_part
from latentlens_dag.study.token_tables import text_token_tables
from latentlens_dag.testing import SENTENCES, tiny_tokenizer
from tests.helpers.keys import prefix_keys
from tests.models.test_language_families import tiny_language_model, with_large_weights

TEXTS = ["Dogs.", *SENTENCES[:4], "The naïve café-owner's 2 dogs — 犬 — sleep, and sleep, and sleep on the old boat."]
LAYERS = [0, 1, 2]


def _check_states(model: LanguageModel, own: Any, found: TextStates, texts: list[str]) -> None:
    """Compare with one text at a time and `output_hidden_states`."""
    assert sorted(found.states) == LAYERS
    start = 0
    for text in texts:
        encoded = model.tokenizer(text, return_tensors="pt", return_special_tokens_mask=True)
        real = encoded["special_tokens_mask"][0] == 0
        with torch.inference_mode():
            slow = own(input_ids=encoded["input_ids"], output_hidden_states=True).hidden_states
        end = start + int(real.sum())
        for layer in LAYERS:
            assert torch.allclose(found.states[layer][start:end], slow[layer][0, real], atol=1e-5)
        assert found.tokens["token_id"][start:end].to_list() == encoded["input_ids"][0, real].tolist()
        start = end
    assert len(found.tokens) == start
    assert {len(states) for states in found.states.values()} == {start}


_READ = ["Llama", "GPT2", "OPT", "Bloom", "Gemma2", "Gemma3Text", "Qwen3Moe", "Granite", "Cohere2", "Olmo2", "Lfm2"]


@pytest.mark.parametrize("tokens_per_batch", [1, 50, 2048])
@pytest.mark.parametrize("family", _READ)
def test_states_of_a_family_are_those_of_each_text_alone(
    family: str, tokens_per_batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_batches, "_TOKENS_PER_BATCH", {"cpu": tokens_per_batch})
    own, tokenizer = tiny_language_model(family), tiny_tokenizer()
    model = language_model_of(family, own, tokenizer)
    _check_states(model, own, text_states(model, TEXTS, LAYERS), TEXTS)


@pytest.mark.parametrize("tokens_per_batch", [1, 2048])
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("lacks", [["pad"], ["bos"], ["pad", "bos", "eos"]], ids="+".join)
def test_a_tokenizer_may_lack_special_tokens(
    lacks: list[str], side: str, tokens_per_batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As those of GPT-2 (no padding) and of Qwen (nothing comes first)."""
    monkeypatch.setattr(text_batches, "_TOKENS_PER_BATCH", {"cpu": tokens_per_batch})
    own, tokenizer = with_large_weights(tiny_language_model("Llama")), tiny_tokenizer(bos_first="bos" not in lacks)
    tokenizer.padding_side = side
    for name in lacks:
        setattr(tokenizer, f"{name}_token", None)
    model = language_model_of("llama", own, tokenizer)
    found = text_states(model, TEXTS, LAYERS)
    _check_states(model, own, found, TEXTS)
    first = found.tokens.filter(position=0)
    assert first["text_index"].to_list() == list(range(len(TEXTS)))  # each begins at its first real token
    assert [text[row["char_start"] : row["char_end"]] for text, row in zip(TEXTS, first.to_dicts(), strict=True)] == (
        first["word"].to_list()
    )
    sentences = sorted((text_id(text), text) for text in TEXTS)
    rows = candidates(
        tokenizer, pa.table(list(zip(*sentences, strict=True)), schema=SENTENCE_ROWS), "x", 9, min_position=0
    )
    keys = {key for text in TEXTS for key in prefix_keys(tokenizer(text)["input_ids"])}
    assert set(rows["key"].to_pylist()) == (keys - {prefix_keys([1])[0]} if "bos" not in lacks else keys)


@pytest.mark.parametrize("name", ["llava", "bidirectional"])
def test_the_language_model_of_a_vlm_is_read_as_text_in_both_directions_too(
    name: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    vlm: Vlm = request.getfixturevalue(name)
    model = vlm.language_model
    monkeypatch.setattr(model.tokenizer, "padding_side", "left")  # whatever the tokenizer would do
    _check_states(model, model.decoder, text_states(model, TEXTS, LAYERS), TEXTS)


def test_a_tokens_word_and_place_are_in_its_text_and_specials_are_left_out(llava: Vlm) -> None:
    tokenizer = llava.language_model.tokenizer
    tokens = text_states(llava.language_model, TEXTS, []).tokens
    for number, text in enumerate(TEXTS):
        mine = tokens.filter(text_index=number)
        assert mine["token_index"].to_list() == mine["position"].to_list() == list(range(len(mine)))
        assert tokenizer.bos_token_id not in mine["token_id"].to_list()
        assert tokenizer.decode(mine["token_id"].to_list()).strip() == text
        for row in mine.to_dicts():
            assert text[row["char_start"] : row["char_end"]] == row["word"]
    words = set(tokens["word"])
    assert {"Dogs", "café-owner's", "naïve"} <= words  # whole, though they are several tokens each


def test_a_pass_ends_at_the_deepest_layer_and_without_layers_there_is_none(llava: Vlm) -> None:
    model, ran = llava.language_model, []
    hooks = [
        block.register_forward_hook(lambda *_, number=number: ran.append(number))
        for number, block in enumerate(model.decoder.layers)
    ]
    try:
        text_states(model, ["A dog."], [])
        assert ran == []
        text_states(model, ["A dog."], [0, 1])
        assert ran == [0]
    finally:
        for hook in hooks:
            hook.remove()


def test_progress_counts_the_tokens_of_every_pass(llava: Vlm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_batches, "_TOKENS_PER_BATCH", {"cpu": 1})  # one text in a pass, the shortest first
    model, reports = llava.language_model, list[tuple[int, int]]()
    text_states(model, TEXTS, LAYERS, lambda *counts: reports.append(counts))
    lengths = sorted(len(model.tokenizer(text)["input_ids"]) for text in TEXTS)
    assert reports == [(sum(lengths[: number + 1]), sum(lengths)) for number in range(len(TEXTS))]


def test_no_text_gives_empty_tables(llava: Vlm) -> None:
    found = text_states(llava.language_model, [], LAYERS)
    assert len(found.tokens) == 0
    assert found.states[1].shape == (0, 32)
    assert [len(table) for table in text_token_tables("s", [], found.tokens)] == [0, 0]


def test_a_text_longer_than_the_models_positions_is_refused_by_its_name_and_one_as_long_is_read(llava: Vlm) -> None:
    model = llava.language_model  # 256 positions, of which <bos> and the blank before a word take two
    fits, more = ("z" * n for n in (254, 255))
    assert len(text_states(model, [fits], [0]).tokens) == 255
    with pytest.raises(UserError, match=rf"{text_id(more)} .*has 257 tokens, but .* at most 256, .*never cut"):
        text_states(model, [fits, more], [0])


def test_a_layer_that_the_model_lacks_is_refused(llava: Vlm) -> None:
    with pytest.raises(UserError, match="Layer 3"):
        text_states(llava.language_model, TEXTS, [3])


@pytest.mark.parametrize("family", ["Llama", "GPT2", "Gemma2"])  # the last one caps its logits
def test_the_checks_of_a_language_model_pass_and_a_norm_that_is_left_out_is_found(family: str) -> None:
    own = tiny_language_model(family)
    model = language_model_of(family, own, tiny_tokenizer())
    facts = check_language_model(own, model)
    assert [check.name for check in facts.checks] == list(TEXT_CHECKS)
    assert all(check.passed for check in facts.checks), facts
    hook = own.register_forward_hook(lambda module, args, output: setattr(output, "logits", 2 * output.logits))
    with hook:
        failed = [check.name for check in check_language_model(own, model).checks if not check.passed]
    assert failed == ["logits_reproduced"]


def test_every_distinct_text_is_in_exactly_one_batch_and_order_and_repetition_change_no_byte(tmp_path: Path) -> None:
    lines = [f"Text number {number}." for number in range(40)]
    for name, said in (("a", lines), ("b", [*reversed(lines), lines[7], "", f"  {lines[3]} "])):
        (tmp_path / f"{name}.txt").write_text("\n".join(said))
        for batch in range(3):
            texts = partial(texts_by_batch, TextFile("lines", tmp_path / f"{name}.txt"), 3)
            write_batch(rows_of_part(texts, batch), tmp_path / f"{name}_{batch}")
    found = []
    for batch in range(3):
        assert (tmp_path / f"a_{batch}").read_bytes() == (tmp_path / f"b_{batch}").read_bytes()
        rows = pq.read_table(tmp_path / f"a_{batch}").to_pylist()
        assert [row["text_id"] for row in rows] == sorted(text_id(row["text"]) for row in rows)
        assert all(shard_of(row["text_id"], 3) == batch for row in rows)
        found += [row["text"] for row in rows]
    assert sorted(found) == sorted(lines)


def test_a_batch_may_be_empty_and_a_source_may_not(tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text("One.")
    texts = partial(texts_by_batch, TextFile("lines", tmp_path / "one.txt"), 4)
    counts = [write_batch(rows_of_part(texts, batch), tmp_path / "out") for batch in range(4)]
    assert sorted(counts) == [0, 0, 0, 1]
    (tmp_path / "none.txt").write_text(" \n\n")
    with pytest.raises(UserError, match=r"none\.txt is empty: it has no texts"):
        texts = partial(texts_by_batch, TextFile("lines", tmp_path / "none.txt"), 2)
        write_batch(rows_of_part(texts, 0), tmp_path / "never")
    assert not (tmp_path / "never").exists()
