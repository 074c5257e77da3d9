"""Lenses whose candidates are the tokens of the vocabulary, or those of them that the study's index has.

With both sets of candidates a state is scored once, and the best of each set are taken from the same scores. Equal
scores go to the lower token id. Scores are computed in float32, whatever the checkpoint's dtype: in bfloat16, many
tokens would share one logit.

Note: many models have more rows of vocabulary than their tokenizer has tokens; a row without a token is no candidate.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import numpy as np
import pyarrow as pa

from latentlens_dag.device import full_precision, worker_threads
from latentlens_dag.errors import UserError
from latentlens_dag.index.occurrence_lookup import word_labels
from latentlens_dag.index.state_tables import TokenStates
from latentlens_dag.models.tokenization import token_texts
from latentlens_dag.schema import DECLARED_LENSES, Candidates
from latentlens_dag.study.candidates import check_enough
from latentlens_dag.study.lenses.base import LayerAnswers, Lens, LensInputs

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from latentlens_dag.models.vocabulary_parts import Vocabulary, VocabularyNeeds

_QUERIES_PER_PASS = 512
_GROUP = 64  # columns whose maximum is compared first
_FEWEST_GROUPS = 2  # for each of the k; with fewer, most columns would be sorted in any case
_SMALL_VOCABULARY = 1 << 13  # rows, whose scores are 16 MiB in a pass


class VocabularyNeighbors(NamedTuple):
    """The k best vocabulary tokens of each of N states, best first; equal scores in order of token id."""

    token_id: NDArray[np.int32]  # [N, k]
    score: NDArray[np.float32]  # [N, k]


class Choice(NamedTuple):
    """The tokens among which the best are chosen."""

    ids: NDArray[np.int64] | None = None
    """In ascending order; None for the whole vocabulary."""
    labels: NDArray[np.int64] | None = None
    """Of each of them: only the best token of a label is an answer."""


class VocabularyLens(Lens):
    """A lens that scores every token of the vocabulary.

    With `unique` "word", the k neighbors are of different words (whatever their case); they come from no sentence, so
    "sentence" changes nothing.
    """

    needs: ClassVar[VocabularyNeeds]

    @abstractmethod
    def scorer(self, vocabulary: Vocabulary) -> Callable[[Tensor], Tensor]:
        """A function: states [N, d] -> scores [N, V], in float32; minus infinity for what is no candidate.

        The scores are a tensor of their own, which the caller may change; threads may call it at the same time.
        """

    def neighbors(self, states: Mapping[int, TokenStates], inputs: LensInputs) -> Iterator[LayerAnswers]:
        """As `Lens.neighbors`."""
        vocabulary = inputs.vocabulary(self.needs)
        choices = {self._named(one): self._choice(one, vocabulary, inputs) for one in self.candidates}
        found = self.top_k_of_each(vocabulary, [at.states for at in states.values()], list(choices.values()))
        for (layer, at), of_layer in zip(states.items(), found, strict=True):
            for lens, best in zip(choices, of_layer, strict=True):
                yield LayerAnswers(lens, layer, self.vocabulary_table(lens, layer, at, best, vocabulary))

    def _named(self, candidates: Candidates) -> str:
        """The lens with these candidates, as tables name it."""
        declared = DECLARED_LENSES[self.name]
        return (declared.shared if candidates == "shared" else declared).name

    def _choice(self, candidates: Candidates, vocabulary: Vocabulary, inputs: LensInputs) -> Choice:
        ids = self._shared_tokens(vocabulary, inputs) if candidates == "shared" else None
        return Choice(ids, self._word_labels(vocabulary, ids) if self.unique == "word" else None)

    def _shared_tokens(self, vocabulary: Vocabulary, inputs: LensInputs) -> NDArray[np.int64]:
        """The tokens of the index; the vocabulary must have them all, or LatentLens had candidates of its own."""
        assert inputs.shared_candidates is not None
        ids = inputs.shared_candidates().astype(np.int64)
        check_enough(self.study, self.k, len(ids))
        missing = np.setdiff1d(ids, [i for i in _tokens(vocabulary) if i < vocabulary.vocabulary_size])
        if len(missing):
            raise UserError(
                f"`candidates: shared` of Study {self.study} asks for answers from the {len(ids)} tokens of its index, "
                f"but the vocabulary of its model has no token {', '.join(map(str, missing[:5]))}: the index was made "
                "with another tokenizer. Name an index of the study's language model, or set `candidates: all`."
            )
        return ids

    def _word_labels(self, vocabulary: Vocabulary, ids: NDArray[np.int64] | None) -> NDArray[np.int64]:
        numbers = range(vocabulary.vocabulary_size) if ids is None else ids.tolist()
        labels = word_labels(token_texts(vocabulary.tokenizer, numbers).values())
        if (different := len(np.unique(labels))) < self.k:
            whose = "the vocabulary" if ids is None else "its index, whose tokens are shared candidates,"
            raise UserError(
                f"`top_k: {self.k}` and `unique: word` of Study {self.study} ask for more answers than {whose} has "
                f"different words ({different}): ask for fewer."
            )
        return labels

    def vocabulary_table(
        self, lens: str, layer: int, at: TokenStates, found: VocabularyNeighbors, vocabulary: Vocabulary
    ) -> pa.Table:
        """NEIGHBORS with the tokens' texts."""
        texts = token_texts(vocabulary.tokenizer, np.unique(found.token_id).tolist())
        ids = found.token_id.ravel()
        token_str = [texts[i] for i in ids.tolist()]
        columns = {"token_id": ids, "token_str": token_str, "word": [text.strip() for text in token_str]}
        return self.table(lens, layer, at, found.score, columns)

    def top_k(
        self, vocabulary: Vocabulary, states: NDArray[np.float32], labels: NDArray[np.int64] | None = None
    ) -> VocabularyNeighbors:
        """The k best tokens of states [N, d]; with `labels` [V] of the tokens, only the best token of each label."""
        ((found,),) = self.top_k_of_each(vocabulary, [states], [Choice(None, labels)])
        return found

    def top_k_of_each(
        self, vocabulary: Vocabulary, layers: Sequence[NDArray[np.float32]], choices: Sequence[Choice]
    ) -> Iterator[list[VocabularyNeighbors]]:
        """The k best tokens of the states [N, d] of each layer, by each choice.

        All choices have the same scores, which are computed once. While the caller has a layer's, threads compute those
        of the next one.
        """
        scorer, masked = self.scorer(vocabulary), _rows_without_token(vocabulary)
        k, most = min(self.k, vocabulary.vocabulary_size), max((len(_starts(states)) for states in layers), default=0)

        def one_pass(states: NDArray[np.float32], number: int) -> list[VocabularyNeighbors]:
            return self._pass(
                states[_starts(states)[number] :][:_QUERIES_PER_PASS], vocabulary, scorer, masked, choices
            )

        def joined(passes: Iterator[list[VocabularyNeighbors]]) -> list[VocabularyNeighbors]:
            found = list(passes)
            return [_joined([parts[number] for parts in found], k) for number in range(len(choices))]

        # The precision is one of all threads: set here, none of them changes it while another computes.
        with full_precision(), worker_threads(_threads(vocabulary, most)) as in_threads:
            begun = deque[Iterator[list[VocabularyNeighbors]]]()
            for states in layers:
                begun.append(in_threads(partial(one_pass, states), len(_starts(states))))
                if len(begun) > 1:
                    yield joined(begun.popleft())
            yield from map(joined, begun)

    def _pass(
        self,
        states: NDArray[np.float32],
        vocabulary: Vocabulary,
        scorer: Callable[[Tensor], Tensor],
        masked: Tensor,
        choices: Sequence[Choice],
    ) -> list[VocabularyNeighbors]:
        """The k best tokens of a few states, by each choice; `masked` are the rows that no token has."""
        import torch

        with torch.inference_mode():  # of this thread
            scores = scorer(torch.from_numpy(states.copy()).to(vocabulary.device, torch.float32))
            if len(masked):
                scores.index_fill_(1, masked, -torch.inf)
            return [_best(scores, self.k, choice) for choice in choices]


