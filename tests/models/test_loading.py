import json
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from latentlens_dag.errors import UserError
from latentlens_dag.models import text_checks
from latentlens_dag.models.families.registry import region_map
from latentlens_dag.models.fingerprints import WeightSample
from latentlens_dag.models.hooks import capture_hidden_states
from latentlens_dag.models.loading import load_language_model, load_tokenizer, load_vlm, position_limit
from latentlens_dag.models.self_checks import (
    ModelFacts,
    check_index_model,
    check_model,
    failed_checks,
    noise_image,
    visual_token_count,
    write_checks,
)
from latentlens_dag.models.text_checks import ModelCheck, causality, padding_invariance
from latentlens_dag.models.vlm import Vlm
from latentlens_dag.testing import tiny_llava, tiny_vlm

GIB = 1 << 30
NO_WEIGHTS = WeightSample({}, 0, 0, {})
SIZES = [(48, 48), (100, 60), (60, 100)]


def test_visual_states_are_the_residual_stream_at_the_image_tokens(llava: Vlm) -> None:
    images = [noise_image(*size) for size in SIZES]
    seen = llava.visual_states(images, [0, 1, 2])
    for number, image in enumerate(images):
        inputs = llava.inputs([image])
        with torch.inference_mode():
            slow = llava.model(**inputs, output_hidden_states=True).hidden_states
        here = (inputs["input_ids"][0] == llava.model.config.image_token_id).nonzero().ravel()
        rows = (seen.tokens["image_index"] == number).to_numpy()
        for layer in (0, 1, 2):
            assert torch.allclose(seen.states[layer][rows], slow[layer][0, here], atol=1e-5)


def test_the_last_entry_of_hidden_states_is_after_the_final_norm(llava: Vlm) -> None:
    """Why states are taken by hooks: the stream after the last block is nowhere in `hidden_states`."""
    inputs = llava.inputs([noise_image(48, 48)])
    with (
        capture_hidden_states(llava.language_model.decoder, [llava.depth], lambda s: s) as states,
        torch.inference_mode(),
    ):
        listed = llava.model(**inputs, output_hidden_states=True).hidden_states[-1]
    assert not torch.allclose(listed, states[llava.depth], atol=1e-2)
    assert torch.allclose(listed, llava.language_model.decoder.norm(states[llava.depth]), atol=1e-5)


def test_an_image_token_sees_exactly_the_pixels_of_its_box(llava_folder: Path) -> None:
    """Without attention in the vision tower a token sees its own patch only; painting a box must move that token."""
    vlm = load_vlm(llava_folder, device="cpu")
    for layer in vlm.model.model.vision_tower.encoder.layers:
        torch.nn.init.zeros_(layer.self_attn.out_proj.weight)
        torch.nn.init.zeros_(layer.self_attn.out_proj.bias)
    for width, height in [(150, 100), (90, 140), (96, 96)]:
        plain = noise_image(width, height)
        seen = vlm.visual_states([plain], [0])
        for token in range(len(seen.tokens)):
            x0, y0, x1, y1 = seen.tokens.select("x0", "y0", "x1", "y1").row(token)
            painted = np.array(plain)
            inner = slice(round(y0 + 8), round(y1 - 8)), slice(round(x0 + 8), round(x1 - 8))
            painted[inner] = 255 - painted[inner]
            from PIL import Image

            moved = (vlm.visual_states([Image.fromarray(painted)], [0]).states[0] - seen.states[0]).norm(dim=1)
            assert int(moved.argmax()) == token
            others = torch.cat([moved[:token], moved[token + 1 :]])
            assert float(others.max()) < 1e-4 * float(moved[token])


def test_every_check_of_the_model_passes_and_logits_are_reproduced(llava: Vlm) -> None:
    facts = check_model(llava)
    assert all(check.passed for check in facts.checks), facts.checks
    assert {check.name: check.figure for check in facts.checks}["logits_reproduced"] < 1e-5
    assert facts.prompt.count("<image>") == 1


