"""Running texts through a language model in batches of similar length, padded, as large as memory allows.

The caller (`index/encode.py` for indexes, `text_states.py` for studies) decides what to keep of a batch. Note: batches
are padded on the right, whatever the setting of the tokenizer, so positions are those of the text itself. A
bidirectional model may attend to padding (PaliGemma): its batches have texts of one length, without padding.

The batches of a small model are read several at a time, each in a thread with one: its products are too short to be
divided. Beside a process that never waits, threads that divide them took 1.7 times the time that they take alone. Each
thread has modules of its own (with the same weights), as hooks and what a module notes of a pass are of one pass.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from copy import deepcopy
from dataclasses import replace
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from latentlens_dag.device import worker_threads
from latentlens_dag.errors import UserError
from latentlens_dag.models.model_parts import ModelParts

if TYPE_CHECKING:
    from torch import Tensor, nn

_TOKENS_PER_BATCH = {"cpu": 2048, "gpu": 16384}
_SMALL_WIDTH = 1024  # of a model whose batches are read in threads; a batch then takes tens of MB
_MOST_THREADS = 8  # with more, a product is divided, so that memory does not grow with the processors


class TokenSequence(Protocol):
    """A text as token ids."""

    @property
    def ids(self) -> list[int]:
        """Token ids with special tokens, without padding."""


T = TypeVar("T", bound=TokenSequence)


def run_in_batches(
    model: ModelParts, texts: list[T], read: Callable[[ModelParts, list[T]], None], padded: bool = True
) -> Generator[list[T]]:
    """Process all texts in batches of neighbors; yield each batch, in order, after it is processed.

    If a batch does not fit into the memory of the device, batches are half as large from then on.

    Args:
        model: the model that reads the texts.
        texts: sorted by length.
        read: runs the model that it is given on a batch: this one, or in a thread a copy with the same weights.
        padded: whether a batch may have texts of several lengths.

    Raises:
        UserError: if one text does not fit into the memory of the device.
    """
    import torch

    max_tokens = _TOKENS_PER_BATCH["cpu" if model.embedding.device.type == "cpu" else "gpu"]
    batches = list(_batches(texts, max_tokens, padded))
    models, start = _copies(model, len(batches)), 0
    while start < len(texts):
        try:
            for batch in _read_in_threads(models, batches, read):
                yield batch
                start += len(batch)
        except torch.OutOfMemoryError as error:
            batch = texts[start : _batch_end(texts, start, max_tokens, padded)]
            if len(batch) == 1:
                raise UserError(
                    f"{model.name} does not fit into the memory of {model.embedding.device} beside one sentence of "
                    f"{len(batch[0].ids)} tokens. Free memory there, or load the model in a smaller dtype."
                ) from error
            max_tokens = max(len(batch[-1].ids), len(batch) * len(batch[-1].ids) // 2)
            batches, models = list(_batches(texts[start:], max_tokens, padded)), [model]
            torch.cuda.empty_cache()


def _read_in_threads(
    models: Sequence[ModelParts], batches: Sequence[list[T]], read: Callable[[ModelParts, list[T]], None]
) -> Iterator[list[T]]:
    """Read batches with as many models at a time; yield each, in order."""
    free = SimpleQueue[ModelParts]()
    for model in models:
        free.put(model)

    def read_one(number: int) -> list[T]:
        model = free.get()
        try:
            read(model, batches[number])
        finally:
            free.put(model)
        return batches[number]

    with worker_threads(len(models)) as in_threads:
        yield from in_threads(read_one, len(batches))


def _copies(model: ModelParts, batches: int) -> list[ModelParts]:
    """The model, and copies of its modules with the same weights for the other threads that read so many batches."""
    import torch

    threads = torch.get_num_threads()
    is_small = model.embedding.device.type == "cpu" and model.width <= _SMALL_WIDTH and threads <= _MOST_THREADS
    if not is_small or not all(map(_may_be_copied, model.decoder.modules())):
        return [model]
    try:
        return [model, *(_copy(model) for _ in range(min(threads, batches) - 1))]
    except Exception:  # whatever an attribute that somebody gave it raises
        return [model]


def _may_be_copied(module: nn.Module) -> bool:
    """Whether a copy of a module does what it does, and nobody looks at the module itself.

    A module of a model's own code may note something of a pass anywhere. One whose forward was replaced may hold on to
    the module that it was of, and a hook of others wants to be called for each batch. (Transformers leaves hooks in a
    model whose hidden states were once asked for; they note nothing unless they are asked for again.)
    """
    hooks = [*module._forward_hooks.values(), *module._forward_pre_hooks.values()]
    return "forward" not in vars(module) and all(map(_is_known, [type(module), *hooks]))


def _is_known(code: object) -> bool:
    """Whether a class or function is of PyTorch or Transformers."""
    return str(getattr(code, "__module__", None)).partition(".")[0] in ("torch", "transformers")


def _copy(model: ModelParts) -> ModelParts:
    """A copy of the modules with the same parameters; buffers, which a pass may write, are copied."""
    weights: Iterator[Any] = model.decoder.parameters()
    return replace(model, decoder=deepcopy(model.decoder, {id(weight): weight for weight in weights}))


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


def _batches(texts: list[T], max_tokens: int, padded: bool) -> Iterator[list[T]]:
    """The texts in batches, each as long as it may be."""
    start = 0
    while start < len(texts):
        end = _batch_end(texts, start, max_tokens, padded)
        yield texts[start:end]
        start = end


def _batch_end(texts: Sequence[TokenSequence], start: int, max_tokens: int, padded: bool) -> int:
    """The end of the batch from `start` with at most `max_tokens` tokens, including padding, or one text."""
    end = start + 1
    while end < len(texts) and (end + 1 - start) * len(texts[end].ids) <= max_tokens:
        if not padded and len(texts[end].ids) > len(texts[start].ids):
            break
        end += 1
    return end