def _starts(states: NDArray[np.float32]) -> range:
    """The first row of each pass."""
    return range(0, len(states), _QUERIES_PER_PASS)


def _threads(vocabulary: Vocabulary, passes: int) -> int:
    """How many passes are computed at a time, each in a thread.

    Of a small vocabulary, choosing the best takes as long as the product, and no part of the product is long enough to
    be divided: beside another program, threads that divide it wait for each other most of the time.
    """
    import torch

    is_small = vocabulary.vocabulary_size <= _SMALL_VOCABULARY and vocabulary.device.type == "cpu"
    return max(1, min(torch.get_num_threads(), passes)) if is_small else 1


def _rows_without_token(vocabulary: Vocabulary) -> Tensor:
    """The rows of the vocabulary that no token has."""
    import torch

    rows = np.setdiff1d(np.arange(vocabulary.vocabulary_size), _tokens(vocabulary))
    return torch.from_numpy(rows).to(vocabulary.device)


def _tokens(vocabulary: Vocabulary) -> list[int]:
    """The rows that a token has, in ascending order; they may go beyond those of the vocabulary."""
    return sorted(set(vocabulary.tokenizer.get_vocab().values()))


def _best(scores: Tensor, k: int, choice: Choice) -> VocabularyNeighbors:
    """The k best of scores [N, V] by a choice."""
    import torch

    ids = None if choice.ids is None else torch.from_numpy(choice.ids).to(scores.device)
    chosen = scores if ids is None else scores[:, ids]
    if choice.labels is None:
        values, columns = top_k_lowest_index_first(chosen, k)
    else:
        values, columns = top_k_of_distinct_labels(chosen, k, torch.from_numpy(choice.labels).to(scores.device))
    columns = columns if ids is None else ids[columns]
    return VocabularyNeighbors(columns.cpu().numpy().astype(np.int32), values.cpu().numpy())