def test_a_check_fails_on_a_model_that_breaks_what_it_states(llava_folder: Path) -> None:
    vlm = load_vlm(llava_folder, device="cpu")
    original = vlm.language_model.decoder.norm.forward
    vlm.language_model.decoder.norm.forward = lambda x: original(x) + torch.randn_like(x)
    assert [check.name for check in check_model(vlm).checks if not check.passed] == ["logits_reproduced"]


def test_a_model_that_looks_ahead_and_at_padding_fails_both_checks(llava_folder: Path) -> None:
    vlm = load_vlm(llava_folder, device="cpu")
    block = vlm.language_model.decoder.layers[0]
    block.register_forward_hook(lambda module, args, output: output + output.mean(dim=1, keepdim=True))
    assert [check.name for check in check_model(vlm).checks if not check.passed] == ["causality", "padding_invariance"]


def test_a_text_pass_that_looks_ahead_makes_an_index_of_whole_sentences_only(llava: Vlm, tmp_path: Path) -> None:
    model = load_language_model(tiny_llava(tmp_path, bidirectional=True), device="cpu")
    figure = causality(model).figure
    assert figure > 0.01
    message = rf"`dedup: prefix`.*{re.escape(model.name)}.* by {figure:.2g} of .*Set `dedup: sentence` in Index words"
    with pytest.raises(UserError, match=message):
        check_index_model(model, "prefix", "words")
    check_index_model(model, "sentence", "words")
    check_index_model(llava.language_model, "prefix", "words")


def test_a_text_pass_that_looks_at_padding_makes_an_index_of_whole_sentences_only(llava_folder: Path) -> None:
    ahead, length = (load_language_model(llava_folder, device="cpu") for _ in range(2))
    ahead.decoder.layers[0].register_forward_hook(lambda *a: a[2] + a[2].mean(dim=1, keepdim=True))
    length.decoder.layers[0].register_forward_hook(lambda *a: a[2] + a[2].shape[1])
    for model, reason in ((ahead, "a later token changes"), (length, "change by .* when their batch is padded")):
        with pytest.raises(UserError, match=rf"Index words cannot be made.*{reason}.*Set `dedup: sentence` in Index w"):
            check_index_model(model, "prefix", "words")
        check_index_model(model, "sentence", "words")


def test_a_text_pass_that_looks_at_other_sentences_makes_no_index(llava_folder: Path) -> None:
    model = load_language_model(llava_folder, device="cpu")
    model.decoder.layers[0].register_forward_hook(lambda *a: a[2] + a[2].mean(dim=0, keepdim=True))
    for dedup in ("prefix", "sentence"):
        with pytest.raises(UserError, match=r"Index words cannot be made of .* padded.*with any other sentence"):
            check_index_model(model, dedup, "words")


def test_a_layer_that_the_model_lacks_is_refused(llava: Vlm) -> None:
    with pytest.raises(UserError, match="Layer 3 was asked for"):
        llava.visual_states([noise_image(48, 48)], [3])


def test_the_map_of_a_family_that_is_not_known_is_not_guessed() -> None:
    assert region_map("qwen2_5_omni", "some model") is None


@pytest.mark.parametrize(
    ("config", "message"),
    [(None, "no config.json"), ("{", "is not JSON"), ("{}", "no `vision_config`.*load_language_model")],
)
def test_a_folder_that_is_no_vlm_is_told(tmp_path: Path, config: str | None, message: str) -> None:
    if config is not None:
        (tmp_path / "config.json").write_text(config)
    with pytest.raises(UserError, match=message):
        load_vlm(tmp_path)


def test_no_images_give_empty_tables(llava: Vlm) -> None:
    seen = llava.visual_states([], [0, 1])
    assert {layer: tuple(states.shape) for layer, states in seen.states.items()} == {0: (0, 32), 1: (0, 32)}
    assert seen.tokens.schema == llava.visual_states([noise_image(48, 48)], [0]).tokens.schema


