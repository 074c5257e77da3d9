"""Language models of many families: the states that are taken are those of the definition."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from latentlens_dag import ContextualIndex
from latentlens_dag.errors import UserError
from latentlens_dag.models.hooks import capture_hidden_states
from latentlens_dag.models.loading import language_model_of, load_language_model
from latentlens_dag.testing import SENTENCES, tiny_tokenizer

_COMMON = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4}
_MLP = {**_COMMON, "intermediate_size": 64}
_GROUPED = {**_MLP, "num_key_value_heads": 2}
_GPT = {"n_embd": 32, "n_layer": 3, "n_head": 4}
FAMILIES: dict[str, dict[str, Any]] = {
    "Llama": {**_MLP, "num_key_value_heads": 2},
    "Gemma2": {**_MLP, "num_key_value_heads": 2, "head_dim": 8},
    "Qwen3": {**_MLP, "num_key_value_heads": 2, "head_dim": 8},
    "GPT2": _GPT,
    "GPTNeoX": _MLP,
    "GPTJ": {**_GPT, "rotary_dim": 4},
    "GPTBigCode": _GPT,
    "OPT": {**_COMMON, "ffn_dim": 64, "word_embed_proj_dim": 32, "dropout": 0.0},
    "Falcon": _COMMON,
    "Phi": _MLP,
    "Bloom": {"hidden_size": 32, "n_layer": 3, "n_head": 4},
    "Mpt": {"d_model": 32, "n_layers": 3, "n_heads": 4},
    "StableLm": {**_MLP, "num_key_value_heads": 4},
    "Mixtral": {**_MLP, "num_key_value_heads": 2, "num_local_experts": 2},
    "Gemma3Text": {**_GROUPED, "head_dim": 8, "sliding_window": 4, "final_logit_softcapping": 30.0},
    "Qwen3Moe": {**_GROUPED, "head_dim": 8, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16},
    "Granite": {**_GROUPED, "logits_scaling": 8.0, "embedding_multiplier": 12.0, "residual_multiplier": 0.22},
    "Cohere2": {**_GROUPED, "logit_scale": 0.0625, "sliding_window": 4},
    "Olmo2": _GROUPED,
    "Lfm2": {**_GROUPED, "layer_types": ["conv", "full_attention", "conv"]},
    "Llama4Text": {**_GROUPED, "head_dim": 8, "num_local_experts": 2, "intermediate_size_mlp": 64},
    "XGLM": {"d_model": 32, "num_layers": 3, "attention_heads": 4, "ffn_dim": 64},
    "CTRL": {**_GPT, "dff": 64},
    "RecurrentGemma": {**_COMMON, "intermediate_size": 64, "lru_width": 32, "logits_soft_cap": 30.0},
}
_HEADS = {
    "GPT2": "GPT2LMHeadModel",
    "Gemma3Text": "Gemma3ForCausalLM",
    "InklingText": "InklingForCausalLM",
    "Llama4Text": "Llama4ForCausalLM",
    "CTRL": "CTRLLMHeadModel",
}


def tiny_language_model(family: str, seed: int = 0) -> Any:
    """A random causal language model of a family, for the vocabulary of `tiny_tokenizer`."""
    tokenizer = tiny_tokenizer()
    torch.manual_seed(seed)
    special = {"vocab_size": len(tokenizer), "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    config = getattr(transformers, f"{family}Config")(**FAMILIES[family], **special)
    return getattr(transformers, _HEADS.get(family, f"{family}ForCausalLM"))(config).eval()


def with_large_weights(model: Any) -> Any:
    """The model, its weights so large that tokens, biases, norms, scales and soft-caps make a difference."""
    torch.manual_seed(1)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, *((0, 0.3) if parameter.ndim > 1 else (0.5, 0.3)))
    return model


@pytest.mark.parametrize("family", FAMILIES)
def test_states_and_logits_are_those_of_the_definition(family: str) -> None:
    tokenizer = tiny_tokenizer()
    model = tiny_language_model(family)
    taken = language_model_of(family, model, tokenizer)
    assert (taken.depth, taken.width) == (3, 32)
    ids = tokenizer(SENTENCES[0], return_tensors="pt")["input_ids"]
    with (
        capture_hidden_states(taken.decoder, [0, 1, 2, 3], lambda states: states.clone()) as states,
        torch.inference_mode(),
    ):
        own = model(input_ids=ids, output_hidden_states=True, use_cache=False)
    for layer in (0, 1, 2):
        assert torch.allclose(states[layer], own.hidden_states[layer], atol=1e-5)
    with torch.inference_mode():
        assert torch.allclose(taken.logits(states[3]), own.logits, atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_an_index_holds_the_states_of_each_sentence_alone(family: str, tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    model = tiny_language_model(family)
    index = ContextualIndex.build(model, tokenizer, SENTENCES, layers=[1, 2], path=tmp_path / "index")
    ids = tokenizer(SENTENCES[3], return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        states = model(input_ids=ids, output_hidden_states=True).hidden_states[2][0, 2:]  # <bos>, and min_position
    found = index.search(states, k=1, layers=[2])
    assert np.allclose(found.cosine, 1, atol=1e-3)


def test_a_family_is_loaded_from_its_folder_too(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    tiny_language_model("GPT2").save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    assert load_language_model(tmp_path, device="cpu").depth == 3


def test_a_model_that_calls_its_blocks_something_else_is_refused() -> None:
    strange = SimpleNamespace(get_decoder=lambda: torch.nn.Linear(2, 2))
    with pytest.raises(UserError, match=r"strange, a SimpleNamespace, .*Linear has none of layers, h, blocks"):
        language_model_of("strange", strange, None)
