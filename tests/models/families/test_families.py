"""Every family of VLMs: its states are those of the definition, and its tokens lie where the map says."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from latentlens_dag import ContextualIndex
from latentlens_dag.errors import UserError
from latentlens_dag.models import connector, self_checks
from latentlens_dag.models.connector import connector_output
from latentlens_dag.models.families import registry
from latentlens_dag.models.families.registry import region_map
from latentlens_dag.models.families.token_map import WITHOUT_BOX, TokenMap
from latentlens_dag.models.hooks import capture_hidden_states
from latentlens_dag.models.loading import load_vlm
from latentlens_dag.models.localization import localization
from latentlens_dag.models.self_checks import CHECKS, check_model, localization_if_possible, noise_image
from latentlens_dag.models.vlm import Vlm
from latentlens_dag.testing import SENTENCES, tiny_vlm
from latentlens_dag.testing.families import BUILDERS
from tests.helpers.packages import need_packages_of

RIGHT = np.float32([1, 0, 1, 0])
SIZES = [(150, 100), (90, 140), (96, 96)]
DEEPSTACK = ("cohere_compass", "cosmos3_omni", "granite_docling", "qwen3_omni_moe_thinker", "qwen3_vl", "qwen3_vl_moe")
"""Families that add visual features after their first blocks too."""
HAVE_NO_BOX = {
    "hunyuan_vl": {"newline", "separator"},
    "llava_next": {"newline"},
    "llava_next_video": {"newline"},
    "llava_onevision": {"newline"},
}


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Vlm]:
    made: dict[str, Vlm] = {}

    def of(family: str) -> Vlm:
        need_packages_of(family)
        if family not in made:
            made[family] = load_vlm(tiny_vlm(family, tmp_path_factory.mktemp(family)), device="cpu")
        return made[family]

    return of


def _residual_stream(vlm: Vlm, image: Any) -> list[torch.Tensor]:
    """The slow definition: what each block was given, at the positions of the image token."""
    inputs = vlm.inputs([image])
    with torch.inference_mode():
        found = list(vlm.model(**inputs, output_hidden_states=True).hidden_states[:-1])
    if vlm.model.config.model_type in DEEPSTACK:
        found = _with_deepstack(vlm, inputs)
    here = inputs["input_ids"][0] == vlm.model.config.image_token_id
    return [layer[0, here] for layer in found]


def _joined(features: torch.Tensor | tuple[torch.Tensor, ...]) -> torch.Tensor:
    return features if isinstance(features, torch.Tensor) else torch.cat(features)


def _with_deepstack(vlm: Vlm, inputs: Any) -> list[torch.Tensor]:
    """What a block gave, and the visual features that are added after it, is what the next is given."""
    blocks, given = vlm.language_model.decoder.layers, []
    hooks = [block.register_forward_hook(lambda module, args, output: given.append(output.clone())) for block in blocks]
    with torch.inference_mode():
        first = vlm.model(**inputs, output_hidden_states=True).hidden_states[0]
        shown = {name: value for name, value in inputs.items() if name.startswith(("pixel", "image"))}
        added = vlm.model.model.get_image_features(**shown, return_dict=True).deepstack_features
        here = inputs["input_ids"] == vlm.model.config.image_token_id
        for output, features in zip(given, map(_joined, added), strict=False):
            assert float(features.abs().max()) > 0.1
            output[here] += features
    for hook in hooks:
        hook.remove()
    return [first, *given[:-1]]


@pytest.mark.parametrize("family", BUILDERS)
def test_states_are_the_residual_stream_at_the_visual_tokens(tiny: Callable[[str], Vlm], family: str) -> None:
    vlm = tiny(family)
    for size in SIZES:
        seen = vlm.visual_states([noise_image(*size)], [0, 1, 2])
        slow = _residual_stream(vlm, noise_image(*size))
        for layer in (0, 1, 2):
            assert torch.allclose(seen.states[layer], slow[layer], atol=1e-5, rtol=1e-5)


def test_the_hidden_states_that_qwen3_vl_lists_are_not_its_residual_stream(tiny: Callable[[str], Vlm]) -> None:
    vlm, image = tiny("qwen3_vl"), noise_image(96, 96)
    inputs = vlm.inputs([image])
    with torch.inference_mode():
        listed = vlm.model(**inputs, output_hidden_states=True).hidden_states
    here = inputs["input_ids"][0] == vlm.model.config.image_token_id
    seen = vlm.visual_states([image], [0, 1]).states
    assert torch.allclose(seen[0], listed[0][0, here], atol=1e-5)
    assert not torch.allclose(seen[1], listed[1][0, here], atol=1e-2)


@pytest.mark.parametrize("family", BUILDERS)
@pytest.mark.parametrize("size", SIZES)
def test_every_token_sees_exactly_the_pixels_of_its_box(
    tiny: Callable[[str], Vlm], family: str, size: tuple[int, int]
) -> None:
    check = localization(tiny(family), noise_image(*size), per_view=None)
    assert (check.passed, check.figure) == (True, 1.0)


@pytest.mark.parametrize("family", BUILDERS)
def test_a_batch_of_images_has_the_states_of_each_alone_whatever_side_is_padded(
    tiny: Callable[[str], Vlm], family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    vlm = tiny(family)
    images = [noise_image(*size) for size in [*SIZES, (200, 60)]]
    alone = [vlm.visual_states([image], [0, 2]) for image in images]
    for side in ("left", "right"):
        monkeypatch.setattr(vlm.processor.tokenizer, "padding_side", side)
        together = vlm.visual_states(images, [0, 2])
        counts = [len(one.tokens) for one in alone]
        assert together.tokens.group_by("image_index", maintain_order=True).len()["len"].to_list() == counts
        for layer in (0, 2):
            expected = torch.cat([one.states[layer] for one in alone])
            assert torch.allclose(together.states[layer], expected, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("family", [family for family in BUILDERS if family != "molmo2"])  # which adds it
def test_the_connectors_output_is_layer_0_where_a_family_puts_it_there_as_it_is(
    tiny: Callable[[str], Vlm], family: str
) -> None:
    images = [noise_image(*size) for size in [*SIZES, (200, 60)]]
    seen = tiny(family).visual_states(images, [0], connector=True)
    assert seen.connector is not None
    assert (seen.connector.dtype, len(seen.connector)) == (torch.float32, len(seen.tokens))
    assert torch.allclose(seen.connector, seen.states[0], atol=1e-5, rtol=1e-5)


def test_where_a_model_scales_embeddings_the_connectors_output_is_what_was_scaled(
    tiny: Callable[[str], Vlm], monkeypatch: pytest.MonkeyPatch
) -> None:
    vlm = tiny("granite_docling")
    monkeypatch.setattr(vlm.language_model.decoder, "embedding_multiplier", 12.0)  # as in the published ones
    seen = vlm.visual_states([noise_image(150, 100)], [0], connector=True)
    assert torch.allclose(12 * seen.connector, seen.states[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", ["llava_next", "idefics3"])
def test_where_a_model_adds_it_to_an_embedding_the_connectors_output_is_what_was_added(
    tiny: Callable[[str], Vlm], family: str
) -> None:
    vlm, images = tiny(family), [noise_image(*size) for size in SIZES * 4]
    plain, ran = vlm.visual_states(images, [0]).states[0], []

    def adding(_module: object, args: Any, kwargs: dict[str, Any]) -> Any:
        ran.append(1)
        return args, {**kwargs, "inputs_embeds": kwargs["inputs_embeds"] + 3}

    with vlm.language_model.decoder.register_forward_pre_hook(adding, with_kwargs=True):
        seen = vlm.visual_states(images, [0, 1], connector=True)
    assert torch.allclose(seen.connector, plain, atol=1e-5)
    assert torch.allclose(seen.states[0], plain + 3, atol=1e-5)
    assert len(ran) == 2  # 12 images, 8 a pass: the layers' passes
    assert vlm.visual_states(images[:1], [0]).connector is None
    assert vlm.visual_states([], [], connector=True).connector.shape == (0, 32)


def test_the_connectors_output_is_had_without_any_layer_and_leaves_the_model_as_it_was(
    tiny: Callable[[str], Vlm],
) -> None:
    vlm, image = tiny("llava"), noise_image(96, 96)
    before = {id(module): set(vars(module)) for module in vlm.model.modules()}
    seen = vlm.visual_states([image], [], connector=True)
    assert torch.allclose(seen.connector, vlm.visual_states([image], [0]).states[0], atol=1e-5)
    assert {id(module): set(vars(module)) for module in vlm.model.modules()} == before


@pytest.mark.parametrize(
    ("features", "reason"),
    [
        (None, "neither passes image features to a `get_placeholder_mask` nor has"),
        (torch.ones(3, 4), "3 rows of width 4, but its sequences have 2 visual tokens of width 4"),
        ([torch.ones(2, 5)], "2 rows of width 5, but .* 2 visual tokens of width 4"),
    ],
)
def test_a_connectors_output_that_cannot_be_captured_is_refused_with_the_reason(features: Any, reason: str) -> None:
    model = torch.nn.Linear(2, 2)
    if features is not None:
        model.get_image_features = lambda: SimpleNamespace(pooler_output=features)
    with connector_output(model, 4) as output:
        if features is not None:
            model.get_image_features()
        with pytest.raises(UserError, match=rf"connector's output of a Linear cannot be captured: .*{reason}"):
            output(torch.tensor([[True, False, True]]))


@pytest.mark.parametrize("family", BUILDERS)
def test_every_check_passes_and_logits_are_reproduced(tiny: Callable[[str], Vlm], family: str) -> None:
    facts = check_model(tiny(family))
    failed = {check.name for check in facts.checks if not check.passed}
    assert failed == KNOWN_TO_FAIL.get(family, set())
    assert {check.name: check.figure for check in facts.checks}["logits_reproduced"] < 1e-5


# PaliGemma reads a text in both directions where nothing is padded, and ahead no more where something is: its attention
# is not causal unless it is given a mask, and it is given one, a causal one, only where there is padding to leave out.
KNOWN_TO_FAIL = {"paligemma": {"causality", "padding_invariance"}}


@pytest.mark.parametrize("family", BUILDERS)
def test_tokens_have_boxes_with_an_area_but_for_newlines_and_separators_which_have_none(
    tiny: Callable[[str], Vlm], family: str
) -> None:
    tokens = tiny(family).visual_states([noise_image(150, 100)], [0]).tokens
    assert set(tokens["view"]) & WITHOUT_BOX == HAVE_NO_BOX.get(family, set())
    no_box = tokens["view"].is_in(list(WITHOUT_BOX))
    assert tokens.filter(no_box).select("x0", "y0", "x1", "y1").null_count().row(0) == (int(no_box.sum()),) * 4
    others = tokens.filter(~no_box)
    assert ((others["x1"] > others["x0"]) & (others["y1"] > others["y0"])).to_list() == [True] * len(others)


def test_every_family_with_a_map_has_a_tiny_model_to_prove_it() -> None:
    assert set(registry._MODULES) == set(BUILDERS) - {"pixtral"}  # which is of the family llava


@pytest.mark.parametrize("change", ["transposed", "shifted"])
@pytest.mark.parametrize("family", ["llava", "qwen2_vl", "gemma3", "llava_next", "idefics3", "molmo2"])
def test_a_wrong_map_is_found_out(
    tiny: Callable[[str], Vlm], family: str, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    vlm = tiny(family)
    true = vlm.token_map(150, 100)
    transposed = true.boxes.copy()
    transposed[np.lexsort((true.col, true.row, true.view))] = true.boxes[np.lexsort((true.row, true.col, true.view))]
    shifted = true.boxes + 0.4 * np.nanmax(true.boxes[:, 2] - true.boxes[:, 0]) * RIGHT
    wrong = true._replace(boxes={"transposed": transposed, "shifted": shifted}[change])
    monkeypatch.setattr(Vlm, "token_map", lambda self, width, height: wrong)
    check = localization(vlm, noise_image(150, 100), per_view=None)
    assert not check.passed
    assert check.figure < 0.6


def _one_column_on(true: TokenMap) -> np.ndarray:
    """The boxes of a map in which every token of a row has its neighbor's."""
    found = true.boxes.copy()
    for view in set(true.view) - WITHOUT_BOX:
        of_view = np.array(true.view) == view
        for row in np.unique(true.row[of_view]):
            tokens = np.flatnonzero(of_view & (true.row == row))
            found[tokens] = true.boxes[np.roll(tokens[np.argsort(true.col[tokens])], 1)]
    return found


