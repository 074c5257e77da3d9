"""A real checkpoint is read as its own library reads it: SmolLM2-135M-Instruct, at every depth."""

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import Tensor
from transformers import AutoTokenizer

from latentlens_dag.cli.main import cli
from latentlens_dag.models.hooks import capture_hidden_states
from latentlens_dag.models.language_model import LanguageModel
from latentlens_dag.models.loading import FullModel, load_language_model
from latentlens_dag.models.self_checks import TEXT_CHECKS, check_language_model
from latentlens_dag.models.text_states import TextStates, text_states
from latentlens_dag.models.tokenization import tokenize
from latentlens_dag.models.vocabulary_parts import VocabularyParts, load_vocabulary_parts
from latentlens_dag.search.sinks import sink_norm
from latentlens_dag.study.lenses.embeddinglens import EmbeddingLens
from latentlens_dag.study.lenses.logitlens import LogitLens
from latentlens_dag.study.lenses.vocabulary import Choice, VocabularyLens
from tests.real.senses import texts_and_corpus

TEXTS = [*texts_and_corpus()[0][::5], "The naïve café owner said: “I'll pay 1,250 €!” 猫が眠る。"]
EXACT = 1e-5
"""Of a state's length: by how much another order of the same sums may change it."""


@pytest.fixture(scope="module")
def states(model: LanguageModel) -> TextStates:
    return text_states(model, TEXTS, range(model.depth))


@pytest.fixture(scope="module")
def slow(loaded: FullModel) -> list[Any]:
    return [_slow(loaded, text) for text in TEXTS]


def _slow(loaded: FullModel, text: str) -> Any:
    """One text alone, through the whole model, as transformers describes it."""
    inputs = loaded.language_model.tokenizer(text, return_tensors="pt")
    with torch.inference_mode():
        return loaded.model(**inputs, output_hidden_states=True, use_cache=False)


def _error(one: Tensor, other: Tensor) -> float:
    """The largest difference of two rows, in lengths of the row."""
    return float(((one - other).norm(dim=-1) / other.norm(dim=-1)).max())


def test_inspect_model_passes(smollm2_folder: Path) -> None:
    found = CliRunner().invoke(cli, ["inspect-model", str(smollm2_folder), "--json"])
    assert found.exit_code == 0, found.output
    facts = json.loads(found.stdout)
    assert [(check["name"], check["passed"]) for check in facts["checks"]] == [(name, True) for name in TEXT_CHECKS]
    size = {name: facts["size"][name] for name in ("model_type", "blocks", "width", "vocabulary", "parameters")}
    assert size == {"model_type": "llama", "blocks": 30, "width": 576, "vocabulary": 49_152, "parameters": 134_515_008}


def test_all_self_checks_pass_by_a_wide_margin(loaded: FullModel) -> None:
    checks = check_language_model(*loaded).checks
    assert [check.name for check in checks] == list(TEXT_CHECKS)
    for check in checks:
        assert check.passed and check.figure is not None and check.figure < 1e-5, check


def test_states_of_texts_read_together_are_those_of_each_text_alone(
    model: LanguageModel, states: TextStates, slow: list[Any]
) -> None:
    for layer in range(model.depth):
        alone = torch.cat([one.hidden_states[layer][0] for one in slow])
        assert _error(states.states[layer], alone) < EXACT, layer


def test_the_last_layer_is_what_the_last_block_gives_before_the_final_norm(loaded: FullModel) -> None:
    given: list[Tensor] = []
    last = loaded.model.model.layers[-1].register_forward_hook(lambda _module, _args, output: given.append(output))
    try:
        with capture_hidden_states(loaded.language_model.decoder, [30], lambda states: states.clone()) as mine:
            normed = _slow(loaded, TEXTS[0]).hidden_states[-1]
    finally:
        last.remove()
    assert torch.equal(mine[30], given[0])
    assert _error(mine[30], normed) > 0.1  # the last entry of `hidden_states` is after the norm


def test_logitlens_after_the_last_block_names_what_the_model_would_say_next(
    model: LanguageModel, loaded: FullModel
) -> None:
    for text in TEXTS:
        with capture_hidden_states(model.decoder, [model.depth], lambda states: states.clone()) as mine:
            own = _slow(loaded, text).logits[0].topk(5)
        found = LogitLens("study", 5).top_k(model, mine[model.depth][0].numpy())
        assert np.array_equal(found.token_id, own.indices)
        assert np.allclose(found.score, own.values, rtol=1e-4)


def test_embeddinglens_finds_every_token_itself_at_layer_0(model: LanguageModel, states: TextStates) -> None:
    found = EmbeddingLens("study", 1).top_k(model, states.states[0].numpy())
    assert found.token_id[:, 0].tolist() == states.tokens["token_id"].to_list()


