"""The text around the images of one sequence, through the model's chat template.

Note: in a causal model, only what comes before an image can change the states of its tokens. A chat template may write
all images before all texts of a message (LLaVA does), so it is tried out whether the text is in front.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from latentlens_dag.errors import UserError
from latentlens_dag.models.families.registry import WITHOUT_TEMPLATE

DEFAULT_PROMPT = "Describe this image in detail."
_PROBE = "Latentlens"  # a text that no template contains
_IMAGE_WORDS = ("image", "img", "video", "vision", "boi", "eoi")


@dataclass(frozen=True)
class Prompt:
    """The text around the images of one sequence: text that comes before them changes the states of a causal model."""

    after: str = DEFAULT_PROMPT
    """The question, after the last image; empty: none."""
    before: str = ""
    """Before the first image, in the same message; empty: none."""
    system: str = ""
    """The system prompt; empty: the chat template's own, if it has one."""

    @classmethod
    def of(cls, prompt: str | Prompt | None) -> Prompt:
        """A plain text as the question after the images; the paper's if there is none.

        Raises:
            UserError: if the text is empty, which may mean either.
        """
        if isinstance(prompt, Prompt):
            return prompt
        if prompt is not None and not isinstance(prompt, str):
            raise TypeError(
                f"`prompt` is a {type(prompt).__name__}, but must be a text, which comes after the images, or a "
                "`Prompt(before=..., after=..., system=...)`."
            )
        if prompt is not None and not prompt.strip():
            raise UserError(
                f"The prompt {prompt!r} is empty. Leave it out for the paper's question ({DEFAULT_PROMPT!r}), or give "
                "`Prompt(after='')` for none."
            )
        return cls(DEFAULT_PROMPT if prompt is None else prompt)


def prompt_text(vlm: Any, prompt: Prompt, images: int) -> str:
    """The whole text around the placeholders of some images.

    A family without chat template (PaliGemma) gets the texts and the image tokens verbatim.

    Args:
        vlm: a `Vlm`.
        prompt: what is written around the images.
        images: how many there are, one after the other; at least 1.

    Raises:
        UserError: if another family's processor has no chat template, or one that leaves out an image or the system
            prompt; or if a text contains a token of images.
    """
    if not getattr(vlm.processor, "chat_template", None):
        return _verbatim(vlm, prompt, images)
    _check_without_image_tokens(vlm, prompt)
    write = _writer(vlm, prompt.system)
    question = prompt.after or DEFAULT_PROMPT
    if write("", images, question) == write("", images - 1, question):
        raise UserError(
            f"{vlm.name} would not see {'the image' if images == 1 else f'all of {images} images'}: its chat template "
            "leaves it out, and the prompt has no image token. It may be the template of its language model: replace "
            "chat_template.jinja in its folder."
        )
    if not prompt.before or _is_in_front(write):
        return write(prompt.before, images, prompt.after)
    return _put_before_images(vlm, write, prompt, images)


def check_template(processor: Any, model_type: str, name: str) -> None:
    """Refuse a processor without the chat template that its family needs.

    Raises:
        UserError: if it has none, and the family is none of WITHOUT_TEMPLATE.
    """
    if not getattr(processor, "chat_template", None) and model_type not in WITHOUT_TEMPLATE:
        raise UserError(
            f"{name} has no chat template, so it is not known how to ask it about an image. Put the published "
            "one into its folder, as chat_template.jinja."
        )


def _verbatim(vlm: Any, prompt: Prompt, images: int) -> str:
    check_template(vlm.processor, vlm.model.config.model_type, vlm.name)
    if prompt.system:
        raise UserError(
            f"{vlm.name} has no chat template, and so no place for a system prompt ({prompt.system!r}). Use `before` "
            "for a text before the image."
        )
    _check_without_image_tokens(vlm, prompt)
    return prompt.before + vlm.processor.image_token * images + prompt.after


_Writer = Callable[[str, int, str], str]
"""(before, images, after) -> the text of the chat template; an empty text is left out of the message."""


