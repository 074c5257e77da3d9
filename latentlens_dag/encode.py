"""The text pass: the states of an index's occurrences, at all its layers, from one forward pass.

Only sentences that hold a kept occurrence are read, each cut after the last one, in batches of similar
length. States go to a memory map on disk, so memory holds one batch. What a newcomer gets wrong: batches
are padded on the right by this module itself, whatever side the tokenizer would pad, so positions are
those of the sentence alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa

from latentlens_dag.layers import check_layers
from latentlens_dag.occurrences import tokenize
from latentlens_dag.states import LanguageModel, captured

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

_TOKENS_PER_BATCH = 2048

Progress = Callable[[int, int], None]
"""Called with the tokens done and the tokens there are."""


class Encoded(NamedTuple):
    """The occurrences' states at one contextual layer, in the order of the occurrences."""

    vectors: NDArray[np.float16]  # [N, d], unit length, a memory map
    norms: NDArray[np.float32]  # [N]


class _Sentence(NamedTuple):
    ids: list[int]  # cut after the last token that is needed
    rows: list[int]  # of the occurrences
    places: list[int]  # of the occurrences in `ids`


def encode(
    model: LanguageModel,
    occurrences: pa.Table,
    sentences: pa.Table,
    layers: Sequence[int],
    scratch: Path,
    progress: Progress = lambda done, all_: None,
) -> dict[int, Encoded]:
    """Encode the occurrences of a shard.

    Args:
        model: in float32 on a CPU.
        occurrences: N rows (OCCURRENCES) whose sentences are all in `sentences`.
        sentences: SENTENCES.
        layers: contextual layers.
        scratch: an existing folder for the memory maps; they live as long as it does.
        progress: told after every batch.

    Raises:
        UserError: where a layer does not exist.
    """
    check_layers(layers, model.depth, model.name, "the index")
    shape = (len(occurrences), model.width)
    found = {layer: _empty(scratch / f"layer_{layer}.f16", shape) for layer in layers}
    wanted = sorted(_needed(model, occurrences, sentences), key=lambda sentence: len(sentence.ids))
    total, done = sum(len(sentence.ids) for sentence in wanted), 0
    for batch in _batches(wanted):
        _encode_batch(model, batch, found)
        done += sum(len(sentence.ids) for sentence in batch)
        progress(done, total)
    return found


def _encode_batch(model: LanguageModel, batch: list[_Sentence], found: dict[int, Encoded]) -> None:
    import torch

    longest = max(len(sentence.ids) for sentence in batch)
    ids = torch.tensor([sentence.ids + [0] * (longest - len(sentence.ids)) for sentence in batch])
    mask = torch.tensor([[1] * len(s.ids) + [0] * (longest - len(s.ids)) for s in batch])
    which = torch.tensor([i for i, sentence in enumerate(batch) for _ in sentence.rows])
    where = torch.tensor([place for sentence in batch for place in sentence.places])
    rows = np.array([row for sentence in batch for row in sentence.rows])

    def keep(states: Tensor) -> Tensor:
        return states[which.to(states.device), where.to(states.device)].float().cpu()

    device = model.embedding.device
    with captured(model.decoder, list(found), keep) as states, torch.inference_mode():
        model.decoder(input_ids=ids.to(device), attention_mask=mask.to(device), use_cache=False)
    for layer, kept in states.items():
        norms = kept.norm(dim=1, keepdim=True)
        found[layer].vectors[rows] = (kept / norms).numpy().astype(np.float16)
        found[layer].norms[rows] = norms[:, 0].numpy()


def _needed(model: LanguageModel, occurrences: pa.Table, sentences: pa.Table) -> Iterator[_Sentence]:
    """The sentences that hold an occurrence, tokenized and cut."""
    wanted: dict[str, list[tuple[int, int]]] = {}
    pairs = zip(occurrences["sentence_id"].to_pylist(), occurrences["position"].to_pylist(), strict=True)
    for row, (sentence_id, position) in enumerate(pairs):
        wanted.setdefault(sentence_id, []).append((position, row))
    rows = zip(sentences["sentence_id"].to_pylist(), sentences["text"].to_pylist(), strict=True)
    texts = {i: text for i, text in rows if i in wanted}
    ids = sorted(texts)
    for start in range(0, len(ids), 1000):
        part = ids[start : start + 1000]
        for sentence_id, tokens in zip(part, tokenize(model.tokenizer, [texts[i] for i in part]), strict=True):
            real = [place for place, special in enumerate(tokens.special) if not special]
            places = [real[position] for position, _ in wanted[sentence_id]]
            yield _Sentence(tokens.ids[: max(places) + 1], [row for _, row in wanted[sentence_id]], places)


def _batches(sentences: list[_Sentence]) -> Iterator[list[_Sentence]]:
    """Neighbors in length, at most so many tokens together, padding counted."""
    batch: list[_Sentence] = []
    for sentence in sentences:
        if batch and (len(batch) + 1) * len(sentence.ids) > _TOKENS_PER_BATCH:
            yield batch
            batch = []
        batch.append(sentence)
    if batch:
        yield batch


def _empty(path: Path, shape: tuple[int, int]) -> Encoded:
    if not shape[0]:
        return Encoded(np.empty(shape, np.float16), np.empty(0, np.float32))
    return Encoded(np.memmap(path, np.float16, "w+", shape=shape), np.empty(shape[0], np.float32))
