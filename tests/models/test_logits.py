"""The logit lens of language models of many families: with the model's own scale and soft-cap, and in float32."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch import Tensor, nn

from latentlens_dag import device
from latentlens_dag.models.hooks import capture_hidden_states
from latentlens_dag.models.language_model import LanguageModel
from latentlens_dag.models.loading import language_model_of, load_vlm
from latentlens_dag.models.logit_rule import logit_rule
from latentlens_dag.models.model_parts import final_norm_of
from latentlens_dag.models.self_checks import (
    check_language_model,
    check_model,
    logits_reproduced,
    noise_image,
    text_logits_reproduced,
)
from latentlens_dag.models.vlm import Vlm
from latentlens_dag.study.lenses.embeddinglens import EmbeddingLens
from latentlens_dag.study.lenses.logitlens import LogitLens
from latentlens_dag.testing import SENTENCES, tiny_tokenizer
from tests.models.test_language_families import FAMILIES, tiny_language_model, with_large_weights

_GROUPED = FAMILIES["Olmo2"]
_TOKENS = {"vocab_size": 400, "bos_token_id": 1, "eos_token_id": 2}
_MAMBA = {"mamba_d_ssm": 64, "mamba_n_heads": 8, "mamba_d_head": 8, "mamba_n_groups": 1, "mamba_d_state": 16}
_RULES: dict[str, tuple[dict[str, Any], float, float | None]] = {
    "Granite": ({"logits_scaling": 8.0}, 1 / 8, None),
    "GraniteMoe": ({"logits_scaling": 16.0, "num_local_experts": 2, "num_experts_per_tok": 1}, 1 / 16, None),
    "Cohere": ({"logit_scale": 0.0625}, 0.0625, None),
    "Cohere2": ({"logit_scale": 0.25}, 0.25, None),
    "HyperCLOVAX": ({"logits_scaling": 8.0, "head_dim": 8}, 8.0, None),  # multiplies by what Granite divides by
    "Gemma2": ({"final_logit_softcapping": 30.0, "head_dim": 8}, 1.0, 30.0),
    "Gemma3Text": ({"final_logit_softcapping": 30.0, "head_dim": 8}, 1.0, 30.0),
    "FalconH1": ({"lm_head_multiplier": 0.5, **_MAMBA}, 0.5, None),
    "InklingText": ({"logits_mup_width_multiplier": 4.0, "head_dim": 8}, 1 / 4, None),
    "RecurrentGemma": ({"logits_soft_cap": 2.0, "lru_width": 32}, 1.0, 2.0),
    "MiniCPM3": (
        {"dim_model_base": 8, "q_lora_rank": 16, "kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8}
        | {"v_head_dim": 8, "num_key_value_heads": 4},
        1 / 4,
        None,
    ),
    "Llama": ({}, 1.0, None),
}


def _model(family: str, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]) -> Any:
    monkeypatch.setitem(FAMILIES, family, {**_GROUPED, **settings})
    return with_large_weights(tiny_language_model(family))


def _last_states_and_logits(model: Any, taken: LanguageModel) -> tuple[Tensor, Tensor]:
    """Of a sentence: the states after the last block, and the model's own logits."""
    ids = taken.tokenizer(SENTENCES[0], return_tensors="pt")["input_ids"]
    with (
        capture_hidden_states(taken.decoder, [taken.depth], lambda states: states.clone()) as states,
        torch.inference_mode(),
    ):
        own = model(input_ids=ids, use_cache=False).logits
    return states[taken.depth], own


def _difference(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max() / one.abs().max())


