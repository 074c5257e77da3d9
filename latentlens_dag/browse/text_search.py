"""Search with a text: the occurrences of an index, and the visual tokens of a study, that its tokens are like.

Note: the states of a model are read by hooks on its blocks, so two threads must not run it at the same time.
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
    """The occurrences that are nearest to a token."""

    rows: list[dict[str, Any]]
    """As `search_result.SearchResult.to_polars` gives them, nearest first."""
    method: str
    """How they were found."""


def home_warehouse(source: str) -> Warehouse:
    """The warehouse of a home; nothing else has indexes and states.

    Raises:
        UserError: if the source is not a home.
    """
    warehouse = find_warehouse(source)
    if not warehouse.root.is_dir() or is_release(warehouse.root):
        raise UserError(
            f"{source} is no home: it has answers, but neither the index nor the states that a text is compared with. "
            "Run `latentlens-dag browse` inside the project that built the study, without naming a release or catalog."
        )
    return warehouse


class TextSearch(MethodCache):
    """Searches with the language model and the index of one study."""

    def __init__(self, model: LanguageModel, index: ContextualIndex) -> None:
        """Take an opened model and index."""
        super().__init__(_CACHED_RESULTS)
        self.model = model
        self.index = index
        self._model_lock = Lock()

    @cached
    def encode(self, text: str, layer: int) -> QueryStates:
        """The states of a text's tokens at a layer; the text is cut to LONGEST_TEXT. Errors as `encode_query`."""
        with self._model_lock:
            return encode_query(self.model, text[:LONGEST_TEXT], layer)

    @cached
    def neighbors(
        self, text: str, layer: int, token: int, k: int, layers: tuple[int, ...] | None, unique: Unique
    ) -> TextNeighbors:
        """The k occurrences nearest to token number `token`, at some contextual layers or all; `unique` as of `search`.

        Occurrences in the text itself, if it is a sentence of the index, are left out.
        """
        query = self.encode(text, layer)
        results = self.index.search(
            query.states[token][None], k, layers, unique=unique, exact=False, sentence_ids=[query.sentence_id]
        )
        return TextNeighbors(results.to_polars().to_dicts(), results.method)

    @cached
    def nearest_tokens(
        self, text: str, layer: int, token: int, k: int, files: tuple[tuple[int, tuple[Path, ...]], ...]
    ) -> NearestTokens:
        """The k visual tokens nearest to token number `token`, among the states in some layers' files."""
        return nearest_tokens(self.encode(text, layer).states[token], dict(files), k)


def open_study_index(warehouse: Warehouse, study: str, index: str) -> ContextualIndex:
    """Open a study's index.

    Raises:
        UserError: if it is not built, incomplete or damaged.
    """
    from latentlens_dag.index.contextual_index import ContextualIndex

    folder = warehouse.index(index).root
    if not folder.is_dir():
        raise UserError(f"Study {study} has no index here yet ({folder}): run `latentlens-dag build {study}` first.")
    return ContextualIndex.open(folder)


def build_times(warehouse: Warehouse, study: str, index: str) -> tuple[int, ...]:
    """The times, in ns, of the files of a study's states and index: they change when a build writes either."""
    paths = warehouse.index(index)
    layers = warehouse.visual(study, 0, 0).parent.parent
    files = [paths.shape, *sorted(paths.occurrences(0).parent.glob("*")), *sorted(layers.glob("*"))]
    return tuple(file.stat().st_mtime_ns for file in files if file.exists())
