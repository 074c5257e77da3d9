"""The text around the image in training, which is that of the finished model's chat template, and its tokens.

Prompt and caption are tokenized together, as the finished model's processor tokenizes a prompt: by itself a caption may
begin with another token, such as one with a space before the word.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, NamedTuple

from latentlens_dag.errors import UserError
from latentlens_dag.models.prompts import DEFAULT_PROMPT

IMAGE_TOKEN = "<image>"
_AT_ONCE = 4096


@dataclass(frozen=True)
class TrainingPrompt:
    """The text before and after the image."""

    before: str
    after: str

    @classmethod
    def of(cls, tokenizer: Any, question: str = DEFAULT_PROMPT) -> TrainingPrompt:
        """That of the language model's own chat template; of one without, the question on a line of its own.

        Raises:
            UserError: if the chat template drops the user's text.
        """
        if not getattr(tokenizer, "chat_template", None):
            return cls("", f"\n{question}\n")
        talk = [{"role": "user", "content": f"{IMAGE_TOKEN}\n{question}"}]
        text: str = tokenizer.apply_chat_template(talk, tokenize=False, add_generation_prompt=True)
        before, found, after = text.partition(IMAGE_TOKEN)
        if not found:
            raise UserError(
                f"The chat template of the language model does not write what the user says: of {talk} it makes "
                f"{text!r}. Name a language model whose chat template does."
            )
        bos = tokenizer.bos_token
        return cls(before.removeprefix(bos) if bos and _adds_bos(tokenizer) else before, after)

    @property
    def chat_template(self) -> str:
        """A chat template (Jinja) that writes this prompt for a user's message of an image and a question.

        The question in `after` is replaced by what the user asks.
        """
        question = DEFAULT_PROMPT
        before, after = self.before, self.after
        start, found, end = after.partition(question)
        asked = "{{ part['text'] }}" if found else ""
        return (
            f"{{{{ {before!r} }}}}{{% for message in messages %}}{{% for part in message['content'] %}}"
            "{% if part['type'] == 'image' %}{{ '" + IMAGE_TOKEN + "' }}"
            f"{{% elif part['type'] == 'text' %}}{{{{ {start!r} }}}}{asked}{{{{ {end!r} }}}}"
            "{% endif %}{% endfor %}{% endfor %}"
        )


def _adds_bos(tokenizer: Any) -> bool:
    """Whether the tokenizer puts <bos> before a text by itself."""
    bos = tokenizer.bos_token_id
    return bos is not None and tokenizer("a")["input_ids"][:1] == [bos]


class PromptTokens(NamedTuple):
    """The tokens around the image, and those of captions after them."""

    before: list[int]
    """Before the image, with <bos> where the tokenizer puts one."""
    after: list[int]
    """Between the image and the caption."""
    captions: list[list[list[int]]]
    """Of the captions of each image, each with the token that ends a text."""


def with_image_token(tokenizer: Any) -> Any:
    """A copy of a tokenizer that has the image token."""
    copied = deepcopy(tokenizer)
    copied.add_special_tokens({"additional_special_tokens": [IMAGE_TOKEN]}, replace_extra_special_tokens=False)
    return copied


def _check_captions(captions: Sequence[Sequence[str]]) -> None:
    """Refuse what is no list of texts for each image."""
    for number, texts in enumerate(captions):
        if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
            raise UserError(
                f"The captions of image {number} are {texts!r}, not a list of texts. Write one caption as "
                "['a caption']."
            )
        if broken := [text for text in texts if text.encode("utf-8", "replace").decode() != text]:
            raise UserError(f"The caption {broken[0]!r} of image {number} has half a character (a lone surrogate).")


def _token_ids(tokenizer: Any, texts: Sequence[str], **options: Any) -> list[list[int]]:
    """The tokens of texts, some at a time: besides its tokens, a tokenized text takes some 10 kB."""
    parts = (list(texts[start : start + _AT_ONCE]) for start in range(0, len(texts), _AT_ONCE))
    return [ids for part in parts for ids in tokenizer(part, **options)["input_ids"]]


def prompt_tokens(tokenizer: Any, captions: Sequence[Sequence[str]]) -> PromptTokens:
    """The tokens of all sequences of a training.

    Args:
        tokenizer: of the language model, without image token.
        captions: of each image.

    Raises:
        UserError: if the tokenizer has no token that ends a text, or a caption is no text.
    """
    _check_captions(captions)
    end = tokenizer.eos_token_id
    if end is None:
        raise UserError(
            f"The tokenizer of the language model, a {type(tokenizer).__name__}, has no token that ends a text "
            "(`eos_token`), by which captions end. Name it in its tokenizer_config.json."
        )
    own, prompt = with_image_token(tokenizer), TrainingPrompt.of(tokenizer)
    text = f"{prompt.before}{IMAGE_TOKEN}{prompt.after}"
    ids = own(text)["input_ids"]
    image = ids.index(own.convert_tokens_to_ids(IMAGE_TOKEN))
    flat = list(dict.fromkeys(caption for texts in captions for caption in texts))
    together = _token_ids(own, [text + caption for caption in flat])
    alone = _token_ids(own, flat, add_special_tokens=False)
    of_caption = {
        caption: [*(whole[len(ids) :] if whole[: len(ids)] == ids else separate), end]
        for caption, whole, separate in zip(flat, together, alone, strict=True)
    }
    return PromptTokens(
        ids[:image], ids[image + 1 :], [[of_caption[caption] for caption in texts] for texts in captions]
    )