def test_a_value_that_is_no_number_fails_the_checks(llava_folder: Path) -> None:
    vlm = load_vlm(llava_folder, device="cpu")
    vlm.language_model.decoder.norm.forward = lambda x: x * torch.nan
    assert [check.name for check in check_model(vlm).checks if not check.passed] == ["logits_reproduced"]


@pytest.mark.parametrize("less", [-1, 1])
def test_a_map_with_more_or_fewer_boxes_than_the_model_has_tokens_fails_its_check(
    llava: Vlm, monkeypatch: pytest.MonkeyPatch, less: int
) -> None:
    view = llava.token_map(150, 100).view
    other = [*view, view[-1]] if less < 0 else view[:-1]
    monkeypatch.setattr(type(llava), "token_map", lambda *args: SimpleNamespace(view=other))
    check = visual_token_count(llava, noise_image(150, 100))
    assert (check.passed, check.figure) == (False, less)


def test_the_version_of_the_checks_is_that_of_their_verdicts_not_of_their_last_digits(tmp_path: Path) -> None:
    def version(figure: float, passed: bool, prompt: str = "p", language_model: str = "f", *more: ModelCheck) -> str:
        facts = ModelFacts(
            [ModelCheck("causality", passed, figure, "meaning"), *more], prompt, language_model, NO_WEIGHTS
        )
        return write_checks(facts, tmp_path / "checks.json")

    assert version(1e-7, True) == version(2e-7, True)
    changed = [version(0, True), version(0, False), version(0, True, prompt="q"), version(0, True, language_model="g")]
    assert len(set(changed)) == 4
    placed = [ModelCheck("localization", passed, None, "", "no map") for passed in (False, True)]
    plain = version(0, True)
    assert {version(0, True, "p", "f", one) for one in placed} == {plain}  # it changes no state
    assert '"not_checked": "no map"' in (tmp_path / "checks.json").read_text()


def test_noise_is_the_same_at_every_call() -> None:
    assert noise_image(7, 5).tobytes() == noise_image(7, 5).tobytes()


def test_what_runs_after_the_block_is_not_captured(llava: Vlm) -> None:
    decoder, ids = llava.language_model.decoder, torch.tensor([[1, 5, 6]])
    with capture_hidden_states(decoder, [1], lambda s: s) as states, torch.inference_mode():
        decoder(input_ids=ids)
        before = states[1]
    with torch.inference_mode():
        decoder(input_ids=ids)
    assert states[1] is before


def test_a_model_in_16_bits_may_differ_by_its_rounding_and_no_more(llava_folder: Path) -> None:
    model = load_language_model(llava_folder, device="cpu", dtype="bfloat16")
    check_index_model(model, "prefix", "words")
    rounded = padding_invariance(model)
    assert rounded.passed
    ones = torch.ones(4)
    assert not text_checks.closeness(model, "x", ones, ones * 1.05, "").passed
    assert not text_checks.closeness(load_language_model(llava_folder, device="cpu"), "x", ones, ones * 1.01, "").passed


def test_a_folder_that_is_not_there_is_not_looked_for_on_the_hub() -> None:
    for load in (load_vlm, load_language_model):
        with pytest.raises(UserError, match="nope is no model: there is no such folder"):
            load("nope")


@pytest.mark.parametrize(("family", "size"), [("qwen2_vl", (5000, 20)), ("llava_next", (1, 40))])
def test_an_image_that_is_too_narrow_for_the_processor_is_told(
    tmp_path: Path, family: str, size: tuple[int, int]
) -> None:
    vlm = load_vlm(tiny_vlm(family, tmp_path), device="cpu")
    with pytest.raises(UserError, match=rf"cannot be shown an image of {size[0]} x {size[1]} pixels.*squarer"):
        vlm.visual_states([Image.new("RGB", size)], [0])


