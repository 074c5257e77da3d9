"""The states of an index's occurrences, at all its layers, from one forward pass.

Only sentences that hold an occurrence of the index are read, each cut after the last one (but not where the model is
not causal: there what follows counts too), in batches of similar length (`models/text_batches.py`). States go to a
memory map on disk, so memory holds one batch per thread. A sentence that was read before is not read again: its rows
are taken from the layer tables, by the hash of their prefixes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa

from latentlens_dag.index.layer_tables import StoredRows, read_rows, stored_rows
from latentlens_dag.index.memory_map import release_pages
from latentlens_dag.models.hooks import capture_hidden_states, stop_at_layer
from latentlens_dag.models.language_model import LanguageModel
from latentlens_dag.models.layers import check_layers
from latentlens_dag.models.model_parts import ModelParts
from latentlens_dag.models.text_batches import run_decoder, run_in_batches, select_positions
from latentlens_dag.models.tokenization import tokenize

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

_BATCHES_HELD = 2  # before the pages of their vectors, which lie in files, are released

Progress = Callable[[int, int], None]
"""Called with the work done and all work, in tokens or rows."""


class LayerVectors(NamedTuple):
    """The occurrences' states at one contextual layer, in the order of the occurrences."""

    vectors: NDArray[np.float16]  # [N, d], unit length, a memory map
    norms: NDArray[np.float32]  # [N]


class EncodeResult(NamedTuple):
    """The states of `encode_missing`."""

    encoded: dict[int, LayerVectors]
    read: int
    """Rows that a forward pass encoded; the others were in the tables already."""


class _Sentence(NamedTuple):
    ids: list[int]  # cut after the last token that is needed, or whole
    rows: list[int]  # of the occurrences
    places: list[int]  # of the occurrences in `ids`


def encode(
    model: LanguageModel,
    occurrences: pa.Table,
    sentences: pa.Table,
    layers: Sequence[int],
    scratch: Path,
    progress: Progress = lambda done, total: None,
    whole: bool = False,
) -> dict[int, LayerVectors]:
    """Encode the occurrences of a shard.

    Args:
        model: on any device and in any dtype; states are normalized in float32.
        occurrences: N rows (OCCURRENCES) whose sentences are all in `sentences`.
        sentences: SENTENCES.
        layers: contextual layers.
        scratch: an existing folder for the memory maps; they live as long as it does.
        progress: called after every batch.
        whole: read whole sentences, for a model that is not causal; its occurrences' keys must be of whole sentences.

    Raises:
        UserError: where a layer does not exist, or the device's memory does not hold one sentence.
    """
    from latentlens_dag.models.text_checks import padding_invariance

    check_layers(layers, model.depth, model.name, "the index")
    shape = (len(occurrences), model.width)
    found = {layer: allocate_vectors(scratch / f"layer_{layer}.f16", shape) for layer in layers}
    wanted = sorted(_needed(model, occurrences, sentences, whole), key=lambda sentence: len(sentence.ids))
    total, done = sum(len(sentence.ids) for sentence in wanted), 0
    padded = not whole or padding_invariance(model).passed
    read = partial(_encode_batch, found)
    with closing(run_in_batches(model, wanted, read, padded)) as batches:
        for number, batch in enumerate(batches):
            done += sum(len(sentence.ids) for sentence in batch)
            progress(done, total)
            if number % _BATCHES_HELD == 0:
                for encoded in found.values():
                    release_pages(encoded.vectors)
    return found


def encode_missing(
    load: Callable[[], LanguageModel],
    encoder: str,
    occurrences: pa.Table,
    sentences: pa.Table,
    *,
    tables: Mapping[int, Path],
    scratch: Path,
    progress: Progress = lambda done, total: None,
    whole: bool = False,
) -> EncodeResult:
    """As `encode`, but rows of the same encoder that the layer tables hold are taken from there.

    A state depends on the model and on its token prefix (or sentence), whose hash is the key, so that neither another
    order of the corpus nor another number of shards makes it new. Where nothing is new the model is not even loaded. A
    row that one layer lacks is encoded for all layers that lack one, in one pass.

    Args:
        load: gives the model.
        encoder: as in `layer_tables.layer_schema`.
        occurrences, sentences, scratch, progress, whole: as in `encode`.
        tables: the layer table of each contextual layer, which need not exist.
    """
    keys = occurrences["key"].combine_chunks()
    stored = {layer: stored_rows(table, encoder, keys) for layer, table in tables.items()}
    lacking = [layer for layer, found in stored.items() if len(found.places) < len(keys)]
    new = np.zeros(len(keys), bool)
    for layer in lacking:
        known = np.zeros(len(keys), bool)
        known[stored[layer].places] = True
        new |= ~known
    fresh: dict[int, LayerVectors] = {}
    if lacking or not len(keys):
        (scratch / "new").mkdir()
        read = occurrences.filter(pa.array(new))
        layers = lacking or list(tables)
        fresh = encode(load(), read, sentences, layers, scratch / "new", progress=progress, whole=whole)
    places = np.flatnonzero(new)
    joined = {
        layer: _joined(scratch / f"layer_{layer}.f16", len(keys), tables[layer], found, places, fresh.get(layer))
        for layer, found in stored.items()
    }
    return EncodeResult(joined, len(places))


