"""What one step of a study does: states in, answers out, on paths and tables.

Here the stages' pieces meet: image ids with token maps, queries of all visual layers with the blocks of
all contextual layers. What a newcomer gets wrong: the search reads every block once for the queries of
*all* visual layers, so asking layer by layer would cost as many scans.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import pyarrow as pa

from latentlens_dag.errors import UserError
from latentlens_dag.index.contextual_index import ContextualIndex, TooFewNeighborsError
from latentlens_dag.index.lance_files import count_rows
from latentlens_dag.index.occurrence_lookup import word_labels
from latentlens_dag.index.state_tables import TokenStates, write_states
from latentlens_dag.models.language_model import LanguageModel
from latentlens_dag.models.tokenization import token_texts
from latentlens_dag.schema import TEXT_TOKENS, VISUAL_TOKENS
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
    index: ContextualIndex,
    layers: Sequence[int],
    k: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
    unique: Unique = "none",
    of_texts: bool = False,
) -> Iterator[tuple[int, pa.Table]]:
    """LatentLens's answers for the states of several visual layers, from one scan of the index's contextual `layers`.

    With `unique` "word" or "sentence", the k answers of a token are of different words (whatever their case) or
    sentences, and each is the nearest of its own. Attention sinks are no answers (`search/sinks.py`). Where the states
    are `of_texts`, nor is a text's own sentence, which the index may hold.

    Yields:
        (visual layer, NEIGHBORS) for each layer of `states`.

    Raises:
        UserError: where the index has fewer rows, words or sentences than k, so that there are no k answers.
    """
    if not states:
        return
    queries = np.concatenate([at.states for at in states.values()])
    # A text is named by the hash that its sentence is named by.
    own = [text_id for at in states.values() for text_id in at.image_ids] if of_texts else None
    differ = None if unique == "none" else unique
    try:
        found = index.search(queries, k, layers, unique=differ, sentence_ids=own, progress=progress)
    except TooFewNeighborsError as error:
        raise UserError(
            f"`top_k: {k}` of Study {study} asks for more answers than its index has {error.available}: ask for fewer, "
            "or give the index a larger corpus."
        ) from error
    start = 0
    for layer, at in states.items():
        part = slice(start, start + len(at.states))
        start = part.stop
        yield layer, latent_table(study, layer, at, found[part])


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