@pytest.mark.parametrize("made", [LogitLens, EmbeddingLens])
def test_shared_candidates_give_the_best_of_the_scores_with_all_other_tokens_struck_out(
    model: LanguageModel, states: TextStates, made: type[VocabularyLens]
) -> None:
    """The candidates are the tokens of the texts themselves, few of the vocabulary."""
    ids = np.array(sorted(set(states.tokens["token_id"])), np.int64)
    assert 50 < len(ids) < model.vocabulary_size / 100
    for layer in (0, 12, model.depth - 1):
        rows = states.states[layer][:100]
        with torch.inference_mode():
            scores = made("study", 5).scorer(model)(rows.to(torch.float32).clone())
        struck_out = torch.ones(scores.shape[1], dtype=torch.bool)
        struck_out[ids] = False
        slow = scores.masked_fill(struck_out, -torch.inf).sort(dim=1, descending=True, stable=True)
        ((every, shared),) = made("study", 5).top_k_of_each(model, [rows.numpy()], [Choice(), Choice(ids)])
        assert np.array_equal(shared.token_id, slow.indices[:, :5])
        assert np.array_equal(shared.score, slow.values[:, :5])
        assert np.array_equal(every.token_id, scores.sort(dim=1, descending=True, stable=True).indices[:, :5])


def test_the_tokens_of_a_text_are_its_own_characters_in_order(states: TextStates) -> None:
    for number, text in enumerate(TEXTS):
        mine = states.tokens.filter(text_index=number)
        assert "".join(mine["token_str"].head(8)) == text[: len("".join(mine["token_str"].head(8)))]
        for word, start, end in mine.select("word", "char_start", "char_end").rows():
            assert text[start:end] == word
        ends = mine["char_end"].to_list()
        assert all(before <= after for before, after in pairwise(ends)) and ends[-1] == len(text)


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_side_on_which_the_tokenizer_pads_changes_nothing(
    side: str, smollm2_folder: Path, model: LanguageModel, states: TextStates
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(smollm2_folder, padding_side=side)
    found = text_states(replace(model, tokenizer=tokenizer), TEXTS, [1, 29])
    assert found.tokens.equals(states.tokens)
    for layer in (1, 29):
        assert torch.equal(found.states[layer], states.states[layer])


def test_in_bfloat16_a_state_keeps_its_direction_at_every_layer(smollm2_folder: Path, states: TextStates) -> None:
    half = load_language_model(smollm2_folder, device="cpu", dtype="bfloat16")
    found = text_states(half, TEXTS, range(half.depth))
    for layer, exact in states.states.items():
        cosines = torch.cosine_similarity(found.states[layer], exact)
        assert cosines.min() > 0.99 and cosines.mean() > 0.9995, (layer, cosines.min(), cosines.mean())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_part_read_by_itself_is_that_of_the_whole_model_to_the_bit(
    smollm2_folder: Path, states: TextStates, dtype: str
) -> None:
    whole = load_language_model(smollm2_folder, device="cpu", dtype=dtype)
    head = load_vocabulary_parts(smollm2_folder, "head", "cpu", dtype)
    embedding = load_vocabulary_parts(smollm2_folder, "embedding", "cpu", dtype)
    assert isinstance(head, VocabularyParts) and isinstance(embedding, VocabularyParts)
    assert torch.equal(head.logits(states.states[29]), whole.logits(states.states[29]))
    assert torch.equal(embedding.embedding, whole.embedding)


def test_a_text_through_the_chat_template_is_tokenized_as_the_template_says(model: LanguageModel) -> None:
    talk = [{"role": "user", "content": TEXTS[0]}]
    template = model.tokenizer.apply_chat_template
    (found,) = tokenize(model.tokenizer, [template(talk, tokenize=False, add_generation_prompt=True)])
    assert found.ids == template(talk, add_generation_prompt=True)["input_ids"]
    begin, end = model.tokenizer.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"])
    assert (found.ids.count(begin), found.ids.count(end), found.ids[0]) == (3, 2, begin)


@pytest.mark.parametrize("layer", [16, 24, 29])
def test_the_first_tokens_and_no_others_are_sinks_in_the_later_half(states: TextStates, layer: int) -> None:
    rows = states.states[layer].numpy()
    norms = np.linalg.norm(rows, axis=1)
    limit = sink_norm(norms, lambda least: [(norms[norms > least], rows[norms > least])])
    first = states.tokens["position"].to_numpy() == 0
    assert np.array_equal(norms > limit, first)
