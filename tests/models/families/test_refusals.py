"""Families that cannot be read are refused by their config alone, with the reason that lies in their architecture."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

from latentlens_dag.errors import UserError
from latentlens_dag.models.families import registry
from latentlens_dag.models.hooks import capture_hidden_states
from latentlens_dag.models.inspection import inspect_model
from latentlens_dag.models.loading import language_model_of, load_language_model, load_vlm, load_with_language_model
from latentlens_dag.models.model_cache import ModelCache
from latentlens_dag.models.model_ref import ModelRef
from latentlens_dag.models.self_checks import check_language_model
from latentlens_dag.models.vocabulary_parts import load_vocabulary_parts
from latentlens_dag.testing import SENTENCES, tiny_project, tiny_tokenizer
from latentlens_dag.testing.models import TEXT_CONFIG, VISION_CONFIG
from tests.dag.conftest import build
from tests.helpers.command_line import run_command

REFUSED = registry._REFUSED
WITH_TEXTS = [family for family, refusal in REFUSED.items() if refusal.text_reason is None]
WITHOUT_TEXTS = [family for family in REFUSED if family not in WITH_TEXTS]


@pytest.fixture
def bare(tmp_path: Path) -> Callable[[str], Path]:
    """A folder that has a config.json of a family, and nothing else."""

    def of(family: str, **config: Any) -> Path:
        (tmp_path / family).mkdir(exist_ok=True)
        (tmp_path / family / "config.json").write_text(json.dumps({"model_type": family, **config}))
        return tmp_path / family

    return of


@pytest.mark.parametrize("family", REFUSED)
def test_every_way_in_refuses_the_family_by_its_config_alone_and_says_why(
    bare: Callable[[str], Path], family: str
) -> None:
    for config in ({}, {"vision_config": {}}):
        folder = bare(family, **config)  # type: ignore[call-arg]
        for way in (load_vlm, inspect_model, lambda path: ModelCache().vlm(ModelRef(path=path))):
            with pytest.raises(UserError) as refused:
                way(folder)
            assert f"of the family `{family}` and cannot be read: {REFUSED[family].reason}." in str(refused.value)
            assert ("can be used by itself" in str(refused.value)) == (family in WITH_TEXTS)
            assert "Families that can: aya_vision, " in str(refused.value)


@pytest.mark.parametrize("family", WITHOUT_TEXTS)
def test_a_family_whose_language_model_cannot_be_read_either_is_refused_as_one(
    bare: Callable[[str], Path], family: str
) -> None:
    folder = bare(family, vision_config={})  # type: ignore[call-arg]
    ways: list[Callable[[Path], object]] = [load_language_model, lambda path: load_vocabulary_parts(path, "head")]
    for way in [*ways, lambda path: ModelCache().language_model(ModelRef(path=path, repo=None))]:
        with pytest.raises(UserError) as refused:
            way(folder)
        reason = f"`{family}`, whose language model cannot be read: {REFUSED[family].text_reason}."
        assert reason in str(refused.value)


@pytest.mark.parametrize("family", REFUSED)
def test_transformers_knows_every_family_that_is_refused(family: str) -> None:
    assert family in CONFIG_MAPPING_NAMES
    assert family not in registry._MODULES


_MLP = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4}
_EYES = {**VISION_CONFIG, "image_size": 56, "patch_size": 14}


def _mllama(size: int) -> Any:
    tiles = {"max_num_tiles": 4, "supported_aspect_ratios": [[1, 1], [1, 2], [2, 1], [2, 2]]}
    own = {"attention_heads": 4, "num_global_layers": 1, "intermediate_layers_indices": [0, 1], "vision_output_dim": 72}
    rope = {"rope_type": "default", "rope_theta": 10000.0}
    text = {**TEXT_CONFIG, "vocab_size": size, "cross_attention_layers": [1], "rope_parameters": rope}
    return transformers.MllamaConfig(vision_config={**_EYES, **tiles, **own}, text_config=text, image_token_index=3)


def _blip2(size: int) -> Any:
    queries = {**VISION_CONFIG, "encoder_hidden_size": 24}
    text = {**_MLP, "model_type": "opt", "ffn_dim": 64, "word_embed_proj_dim": 32, "vocab_size": size}
    del text["intermediate_size"]
    return transformers.Blip2Config(
        vision_config=_EYES, qformer_config=queries, text_config=text, num_query_tokens=4, image_token_index=3
    )


def _idefics2(size: int) -> Any:
    heads = {"resampler_n_heads": 2, "num_key_value_heads": 1, "resampler_head_dim": 8}
    perceiver = {**heads, "hidden_size": 32, "resampler_n_latents": 4, "resampler_depth": 1}
    text = {**TEXT_CONFIG, "model_type": "mistral", "vocab_size": size}
    return transformers.Idefics2Config(vision_config=_EYES, perceiver_config=perceiver, text_config=text)


def _fuyu(size: int) -> Any:
    text = {**_MLP, "model_type": "persimmon", "vocab_size": size}
    return transformers.FuyuConfig(**_MLP, text_config=text, vocab_size=size, patch_size=10, image_size=60)


def _chameleon(size: int) -> Any:
    codes = {"embed_dim": 8, "num_embeddings": 8, "latent_channels": 8, "resolution": 64, "base_channels": 32}
    vocabulary = {"<image>": 3, **{f"IMGIMG{code}Z": 10 + number for number, code in enumerate("ABCDEFGH")}}
    return transformers.ChameleonConfig(
        **TEXT_CONFIG,
        vocab_size=size,
        vocabulary_map=vocabulary,
        vq_config={**codes, "channel_multiplier": [1, 2], "num_res_blocks": 1},
    )


_TINY: dict[str, tuple[str, Callable[[int], Any]]] = {
    "blip-2": ("Blip2ForConditionalGeneration", _blip2),
    "chameleon": ("ChameleonForConditionalGeneration", _chameleon),
    "fuyu": ("FuyuForCausalLM", _fuyu),
    "idefics2": ("Idefics2ForConditionalGeneration", _idefics2),
    "mllama": ("MllamaForConditionalGeneration", _mllama),
}
"""Family -> its class, and its config for a vocabulary of a size."""


def _tiny(family: str, folder: Path) -> Any:
    """A random model of a family with a tokenizer and, where it needs one, a processor; also written to a folder."""
    tokenizer = tiny_tokenizer(
        image_tokens={
            "image_token": "<image>",
            "image_boundary_token": "<fake_token_around_image>",
            "end_of_utterance_token": "<end_of_utterance>",
        }
    )
    name, config = _TINY[family]
    torch.manual_seed(0)
    model = getattr(transformers, name)(config(len(tokenizer))).eval()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    prefix = name.removesuffix("ForConditionalGeneration")
    if family in ("blip-2", "idefics2", "mllama"):
        images = getattr(transformers, f"{'Blip' if family == 'blip-2' else prefix}ImageProcessorPil")()
        getattr(transformers, f"{prefix}Processor")(images, tokenizer).save_pretrained(folder)
    return model


@pytest.mark.parametrize("family", _TINY)
def test_the_language_model_of_a_family_that_is_refused_as_a_vlm_can_be_used_by_itself(
    family: str, tmp_path: Path
) -> None:
    model = _tiny(family, tmp_path)
    with pytest.raises(UserError, match=rf"`{family}` and cannot be read"):
        load_vlm(tmp_path, device="cpu")
    whole, language_model = load_with_language_model(tmp_path, device="cpu")
    ids = language_model.tokenizer(SENTENCES[0], return_tensors="pt")["input_ids"]
    # The slow definition is the text half of transformers by itself.
    with torch.inference_mode():
        slow = model.get_decoder()(input_ids=ids, output_hidden_states=True, use_cache=False).hidden_states
    if family == "mllama":  # transformers leaves out a block without an image
        slow = [slow[0], slow[1], slow[1]]
    taken = language_model.text_states(SENTENCES[:1], [0, 1, 2]).states
    for layer in (0, 1, 2):
        assert torch.allclose(taken[layer], slow[layer][0, 1:], atol=1e-5)  # without <bos>
    assert all(check.passed for check in check_language_model(whole, language_model).checks)


def test_a_language_model_in_memory_whose_blocks_pass_on_several_streams_is_refused() -> None:
    tokenizer = tiny_tokenizer()
    config = transformers.Gemma3nTextConfig(
        **{**TEXT_CONFIG, "head_dim": 8, "vocab_size": len(tokenizer)},
        vocab_size_per_layer_input=len(tokenizer),
        hidden_size_per_layer_input=8,
        laurel_rank=4,
        num_kv_shared_layers=0,
        layer_types=["sliding_attention", "sliding_attention", "full_attention"],
        activation_sparsity_pattern=[0.0, 0.0, 0.0],
    )
    model = transformers.Gemma3nForCausalLM(config).eval()
    with (
        capture_hidden_states(model.model, [1], lambda states: states),
        torch.inference_mode(),
        pytest.raises(UserError, match=r"states of shape \[4, 1, 3, 32\], not \[sequences, tokens, width\]"),
    ):
        model(input_ids=torch.tensor([[40, 50, 60]]), use_cache=False)
    with pytest.raises(
        UserError, match=r"gemma3n_text`, whose language model cannot be read: its blocks pass on several"
    ):
        language_model_of("mine", model, tokenizer)


def test_a_study_and_an_index_of_such_a_family_are_refused_before_anything_runs(tmp_path: Path) -> None:
    project = tiny_project(tmp_path)
    file, config = (project / "assets" / "tiny" / name for name in ("defs.yaml", "model/config.json"))
    file.write_text(file.read_text().replace("judge: {regions: {}}", "judge: none"))
    original = config.read_text()
    for family, place in (("idefics2", "`vlm` of Study tiny"), ("git", "`language_model` of Index words")):
        config.write_text(original.replace('"model_type": "llava"', f'"model_type": "{family}"'))
        refusal = REFUSED[family].reason if family == "idefics2" else REFUSED[family].text_reason
        with pytest.raises(UserError, match=rf"{place} .*family `{family}`.*{refusal}"):
            build(project)
    assert not list((project / ".latentlens" / "warehouse").iterdir())


def test_inspect_model_exits_with_2_and_one_message(bare: Callable[[str], Path]) -> None:
    folder = bare("florence2", vision_config={})  # type: ignore[call-arg]
    run: subprocess.CompletedProcess[str] = run_command(folder, "inspect-model", str(folder))
    assert (run.returncode, run.stdout) == (2, "")
    assert "whose own sequence has no visual tokens" in run.stderr
    assert "Traceback" not in run.stderr