def _rows_for_columns(true: TokenMap) -> np.ndarray:
    found = true.boxes.copy()
    found[np.lexsort((true.col, true.row, true.view))] = true.boxes[np.lexsort((true.row, true.col, true.view))]
    return found


@pytest.mark.parametrize("family", BUILDERS)
def test_in_bfloat16_too_a_right_map_passes_a_studys_check(tiny: Callable[[str], Vlm], family: str) -> None:
    vlm = load_vlm(Path(tiny(family).name), device="cpu", dtype="bfloat16")
    check = localization_if_possible(vlm)
    assert (check.passed, check.figure) == (True, 1.0)


@pytest.mark.parametrize("family", ["llava", "qwen2_vl", "gemma3", "llava_next", "idefics3", "pixtral", "ovis2"])
def test_in_bfloat16_too_a_wrong_map_fails_a_studys_check(
    tiny: Callable[[str], Vlm], family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    vlm = load_vlm(Path(tiny(family).name), device="cpu", dtype="bfloat16")
    true = Vlm.token_map
    for wrong, most in ((_one_column_on, 0.01), (_rows_for_columns, 0.4)):
        monkeypatch.setattr(Vlm, "token_map", lambda *a, of=wrong: (m := true(*a))._replace(boxes=of(m)))
        found = localization_if_possible(vlm)
        assert not found.passed
        assert found.figure < most


def test_the_picture_is_the_smallest_whose_boxes_are_large_enough(
    tiny: Callable[[str], Vlm], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A grid of 24 columns over the whole, and one token for every 14 pixels, where no size is large enough."""

    def shown(side_of: Callable[[int], float]) -> tuple[int, int]:
        boxes = lambda w, h: np.float32([[0, 0, side_of(w), side_of(w)], [np.nan] * 4])  # noqa: E731
        monkeypatch.setattr(Vlm, "token_map", lambda self, w, h: SimpleNamespace(boxes=boxes(w, h)))
        return self_checks._image_with_large_boxes(tiny("llava")).size

    assert shown(lambda width: width / 24) == (600, 400)
    assert shown(lambda width: 14 * width / (width + 1)) == (150, 100)


def test_the_check_of_boxes_leaves_the_model_as_it_was(tiny: Callable[[str], Vlm]) -> None:
    vlm, image = tiny("qwen2_vl"), noise_image(150, 100)
    before = vlm.visual_states([image], [0]).states[0]
    localization(vlm, image, per_view=1)
    assert torch.equal(vlm.visual_states([image], [0]).states[0], before)


def test_a_map_that_does_not_fit_the_model_is_told_with_the_image(
    tiny: Callable[[str], Vlm], monkeypatch: pytest.MonkeyPatch
) -> None:
    vlm = tiny("qwen2_vl")
    maps = {size: vlm.token_map(*size) for size in [(150, 100), (96, 96)]}
    swapped = {(150, 100): maps[96, 96], (96, 96): maps[150, 100]}  # together they have as many as they should
    monkeypatch.setattr(Vlm, "token_map", lambda self, width, height: swapped[width, height])
    with pytest.raises(UserError, match="8 visual tokens for an image of 150 x 100 pixels, but its region map has 9"):
        vlm.visual_states([noise_image(150, 100), noise_image(96, 96)], [0])


def test_a_forward_pass_ends_at_the_deepest_layer_that_is_wanted(tiny: Callable[[str], Vlm]) -> None:
    vlm, ran = tiny("llava"), []
    blocks = vlm.language_model.decoder.layers
    hooks = [block.register_forward_hook(lambda *args, number=n: ran.append(number)) for n, block in enumerate(blocks)]
    vlm.visual_states([noise_image(96, 96)], [1, 0])
    for hook in hooks:
        hook.remove()
    assert ran == [0]


@pytest.mark.parametrize(
    ("family", "reason"), [("mllama", "cross-attention, .*no visual tokens"), ("blip-2", "mixes the whole image")]
)
def test_a_family_whose_tokens_have_no_place_is_refused_with_the_reason(family: str, reason: str) -> None:
    with pytest.raises(UserError, match=rf"`{family}`.*{reason}.*docs/families"):
        region_map(family, "some model")


@pytest.mark.parametrize("family", ["llava", "qwen2_vl", "llava_next", "idefics3"])
def test_a_family_that_is_not_known_is_read_as_before_but_its_tokens_have_no_place(
    tiny: Callable[[str], Vlm], family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    vlm, images = tiny(family), [noise_image(*size) for size in SIZES * 4]
    mapped = vlm.visual_states(images, [0, 2])
    monkeypatch.delitem(registry._MODULES, family)
    seen = vlm.visual_states(images, [0, 2])
    assert all(torch.equal(seen.states[layer], mapped.states[layer]) for layer in (0, 2))
    number = ["image_index", "token_index", "prompt_index", "image_in_prompt"]
    assert seen.tokens.select(number).equals(mapped.tokens.select(number))
    assert set(seen.tokens["view"]) == {"unmapped"}
    assert seen.tokens.schema == mapped.tokens.schema
    nowhere = seen.tokens.drop(*number, "view")
    assert nowhere.null_count().row(0) == (len(seen.tokens),) * 7


def test_the_checks_of_a_family_that_is_not_known_count_its_tokens_and_do_not_look_for_their_places(
    tiny: Callable[[str], Vlm], monkeypatch: pytest.MonkeyPatch
) -> None:
    vlm = tiny("qwen2_vl")
    monkeypatch.delitem(registry._MODULES, "qwen2_vl")
    image = noise_image(150, 100)
    checks = {check.name: check for check in check_model(vlm).checks}
    assert tuple(checks) == CHECKS
    counted, placed = checks["visual_token_count"], checks["localization"]
    assert (counted.passed, counted.figure) == (True, len(vlm.visual_states([image], [0]).tokens))
    assert (placed.passed, placed.figure) == (False, None)
    assert "`qwen2_vl`, which has no region map that could be checked" in str(placed.not_checked)
    with pytest.raises(UserError, match="`qwen2_vl`, which has no region map that could be checked"):
        localization(vlm, image)


def test_where_the_tokens_of_a_family_cannot_have_places_the_check_of_boxes_says_why(
    tiny: Callable[[str], Vlm], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert set(registry._UNMAPPED).isdisjoint(registry._MODULES)
    monkeypatch.delitem(registry._MODULES, "qwen2_vl")
    monkeypatch.setitem(registry._UNMAPPED, "qwen2_vl", registry._UNMAPPED["aria"])
    with pytest.raises(UserError, match=r"`qwen2_vl`, which has no .* queries that attend to the whole image"):
        localization(tiny("qwen2_vl"), noise_image(150, 100))


def test_a_vision_tower_without_an_attention_that_we_know_is_not_checked(
    tiny: Callable[[str], Vlm], monkeypatch: pytest.MonkeyPatch
) -> None:
    vlm = tiny("llava")
    monkeypatch.setattr(type(vlm.model), "get_encoder", lambda self, modality: torch.nn.Linear(2, 2))
    check = localization_if_possible(vlm)
    assert (check.passed, check.figure) == (False, None)
    assert "has no attention that we know" in str(check.not_checked)


def test_a_model_of_which_it_is_not_known_which_tokens_are_visual_is_refused(
    tiny: Callable[[str], Vlm], monkeypatch: pytest.MonkeyPatch
) -> None:
    vlm = tiny("llava")
    monkeypatch.delitem(registry._MODULES, "llava")
    monkeypatch.setattr("latentlens_dag.models.vlm.visual_mask", lambda model, ids: nullcontext(lambda: ids < 0))
    with pytest.raises(UserError, match=r"no visual tokens for an image of 150 x 100 pixels: .*`llava`"):
        vlm.visual_states([noise_image(150, 100)], [0])
    with pytest.raises(UserError, match="does not say which tokens of its sequence are visual"):
        connector._image_token_of(SimpleNamespace(config=SimpleNamespace()))


def test_a_family_without_a_tiny_model_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"family `git`.*llava"):
        tiny_vlm("git", tmp_path)


def test_a_large_onevision_grid_is_interpolated_to_fewer_tokens_whose_boxes_cover_as_much(tmp_path: Path) -> None:
    vlm = load_vlm(tiny_vlm("llava_onevision", tmp_path), device="cpu")
    before = vlm.token_map(150, 100)
    vlm.model.config.vision_aspect_ratio = vlm.processor.vision_aspect_ratio = "anyres_max_1"
    after = vlm.token_map(150, 100)
    assert before.view.count("tile") == 24
    assert after.view.count("tile") == len(vlm.visual_states([noise_image(150, 100)], [0]).tokens) - 9 - 2 == 2 * 3
    for end, extreme in ((0, np.nanmin), (1, np.nanmin), (2, np.nanmax), (3, np.nanmax)):
        one, other = (extreme(places.boxes[9:, end]) for places in (before, after))
        assert one == pytest.approx(other)


def test_tiles_that_are_cropped_are_refused(tmp_path: Path) -> None:
    vlm = load_vlm(tiny_vlm("llava_next", tmp_path), device="cpu")
    vlm.processor.image_processor.crop_size = {"height": 36, "width": 36}
    with pytest.raises(UserError, match="use square tiles, not cropped"):
        vlm.token_map(150, 100)


def test_paligemma_is_asked_without_a_template_and_another_family_is_not(tiny: Callable[[str], Vlm]) -> None:
    paligemma = tiny("paligemma")
    assert paligemma.prompt_text("What is it?") == "<image>What is it?"
    text = paligemma.processor.tokenizer.decode(paligemma.inputs([noise_image(96, 96)], "What is it?")["input_ids"][0])
    assert text == "<image>" * 9 + "<bos> What is it?\n"
    other = replace(tiny("llava"), processor=SimpleNamespace())
    with pytest.raises(UserError, match="no chat template"):
        other.prompt_text("What is it?")


def test_a_processor_without_a_part_for_videos_has_no_second_way_in(tmp_path: Path) -> None:
    tiny_vlm("llava", tmp_path)
    for name in ("processor_config.json", "preprocessor_config.json"):
        (tmp_path / name).unlink(missing_ok=True)
    with pytest.raises(UserError, match="cannot be loaded as a vision-language model"):
        load_vlm(tmp_path, device="cpu")


@pytest.mark.parametrize("family", ["llava_next", "llava_onevision"])
def test_the_last_pixels_of_a_tile_are_in_no_box(tiny: Callable[[str], Vlm], family: str) -> None:
    """Three patches of 12 pixels in a tile of 40; an image of 80 x 80 is four tiles as it stands."""
    places = tiny(family).token_map(80, 80)
    whole, first_row = places.boxes[:3], places.boxes[9:15]
    assert whole[:, [0, 2]].tolist() == [[0, 24], [24, 48], [48, 72]]
    assert first_row[:, [0, 2]].tolist() == [[0, 12], [12, 24], [24, 36], [40, 52], [52, 64], [64, 76]]
    assert places.tile[9:16].tolist() == [1, 1, 1, 2, 2, 2, 2]


def test_an_index_of_paligemma_holds_the_states_of_each_sentence_alone_through_the_whole_model(
    tiny: Callable[[str], Vlm], tmp_path: Path
) -> None:
    vlm = tiny("paligemma")
    tokenizer = vlm.processor.tokenizer
    index = ContextualIndex.build(vlm, tokenizer, SENTENCES, layers=[1, 2], path=tmp_path / "index")
    tokens = [tokenizer(text, return_tensors="pt")["input_ids"] for text in SENTENCES]
    assert len({ids.shape[1] for ids in tokens}) < len(tokens)  # some are read together
    assert len({ids.shape[1] for ids in tokens}) > 1
    for ids in tokens:
        with torch.inference_mode():
            slow = vlm.model(input_ids=ids, output_hidden_states=True, use_cache=False).hidden_states
        for layer in (1, 2):
            assert np.allclose(index.search(slow[layer][0, 2:], k=1, layers=[layer]).cosine, 1, atol=1e-5)


@pytest.mark.parametrize("family", BUILDERS)
def test_the_text_pass_of_the_language_model_alone_is_that_of_the_whole_model(
    tiny: Callable[[str], Vlm], family: str
) -> None:
    vlm = tiny(family)
    model, ids = vlm.language_model, torch.tensor([[40, 50, 60, 70, 80]])
    with capture_hidden_states(model.decoder, [model.depth], lambda s: s) as states, torch.inference_mode():
        model.decoder(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)
        alone = model.logits(states[model.depth])
        whole = vlm.model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits
    assert torch.allclose(alone, whole, atol=1e-4, rtol=1e-4)
