"""Checkpoints whose weights would not be those of the model: each is refused with the names and the remedy."""

import gc
import json
import logging
import re
import warnings
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, LlamaConfig, LlamaForCausalLM

from latentlens_dag.errors import UserError
from latentlens_dag.models import checkpoints
from latentlens_dag.models.checkpoints import check_loaded, check_size, load_checkpoint
from latentlens_dag.models.loading import load_language_model, load_tokenizer, load_vlm
from latentlens_dag.models.self_checks import noise_image
from latentlens_dag.testing import tiny_tokenizer, tiny_vlm
from tests.models.conftest import read_weights, run_code_of, set_config, write_weights
from tests.models.test_language_families import tiny_language_model

CAUSAL, OF_IMAGES = AutoModelForCausalLM, AutoModelForImageTextToText


@pytest.mark.parametrize("family", ["llava", "qwen3_vl_moe", "gemma3", "Llama", "GPT2", "Mixtral", "OPT"])
def test_a_model_without_any_one_of_its_weights_is_refused(tmp_path: Path, family: str) -> None:
    if family[0].isupper():
        tiny_language_model(family).save_pretrained(tmp_path)
    else:
        tiny_vlm(family, tmp_path)
    auto, whole = CAUSAL if family[0].isupper() else OF_IMAGES, read_weights(tmp_path)
    load_checkpoint(auto, tmp_path, "tiny", False, "float32")
    for absent in whole:
        write_weights({key: weight for key, weight in whole.items() if key != absent}, tmp_path)
        with pytest.raises(UserError, match=r"^tiny cannot be read: .*\. (Was the d|Was it s|The config)"):
            load_checkpoint(auto, tmp_path, "tiny", False, "float32")


@pytest.mark.parametrize(
    ("part", "number", "named"),
    [
        (r"language_model.*layers\.1\.", 9, "model.language_model.layers.1.input_layernorm.weight"),
        (r"vision_tower.*layers\.0\.", 16, "model.vision_tower.encoder.layers.0.layer_norm1.bias"),
        (r"multi_modal_projector", 4, "model.multi_modal_projector.linear_1.bias"),
        (r"layers\.1\.", 25, "model.vision_tower.encoder.layers.1.layer_norm1.bias"),
        (r"lm_head", 1, "lm_head.weight"),
    ],
)
@pytest.mark.parametrize("load", [load_vlm, load_language_model])
def test_a_part_that_is_missing_is_named(
    llava_copy: Path, load: Callable[..., object], part: str, number: int, named: str
) -> None:
    write_weights(
        {key: weight for key, weight in read_weights(llava_copy).items() if not re.search(part, key)}, llava_copy
    )
    verb = "are" if number > 1 else "is"
    found = rf"{number} weights? .*{re.escape(named)}.* {verb} not in its checkpoint, and would be ran"
    with pytest.raises(UserError, match=f"model cannot be read: {found}"):
        load(llava_copy, device="cpu")


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod."])
@pytest.mark.parametrize("load", [load_vlm, load_language_model])
def test_a_prefix_is_named_and_the_code_of_the_message_takes_it_off(
    llava_copy: Path, load: Callable[..., object], prefix: str
) -> None:
    write_weights({f"{prefix}{key}": weight for key, weight in read_weights(llava_copy).items()}, llava_copy)
    with pytest.raises(
        UserError, match=rf"73 weights .*; 73 weights .* left unread\. .* begin with `{prefix}`"
    ) as told:
        load(llava_copy, device="cpu")
    run_code_of(str(told.value), file=llava_copy / "model.safetensors")
    load(llava_copy, device="cpu")


