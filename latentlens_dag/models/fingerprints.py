"""Identifying language models by a sample of their weights.

A fingerprint is one hash of the whole sample; `WeightSample` has the hashes tensor by tensor, so that a comparison can
name the tensors that differ. Values are rounded to bfloat16, so that the same weights in bfloat16, or frozen inside a
VLM, give the same sample. (Weights that were rounded to float16 first may differ, because they are rounded twice.)

The sampled positions have changed once. A fingerprint contains its scheme, and a stored one is compared by its own
scheme, so that earlier builds stay up to date:

1. 64 positions of `torch.linspace`, which rounds to float32: in many tensors of more than 2**24 elements the last
   position is past the end, so large models had no fingerprint at all. Written without a scheme number.
2. 64 positions in exact integers; of the embedding, the last row and some of every octave of the vocabulary, so that an
   embedding resized for an image token can be compared in the common rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from latentlens_dag.storage.hashing import hash_bytes, hash_values

if TYPE_CHECKING:
    from torch import Tensor

    from latentlens_dag.models.language_model import LanguageModel

SCHEME = 2
"""The scheme of new fingerprints."""
_VALUES = 64  # sampled per tensor, and per sampled row of the embedding
_ROWS_PER_OCTAVE = 16  # sampled rows of the embedding in 2^n .. 2^(n+1) - 1


@dataclass(frozen=True)
class WeightSample:
    """A sample of the weights of a language model."""

    tensors: dict[str, str]
    """The shape and hash of each tensor of the decoder, without the embedding."""
    vocabulary: int
    """Rows of the embedding."""
    width: int
    embedding_rows: dict[int, str]
    """The hash of each sampled row of the embedding."""

    def differences(self, other: WeightSample) -> list[str]:
        """The names of the tensors that differ, sorted; embeddings are compared in their common rows."""
        names = sorted(set(self.tensors) | set(other.tensors))
        different = [name for name in names if self.tensors.get(name) != other.tensors.get(name)]
        return [*different, *(["the input embedding"] if self._embedding_differs(other) else [])]

    def _embedding_differs(self, other: WeightSample) -> bool:
        common = self.embedding_rows.keys() & other.embedding_rows.keys()
        return self.width != other.width or any(self.embedding_rows[row] != other.embedding_rows[row] for row in common)


def weight_sample(model: LanguageModel) -> WeightSample:
    """Sample the decoder and embedding of a model, on any device and in any dtype."""
    weights = model.decoder.state_dict(keep_vars=True).items()
    tensors = {name: f"{tuple(w.shape)} {_sample_hash(w)}" for name, w in weights if w is not model.embedding}
    vocabulary, width = model.embedding.shape
    rows = {row: _sample_hash(model.embedding[row]) for row in _spread_rows(vocabulary)}
    return WeightSample(tensors, vocabulary, width, rows)


def fingerprint(model: LanguageModel, scheme: int = SCHEME) -> str:
    """One hash of a model's weights; all schemes but the first are named before it.

    Raises:
        IndexError: with scheme 1, for models with large tensors (see the module).
    """
    if scheme == 1:
        return _first_scheme(model)
    sample = weight_sample(model)
    parts = [f"{name} {value}" for name, value in sorted(sample.tensors.items())]
    rows = [f"{row} {value}" for row, value in sample.embedding_rows.items()]
    return f"{SCHEME}:{hash_values([*parts, sample.vocabulary, sample.width, *rows])}"


def fingerprint_like(model: LanguageModel, stored: str | None) -> str:
    """The model's fingerprint by the scheme of a stored one, if any; else by the newest."""
    if stored is not None and scheme_of(stored) == 1:
        try:
            return fingerprint(model, 1)
        except IndexError:  # then the stored one is of another model
            pass
    return fingerprint(model)


def scheme_of(stored: str) -> int:
    """The scheme of a fingerprint."""
    scheme, colon, _ = stored.partition(":")
    return int(scheme) if colon else 1


def evenly_spaced(length: int, count: int = _VALUES) -> list[int]:
    """Up to `count` evenly spaced positions from 0 to length - 1, inclusive."""
    count = min(count, length)
    return [i * (length - 1) // max(count - 1, 1) for i in range(count)]


def _spread_rows(rows: int) -> Iterator[int]:
    """Rows of every octave below `rows`, which a larger embedding has too, and the last row."""
    yield from range(min(rows, _ROWS_PER_OCTAVE))
    start = _ROWS_PER_OCTAVE
    while start < rows:
        octave = range(start, 2 * start, start // _ROWS_PER_OCTAVE)
        yield from (row for row in octave if row < rows - 1)
        start *= 2
    if rows > _ROWS_PER_OCTAVE:
        yield rows - 1


def _sample_hash(tensor: Tensor) -> str:
    """The hash of some values of a tensor."""
    import torch

    flat = tensor.detach().reshape(-1)
    return _values_hash(flat, torch.tensor(evenly_spaced(len(flat)), dtype=torch.long))


def _values_hash(flat: Tensor, where: Tensor) -> str:
    import torch

    return hash_bytes(flat[where.to(flat.device)].to(torch.bfloat16).view(torch.int16).cpu().numpy().tobytes())


def _first_scheme(model: LanguageModel) -> str:
    import torch

    def sample(tensor: Tensor) -> str:
        flat = tensor.detach().flatten()
        return _values_hash(flat, torch.linspace(0, len(flat) - 1, min(_VALUES, len(flat))).long())

    weights = sorted((name, w) for name, w in model.decoder.named_parameters() if "embed_tokens" not in name)
    parts = [f"{name} {tuple(w.shape)} {sample(w)}" for name, w in weights]
    return hash_values([*parts, f"{tuple(model.embedding.shape)} {sample(model.embedding)}"])
