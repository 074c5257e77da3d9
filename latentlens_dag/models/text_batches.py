"""Texts on their way through a language model: batches of like length, padded, as large as memory allows.

Who reads texts (`index/encode.py` for indexes, `text_states.py` for studies) says what is kept of a batch; how it is
cut and padded is the same for all and belongs here. What a newcomer gets wrong: batches are padded on the right,
whatever side the tokenizer would pad, so positions are those of the text alone. A model that reads in both directions
may take padding for text (PaliGemma): its batches hold texts of one length, and nothing is padded.
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
        """With specials, without padding."""


T = TypeVar("T", bound=TokenSequence)


def run_in_batches(
    model: ModelParts, texts: list[T], read: Callable[[list[T]], None], padded: bool = True
) -> Iterator[list[T]]:
    """Read all texts, neighbors together; give each batch once it is read.

    Where the device's memory does not hold a batch, batches are half as large from there on.

    Args:
        model: that reads them.
        texts: in order of their lengths.
        read: runs the model over a batch.
        padded: whether a batch may hold texts of several lengths.

    Raises:
        UserError: where the device's memory does not hold one text.
    """
    import torch

    most = _TOKENS_PER_BATCH["cpu" if model.embedding.device.type == "cpu" else "gpu"]
    start = 0
    while start < len(texts):
        batch = texts[start : _batch_end(texts, start, most, padded)]
        try:
            read(batch)
        except torch.OutOfMemoryError as error:
            if len(batch) == 1:
                raise UserError(
                    f"{model.name} does not fit into the memory of {model.embedding.device} beside one sentence of "
                    f"{len(batch[0].ids)} tokens. Free memory there, or load the model in a smaller dtype."
                ) from error
            most = max(len(batch[-1].ids), len(batch) * len(batch[-1].ids) // 2)
            torch.cuda.empty_cache()
            continue
        yield batch
        start += len(batch)


def run_decoder(model: ModelParts, batch: Sequence[TokenSequence]) -> None:
    """Run the decoder over a batch, padded; hooks take what is wanted (`hooks.capture_hidden_states`)."""
    import torch

    longest = max(len(text.ids) for text in batch)
    ids = torch.tensor([text.ids + [0] * (longest - len(text.ids)) for text in batch])
    mask = torch.tensor([[1] * len(text.ids) + [0] * (longest - len(text.ids)) for text in batch])
    device = model.embedding.device
    with torch.inference_mode():
        model.decoder(input_ids=ids.to(device), attention_mask=mask.to(device), use_cache=False)


def select_positions(batch: Sequence[TokenSequence], places: Sequence[Sequence[int]]) -> Callable[[Tensor], Tensor]:
    """What takes of states [B, T, d] those at some places of each text, text after text: [N, d] float32 on the CPU."""
    import torch

    which = torch.tensor([number for number, _ in enumerate(batch) for _ in places[number]], dtype=torch.long)
    where = torch.tensor([place for of_text in places for place in of_text], dtype=torch.long)

    def keep(states: Tensor) -> Tensor:
        return states[which.to(states.device), where.to(states.device)].float().cpu()

    return keep


def _batch_end(texts: Sequence[TokenSequence], start: int, most: int, padded: bool) -> int:
    """Where a batch ends that begins at `start` and holds at most so many tokens, padding counted, or one text."""
    end = start + 1
    while end < len(texts) and (end + 1 - start) * len(texts[end].ids) <= most:
        if not padded and len(texts[end].ids) > len(texts[start].ids):
            break
        end += 1
    return end
