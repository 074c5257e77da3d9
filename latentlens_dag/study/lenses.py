"""The three lenses: what a visual token's state says, by three kinds of candidates.

| lens          | candidates                    | score                                                        |
|---------------|-------------------------------|--------------------------------------------------------------|
| EmbeddingLens | vocabulary                    | cosine to the rows of the input embedding                    |
| LogitLens     | vocabulary                    | logit: unembedding of the final norm, scaled and soft-capped |
| LatentLens    | (token in a sentence, layer)  | cosine to its state in a text-only pass                      |

(arXiv 2602.00462, section 3.1.) Each gives the k best, best first; equals go to the lower token id, or
to the lower (contextual layer, key). What a newcomer gets wrong: cosines and logits are not comparable,
and LatentLens may answer from any contextual layer, whatever the visual layer is.
And many models have more rows of vocabulary than their tokenizer has tokens: what no token has is never an answer.
Scores are computed in float32, whatever the checkpoint's dtype: in bfloat16, many tokens would share one logit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa

from latentlens_dag.device import float32_rows, full_precision
from latentlens_dag.index.state_tables import TokenStates
from latentlens_dag.models.language_model import LanguageModel
from latentlens_dag.models.tokenization import token_texts
from latentlens_dag.schema import EMBEDDINGLENS, LATENTLENS, LOGITLENS, NEIGHBORS

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from latentlens_dag.index.contextual_index import SearchResult

_QUERIES_PER_PASS = 512


class Vocabulary(NamedTuple):
    """The k best vocabulary tokens of each of N states, best first; equal scores in order of token id."""

    token_id: NDArray[np.int32]  # [N, k]
    score: NDArray[np.float32]  # [N, k]


def logit_lens(
    model: LanguageModel, states: NDArray[np.float32], k: int, labels: NDArray[np.int64] | None = None
) -> Vocabulary:
    """The tokens with the highest logits, were the model to stop at these states [N, d].

    With `labels` [V] of the tokens, only the best token of each label.
    """
    return _vocabulary_top_k(model, states, k, model.logits, labels)


def embedding_lens(
    model: LanguageModel, states: NDArray[np.float32], k: int, labels: NDArray[np.int64] | None = None
) -> Vocabulary:
    """The tokens whose input embeddings have the highest cosine to these states [N, d]; `labels` as in `logit_lens`.

    A row of the embedding without a direction (all zero, as padding rows may be) is never an answer.
    """
    return _vocabulary_top_k(model, states, k, lambda part: _cosines(part, model.embedding.detach()), labels)


def _cosines(states: Tensor, embedding: Tensor) -> Tensor:
    """The cosines of states [N, d] to the rows of an embedding [V, d], in float32; minus infinity to a row of zeros."""
    import torch

    unit = torch.nn.functional.normalize(states, dim=1)
    found = states.new_empty(len(states), len(embedding))
    with full_precision():
        for part, rows in float32_rows(embedding):
            norms = rows.norm(dim=1, keepdim=True)
            products = unit @ (rows / norms).T  # NaN where the norm is 0
            found[:, part] = products.masked_fill(norms[:, 0] == 0, -torch.inf)
    return found


def top_k_lowest_index_first(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k highest scores of each row [N, V] and their columns; of equal scores the lower column is first.

    `torch.topk` leaves open which of several equal scores it takes; here every column that reaches the
    k-th score is sorted.
    """
    import torch

    k = min(k, scores.shape[1])
    floor = scores.topk(k, dim=1).values[:, -1:]
    row, column = torch.nonzero(scores >= floor, as_tuple=True)  # in order of (row, column)
    order = torch.sort(scores[row, column], descending=True, stable=True).indices
    order = order[torch.sort(row[order], stable=True).indices]
    first = torch.searchsorted(row, torch.arange(len(scores), device=row.device))
    best = order[first[:, None] + torch.arange(k, device=row.device)]
    return scores[row[best], column[best]], column[best]


def top_k_of_distinct_labels(scores: Tensor, k: int, labels: Tensor) -> tuple[Tensor, Tensor]:
    """As `top_k_lowest_index_first`, but of the columns of one label [V] only the first; k is at most their number.

    More than k are taken until they hold k labels: the order of columns is total, so no other could come before.
    """
    import torch

    taken = k
    while True:
        taken = min(4 * taken, scores.shape[1])
        values, columns = top_k_lowest_index_first(scores, taken)
        found = labels[columns]
        by_label, order = torch.sort(found, dim=1, stable=True)
        again = torch.nn.functional.pad(by_label.diff(dim=1) == 0, (1, 0))
        seen = torch.zeros_like(again).scatter(1, order, again)
        if bool(((~seen).sum(1) >= k).all()):
            first = torch.sort(seen.to(torch.int8), dim=1, stable=True).indices[:, :k]
            return values.gather(1, first), columns.gather(1, first)
        if taken == scores.shape[1]:
            raise ValueError(f"There are not {k} different labels.")