@pytest.mark.parametrize(
    ("key", "named"),
    [
        ("language_model.model.layers.2.mlp.up_proj.weight", "model.language_model.layers.2.mlp.up_proj.weight"),
        ("language_model.model.embed_tokens.weight", "model.language_model.embed_tokens.weight"),
        ("vision_tower.embeddings.patch_embedding.weight", "model.vision_tower.embeddings.patch_embedding.weight"),
        ("multi_modal_projector.linear_2.weight", "model.multi_modal_projector.linear_2.weight"),
    ],
)
def test_a_weight_of_another_shape_is_told_with_both(llava_copy: Path, key: str, named: str) -> None:
    weights = read_weights(llava_copy)
    wanted = list(weights[key].shape)
    weights[key] = weights[key][1:].contiguous()
    write_weights(weights, llava_copy)
    found = [wanted[0] - 1, *wanted[1:]]
    message = f"1 weight has another shape than its config.json says ({named} is {found}, not {wanted})"
    with pytest.raises(UserError, match=re.escape(message)):
        load_vlm(llava_copy, device="cpu")


@pytest.mark.parametrize(
    ("weight", "like"),
    [
        ("language_model.model.layers.1.self_attn.q_proj.bias", "language_model.model.layers.1.input_layernorm.weight"),
        ("language_model.model.embed_positions.weight", "language_model.model.embed_tokens.weight"),
        ("vision_tower.encoder.layers.0.ls1", "vision_tower.encoder.layers.0.layer_norm1.weight"),
        ("multi_modal_projector.linear_3.weight", "multi_modal_projector.linear_2.weight"),
        ("language_model.lm_head.bias", "language_model.model.norm.weight"),
    ],
)
def test_weights_of_a_part_that_the_model_has_are_not_left_unread(llava_copy: Path, weight: str, like: str) -> None:
    weights = read_weights(llava_copy)
    write_weights({**weights, weight: weights[like].clone()}, llava_copy)
    with pytest.raises(UserError, match=r"1 weight \(.*would be left unread, though .* parts that its class Llava"):
        load_vlm(llava_copy, device="cpu")


@pytest.mark.parametrize("part", ["text_config", "vision_config"])
def test_a_config_of_fewer_blocks_than_the_weights_have_is_refused(llava_copy: Path, part: str) -> None:
    config = json.loads((llava_copy / "config.json").read_text())
    set_config(llava_copy, **{part: config[part] | {"num_hidden_layers": 1}})
    with pytest.raises(UserError, match=r"\d+ weights \(.*layers\.1\..*would be left unread"):
        load_vlm(llava_copy, device="cpu")


def test_a_config_of_fewer_blocks_is_refused_of_a_language_model_too(llama_copy: Path) -> None:
    set_config(llama_copy, num_hidden_layers=2)
    with pytest.raises(UserError, match=r"9 weights \(model\.layers\.2\..*would be left unread"):
        load_language_model(llama_copy, device="cpu")