def _writer(vlm: Any, system: str) -> _Writer:
    """Write a message with the chat template, after that of the system prompt if there is one."""
    messages = [_system_message(vlm, system)] if system else []

    def write(before: str, images: int, after: str) -> str:
        parts = [*_parts(before), *[{"type": "image"}] * images, *_parts(after)]
        try:
            return _apply_template(vlm.processor, [*messages, {"role": "user", "content": parts}])
        except Exception as error:  # any: a template is a program
            reason = " ".join(str(error).split())
            raise UserError(
                f"{vlm.name} cannot be asked about an image: its chat template fails ({type(error).__name__}: "
                f"{reason:.200}). Put the published one into its folder, as chat_template.jinja."
            ) from error

    return write


def _parts(text: str) -> list[dict[str, str]]:
    return [{"type": "text", "text": text}] if text else []


def _apply_template(processor: Any, messages: list[dict[str, Any]]) -> str:
    text: str = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    return text


def _system_message(vlm: Any, system: str) -> dict[str, Any]:
    """The message of a system prompt, whose content some templates require to be a list of parts, others a text."""
    from jinja2 import TemplateError

    forms: tuple[Callable[[str], Any], ...] = (_parts, str)
    for form in forms:
        messages = [{"role": "system", "content": form(_PROBE)}, {"role": "user", "content": _parts(DEFAULT_PROMPT)}]
        try:
            text = _apply_template(vlm.processor, messages)
        except (TemplateError, TypeError):
            continue
        if _PROBE in text and repr(_PROBE) not in text:  # else the list of parts is written as Python shows it
            return {"role": "system", "content": form(system)}
    raise UserError(
        f"{vlm.name} cannot be given the system prompt {system!r}: its chat template leaves out system prompts or "
        "refuses them. Write the text as `before`, in front of the image."
    )


def _is_in_front(write: _Writer) -> bool:
    """Whether the template writes a text that comes before an image in the message in front of it."""
    return _PROBE in _common_start(write(_PROBE, 0, DEFAULT_PROMPT), write(_PROBE, 1, DEFAULT_PROMPT))


def _put_before_images(vlm: Any, write: _Writer, prompt: Prompt, images: int) -> str:
    """The text of a template that writes images first, with `before` verbatim where the first image begins."""
    start = _common_start(write("", 0, DEFAULT_PROMPT), write("", 1, DEFAULT_PROMPT))
    text = write("", images, prompt.after)
    if not text.startswith(start):
        raise UserError(
            f"{vlm.name} cannot be given a text before the image ({prompt.before!r}): its chat template moves it, and "
            "it is not known where its images begin. Correct chat_template.jinja in its folder."
        )
    return start + prompt.before + text.removeprefix(start)


def _common_start(one: str, other: str) -> str:
    return "".join(a for a, _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def _check_without_image_tokens(vlm: Any, prompt: Prompt) -> None:
    for name, text in (("after", prompt.after), ("before", prompt.before), ("system", prompt.system)):
        found = next((token for token in sorted(_image_tokens(vlm)) if token in text), None)
        if found is not None:
            raise UserError(
                f"The prompt {text!r} (`{name}`) contains {found}, a token of {vlm.name} for images, which are written "
                "for it where they belong. Leave it out; a text in front of the image is `before`."
            )


def _image_tokens(vlm: Any) -> set[str]:
    """The tokens that a processor replaces by an image's, or that stand around those."""
    tokenizer, config = vlm.processor.tokenizer, vlm.model.config
    named = {**vars(vlm.processor), **tokenizer.special_tokens_map}
    tokens = {
        str(token)
        for name, token in named.items()
        if name.endswith("_token") and any(word in name.split("_") for word in _IMAGE_WORDS)
    }
    ids = [getattr(config, name, None) for name in ("image_token_id", "image_token_index")]
    known = [one for one in ids if isinstance(one, int) and 0 <= one < len(tokenizer)]  # another has no token
    return {token for token in (*tokens, *tokenizer.convert_ids_to_tokens(known)) if token}
