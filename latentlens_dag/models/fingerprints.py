"""What tells one language model from another: a sample of its weights.

A fingerprint is one hash of the whole sample; `WeightSample` keeps it tensor by tensor, so that a comparison can say
which tensors differ. Values are rounded to bfloat16, so that the same weights in bfloat16, or inside a VLM that left
them frozen, give the same sample. (Weights rounded to float16 first may come out otherwise: rounding twice is not
rounding once.)

The positions that are read have changed once. A fingerprint says which scheme it was made by, and one that was stored
is compared by its own scheme, so what was built before stays up to date:

1. 64 positions of `torch.linspace`, whose float32 rounds: in many tensors of more than 2**24 elements the last position
   lies past the end, so large models had no fingerprint at all. Written without a scheme number.
2. 64 positions in exact integers; of the embedding, the last row and some of every octave of the vocabulary, so that
   one that was resized for an image token can be compared in the rows that both have.
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
"""That new fingerprints are made by."""
_VALUES = 64  # of every tensor, and of every row of the embedding that is read
_ROWS_PER_OCTAVE = 16  # of the embedding: rows 2^n to 2^(n+1) - 1 are an octave


@dataclass(frozen=True)
class WeightSample:
    """A sample of the weights of a language model."""

    tensors: dict[str, str]
    """Name of a tensor of the decoder -> its shape and the hash of its sample; the embedding is not among them."""
    vocabulary: int
    """Rows of the embedding."""
    width: int
    embedding_rows: dict[int, str]
    """Row of the embedding -> the hash of its sample."""

    def differences(self, other: WeightSample) -> list[str]:
        """The tensors in which two models differ, in order; of two embeddings the rows that both have are compared."""
        names = sorted(set(self.tensors) | set(other.tensors))
        different = [name for name in names if self.tensors.get(name) != other.tensors.get(name)]
        return [*different, *(["the input embedding"] if self._embedding_differs(other) else [])]

    def _embedding_differs(self, other: WeightSample) -> bool:
        common = self.embedding_rows.keys() & other.embedding_rows.keys()
        return self.width != other.width or any(self.embedding_rows[row] != other.embedding_rows[row] for row in common)


def weight_sample(model: LanguageModel) -> WeightSample:
    """A sample of a model's decoder and embedding, on any device and in any dtype."""
    weights = model.decoder.state_dict(keep_vars=True).items()
    tensors = {name: f"{tuple(w.shape)} {_sampled(w)}" for name, w in weights if w is not model.embedding}
    vocabulary, width = model.embedding.shape
    rows = {row: _sampled(model.embedding[row]) for row in _spread_rows(vocabulary)}
    return WeightSample(tensors, vocabulary, width, rows)


def fingerprint(model: LanguageModel, scheme: int = SCHEME) -> str:
    """One hash of a model's weights, with the number of the scheme before it but where that is 1.

    Raises:
        IndexError: by scheme 1, of models with large tensors (see above).
    """
    if scheme == 1:
        return _first_scheme(model)
    sample = weight_sample(model)
    parts = [f"{name} {value}" for name, value in sorted(sample.tensors.items())]
    rows = [f"{row} {value}" for row, value in sample.embedding_rows.items()]
    return f"{SCHEME}:{hash_values([*parts, sample.vocabulary, sample.width, *rows])}"


def fingerprint_like(model: LanguageModel, stored: str | None) -> str:
    """The model's fingerprint by the scheme of one that was stored; by the newest where there is none to go by."""
    if stored is not None and scheme_of(stored) == 1:
        try:
            return fingerprint(model, 1)
        except IndexError:  # then it was another model's
            pass
    return fingerprint(model)


def scheme_of(stored: str) -> int:
    """The scheme that a fingerprint was made by."""
    scheme, colon, _ = stored.partition(":")
    return int(scheme) if colon else 1


def evenly_spaced(length: int, count: int = _VALUES) -> list[int]:
    """Up to `count` positions from 0 to length - 1, both among them, evenly spread."""
    count = min(count, length)
    return [i * (length - 1) // max(count - 1, 1) for i in range(count)]


def _spread_rows(rows: int) -> Iterator[int]:
    """Rows of every octave below `rows`, as a larger embedding has them too, and the last row."""
    yield from range(min(rows, _ROWS_PER_OCTAVE))
    start = _ROWS_PER_OCTAVE
    while start < rows:
        octave = range(start, 2 * start, start // _ROWS_PER_OCTAVE)
        yield from (row for row in octave if row < rows - 1)
        start *= 2
    if rows > _ROWS_PER_OCTAVE:
        yield rows - 1


def _sampled(tensor: Tensor) -> str:
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