def vocabulary_table(
    study: str, lens: str, layer: int, at: TokenStates, found: Vocabulary, model: LanguageModel
) -> pa.Table:
    """The answers of LogitLens or EmbeddingLens at one visual layer (NEIGHBORS), in order of token and rank."""
    texts = token_texts(model.tokenizer, np.unique(found.token_id).tolist())
    ids = found.token_id.ravel()
    token_str = [texts[i] for i in ids.tolist()]
    columns = {
        **_common_columns(study, lens, layer, at, found.token_id.shape[1]),
        "token_id": ids,
        "token_str": token_str,
        "word": [text.strip() for text in token_str],
        ("logit" if lens == LOGITLENS else "cosine"): found.score.ravel(),
    }
    return _table(columns)


def latent_table(study: str, layer: int, at: TokenStates, found: SearchResult) -> pa.Table:
    """The answers of LatentLens at one visual layer (NEIGHBORS), in order of token and rank."""
    rows = found.index.occurrences.rows(found.key.ravel())
    same = ["token_id", "token_str", "word", "key", "sentence_id", "position", "char_start", "char_end"]
    columns = {
        **_common_columns(study, LATENTLENS, layer, at, found.key.shape[1]),
        **{name: rows[name] for name in same},
        "contextual_layer": found.contextual_layer.ravel(),
        "cosine": found.cosine.ravel(),
    }
    return _table(columns)


VOCABULARY_LENSES: Mapping[
    str, Callable[[LanguageModel, NDArray[np.float32], int, NDArray[np.int64] | None], Vocabulary]
] = {
    LOGITLENS: logit_lens,
    EMBEDDINGLENS: embedding_lens,
}


def _vocabulary_top_k(
    model: LanguageModel,
    states: NDArray[np.float32],
    k: int,
    score: Callable[[Tensor], Tensor],
    labels: NDArray[np.int64] | None,
) -> Vocabulary:
    import torch

    of_tokens = torch.tensor(sorted(set(model.tokenizer.get_vocab().values())), device=model.embedding.device)

    def best(scores: Tensor) -> tuple[Tensor, Tensor]:
        scores = _masked(scores, of_tokens)
        if labels is None:
            return top_k_lowest_index_first(scores, k)
        return top_k_of_distinct_labels(scores, k, torch.from_numpy(labels).to(scores.device))

    with torch.inference_mode():
        found = [best(score(part)) for part in _parts(model, states)]
    ids = [i.cpu().numpy().astype(np.int32) for _, i in found]
    scores = [s.cpu().numpy() for s, _ in found]
    nothing = np.empty((0, min(k, len(model.embedding))))
    return Vocabulary(
        np.concatenate([nothing.astype(np.int32), *ids]), np.concatenate([nothing.astype(np.float32), *scores])
    )


def _masked(scores: Tensor, ids: Tensor) -> Tensor:
    """The scores [N, V], but of rows that no token has minus infinity; `ids` of the tokens may go beyond V."""
    import torch

    is_none = torch.ones(scores.shape[1], dtype=torch.bool, device=scores.device)
    is_none[ids[ids < scores.shape[1]]] = False
    return scores.masked_fill(is_none, -torch.inf)


def _parts(model: LanguageModel, states: NDArray[np.float32]) -> Iterator[Tensor]:
    import torch

    for start in range(0, len(states), _QUERIES_PER_PASS):
        part = torch.from_numpy(states[start : start + _QUERIES_PER_PASS].copy())
        yield part.to(model.embedding.device, torch.float32)


def _common_columns(study: str, lens: str, layer: int, at: TokenStates, k: int) -> dict[str, object]:
    tokens = len(at.image_ids)
    return {
        "study": [study] * (tokens * k),
        "image_id": pa.array(at.image_ids).take(pa.array(np.repeat(np.arange(tokens), k))),
        "token_index": np.repeat(at.token_index, k),
        "visual_layer": np.full(tokens * k, layer, np.int32),
        "lens": [lens] * (tokens * k),
        "rank": np.tile(np.arange(1, k + 1, dtype=np.int32), tokens),
    }


def _table(columns: Mapping[str, object]) -> pa.Table:
    rows = len(columns["rank"])  # type: ignore[arg-type]
    arrays = [columns[field.name] if field.name in columns else pa.nulls(rows, field.type) for field in NEIGHBORS]
    return pa.table(arrays, names=NEIGHBORS.names).cast(NEIGHBORS)
