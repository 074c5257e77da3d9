"""Every family of VLMs: what the text around an image changes, and several images in one prompt."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from latentlens_dag import Prompt
from latentlens_dag.errors import UserError
from latentlens_dag.models import localization
from latentlens_dag.models.families import registry
from latentlens_dag.models.loading import load_vlm
from latentlens_dag.models.vlm import VisualStates, Vlm
from latentlens_dag.testing import tiny_vlm
from latentlens_dag.testing.families import BUILDERS
from tests.models.families.test_families import SIZES, tiny

__all__ = ["tiny"]  # a fixture

LAYERS = [0, 1, 2]
BIDIRECTIONAL = {"paligemma"}
"""Families in which a visual token attends to what comes after its image; in Gemma 3, only to its own image."""
SEEING_LATER_IMAGES = BIDIRECTIONAL | {"molmo2"}
"""Families in which a visual token attends to all images of its prompt."""
OTHERWISE_CUT = {"llava_onevision"}
"""Families that cut an image which shares its prompt with others in another way than an image alone."""


def _image(size: tuple[int, int], seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), dtype=np.uint8))


IMAGES = [_image(size, seed) for seed, size in enumerate(SIZES)]


def _close(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.shape == other.shape and torch.allclose(one, other, atol=1e-4, rtol=1e-4)


def _changed(vlm: Vlm, layer: int, one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether all tokens changed; where no block below attends to the whole text, one, or none if all are short."""
    change, kinds = (one - other).norm(dim=1), getattr(vlm.model.config.get_text_config(), "layer_types", None)
    below = set((kinds or ["full_attention"])[:layer])
    if below & {"full_attention", "sliding_attention", "chunked_attention"}:
        return bool((change > 1e-2).all())
    return below == {"conv"} or bool(change.max() > 1e-2)


def _of_image(seen: VisualStates, number: int, layer: int) -> torch.Tensor:
    return seen.states[layer][torch.from_numpy((seen.tokens["image_index"] == number).to_numpy())]


@pytest.mark.parametrize("family", BUILDERS)
def test_a_text_before_the_image_changes_its_states_and_a_text_after_it_does_not(
    tiny: Callable[[str], Vlm], family: str
) -> None:
    vlm, image = tiny(family), IMAGES[0]
    plain = vlm.visual_states([image], LAYERS).states
    after = vlm.visual_states([image], LAYERS, "What is this, and who put it on the grass?").states
    before = vlm.visual_states([image], LAYERS, Prompt(before="A dog runs.")).states
    assert _close(before[0], plain[0]) and _close(after[0], plain[0])
    for layer in (1, 2):
        assert _changed(vlm, layer, before[layer], plain[layer])
        assert _close(after[layer], plain[layer]) == (family not in BIDIRECTIONAL)


@pytest.mark.parametrize("family", BUILDERS)
def test_a_system_prompt_changes_the_states_as_a_text_before_the_image_does(
    tiny: Callable[[str], Vlm], family: str
) -> None:
    vlm, image, system = tiny(family), IMAGES[0], Prompt(system="A dog runs.")
    if family in registry.WITHOUT_TEMPLATE:
        with pytest.raises(UserError, match=r"no place for a system prompt \('A dog runs.'\). Use `before`"):
            vlm.visual_states([image], LAYERS, system)
        return
    plain, given = (vlm.visual_states([image], LAYERS, prompt).states for prompt in (None, system))
    assert _close(given[0], plain[0])
    assert all(_changed(vlm, layer, given[layer], plain[layer]) for layer in (1, 2))


