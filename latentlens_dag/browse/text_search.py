"""What a page asks with text of a study's language model and its index; answers are remembered.

What a newcomer gets wrong: a model is read by hooks on its blocks, so two threads must not run it at the same time;
`TextSearch` lets them wait.
"""

from __future__ import annotations

from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from latentlens_dag.browse.method_cache import MethodCache, cached
from latentlens_dag.browse.reverse_search import NearestTokens, nearest_tokens
from latentlens_dag.errors import UserError
from latentlens_dag.release.reader import is_release
from latentlens_dag.storage.home import find_warehouse
from latentlens_dag.storage.warehouse import Warehouse
from latentlens_dag.study.query_states import QueryStates, encode_query

if TYPE_CHECKING:
    from latentlens_dag.index.contextual_index import ContextualIndex
    from latentlens_dag.models.language_model import LanguageModel

Unique = Literal["word", "sentence"] | None
LONGEST_TEXT = 400
"""Characters; a page is for phrases and sentences."""
_CACHED_RESULTS = 200


class TextNeighbors(NamedTuple):
    """The occurrences that a token is like."""

    rows: list[dict[str, Any]]
    """As `contextual_index.SearchResult.to_polars` gives them, nearest first."""
    method: str
    """How they were found."""


def home_warehouse(source: str) -> Warehouse:
    """The warehouse of a home, which alone has indexes and states.

    Raises:
        UserError: of anything else.
    """
    warehouse = find_warehouse(source)
    if not warehouse.root.is_dir() or is_release(warehouse.root):
        raise UserError(
            f"{source} is no home: it has answers, but neither the index nor the states that a text is compared with. "
            "Run `latentlens-dag browse` inside the project that built the study, without naming a release or catalog."
        )
    return warehouse


class TextSearch(MethodCache):
    """A language model with an index of its states, for one study; answers are remembered."""

    def __init__(self, model: LanguageModel, index: ContextualIndex) -> None:
        """Take both, opened."""
        super().__init__(_CACHED_RESULTS)
        self.model = model
        self.index = index
        self._running = Lock()

    @cached
    def question(self, text: str, layer: int) -> QueryStates:
        """The states of a text's tokens at a layer; errors as `encode_query`."""
        with self._running:
            return encode_query(self.model, text[:LONGEST_TEXT], layer)

    @cached
    def answers(
        self, text: str, layer: int, token: int, k: int, layers: tuple[int, ...] | None, unique: Unique
    ) -> TextNeighbors:
        """What the token of that number is like, at some contextual layers or all; `unique` as of `search`.

        The text itself, where it is a sentence of the index, is no answer.
        """
        question = self.question(text, layer)
        how: dict[str, Any] = {"unique": unique, "exact": False, "sentence_ids": [question.sentence_id]}
        found = self.index.search(question.states[token][None], k, layers, **how)
        return TextNeighbors(found.to_polars().to_dicts(), found.method)

    @cached
    def nearest(
        self, text: str, layer: int, token: int, k: int, files: tuple[tuple[int, tuple[Path, ...]], ...]
    ) -> NearestTokens:
        """The visual tokens, of some layers' files, that the token of that number is nearest to."""
        return nearest_tokens(self.question(text, layer).states[token], dict(files), k)


def open_study_index(warehouse: Warehouse, study: str, index: str) -> ContextualIndex:
    """A study's index.

    Raises:
        UserError: where it is not built, half-built or damaged.
    """
    from latentlens_dag.index.contextual_index import ContextualIndex

    folder = warehouse.index(index).root
    if not folder.is_dir():
        raise UserError(f"Study {study} has no index here yet ({folder}): run `latentlens-dag build {study}` first.")
    return ContextualIndex.open(folder)


def build_times(warehouse: Warehouse, study: str, index: str) -> tuple[int, ...]:
    """What changes when a build writes the study's states or its index: times in ns."""
    paths = warehouse.index(index)
    layers = warehouse.visual(study, 0, 0).parent.parent
    files = [paths.shape, *sorted(paths.occurrences(0).parent.glob("*")), *sorted(layers.glob("*"))]
    return tuple(file.stat().st_mtime_ns for file in files if file.exists())
