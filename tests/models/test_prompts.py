"""The text around an image, through chat templates of the kinds that published models have."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from latentlens_dag import Prompt
from latentlens_dag.errors import UserError
from latentlens_dag.models.loading import load_vlm
from latentlens_dag.models.prompts import DEFAULT_PROMPT
from latentlens_dag.models.vlm import Vlm
from latentlens_dag.testing import tiny_llava, tiny_vlm

IMAGE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8))

IMAGES_FIRST = (  # LLaVA 1.5, LLaVA-NeXT, LLaVA-OneVision
    "{% for message in messages %}{% if message['role'] != 'system' %}{{ message['role'].upper() + ': ' }}{% endif %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>\n' }}{% endfor %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}{{ content['text'] + ' ' }}"
    "{% endfor %}{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
IN_ORDER = (  # Qwen2-VL
    "{% for message in messages %}"
    "{% if loop.first and message['role'] != 'system' %}[system] You are helpful.{{ '\n' }}{% endif %}"
    "[{{ message['role'] }}] {% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for content in message['content'] %}{% if content['type'] == 'image' %}(<image>)"
    "{% elif 'text' in content %}{{ content['text'] }}{% endif %}{% endfor %}{% endif %}{{ '\n' }}"
    "{% endfor %}[assistant] "
)
_USER = "{% for content in messages[-1]['content'] %}{{ '<image>' if content['type'] == 'image' else content['text'] }}"
SYSTEM_AS_TEXT = "{% if messages[0]['role'] == 'system' %}{{ '<<' + messages[0]['content'] + '>>' }}{% endif %}" + (
    f"{_USER}{{% endfor %}}"
)
SYSTEM_PRINTED = f"{{% if messages[0]['role'] == 'system' %}}{{{{ messages[0]['content'] }}}} {{% endif %}}{_USER}" + (
    "{% endfor %}"
)
SYSTEM_REFUSED = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    f"{_USER}{{% endfor %}}"
)
SYSTEM_IGNORED = f"{_USER}{{% endfor %}}"
TEXTS_FIRST = (
    "{% for content in messages[-1]['content'] | selectattr('type', 'equalto', 'text') %}{{ content['text'] }} "
    "{% endfor %}{% for content in messages[-1]['content'] | selectattr('type', 'equalto', 'image') %}<image>"
    "{% endfor %}"
)
ONE_IMAGE = (
    "{% if messages[-1]['content'] | selectattr('type', 'equalto', 'image') | list %}<image>{% endif %}"
    "{% for content in messages[-1]['content'] | selectattr('type', 'equalto', 'text') %}{{ content['text'] }}"
    "{% endfor %}"
)


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Vlm]:
    """A tiny LLaVA with another chat template."""
    vlm = load_vlm(tiny_llava(tmp_path), device="cpu")

    def with_template(template: str) -> Vlm:
        monkeypatch.setattr(vlm.processor, "chat_template", template)
        return vlm

    return with_template


@pytest.mark.parametrize(
    ("template", "prompt", "images", "text"),
    [
        (IMAGES_FIRST, None, 1, f"USER: <image>\n{DEFAULT_PROMPT} ASSISTANT:"),
        (IMAGES_FIRST, Prompt("Why?", "Look: "), 1, "USER: Look: <image>\nWhy? ASSISTANT:"),
        (IMAGES_FIRST, Prompt("Why?", "Look: ", "Be brief."), 1, "Be brief. USER: Look: <image>\nWhy? ASSISTANT:"),
        (IMAGES_FIRST, Prompt("", "Look: "), 2, "USER: Look: <image>\n<image>\nASSISTANT:"),
        (IN_ORDER, Prompt("Why?", "Look"), 1, "[system] You are helpful.\n[user] Look(<image>)Why?\n[assistant] "),
        (IN_ORDER, Prompt("Why?", "", "Be brief."), 1, "[system] Be brief.\n[user] (<image>)Why?\n[assistant] "),
        (IN_ORDER, Prompt("", "", "You are helpful."), 1, "[system] You are helpful.\n[user] (<image>)\n[assistant] "),
        (IN_ORDER, Prompt("Why?"), 2, "[system] You are helpful.\n[user] (<image>)(<image>)Why?\n[assistant] "),
        (SYSTEM_AS_TEXT, Prompt("Why?", "Look", "Be brief."), 1, "<<Be brief.>>Look<image>Why?"),
        (SYSTEM_PRINTED, Prompt("Why?", "Look", "Be brief."), 1, "Be brief. Look<image>Why?"),
        (TEXTS_FIRST, Prompt("Why?", "Look"), 2, "Look Why? <image><image>"),
        (SYSTEM_REFUSED, Prompt("Why?", "Look"), 1, "Look<image>Why?"),
    ],
)
def test_the_text_around_an_image_is_that_of_the_chat_template_with_the_text_before_it_in_front(
    asked: Callable[[str], Vlm], template: str, prompt: Prompt | None, images: int, text: str
) -> None:
    vlm = asked(template)
    assert vlm.prompt_text(prompt, images) == text
    ids = vlm.inputs([[IMAGE] * images], prompt)["input_ids"][0]
    assert int((ids == vlm.model.config.image_token_id).sum()) == 9 * images


def test_text_before_the_image_changes_states_where_the_template_writes_images_first(
    asked: Callable[[str], Vlm],
) -> None:
    vlm = asked(IMAGES_FIRST)
    plain, before, after = (
        vlm.visual_states([IMAGE], [2], prompt).states[2]
        for prompt in (None, Prompt(before="A dog sleeps. "), Prompt(f"A dog sleeps. {DEFAULT_PROMPT}"))
    )
    assert torch.allclose(after, plain, atol=1e-5)
    assert bool(((before - plain).norm(dim=1) > 1e-2).all())


@pytest.mark.parametrize("template", [SYSTEM_REFUSED, SYSTEM_IGNORED])
def test_a_system_prompt_that_the_template_does_not_write_is_refused(
    asked: Callable[[str], Vlm], template: str
) -> None:
    with pytest.raises(UserError, match=r"system prompt 'Be brief\.': its chat template leaves out .*as `before`"):
        asked(template).visual_states([IMAGE], [0], Prompt(system="Be brief."))


def test_a_text_before_the_image_is_refused_where_it_is_not_known_where_the_image_begins(
    asked: Callable[[str], Vlm],
) -> None:
    texts = "messages[0]['content'] | selectattr('type', 'equalto', 'text') | list"
    vlm = asked(f"{{{{ 'ASK: ' if {texts} else 'SHOW: ' }}}}{IMAGES_FIRST}")
    assert vlm.prompt_text(Prompt("")) == "SHOW: USER: <image>\nASSISTANT:"
    with pytest.raises(UserError, match=r"text before the image \('Look'\): its chat template moves it"):
        vlm.visual_states([IMAGE], [0], Prompt("", "Look"))


def test_a_template_that_writes_one_image_of_several_is_refused(asked: Callable[[str], Vlm]) -> None:
    vlm = asked(ONE_IMAGE)
    vlm.visual_states([IMAGE], [0])
    with pytest.raises(UserError, match="would not see all of 2 images: its chat template leaves it out"):
        vlm.visual_states([[IMAGE, IMAGE]], [0])


@pytest.mark.parametrize(
    ("prompt", "told"),
    [
        ("<image> What is it?", r"'<image> What is it\?' \(`after`\) contains <image>, a token of"),
        (Prompt(before="Look at <image>"), r"\(`before`\) contains <image>"),
        (Prompt(system="See <image>."), r"\(`system`\) contains <image>.*Leave it out; .* is `before`"),
    ],
)
def test_a_prompt_that_contains_the_image_token_is_refused(
    asked: Callable[[str], Vlm], prompt: str | Prompt, told: str
) -> None:
    with pytest.raises(UserError, match=told):
        asked(IN_ORDER).visual_states([IMAGE], [0], prompt)


@pytest.mark.parametrize(
    ("family", "token"),
    [
        ("gemma3", "<start_of_image>"),
        ("gemma3", "<image_soft_token>"),
        ("idefics3", "<fake_token_around_image>"),
        ("internvl", "<IMG_CONTEXT>"),
        ("paligemma", "<image>"),
        ("qwen2_vl", "<|vision_start|>"),
        ("qwen2_vl", "<|video_pad|>"),
        ("aya_vision", "<|IMG_PATCH|>"),
        ("ovis2", "<IMG_ATOM>"),
        ("pixtral", "[IMG_BREAK]"),
    ],
)
def test_a_prompt_that_contains_another_token_of_images_is_refused(tmp_path: Path, family: str, token: str) -> None:
    vlm = load_vlm(tiny_vlm(family, tmp_path), device="cpu")
    assert vlm.visual_states([IMAGE], [0], f"Is this {token[1:-1]}?").tokens["token_index"][0] == 0
    with pytest.raises(UserError, match=r"contains .*, a token of"):
        vlm.visual_states([IMAGE], [0], f"Is this {token}?")


def test_no_prompt_is_the_papers_and_an_empty_part_is_left_out(asked: Callable[[str], Vlm]) -> None:
    vlm = asked(IN_ORDER)
    assert vlm.prompt_text(None) == vlm.prompt_text(Prompt()) == vlm.prompt_text(DEFAULT_PROMPT)
    assert vlm.prompt_text(Prompt("", "", "")) == "[system] You are helpful.\n[user] (<image>)\n[assistant] "
    assert len(vlm.visual_states([IMAGE], [0], Prompt("")).tokens) == 9


@pytest.mark.parametrize("prompt", ["", " ", "\n"])
def test_an_empty_plain_prompt_is_refused_with_what_it_may_mean(asked: Callable[[str], Vlm], prompt: str) -> None:
    with pytest.raises(UserError, match=r"is empty\. Leave it out for the paper's question .* `Prompt\(after=''\)`"):
        asked(IN_ORDER).visual_states([IMAGE], [0], prompt)


def test_a_prompt_of_another_type_is_told(asked: Callable[[str], Vlm]) -> None:
    with pytest.raises(TypeError, match=r"`prompt` is a dict, but must be a text, .* or a `Prompt\(before="):
        asked(IN_ORDER).visual_states([IMAGE], [0], {"before": "Look"})


@pytest.mark.parametrize(
    ("images", "error", "told"),
    [
        ([[IMAGE, "a.png"]], TypeError, r"`images\[0\]\[1\]` is a str, but must be a PIL image"),
        ([IMAGE, []], UserError, r"`images\[1\]` is an empty list"),
        ([[[IMAGE]]], TypeError, r"`images\[0\]\[0\]` is a list"),
    ],
)
def test_what_is_no_list_of_images_in_a_prompt_is_told(
    asked: Callable[[str], Vlm], images: object, error: type[Exception], told: str
) -> None:
    with pytest.raises(error, match=told):
        asked(IN_ORDER).visual_states(images, [0])


def test_several_images_that_the_memory_does_not_hold_are_told_together(
    asked: Callable[[str], Vlm], monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_memory(*_: object) -> object:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Vlm, "_forward", no_memory)
    with pytest.raises(UserError, match="beside 2 images in one prompt of 60 x 40 and 60 x 40 pixels"):
        asked(IN_ORDER).visual_states([[IMAGE, IMAGE]], [0])