@pytest.mark.parametrize("family", _RULES)
def test_the_logit_lens_has_the_scale_and_the_soft_cap_of_the_model(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, scale, softcap = _RULES[family]
    model = _model(family, monkeypatch, settings)
    taken = language_model_of(family, model, tiny_tokenizer())
    assert (taken.logit_scale, taken.softcap) == (scale, softcap)
    states, own = _last_states_and_logits(model, taken)
    with torch.inference_mode():
        assert _difference(own, taken.logits(states)) < 1e-5
        without = replace(taken, logit_scale=1.0, softcap=None).logits(states)
    assert (_difference(own, without) > 0.05) == (family != "Llama")  # the test can tell


class _Tempered(transformers.LlamaForCausalLM):
    """Logits of which neither the config nor our rules know that they are multiplied."""

    factor = 1.0

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        found = super().forward(*args, **kwargs)
        found.logits = found.logits * self.factor
        return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("factor", [1.0, 1.1, 0.9, 0.0625, 64.0])
def test_a_scale_that_is_not_known_fails_the_check(factor: float, dtype: torch.dtype) -> None:
    config = tiny_language_model("Llama").config
    model = with_large_weights(_Tempered(config).eval()).to(dtype)
    model.factor = factor
    check = text_logits_reproduced(model, language_model_of("tempered", model, tiny_tokenizer()))
    assert check.passed == (factor == 1.0), check


def test_a_scale_of_a_vlm_that_is_not_known_fails_the_check(llava_folder: Path) -> None:
    vlm = load_vlm(llava_folder, device="cpu")
    assert logits_reproduced(vlm, noise_image(60, 50)).passed
    hook = vlm.model.register_forward_hook(lambda module, args, output: setattr(output, "logits", output.logits / 8))
    with hook:
        assert not logits_reproduced(vlm, noise_image(60, 50)).passed


@pytest.mark.parametrize("family", ["Granite", "Cohere2", "Gemma2"])
def test_a_scale_counts_only_where_the_class_that_makes_the_logits_applies_it(
    llava: Vlm, family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In transformers a LLaVA, like an Aya Vision, has an unembedding of its own, and no scale after it."""
    inner = _model(family, monkeypatch, _RULES[family][0])
    config = transformers.LlavaConfig(vision_config=llava.model.config.vision_config, text_config=inner.config)
    outer = with_large_weights(transformers.LlavaForConditionalGeneration(config).eval())
    assert logit_rule(outer) == (1.0, None)
    assert logit_rule(inner) == _RULES[family][1:]
    taken = language_model_of("outer", outer, tiny_tokenizer())
    assert text_logits_reproduced(outer, taken).passed


class _OwnCode(transformers.LlamaForCausalLM):
    """As MiniCPM's own code: states are divided by the ratio of two widths on their way to the unembedding."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        found = super().forward(*args, **kwargs)
        found.logits = found.logits / (self.config.hidden_size / self.config.dim_model_base)
        return found


def test_a_divisor_that_a_config_states_as_two_widths_is_known() -> None:
    config = tiny_language_model("Llama").config
    config.dim_model_base = 8
    model = with_large_weights(_OwnCode(config).eval())
    taken = language_model_of("own", model, tiny_tokenizer())
    assert taken.logit_scale == 1 / 4
    assert text_logits_reproduced(model, taken).passed


class _Wrapper(nn.Module):
    """A model that leaves the logits to another one, which is inside it, as BLIP-2 does."""

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner, self.config = inner, inner.config

    def get_decoder(self) -> Any:
        return self.inner

    def get_input_embeddings(self) -> Any:
        return self.inner.get_input_embeddings()

    def get_output_embeddings(self) -> Any:
        return self.inner.get_output_embeddings()


def test_a_model_that_wraps_a_language_model_has_its_scale_and_its_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    inner = _model("Granite", monkeypatch, _RULES["Granite"][0])
    taken = language_model_of("wrapper", _Wrapper(inner), tiny_tokenizer())
    assert (taken.logit_scale, taken.depth) == (1 / 8, 3)
    assert text_logits_reproduced(inner, taken).passed


def test_a_scale_comes_before_the_soft_cap() -> None:
    """As in a Muse Glimmer, a VLM that applies both itself."""
    text = {**_GROUPED, "head_dim": 8, **_TOKENS, "output_multiplier": 0.5, "final_logit_softcapping": 1.0}
    vision = {"hidden_size": 24, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4}
    config = transformers.MuseGlimmerConfig(text_config=text, vision_config=vision, out_hidden_size=24)
    model = with_large_weights(transformers.MuseGlimmerForConditionalGeneration(config).eval())
    taken = language_model_of("muse", model, tiny_tokenizer())
    assert (taken.logit_scale, taken.softcap) == (0.5, 1.0)
    states, own = _last_states_and_logits(model, taken)
    with torch.inference_mode():
        assert _difference(own, taken.logits(states)) < 1e-5
        assert _difference(own, 0.5 * replace(taken, logit_scale=1.0).logits(states)) > 0.05  # the test can tell


class _Cut(transformers.LlamaForCausalLM):
    """Leaves out the rows of its unembedding that no token has, as Inkling does."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        found = super().forward(*args, **kwargs)
        found.logits = found.logits[..., :-7]
        return found


def test_a_model_may_leave_out_rows_that_no_token_has() -> None:
    model = with_large_weights(_Cut(tiny_language_model("Llama").config).eval())
    assert text_logits_reproduced(model, language_model_of("cut", model, tiny_tokenizer())).passed


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_passes_all_checks_in_its_own_dtype(family: str, dtype: torch.dtype) -> None:
    model = with_large_weights(tiny_language_model(family)).to(dtype)
    facts = check_language_model(model, language_model_of(family, model, tiny_tokenizer()))
    assert all(check.passed for check in facts.checks), facts.checks


def _rms(x: Tensor, norm: Any) -> Tensor:
    eps = getattr(norm, "variance_epsilon", None) or norm.eps
    return x / (x.square().mean(-1, keepdim=True) + eps).sqrt()


def _centered(x: Tensor, norm: Any) -> Tensor:
    eps = getattr(norm, "variance_epsilon", None) or norm.eps
    return (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True, correction=0) + eps).sqrt()


_NORMS: dict[str, Callable[[Tensor, Any], Tensor]] = {
    "Llama": lambda x, norm: _rms(x, norm) * norm.weight.double(),
    "Granite": lambda x, norm: _rms(x, norm) * norm.weight.double(),
    "Lfm2": lambda x, norm: _rms(x, norm) * norm.weight.double(),
    "Gemma3Text": lambda x, norm: _rms(x, norm) * (1 + norm.weight.double()),
    "Cohere2": lambda x, norm: _centered(x, norm) * norm.weight.double(),
    "Phi": lambda x, norm: _centered(x, norm) * norm.weight.double() + norm.bias.double(),
    "GPTJ": lambda x, norm: _centered(x, norm) * norm.weight.double() + norm.bias.double(),
}


def _slow_logits(family: str, taken: LanguageModel, states: Tensor) -> Tensor:
    """In float64, as they are defined."""
    head = taken.unembedding
    found = _NORMS[family](states.double(), final_norm_of(taken.decoder)) @ head.weight.double().T
    found = found + (0 if head.bias is None else head.bias.double())
    found = found * {"Granite": 1 / 8, "Cohere2": 0.0625}.get(family, 1)
    return 30 * torch.tanh(found / 30) if family == "Gemma3Text" else found


def _ties(logits: Tensor) -> int:
    """Rows with two equal logits among the first five."""
    best = logits.float().topk(5, dim=-1).values
    return int((best.diff(dim=-1) == 0).any(dim=-1).sum())


@pytest.fixture
def blocks(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """How many rows were turned into float32 at once: at most 32 of width 32, so that a vocabulary takes many times."""
    seen: list[int] = []
    real = device.float32_rows

    def recording(matrix: Tensor) -> Iterator[tuple[slice, Tensor]]:
        for part, rows in real(matrix):
            seen.append(len(rows))
            yield part, rows

    monkeypatch.setattr(device, "_BYTES_AT_ONCE", 32 * 32 * 4)
    for module in ("models.model_parts", "study.lenses.embeddinglens"):
        monkeypatch.setattr(f"latentlens_dag.{module}.float32_rows", recording)
    yield seen


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("family", _NORMS)
def test_logits_of_weights_in_16_bits_are_those_of_float64_and_no_two_are_equal(
    family: str, dtype: torch.dtype, blocks: list[int]
) -> None:
    model = with_large_weights(tiny_language_model(family)).to(dtype)
    taken = language_model_of(family, model, tiny_tokenizer())
    states = 3 * torch.randn(500, 32, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        expected, found = _slow_logits(family, taken, states), taken.logits(states)
        own = taken.unembedding(final_norm_of(taken.decoder)(states.to(dtype)))
    assert found.dtype == torch.float32
    assert _difference(expected, found.double()) < 1e-5
    assert _ties(own) > 10 * (dtype == torch.bfloat16)  # what there was to mend
    assert _ties(found) <= 1
    assert sum(blocks) == len(model.lm_head.weight) > max(blocks)
    best = LogitLens("study", 5).top_k(taken, states.numpy())
    ids = torch.tensor(sorted(taken.tokenizer.get_vocab().values()))
    values = expected[:, ids].topk(5).values
    assert np.allclose(best.score, values.numpy(), rtol=1e-5, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_cosines_to_an_embedding_in_16_bits_are_those_of_float64(dtype: torch.dtype, blocks: list[int]) -> None:
    model = with_large_weights(tiny_language_model("Llama")).to(dtype)
    taken = language_model_of("llama", model, tiny_tokenizer())
    with torch.no_grad():
        taken.embedding[7] = 0  # without a direction
    states = torch.randn(600, 32, generator=torch.Generator().manual_seed(2))
    found = EmbeddingLens("study", 400).top_k(taken, states.numpy())
    unit = torch.nn.functional.normalize(taken.embedding.detach().double(), dim=1)
    slow = torch.nn.functional.normalize(states.double(), dim=1) @ unit.T
    slow[:, 7] = -torch.inf
    expected = slow.topk(400)
    assert np.allclose(found.score, expected.values.numpy(), atol=1e-6)
    assert (found.token_id[:, :-1] != 7).all()
    assert max(blocks) == 32


def test_float32_answers_are_to_the_bit_those_of_one_product_with_all_weights(blocks: list[int]) -> None:
    """So that what was built before is up to date."""
    model = with_large_weights(tiny_language_model("Gemma2"))
    taken = language_model_of("gemma2", model, tiny_tokenizer())
    states = torch.randn(300, 32, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        plain = model.lm_head(model.model.norm(states))
        assert torch.equal(taken.logits(states), torch.tanh(plain / 30.0) * 30.0)
        rows = taken.embedding.detach()
        cosines = torch.nn.functional.normalize(states, dim=1) @ (rows / rows.norm(dim=1, keepdim=True)).T
    found = EmbeddingLens("study", len(rows)).top_k(taken, states.numpy())
    assert np.array_equal(found.score, cosines.sort(dim=1, descending=True).values.numpy())
    assert blocks == [len(rows)]


class _PerToken(nn.Linear):
    """An unembedding that is more than a product."""

    def forward(self, states: Tensor) -> Tensor:
        return super().forward(states) * 3


def test_an_unembedding_that_is_not_plainly_linear_is_called_as_it_is() -> None:
    taken = language_model_of("llama", with_large_weights(tiny_language_model("Llama")), tiny_tokenizer())
    states = torch.randn(20, 32)
    head = _PerToken(32, len(taken.embedding), bias=False)
    head.weight = taken.unembedding.weight
    with torch.inference_mode():
        expected = 3 * taken.logits(states)
        assert _difference(expected, replace(taken, unembedding=head).logits(states)) < 1e-6
        half = replace(taken, unembedding=head.to(torch.bfloat16))
        assert half.logits(states).dtype == torch.float32
        assert half.unembedding.weight.dtype == torch.bfloat16  # it is left as it was
        assert _difference(expected, half.logits(states)) < 0.01


def test_a_vlm_in_bfloat16_passes_every_check(llava_folder: Path) -> None:
    facts = check_model(load_vlm(llava_folder, device="cpu", dtype="bfloat16"))
    assert all(check.passed for check in facts.checks), facts.checks