@pytest.mark.parametrize(
    "key",
    [
        "mtp.layers.0.mlp.up_proj.weight",
        "model.nextn_predict.fc.weight",
        "model.layers.0.self_attn.rotary_pos_emb.inv_freq",
        "position_ids",
        "model.layers.1.self_attn.masked_bias",
        "model.layers.1.self_attn.rotary_emb.cos_cached",
    ],
)
def test_what_is_known_to_be_of_no_use_is_left_unread_without_a_word(llama_copy: Path, key: str) -> None:
    expected = load_language_model(llama_copy, device="cpu")
    write_weights({**read_weights(llama_copy), key: torch.ones(4)}, llama_copy)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        found = load_language_model(llama_copy, device="cpu")
    for one, other in zip(found.decoder.parameters(), expected.decoder.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_layer_that_predicts_several_tokens_is_left_unread_and_another_is_not(llama_copy: Path) -> None:
    weights = read_weights(llama_copy)
    more = {key.replace("layers.2.", "layers.3."): w.clone() for key, w in weights.items() if "layers.2." in key}
    write_weights({**weights, **more}, llama_copy)
    with pytest.raises(UserError, match=r"9 weights \(model\.layers\.3\."):
        load_language_model(llama_copy, device="cpu")
    write_weights({**weights, **more, "model.layers.3.eh_proj.weight": torch.ones(2)}, llama_copy)
    load_language_model(llama_copy, device="cpu")


def test_a_part_that_the_model_lacks_is_left_unread_with_a_warning(llava_copy: Path) -> None:
    write_weights({**read_weights(llava_copy), "audio_tower.layers.0.weight": torch.ones(4)}, llava_copy)
    with pytest.warns(UserWarning, match=r"1 weight \(audio_tower\.layers\.0\.weight\) of its checkpoint left unread"):
        load_vlm(llava_copy, device="cpu")


@pytest.mark.parametrize("key", ["score.weight", "v_head.summary.weight", "audio_tower.layers.0.weight"])
def test_a_part_that_a_language_model_lacks_is_left_unread_with_a_warning(llama_copy: Path, key: str) -> None:
    write_weights({**read_weights(llama_copy), key: torch.ones(4)}, llama_copy)
    with pytest.warns(UserWarning, match=rf"1 weight \({re.escape(key)}\) of its checkpoint left unread"):
        load_language_model(llama_copy, device="cpu")


@pytest.mark.parametrize("key", ["layers.3.mlp.up_proj.weight", "norm.bias", "model.norm.bias", "lm_head.bias"])
def test_a_weight_of_the_decoder_is_not_left_unread_with_the_base_models_name_or_without(
    llama_copy: Path, key: str
) -> None:
    write_weights({**read_weights(llama_copy), key: torch.ones(4)}, llama_copy)
    with pytest.raises(UserError, match=rf"1 weight \({re.escape(key)}\) of its checkpoint would be left unread"):
        load_language_model(llama_copy, device="cpu")


def test_a_head_beside_a_model_that_is_its_own_decoder_is_left_unread_with_a_warning(llama_copy: Path) -> None:
    model = LlamaForCausalLM.from_pretrained(llama_copy).model
    assert model.get_decoder() is model
    with pytest.warns(UserWarning, match=r"score\.weight"):
        check_loaded(model, {"missing_keys": set(), "unexpected_keys": {"score.weight"}, "mismatched_keys": set()}, "m")


@pytest.mark.parametrize("twice", [False, True])
def test_a_head_that_shares_the_embedding_need_not_be_stored_and_may_be(llama_copy: Path, twice: bool) -> None:
    weights = read_weights(llama_copy)
    assert "lm_head.weight" not in weights
    if twice:
        write_weights({**weights, "lm_head.weight": weights["model.embed_tokens.weight"].clone()}, llama_copy)
    model = load_language_model(llama_copy, device="cpu")
    assert torch.equal(model.unembedding.weight, weights["model.embed_tokens.weight"])
    set_config(llama_copy, tie_word_embeddings=False)
    if not twice:
        with pytest.raises(UserError, match=r"1 weight \(lm_head\.weight\).*`tie_word_embeddings: true`"):
            load_language_model(llama_copy, device="cpu")


def _with_pooling_head(folder: Path) -> None:
    """A LLaVA with SigLIP, whose tower has a head that no visual token goes through."""
    from transformers import LlavaConfig, LlavaForConditionalGeneration, SiglipVisionConfig

    config = json.loads((folder / "config.json").read_text())
    shape = {"hidden_size": 24, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    vision = SiglipVisionConfig(image_size=48, patch_size=16, vision_use_head=True, **shape)
    text = LlamaConfig(**config["text_config"])
    torch.manual_seed(0)
    model = LlavaForConditionalGeneration(
        LlavaConfig(
            vision_config=vision,
            text_config=text,
            image_token_index=3,
            vision_feature_layer=-1,
            vision_feature_select_strategy="full",
        )
    )
    model.save_pretrained(folder)
    processor = json.loads((folder / "processor_config.json").read_text())
    processor |= {"vision_feature_select_strategy": "full", "num_additional_image_tokens": 0}
    (folder / "processor_config.json").write_text(json.dumps(processor))


def test_a_pooling_head_may_be_missing_or_left_over_for_the_states_are_the_same(llava_copy: Path) -> None:
    _with_pooling_head(llava_copy)
    whole, image = read_weights(llava_copy), [noise_image(48, 48)]
    expected = load_vlm(llava_copy, device="cpu").visual_states(image, [0, 2]).states
    assert any(".head." in key for key in whole)
    write_weights({key: weight for key, weight in whole.items() if ".head." not in key}, llava_copy)
    missing = load_vlm(llava_copy, device="cpu").visual_states(image, [0, 2]).states
    write_weights(whole, llava_copy)
    config = json.loads((llava_copy / "config.json").read_text())
    set_config(llava_copy, vision_config=config["vision_config"] | {"vision_use_head": False})
    left = load_vlm(llava_copy, device="cpu").visual_states(image, [0, 2]).states
    for layer in (0, 2):
        assert torch.equal(missing[layer], expected[layer]) and torch.equal(left[layer], expected[layer])


def test_what_a_quantized_checkpoint_holds_besides_is_no_reason_to_refuse_it(
    llama_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "_SIZE_MARGIN", 0)
    model = LlamaForCausalLM.from_pretrained(llama_copy)
    scales = {"model.layers.0.self_attn.k_proj.k_scale"}
    read: dict[str, Any] = {"missing_keys": set(), "unexpected_keys": scales, "mismatched_keys": set()}
    with pytest.raises(UserError, match="k_scale"):
        check_loaded(model, read, "tiny")
    model.config.quantization_config = {"quant_method": "fp8"}
    check_loaded(model, read, "tiny")
    check_size(CAUSAL, model.config, {"one": 1}, llama_copy, "tiny", False)


def test_transformers_own_table_is_not_printed_beside_the_message(llava_copy: Path) -> None:
    messages: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("transformers").addHandler(handler)
    whole = read_weights(llava_copy)
    write_weights({key: weight for key, weight in whole.items() if "layers.1." not in key}, llava_copy)
    try:
        with pytest.raises(UserError):
            load_vlm(llava_copy, device="cpu")
        assert not [message for message in messages if "LOAD REPORT" in message]
        AutoModelForImageTextToText.from_pretrained(llava_copy)
        assert [message for message in messages if "LOAD REPORT" in message]
    finally:
        logging.getLogger("transformers").removeHandler(handler)


@pytest.mark.parametrize("load", [load_vlm, load_language_model])
def test_a_config_without_text_config_is_refused_before_memory_is_taken(
    llava_copy: Path, monkeypatch: pytest.MonkeyPatch, load: Callable[..., object]
) -> None:
    config = json.loads((llava_copy / "config.json").read_text())
    del config["text_config"]
    (llava_copy / "config.json").write_text(json.dumps(config))
    monkeypatch.setattr(OF_IMAGES, "from_pretrained", lambda *_, **__: pytest.fail("memory was taken"))
    message = r"describes a LlavaForCondit\w+ with [67],\d\d\d,\d\d\d,\d\d\d parameters, but its weight files hold \d"
    with pytest.raises(UserError, match=rf"{message}.*no `text_config`"):
        load(llava_copy, device="cpu")


def test_a_model_may_have_half_as_many_parameters_more_than_are_stored(
    llama_copy: Path,
) -> None:
    model = LlamaForCausalLM.from_pretrained(llama_copy)
    once = sum(parameter.numel() for parameter in {id(p): p for p in model.parameters()}.values())
    least = -(-once * 2 // 3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoints, "_SIZE_MARGIN", 0)
        check_size(CAUSAL, model.config, {"all": least}, llama_copy, "tiny", False)
        with pytest.raises(UserError, match=rf"LlamaForCausalLM with {once:,} parameters.*hold {least - 1:,} \(all\)"):
            check_size(CAUSAL, model.config, {"all": least - 1}, llama_copy, "tiny", False)
    check_size(CAUSAL, model.config, {"all": 1}, llama_copy, "tiny", False)  # so small that the keys tell more


def test_a_tokenizer_that_is_larger_than_the_embedding_is_refused(llama_copy: Path) -> None:
    rows = len(load_language_model(llama_copy, device="cpu").embedding)
    tokenizer = load_tokenizer(llama_copy)
    tokenizer.add_tokens(["<picture>"], special_tokens=True)
    tokenizer.save_pretrained(llama_copy)
    message = rf"has {rows} rows, but the tokenizer goes up to token {rows}; without a row: <picture>\. .*of a VLM"
    with pytest.raises(UserError, match=message):
        load_language_model(llama_copy, device="cpu")


def test_the_tokenizer_of_another_model_is_refused_for_a_vlm_too(llava_copy: Path) -> None:
    rows = len(load_vlm(llava_copy, device="cpu").language_model.embedding)
    tokenizer = load_tokenizer(llava_copy)
    tokenizer.add_tokens([f"word{number}" for number in range(50)])
    tokenizer.save_pretrained(llava_copy)
    with pytest.raises(
        UserError, match=rf"has {rows} rows, .* token {rows + 49}; without .*: word0, word1, word2 and 47"
    ):
        load_vlm(llava_copy, device="cpu")


def test_the_small_gemma_3_has_the_tokenizer_of_its_vlms(tmp_path: Path) -> None:
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(["<image_soft_token>"], special_tokens=True)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = Gemma3TextConfig(vocab_size=len(tokenizer) - 1, head_dim=8, num_key_value_heads=2, **shape)
    Gemma3ForCausalLM(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    load_language_model(tmp_path, device="cpu")
    tokenizer.add_tokens(["<another>"], special_tokens=True)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"without a row: <another>\."):
        load_language_model(tmp_path, device="cpu")


def test_a_token_for_what_is_unknown_that_the_tokenizers_class_adds_is_no_reason_to_refuse_it(tmp_path: Path) -> None:
    vlm = load_vlm(tiny_vlm("qwen3_5", tmp_path), device="cpu")
    model = vlm.language_model
    assert model.tokenizer.unk_token_id == len(model.embedding)
    assert model.tokenizer.unk_token_id not in model.tokenizer("Öl und \x07 \u2603")["input_ids"]


def test_a_language_model_in_place_of_a_vlm_is_told_with_the_way_out(llama_copy: Path) -> None:
    with pytest.raises(
        UserError, match=r"no `vision_config`.*by `load_language_model` in Python.*`language_model` \(no"
    ):
        load_vlm(llama_copy)


@pytest.mark.parametrize(("limit", "kept"), [(0.9, False), (1.1, True)])
def test_a_model_that_only_a_cycle_still_holds_is_freed_before_the_next_is_read_if_models_hold_more_than_a_limit(
    language_folder: Path, monkeypatch: pytest.MonkeyPatch, limit: float, kept: bool
) -> None:
    monkeypatch.setattr(checkpoints, "_LOADED", weakref.WeakSet())
    size = sum(weight.nbytes for weight in read_weights(language_folder).values())
    monkeypatch.setattr(checkpoints, "_WORTH_FREEING_BYTES", limit * size)
    model = load_checkpoint(AutoModelForCausalLM, language_folder, "one", False, "float32")
    model.itself, held, alive = model, weakref.ref(model), []
    gc.disable()
    try:
        del model
        assert held() is not None
        read = AutoModelForCausalLM.from_pretrained

        def watched(*arguments: Any, **options: Any) -> Any:
            alive.append(held() is not None)
            return read(*arguments, **options)

        monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", watched)
        load_checkpoint(AutoModelForCausalLM, language_folder, "two", False, "float32")
    finally:
        gc.enable()
    assert alive == [kept]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("key", ["model.layers.1.mlp.up_proj.weight", "model.norm.weight", "model.embed_tokens.weight"])
def test_weights_that_are_no_numbers_are_refused_by_name(llama_copy: Path, key: str, value: float) -> None:
    weights = load_file(llama_copy / "model.safetensors")
    weights[key].view(-1)[-1] = value
    save_file(weights, llama_copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=rf"1 weight \({re.escape(key)}\) hold.*not finite numbers"):
        load_language_model(llama_copy, device="cpu")
