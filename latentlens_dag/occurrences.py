"""Which tokens of which sentences an index keeps.

An occurrence is one token at one position of one sentence. Two sentences with the same beginning have
the same state there (the model is causal), so an occurrence is named by the hash of its token prefix,
its `key`, and kept once; of every token the `contexts_per_token` occurrences with the smallest keys are
kept. A hash is a uniform random number, so this is a uniform sample, and it is the same in any order of
the corpus and any number of shards: each shard offers its own smallest (`candidates`), `select` takes
the smallest of those, and the shard that owns a kept occurrence writes it (`kept_rows`).

What a newcomer gets wrong: the word is not the token. "ele" of "elephant" is a token; its word is
"elephant", found from the tokenizer's character offsets, never by searching for the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from latentlens_dag.identity import digest, within_fraction
from latentlens_dag.schema import OCCURRENCES

if TYPE_CHECKING:
    import polars as pl
    from transformers import PreTrainedTokenizerBase

_SENTENCES_PER_CALL = 1000
# Letters and digits with inner apostrophes and hyphens; scripts written without blanks (Thai, Chinese, Japanese)
# have no such runs, so there a word is the token's own text.
_UNSPACED = "\u0e00-\u0eff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[^\W_{_UNSPACED}]+(?:['’-][^\W_{_UNSPACED}]+)*")


class Tokens(NamedTuple):
    """One sentence as its model reads it: ids, and for each the span in the text and whether it is special."""

    ids: list[int]
    spans: list[tuple[int, int]]
    special: list[bool]


def tokenize(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> list[Tokens]:
    """Sentences with their specials (a beginning-of-sequence token, say), without padding."""
    found = tokenizer(texts, return_offsets_mapping=True, return_special_tokens_mask=True)
    rows = zip(found["input_ids"], found["offset_mapping"], found["special_tokens_mask"], strict=True)
    return [Tokens(ids, spans, [bool(flag) for flag in special]) for ids, spans, special in rows]


def word_span(text: str, start: int, end: int) -> tuple[int, int]:
    """The characters of the whole word around a token's characters; of the token itself where it is no word."""
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    for word in _WORD.finditer(text):
        if word.start() <= start < word.end():
            return word.start(), max(word.end(), end)
        if word.start() > start:
            break
    return start, end


def token_texts(tokenizer: PreTrainedTokenizerBase, ids: Iterable[int]) -> dict[int, str]:
    """The text of each token; a piece of a character, which has none, is given as the tokenizer writes it."""
    texts = {}
    for token_id in ids:
        text = tokenizer.decode([token_id], clean_up_tokenization_spaces=False)
        texts[token_id] = tokenizer.convert_ids_to_tokens(token_id) if "\ufffd" in text or text == "" else text
    return texts


def candidates(
    tokenizer: PreTrainedTokenizerBase,
    sentences: pa.Table,
    index: str,
    contexts_per_token: int,
    min_position: int = 1,
    fraction: float = 1.0,
) -> pa.Table:
    """What one shard offers to the selection.

    Args:
        tokenizer: a fast tokenizer (one that knows offsets).
        sentences: of the shard (SENTENCES).
        index: name of the index, written into every row.
        contexts_per_token: the most occurrences per token id.
        min_position: the first position that is offered, counted in real tokens from 0.
        fraction: the part of the sentences that is used, chosen by their ids.

    Returns:
        OCCURRENCES, in order of key: one row per distinct prefix, at most `contexts_per_token` per token.
        Equal prefixes belong to the sentence with the smallest id.
    """
    import polars as pl

    rows: list[tuple[object, ...]] = []
    for texts in _chunks(sentences, fraction):
        for (sentence_id, text), tokens in zip(texts, tokenize(tokenizer, [t for _, t in texts]), strict=True):
            rows.extend((*row, sentence_id) for row in _occurrences_of(text, tokens, min_position))
    columns = ["key", "token_id", "word", "char_start", "char_end", "position", "sentence_id"]
    types = {"token_id": pl.Int32, "char_start": pl.Int32, "char_end": pl.Int32, "position": pl.Int32}
    frame = pl.DataFrame(rows, schema={c: types.get(c, pl.String) for c in columns}, orient="row")
    frame = _smallest(frame, contexts_per_token)
    texts_of = token_texts(tokenizer, frame["token_id"].unique().to_list())
    named = frame.with_columns(
        pl.lit(index).alias("index"),
        pl.col("token_id").replace_strict(texts_of, return_dtype=pl.String).alias("token_str"),
    )
    return named.select(OCCURRENCES.names).to_arrow().cast(OCCURRENCES)


def select(candidate_files: list[Path], contexts_per_token: int) -> pa.Table:
    """The occurrences that the index keeps, over all shards: `sentence_id`, `key`, in order of key."""
    import polars as pl

    frames = [pl.read_parquet(file, columns=["key", "token_id", "sentence_id"]) for file in candidate_files]
    kept = _smallest(pl.concat(frames), contexts_per_token).select("sentence_id", "key")
    return kept.to_arrow().cast(pa.schema([("sentence_id", pa.string()), ("key", pa.string())]))


def kept_rows(candidate_file: Path, selection_file: Path) -> pa.Table:
    """The shard's candidates that the selection kept (OCCURRENCES), in order of key."""
    import polars as pl

    offered, selection = pl.read_parquet(candidate_file), pl.read_parquet(selection_file)
    return offered.join(selection, on=["key", "sentence_id"], how="semi").sort("key").to_arrow().cast(OCCURRENCES)


def read_occurrences(path: Path) -> pa.Table:
    """The kept occurrences of a shard (OCCURRENCES)."""
    return pq.read_table(path).cast(OCCURRENCES)


def prefix_keys(ids: list[int]) -> list[str]:
    """The key of every position: the hash of the token ids up to and with it (4 bytes each, little endian)."""
    content = b"".join(token_id.to_bytes(4, "little") for token_id in ids)
    return [digest(content[: 4 * (t + 1)]) for t in range(len(ids))]


def _occurrences_of(text: str, tokens: Tokens, min_position: int) -> Iterator[tuple[object, ...]]:
    position = -1
    for key, token_id, span, special in zip(prefix_keys(tokens.ids), *tokens, strict=True):
        if special:
            continue
        position += 1
        if position >= min_position:
            start, end = word_span(text, *span)
            yield key, token_id, text[start:end], start, end, position


def _chunks(sentences: pa.Table, fraction: float) -> Iterator[list[tuple[str, str]]]:
    for batch in sentences.to_batches(max_chunksize=_SENTENCES_PER_CALL):
        pairs = zip(batch["sentence_id"].to_pylist(), batch["text"].to_pylist(), strict=True)
        chosen = [(i, text) for i, text in pairs if within_fraction(i, fraction)]
        if chosen:
            yield chosen


def _smallest(rows: pl.DataFrame, contexts_per_token: int) -> pl.DataFrame:
    """Distinct keys, each with its smallest sentence; of every token the smallest keys; in order of key."""
    import polars as pl

    distinct = rows.sort("key", "sentence_id").unique("key", keep="first", maintain_order=True)
    rank = pl.int_range(pl.len()).over("token_id")
    return distinct.filter(rank < contexts_per_token)
