"""GOT-OCR 2.0: read, but its visual tokens have no boxes, because its connector mixes patches by convolution.

A token is made of two convolutions with a stride after one without, so it sees 9 x 9 patches, where a cell of the grid
has 4 x 4, and not even in the middle. The published model has no chat template: its processor writes the prompt that
is here.
"""

from __future__ import annotations

from typing import Any

CHAT_TEMPLATE = (
    "<|im_start|>system\nYou should follow the instructions carefully and explain your answers in detail.<|im_end|>"
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<img><imgpad></img>\n{% else %}{{ part['text'] }}{% endif %}{% endfor %}"
    "<|im_end|>{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def apply_checkpoint_settings(processor: Any) -> None:
    """Give a processor without chat template the one that it uses when it writes a prompt itself."""
    processor.chat_template = processor.chat_template or CHAT_TEMPLATE
