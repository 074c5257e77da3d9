"""Lenses whose candidates are the tokens of the vocabulary.

Equal scores go to the lower token id. Scores are computed in float32, whatever the checkpoint's dtype: in bfloat16,
many tokens would share one logit.

Note: many models have more rows of vocabulary than their tokenizer has tokens; a row without a token is no candidate.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import numpy as np
import pyarrow as pa

from latentlens_dag.errors import UserError
from latentlens_dag.index.occurrence_lookup import word_labels
from latentlens_dag.index.state_tables import TokenStates
from latentlens_dag.models.tokenization import token_texts
from latentlens_dag.study.lenses.base import Lens, LensInputs

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from latentlens_dag.models.vocabulary_parts import Vocabulary, VocabularyNeeds

_QUERIES_PER_PASS = 512


class VocabularyNeighbors(NamedTuple):
    """The k best vocabulary tokens of each of N states, best first; equal scores in order of token id."""

    token_id: NDArray[np.int32]  # [N, k]
    score: NDArray[np.float32]  # [N, k]


class VocabularyLens(Lens):
    """A lens that scores every token of the vocabulary.

    With `unique` "word", the k neighbors are of different words (whatever their case); they come from no sentence, so
    "sentence" changes nothing.
    """

    needs: ClassVar[VocabularyNeeds]

    @abstractmethod
    def scorer(self, vocabulary: Vocabulary) -> Callable[[Tensor], Tensor]:
        """A function: states [N, d] -> scores [N, V], in float32; minus infinity for what is no candidate."""

    def neighbors(self, states: Mapping[int, TokenStates], inputs: LensInputs) -> Iterator[tuple[int, pa.Table]]:
        """As `Lens.neighbors`."""
        vocabulary = inputs.vocabulary(self.needs)
        labels = self._word_labels(vocabulary) if self.unique == "word" else None
        for layer, at in states.items():
            yield layer, self.vocabulary_table(layer, at, self.top_k(vocabulary, at.states, labels), vocabulary)

    def _word_labels(self, vocabulary: Vocabulary) -> NDArray[np.int64]:
        labels = word_labels(token_texts(vocabulary.tokenizer, range(vocabulary.vocabulary_size)).values())
        if (different := len(np.unique(labels))) < self.k:
            raise UserError(
                f"`top_k: {self.k}` and `unique: word` of Study {self.study} ask for more answers than the vocabulary "
                f"has different words ({different}): ask for fewer."
            )
        return labels

    def vocabulary_table(
        self, layer: int, at: TokenStates, found: VocabularyNeighbors, vocabulary: Vocabulary
    ) -> pa.Table:
        """NEIGHBORS with the tokens' texts."""
        texts = token_texts(vocabulary.tokenizer, np.unique(found.token_id).tolist())
        ids = found.token_id.ravel()
        token_str = [texts[i] for i in ids.tolist()]
        columns = {"token_id": ids, "token_str": token_str, "word": [text.strip() for text in token_str]}
        return self.table(layer, at, found.score, columns)

    def top_k(
        self, vocabulary: Vocabulary, states: NDArray[np.float32], labels: NDArray[np.int64] | None = None
    ) -> VocabularyNeighbors:
        """The k best tokens of states [N, d]; with `labels` [V] of the tokens, only the best token of each label."""
        import torch

        device, k, scorer = vocabulary.device, self.k, self.scorer(vocabulary)
        of_tokens = torch.tensor(sorted(set(vocabulary.tokenizer.get_vocab().values())), device=device)
        ids = [np.empty((0, min(k, vocabulary.vocabulary_size)), np.int32)]
        scores = [ids[0].astype(np.float32)]
        with torch.inference_mode():
            for start in range(0, len(states), _QUERIES_PER_PASS):
                queries = torch.from_numpy(states[start : start + _QUERIES_PER_PASS].copy()).to(device, torch.float32)
                candidates = _masked(scorer(queries), of_tokens)
                if labels is None:
                    values, columns = top_k_lowest_index_first(candidates, k)
                else:
                    values, columns = top_k_of_distinct_labels(candidates, k, torch.from_numpy(labels).to(device))
                ids.append(columns.cpu().numpy().astype(np.int32))
                scores.append(values.cpu().numpy())
        return VocabularyNeighbors(np.concatenate(ids), np.concatenate(scores))


def top_k_lowest_index_first(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k highest scores of each row [N, V] and their columns; of equal scores the lower column is first.

    `torch.topk` leaves open which of several equal scores it takes. Where the k-th score is equal to the next one,
    every column that reaches it is sorted.
    """
    k = min(k, scores.shape[1])
    best = scores.topk(min(k + 1, scores.shape[1]), dim=1)
    unsure = (best.values[:, k - 1] == best.values[:, -1]).nonzero()[:, 0]
    columns, by_column = best.indices[:, :k].sort(dim=1)
    values, by_value = best.values.gather(1, by_column).sort(dim=1, descending=True, stable=True)
    columns = columns.gather(1, by_value)
    if len(unsure):
        values[unsure], columns[unsure] = _sorted_top_k(scores[unsure], k)
    return values, columns


def _sorted_top_k(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """As `top_k_lowest_index_first`, by sorting every column that reaches the k-th score."""
    import torch

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


def _masked(scores: Tensor, ids: Tensor) -> Tensor:
    """The scores [N, V], but of rows that no token has minus infinity; `ids` of the tokens may go beyond V."""
    import torch

    is_none = torch.ones(scores.shape[1], dtype=torch.bool, device=scores.device)
    is_none[ids[ids < scores.shape[1]]] = False
    return scores.masked_fill(is_none, -torch.inf) if bool(is_none.any()) else scores