def _joined(
    path: Path, rows: int, table: Path, stored: StoredRows, places: NDArray[np.int64], fresh: LayerVectors | None
) -> LayerVectors:
    """Stored and new rows in the order of the occurrences; where both have a row, the new one counts."""
    if fresh is not None and len(places) == rows:
        return fresh
    found: LayerVectors | None = None
    start = 0
    for vectors, norms in read_rows(table, stored.rows):
        found = found or allocate_vectors(path, (rows, vectors.shape[1]))
        part = stored.places[start : start + len(vectors)]
        found.vectors[part], found.norms[part] = vectors, norms
        release_pages(found.vectors)
        start += len(vectors)
    assert found is not None  # else every row is fresh
    if fresh is not None:
        found.vectors[places], found.norms[places] = fresh.vectors, fresh.norms
    return found


def _encode_batch(found: dict[int, LayerVectors], model: ModelParts, batch: list[_Sentence]) -> None:
    """Write the states of a batch into their rows."""
    rows = np.array([row for sentence in batch for row in sentence.rows])
    keep = select_positions([sentence.places for sentence in batch])
    with capture_hidden_states(model.decoder, list(found), keep) as states, stop_at_layer(model.decoder, max(found)):
        run_decoder(model, batch)
    for layer, encoded in found.items():
        kept = states[layer]
        norms = kept.norm(dim=1, keepdim=True)
        _check_norms(model, layer, batch, norms[:, 0])
        encoded.vectors[rows] = (kept / norms).numpy().astype(np.float16)
        encoded.norms[rows] = norms[:, 0].numpy()


def _check_norms(model: ModelParts, layer: int, batch: list[_Sentence], norms: Tensor) -> None:
    """Refuse states without a direction, naming the sentence of the first one."""
    usable = norms.isfinite() & (norms > 0)
    if bool(usable.all()):
        return
    bad = int((~usable).nonzero()[0])
    sentence, place = [(sentence, place) for sentence in batch for place in sentence.places][bad]
    text = model.tokenizer.decode(sentence.ids)
    raise ValueError(
        f"The state of token {place} (from 0, specials counted) of {text!r:.300} at layer {layer} has length "
        f"{float(norms[bad])}, so it has no direction. The weights of {model.name} are damaged, or its numbers "
        "overflow in this dtype: try float32."
    )


def _needed(model: LanguageModel, occurrences: pa.Table, sentences: pa.Table, whole: bool) -> Iterator[_Sentence]:
    """The sentences that hold an occurrence, tokenized and, unless they are needed whole, cut."""
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
            real = tokens.text_positions
            places = [real[position] for position, _ in wanted[sentence_id]]
            yield _Sentence(
                tokens.ids[: None if whole else max(places) + 1], [row for _, row in wanted[sentence_id]], places
            )


def allocate_vectors(path: Path, shape: tuple[int, int]) -> LayerVectors:
    """Memory for the norms of N rows of width d, and for their vectors a file whose space is reserved."""
    if not shape[0]:
        return LayerVectors(np.empty(shape, np.float16), np.empty(0, np.float32))
    _reserve(path, 2 * shape[0] * shape[1])
    return LayerVectors(np.memmap(path, np.float16, "r+", shape=shape), np.empty(shape[0], np.float32))


def _reserve(path: Path, size_bytes: int) -> None:
    """Make a file whose space is there: a memory map of a file with holes kills the process where the disk is full.

    Raises:
        OSError: where there is not so much space.
    """
    with path.open("wb") as file:
        if hasattr(os, "posix_fallocate"):  # not on macOS
            os.posix_fallocate(file.fileno(), 0, size_bytes)
        else:
            file.truncate(size_bytes)