def _joined(parts: Sequence[VocabularyNeighbors], k: int) -> VocabularyNeighbors:
    empty = VocabularyNeighbors(np.empty((0, k), np.int32), np.empty((0, k), np.float32))
    return VocabularyNeighbors(*map(np.concatenate, zip(*(parts or [empty]), strict=True)))


def top_k_lowest_index_first(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k highest scores of each row [N, V] and their columns; of equal scores the lower column is first.

    `torch.topk` leaves open which of several equal scores it takes. Where the k-th score is equal to the next one,
    every column that reaches it is sorted.
    """
    k = min(k, scores.shape[1])
    best, indices = _highest(scores, min(k + 1, scores.shape[1]))
    unsure = (best[:, k - 1] == best[:, -1]).nonzero()[:, 0]
    columns, by_column = indices[:, :k].sort(dim=1)
    values, by_value = best.gather(1, by_column).sort(dim=1, descending=True, stable=True)
    columns = columns.gather(1, by_value)
    if len(unsure):
        values[unsure], columns[unsure] = _sorted_top_k(scores[unsure], k)
    return values, columns


def _highest(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """As `topk` of each row, in less than half the time of many columns.

    Only the k groups of columns with the highest maxima are sorted, and the columns that are in no group. That is
    enough: what is above the k-th maximum can be in no other group, and these groups have k scores that reach it.
    """
    import torch

    groups = scores.shape[1] // _GROUP
    if groups < _FEWEST_GROUPS * k:
        best = scores.topk(k, dim=1)
        return best.values, best.indices
    maxima = scores[:, : groups * _GROUP].unflatten(1, (_GROUP, groups)).amax(1)
    first = maxima.topk(k, dim=1, sorted=False).indices
    members = torch.arange(0, groups * _GROUP, groups, device=scores.device)
    rest = torch.arange(groups * _GROUP, scores.shape[1], device=scores.device).expand(len(scores), -1)
    columns = torch.cat([(first[:, :, None] + members).flatten(1), rest], dim=1)
    best = scores.gather(1, columns).topk(k, dim=1)
    return best.values, columns.gather(1, best.indices)


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
