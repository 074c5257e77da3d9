"""What one step of a study does: states in, answers out, on paths and tables.

Here the stages' pieces meet: image ids with token maps, queries of all visual layers with the blocks of
all contextual layers. What a newcomer gets wrong: the search reads every block once for the queries of
*all* visual layers, so asking layer by layer would cost as many scans.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import pyarrow as pa

from latentlens_dag.errors import UserError
from latentlens_dag.index.folder import IndexFiles, index_blocks
from latentlens_dag.index.lance_files import count_rows
from latentlens_dag.index.layer_tables import count_searched_rows
from latentlens_dag.index.occurrence_lookup import OccurrenceLookup, word_labels
from latentlens_dag.index.state_tables import TokenStates, write_states
from latentlens_dag.models.language_model import LanguageModel
from latentlens_dag.models.tokenization import token_texts
from latentlens_dag.schema import TEXT_TOKENS, VISUAL_TOKENS
from latentlens_dag.search.exact import cosine_top_k
from latentlens_dag.search.top_k import LabelsOf, Neighbors
from latentlens_dag.study.lenses import VOCABULARY_LENSES, latent_table, vocabulary_table

if TYPE_CHECKING:
    import polars as pl
    from numpy.typing import NDArray


Unique = Literal["none", "word", "sentence"]
"""What the answers of a visual token must differ in."""


class LayerReport(NamedTuple):
    """What was written of one layer's visual states."""

    content: str
    mean_norm: float
    problems: list[str]


def visual_token_table(study: str, image_ids: list[str], tokens: pl.DataFrame) -> pa.Table:
    """The tokens of some images (`VisualStates.tokens`) as they are stored (VISUAL_TOKENS)."""
    import polars as pl

    ids = pl.Series("image_id", image_ids, dtype=pl.String)
    named = tokens.with_columns(pl.lit(study).alias("study"), ids.gather(tokens["image_index"]).alias("image_id"))
    return named.select(VISUAL_TOKENS.names).to_arrow().cast(VISUAL_TOKENS)


class TextTokens(NamedTuple):
    """The tokens of some texts as they are stored."""

    visual_tokens: pa.Table
    """VISUAL_TOKENS: of the view `text`, and nowhere in an image."""
    text_tokens: pa.Table
    """TEXT_TOKENS: what each is in its text."""


def text_token_tables(study: str, text_ids: list[str], tokens: pl.DataFrame) -> TextTokens:
    """The tokens of some texts (`TextStates.tokens`), whose ids stand where others have those of images."""
    import polars as pl

    ids = pl.Series("image_id", text_ids, dtype=pl.String)
    named = tokens.with_columns(pl.lit(study).alias("study"), ids.gather(tokens["text_index"]).alias("image_id"))
    nowhere = [pl.lit(None).alias(name) for name in VISUAL_TOKENS.names[4:]]
    placed = named.with_columns(pl.lit("text").alias("view"), *nowhere)
    return TextTokens(
        placed.select(VISUAL_TOKENS.names).to_arrow().cast(VISUAL_TOKENS),
        named.select(TEXT_TOKENS.names).to_arrow().cast(TEXT_TOKENS),
    )


def write_visual_layer(
    path: Path, tokens: pa.Table, states: NDArray[np.float32], dtype: str = "float32"
) -> LayerReport:
    """Write the states [N, d] of the tokens (VISUAL_TOKENS, N rows) at one layer, computed in `dtype`."""
    content = write_states(path, tokens["image_id"].to_pylist(), tokens["token_index"].to_numpy(), states, dtype)
    written = count_rows(path)
    problems = [] if written == len(tokens) else [f"{written} states were written for {len(tokens)} visual tokens"]
    return LayerReport(content, float(np.linalg.norm(states, axis=1).mean()) if len(states) else 0.0, problems)


def latent_answers(
    study: str,
    states: Mapping[int, TokenStates],
    index: IndexFiles,
    k: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
    unique: Unique = "none",
    of_texts: bool = False,
) -> Iterator[tuple[int, pa.Table]]:
    """LatentLens's answers for the states of several visual layers, from one scan of the index.

    With `unique` "word" or "sentence", the k answers of a token are of different words (whatever their case) or
    sentences, and each is the nearest of its own. Attention sinks are no answers (`search/sinks.py`). Where the states
    are `of_texts`, nor is a text's own sentence, which the index may hold.

    Yields:
        (visual layer, NEIGHBORS) for each layer of `states`.

    Raises:
        UserError: where the index has fewer rows, words or sentences than k, so that there are no k answers.
    """
    rows = sum(count_searched_rows(table) for table in index.tables.values())
    if rows < k:
        raise UserError(
            f"`top_k: {k}` of Study {study} asks for more answers than its index has rows ({rows}, over "
            f"{len(index.tables)} contextual layers): ask for fewer, or give the index a larger corpus."
        )
    occurrences = OccurrenceLookup.from_files(index.occurrences)
    labels_of = None
    if unique != "none":
        labels_of, different = occurrences.labels_of({"word": "word", "sentence": "sentence_id"}[unique])
        if different < k:
            raise UserError(
                f"`top_k: {k}` and `unique: {unique}` of Study {study} ask for more answers than its index has "
                f"different {unique}s ({different}): ask for fewer, or give the index a larger corpus."
            )
    found = (
        _nearest(study, states, index.tables, occurrences if of_texts else None, k, labels_of, progress)
        if states
        else None
    )
    start = 0
    for layer, at in states.items():
        assert found is not None
        part = slice(start, start + len(at.states))
        start = part.stop
        mine = Neighbors(found.cosine[part], found.contextual_layer[part], found.key[part])
        yield layer, latent_table(study, layer, at, mine, occurrences)


def _nearest(
    study: str,
    states: Mapping[int, TokenStates],
    tables: Mapping[int, Path],
    own_sentences: OccurrenceLookup | None,
    k: int,
    labels_of: LabelsOf | None,
    progress: Callable[[int, int], None],
) -> Neighbors:
    """The answers for the states of all layers, one layer's after the other's."""
    queries = np.concatenate([at.states for at in states.values()])
    own = None
    if own_sentences is not None:  # a text is named by the hash that a sentence is named by
        own = own_sentences.own_rows([text_id for at in states.values() for text_id in at.image_ids])
    found = cosine_top_k(queries, index_blocks(tables, progress, own=own), k, labels_of)
    if np.isneginf(found.cosine).any():
        raise UserError(
            f"`top_k: {k}` of Study {study} asks for more answers than its index has for some text, whose own sentence "
            "is no answer: ask for fewer, or give the index a larger corpus."
        )
    return found


def vocabulary_answers(
    study: str, lens: str, states: Mapping[int, TokenStates], model: LanguageModel, k: int, unique: Unique = "none"
) -> Iterator[tuple[int, pa.Table]]:
    """LogitLens's or EmbeddingLens's answers, as `latent_answers`; they come from no sentence.

    Raises:
        UserError: where the vocabulary has fewer different words than k.
    """
    labels = None
    if unique == "word":
        labels = word_labels(token_texts(model.tokenizer, range(len(model.embedding))).values())
        if (different := len(np.unique(labels))) < k:
            raise UserError(
                f"`top_k: {k}` and `unique: word` of Study {study} ask for more answers than the vocabulary has "
                f"different words ({different}): ask for fewer."
            )
    for layer, at in states.items():
        found = VOCABULARY_LENSES[lens](model, at.states, k, labels)
        yield layer, vocabulary_table(study, lens, layer, at, found, model)
