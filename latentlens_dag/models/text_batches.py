"""Running texts through a language model in batches of similar length, padded, as large as memory allows.

The caller (`index/encode.py` for indexes, `text_states.py` for studies) decides what to keep of a batch. Note: batches
are padded on the right, whatever the setting of the tokenizer, so positions are those of the text itself. A
bidirectional model may attend to padding (PaliGemma): its batches have texts of one length, without padding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Protocol, TypeVar

from latentlens_dag.errors import UserError
from latentlens_dag.models.model_parts import ModelParts

if TYPE_CHECKING:
    from torch import Tensor

_TOKENS_PER_BATCH = {"cpu": 2048, "gpu": 16384}


class TokenSequence(Protocol):
    """A text as token ids."""

    @property
    def ids(self) -> list[int]:
        """Token ids with special tokens, without padding."""


T = TypeVar("T", bound=TokenSequence)


def run_in_batches(
    model: ModelParts, texts: list[T], read: Callable[[list[T]], None], padded: bool = True
) -> Iterator[list[T]]:
    """Process all texts in batches of neighbors; yield each batch after it is processed.

    If a batch does not fit into the memory of the device, batches are half as large from then on.

    Args:
        model: the model that reads the texts.
        texts: sorted by length.
        read: runs the model on a batch.
        padded: whether a batch may have texts of several lengths.

    Raises:
        UserError: if one text does not fit into the memory of the device.
    """
    import torch

    max_tokens = _TOKENS_PER_BATCH["cpu" if model.embedding.device.type == "cpu" else "gpu"]
    start = 0
    while start < len(texts):
        batch = texts[start : _batch_end(texts, start, max_tokens, padded)]
        try:
            read(batch)
        except torch.OutOfMemoryError as error:
            if len(batch) == 1:
                raise UserError(
                    f"{model.name} does not fit into the memory of {model.embedding.device} beside one sentence of "
                    f"{len(batch[0].ids)} tokens. Free memory there, or load the model in a smaller dtype."
                ) from error
            max_tokens = max(len(batch[-1].ids), len(batch) * len(batch[-1].ids) // 2)
            torch.cuda.empty_cache()
            continue
        yield batch
        start += len(batch)


def run_decoder(model: ModelParts, batch: Sequence[TokenSequence]) -> None:
    """Run the decoder on a padded batch, for the hooks of `capture_hidden_states`."""
    import torch

    longest = max(len(text.ids) for text in batch)
    ids = torch.tensor([text.ids + [0] * (longest - len(text.ids)) for text in batch])
    mask = torch.tensor([[1] * len(text.ids) + [0] * (longest - len(text.ids)) for text in batch])
    device = model.embedding.device
    with torch.inference_mode():
        model.decoder(input_ids=ids.to(device), attention_mask=mask.to(device), use_cache=False)


def select_positions(positions: Sequence[Sequence[int]]) -> Callable[[Tensor], Tensor]:
    """A function that selects from states [B, T, d] some positions of each text: [N, d] float32 on the CPU."""
    import torch

    text = torch.tensor([number for number, of_text in enumerate(positions) for _ in of_text], dtype=torch.long)
    position = torch.tensor([position for of_text in positions for position in of_text], dtype=torch.long)
    return lambda states: states[text.to(states.device), position.to(states.device)].float().cpu()


def _batch_end(texts: Sequence[TokenSequence], start: int, max_tokens: int, padded: bool) -> int:
    """The end of the batch from `start` with at most `max_tokens` tokens, including padding, or one text."""
    end = start + 1
    while end < len(texts) and (end + 1 - start) * len(texts[end].ids) <= max_tokens:
        if not padded and len(texts[end].ids) > len(texts[start].ids):
            break
        end += 1
    return end