@pytest.mark.parametrize("content", ["[]", "3", '"llava"', "null", '{"model_type": ["llava"]}', '{"model_type": null}'])
@pytest.mark.parametrize("load", [load_vlm, load_language_model, load_tokenizer, position_limit])
def test_a_config_that_is_json_but_not_of_a_model_is_the_users_error(
    tmp_path: Path, load: Callable[[Path], object], content: str
) -> None:
    (tmp_path / "config.json").write_text(content)
    message = rf"config\.json is not the config of a model, .* but {re.escape(content)}"
    with pytest.raises(UserError, match=message.replace('"', "'").replace("null", "None")):
        load(tmp_path)


@pytest.mark.parametrize("load", [load_vlm, load_language_model])
def test_weights_that_are_cut_short_are_the_users_error(tmp_path: Path, load: Callable[..., object]) -> None:
    weights = tiny_llava(tmp_path) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    with pytest.raises(UserError, match=r"model\.safetensors is cut off or damaged .*Download or copy it again"):
        load(tmp_path, device="cpu")


def _without(folder: Path, *tokens: str) -> Path:
    """A model's folder, once its tokenizer has lost some special tokens."""
    path = folder / "tokenizer_config.json"
    left = {name: value for name, value in json.loads(path.read_text()).items() if name not in tokens}
    path.write_text(json.dumps(left))
    return folder


@pytest.mark.parametrize("side", ["left", "right"])
def test_images_whose_prompts_differ_in_length_are_read_together_without_a_padding_token(
    tmp_path: Path, side: str
) -> None:
    vlm = load_vlm(_without(tiny_vlm("llava_next", tmp_path), "pad_token"), device="cpu")
    vlm.processor.tokenizer.padding_side = side
    assert vlm.processor.tokenizer.pad_token is None
    images = [noise_image(40, 80), noise_image(80, 80), noise_image(40, 40)]
    inputs = vlm.inputs(images)
    assert len(set(inputs["attention_mask"].sum(dim=1).tolist())) > 1  # some are padded
    together, alone = (vlm.visual_states(images, [0, 1, 2]), [vlm.visual_states([one], [0, 1, 2]) for one in images])
    assert together.tokens["view"].to_list() == [view for one in alone for view in one.tokens["view"]]
    for layer in (0, 1, 2):
        assert torch.allclose(together.states[layer], torch.cat([one.states[layer] for one in alone]), atol=1e-5)


def test_without_any_token_to_pad_with_only_prompts_of_one_length_are_read_together(tmp_path: Path) -> None:
    specials = ["pad_token", "eos_token", "bos_token", "unk_token"]
    vlm = load_vlm(_without(tiny_vlm("llava_next", tmp_path), *specials), device="cpu")
    same = vlm.visual_states([noise_image(80, 80)] * 2, [1])
    assert torch.allclose(*same.states[1].chunk(2), atol=1e-6)
    with pytest.raises(UserError, match=r"cannot read 2 images together .*no padding token.*Add a `pad_token` to tok"):
        vlm.visual_states([noise_image(40, 80), noise_image(80, 80)], [1])


def test_a_padding_token_of_the_tokenizers_own_is_left_as_it_is(llava: Vlm) -> None:
    llava.inputs([noise_image(60, 50)])
    assert llava.processor.tokenizer.pad_token == "<pad>"


def test_states_that_overflow_are_told_as_such_and_need_no_other_dedup(llava_folder: Path) -> None:
    model = load_language_model(llava_folder, device="cpu")
    model.decoder.layers[0].register_forward_hook(lambda _module, _args, states: states * float("inf"))
    for dedup in ("prefix", "sentence"):
        with pytest.raises(UserError, match=r"not finite numbers: they overflow in torch\.float32"):
            check_index_model(model, dedup, "words")
    assert "padding_invariance" in failed_checks([padding_invariance(model)], model)