@pytest.mark.parametrize("family", BUILDERS)
def test_the_first_of_several_images_has_the_states_that_it_has_alone_where_a_family_is_causal(
    tiny: Callable[[str], Vlm], family: str
) -> None:
    vlm, (first, second, third) = tiny(family), IMAGES
    alone, two, other = (vlm.visual_states(images, LAYERS) for images in ([first], [[first, second]], [[first, third]]))
    for layer in LAYERS:
        is_causal = layer == 0 or family not in SEEING_LATER_IMAGES
        assert _close(_of_image(two, 0, layer), _of_image(other, 0, layer)) == is_causal
        expected = is_causal and family not in OTHERWISE_CUT
        assert _close(_of_image(two, 0, layer), alone.states[layer]) == expected
    swapped = vlm.visual_states([[second, first]], LAYERS)
    assert _close(_of_image(swapped, 1, 0), _of_image(two, 0, 0))
    assert not _close(_of_image(swapped, 1, 2), _of_image(two, 0, 2))


@pytest.mark.parametrize("family", BUILDERS)
def test_prompts_of_several_images_have_the_states_of_each_prompt_alone_whatever_side_is_padded(
    tiny: Callable[[str], Vlm], family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    vlm, prompts = tiny(family), [[IMAGES[0], IMAGES[1]], IMAGES[2], [IMAGES[1], IMAGES[2], IMAGES[0]]]
    alone = [vlm.visual_states([one], [0, 2], connector=True) for one in prompts]
    for side in ("left", "right"):
        monkeypatch.setattr(vlm.processor.tokenizer, "padding_side", side)
        together = vlm.visual_states(prompts, [0, 2], connector=True)
        for layer in (0, 2):
            assert _close(together.states[layer], torch.cat([one.states[layer] for one in alone]))
        assert _close(together.connector, torch.cat([one.connector for one in alone]))
        boxes = ["view", "tile", "row", "col", "x0", "y0", "x1", "y1", "image_in_prompt"]
        assert together.tokens.select(boxes).rows() == [row for one in alone for row in one.tokens.select(boxes).rows()]


@pytest.mark.parametrize("family", BUILDERS)
def test_every_token_of_several_images_sees_exactly_the_pixels_of_its_box_in_its_own_image(
    tiny: Callable[[str], Vlm], family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every second token beside padding at the left, the others at the right: the test above compares the two."""
    vlm = tiny(family)
    samples = [localization._sample_tokens(token_map.view, per_view=8) for token_map in vlm.token_maps(SIZES)]
    for first, side in enumerate(("left", "right")):
        monkeypatch.setattr(vlm.processor.tokenizer, "padding_side", side)
        with localization._without_mixing(vlm.model):
            original = vlm.visual_states([IMAGES, [IMAGES[0]]], [0])
            for number, tokens in enumerate(samples):
                for token in tokens[first::2]:
                    _check_token(vlm, original, number, token)


def _check_token(vlm: Vlm, original: VisualStates, number: int, token: int) -> None:
    """Invert a part of a token's box in one of IMAGES, beside a prompt of an image alone that stays as it is."""
    token_map = vlm.token_maps(SIZES)[number]
    part = localization._inner_half(token_map.boxes[token], IMAGES[number])
    if part is None:
        return
    changed = [*IMAGES]
    changed[number] = localization._invert(IMAGES[number], part)
    change = (vlm.visual_states([changed, [IMAGES[0]]], [0]).states[0] - original.states[0]).norm(dim=1).numpy()
    own = (original.tokens["image_index"] == number).to_numpy()
    assert localization._is_localized(token_map, token, part, change[own])
    assert change[~own].max() <= localization._UNCHANGED * change[own][token]


def test_tokens_are_numbered_by_image_by_prompt_and_within_the_prompt(tiny: Callable[[str], Vlm]) -> None:
    vlm, (a, b, c) = tiny("qwen2_vl"), IMAGES
    tokens = vlm.visual_states([[a, b], c, (b,), [c, a, b]], [0]).tokens
    counts = [len(vlm.token_map(image.width, image.height).view) for image in (a, b, c, b, c, a, b)]
    slow = zip(range(7), [0, 0, 1, 2, 3, 3, 3], [0, 1, 0, 0, 0, 1, 2], counts, strict=True)
    assert tokens.select("image_index", "prompt_index", "image_in_prompt", "token_index").rows() == [
        (image, prompt, place, token) for image, prompt, place, count in slow for token in range(count)
    ]
    alone = vlm.visual_states([a, b], [0]).tokens
    assert alone["prompt_index"].equals(alone["image_index"].alias("prompt_index"))
    assert set(alone["image_in_prompt"]) == {0}


def test_an_image_in_a_list_of_its_own_is_that_image_to_the_bit(tiny: Callable[[str], Vlm]) -> None:
    vlm = tiny("llava_onevision")
    plain, listed = vlm.visual_states(IMAGES, LAYERS), vlm.visual_states([[image] for image in IMAGES], LAYERS)
    assert plain.tokens.equals(listed.tokens)
    assert all(torch.equal(plain.states[layer], listed.states[layer]) for layer in LAYERS)


def test_a_pass_has_eight_images_in_whole_prompts_or_one_prompt_with_more(
    tiny: Callable[[str], Vlm], monkeypatch: pytest.MonkeyPatch
) -> None:
    vlm, forward, passes = tiny("llava"), Vlm._forward, []

    def counted(vlm: Vlm, part: list[Any], *arguments: Any) -> Any:
        passes.append([len(one) if isinstance(one, list) else 1 for one in part])
        return forward(vlm, part, *arguments)

    monkeypatch.setattr(Vlm, "_forward", counted)
    small = _image((40, 40))
    vlm.visual_states([[small] * 5, [small] * 3, small, [small] * 9, *[small] * 9], [0])
    assert passes == [[5, 3], [1], [9], [1] * 8, [1]]


@pytest.mark.parametrize("family", ["llava", "qwen2_vl"])
def test_unmapped_images_of_a_prompt_are_told_apart_by_the_text_between_them(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vlm = load_vlm(tiny_vlm(family, tmp_path), device="cpu")
    template = vlm.processor.chat_template
    monkeypatch.setattr(vlm.processor, "chat_template", template.replace("<image>", "<image>\n"))
    mapped = vlm.visual_states([IMAGES, [IMAGES[2]]], [0, 2], Prompt(before="A dog."))
    monkeypatch.delitem(registry._MODULES, family)
    seen = vlm.visual_states([IMAGES, [IMAGES[2]]], [0, 2], Prompt(before="A dog."))
    assert all(torch.equal(seen.states[layer], mapped.states[layer]) for layer in (0, 2))
    numbers = ["image_index", "token_index", "prompt_index", "image_in_prompt"]
    assert seen.tokens.select(numbers).equals(mapped.tokens.select(numbers))
    assert set(seen.tokens["view"]) == {"unmapped"}


@pytest.mark.parametrize(("family", "runs"), [("llava", 1), ("idefics3", 10)])
def test_unmapped_images_of_a_prompt_that_cannot_be_told_apart_are_refused(
    tiny: Callable[[str], Vlm], family: str, runs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LLaVA's follow one another without a text between them, and Idefics3 writes every tile by itself."""
    vlm = tiny(family)
    monkeypatch.delitem(registry._MODULES, family)
    assert set(vlm.visual_states(IMAGES[:2], [0]).tokens["view"]) == {"unmapped"}
    with pytest.raises(UserError, match=rf"in {runs} runs for 2 images of one prompt, .*`{family}` has no region map"):
        vlm.visual_states([IMAGES[:2]], [0])


def test_unmapped_images_of_several_runs_each_are_refused_though_as_many_runs_as_images_remain(
    tiny: Callable[[str], Vlm], monkeypatch: pytest.MonkeyPatch
) -> None:
    vlm = tiny("idefics3")
    monkeypatch.delitem(registry._MODULES, "idefics3")
    monkeypatch.setattr("latentlens_dag.models.vlm._runs", lambda visual: [sum(visual) // 5] * 5)
    with pytest.raises(UserError, match="so it is not known which are whose"):
        vlm.visual_states([[IMAGES[2]] * 5], [0])
