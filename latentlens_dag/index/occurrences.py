"""Which tokens of which sentences an index keeps.

An occurrence is one token at one position of one sentence. Two sentences with the same beginning have
the same state there (the model is causal), so an occurrence is named by the hash of its token prefix,
its `key`, and kept once; of every token the `contexts_per_token` occurrences with the smallest keys are
kept. A hash is a uniform random number, so this is a uniform sample, and it is the same in any order of
the corpus and any number of shards: each shard offers its own smallest (`candidates`), `write_selection`
takes the smallest of those, and the shard that owns a kept occurrence writes it (`selected_rows`). Where the order
of the source is given, the first occurrences of every token are kept in place of those with the smallest keys.
Where the model is not causal, a state depends on the whole sentence, and so must its key (`dedup`).

Memory holds a shard's candidates and some thousand sentences, never the tokens of a whole shard: rows are reduced to
the smallest from time to time, and tokens that can no longer be among them never become rows.

Note: the word is not the token. "ele" of "elephant" is a token; its word is "elephant", found from the tokenizer's
character offsets, never by searching for the text (`text/words.py`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from latentlens_dag.inputs.texts import SourceOrder
from latentlens_dag.models.self_checks import Dedup
from latentlens_dag.models.tokenization import TokenizedText, token_texts, tokenize
from latentlens_dag.schema import OCCURRENCES
from latentlens_dag.storage.hashing import ids_to_integers, integers_to_ids, within_fraction
from latentlens_dag.storage.parquet import parquet_rows
from latentlens_dag.text.words import token_words

if TYPE_CHECKING:
    import polars as pl
    from numpy.typing import NDArray
    from transformers import PreTrainedTokenizerBase

SELECTION = pa.schema([("sentence_id", pa.string()), ("key", pa.string())])
"""The columns of a selection."""
ORDERED_CANDIDATES = OCCURRENCES.append(pa.field("first_place", pa.int64()))
"""The columns of candidates of which the first are to be kept: with their sentence's first place in the source."""
_PLACE = "first_place"
_SENTENCES_PER_CALL = 1000
_NAMED, _HEAD = 3, 60  # sentences that a message names, and characters of each
_ROWS_WAITING = 1 << 13  # rows of a shard that wait, at least, until they are reduced: the sooner, the fewer follow
_ROWS_MERGED = 1 << 16  # rows of each shard's candidates that are held while the smallest are taken
_ROWS_JOINED = 1 << 20  # rows of the selection that are compared with a shard's candidates at once

_NO_LIMIT = np.iinfo(np.uint64).max


class LongSentence(NamedTuple):
    """A sentence of more tokens than its model has positions."""

    sentence_id: str
    text: str
    """Its beginning."""
    tokens: int
    """Specials counted."""


def long_sentences_warning(sentences: Sequence[LongSentence], model: str, positions: int | None, dedup: Dedup) -> str:
    """A warning about sentences that are too long, which names the first few."""
    first = "; ".join(f"{long.text!r}... ({long.sentence_id}, {long.tokens:,} tokens)" for long in sentences[:_NAMED])
    more = f"; and {len(sentences) - _NAMED:,} more" if len(sentences) > _NAMED else ""
    done = "left out" if dedup == "sentence" else "read up to there, and what follows is left out"
    return (
        f"Sentences with more tokens than the {positions:,} positions of {model}: {len(sentences):,}. They are {done}: "
        f"{first}{more}. To keep all of them, divide them into shorter ones."
    )


def read_sentences(shard_file: Path) -> Iterator[pa.RecordBatch]:
    """The sentences of a shard (SENTENCES), some at a time."""
    return pq.ParquetFile(shard_file).iter_batches(_SENTENCES_PER_CALL)


def candidates(
    tokenizer: PreTrainedTokenizerBase,
    sentences: pa.Table | Iterable[pa.RecordBatch],
    index: str,
    contexts_per_token: int,
    *,
    min_position: int = 1,
    fraction: float = 1.0,
    order: SourceOrder | None = None,
    dedup: Dedup = "prefix",
    positions: int | None = None,
    report_long: Callable[[LongSentence], None] = lambda sentence: None,
) -> pa.Table:
    """The occurrences of one shard among which the selection chooses.

    Args:
        tokenizer: a fast tokenizer (one that knows offsets).
        sentences: of the shard (SENTENCES), in any order; in batches they need never be in memory together.
        index: name of the index, written into every row.
        contexts_per_token: the most occurrences per token id.
        min_position: the first position that is a candidate, counted in real tokens from 0.
        fraction: the part of the sentences that is used, chosen by their ids.
        order: of the source, where the first occurrences are to be kept.
        dedup: whether equal keys mean equal prefixes or equal sentences; `sentence` where the model's text pass is not
            causal.
        positions: how many tokens of one text the model was made for, specials counted. Of a longer sentence the tokens
            beyond them are no candidates; with `dedup` "sentence", whose states depend on all of it, none is.
        report_long: called with every longer sentence.

    Returns:
        OCCURRENCES, in order of key: one row per distinct key, at most `contexts_per_token` per token.
        Equal keys belong to the sentence with the smallest id. With `order`: ORDERED_CANDIDATES, in that order,
        and equal keys belong to the sentence that comes first.

    Raises:
        UserError: where the tokenizer is not a fast one.
    """
    smallest = _SmallestPerToken(contexts_per_token, order is not None)
    digests = {"prefix": _prefix_digests, "sentence": _sentence_digests}[dedup]
    for chunk in _chunks(sentences, fraction):
        tokens = tokenize(tokenizer, chunk.texts)
        readable = _readable(chunk, tokens, dedup, positions, report_long)
        smallest.add(_rows(chunk, tokens, readable, min_position, smallest.limits, order, digests))
    return _named(smallest.rows(), tokenizer, index)


def write_selection(candidate_files: list[Path], contexts_per_token: int, out: Path) -> int:
    """Write the occurrences that the index keeps (SELECTION), in the order of the candidates; return their number.

    The files are in order themselves, so they are merged, and of each token as many are taken as it may have. Memory
    holds some rows of each file and one number per token; where the first are kept, the keys that are kept too.
    """
    import polars as pl

    count, selected = np.zeros(0, np.int64), pl.DataFrame(schema={"key": pl.String})
    with parquet_rows(out, SELECTION) as rows:
        for part in _merged(candidate_files):
            found = _smallest(part.join(selected, on="key", how="anti"), contexts_per_token)
            tokens = found["token_id"].to_numpy()
            count = _grown(count, tokens, 0)
            found = found.filter(_rank_in_token() < contexts_per_token - count[tokens])
            count += np.bincount(found["token_id"].to_numpy(), minlength=len(count))
            rows.write(found.select(SELECTION.names).to_arrow())
            if _PLACE in found.columns:  # else equal keys follow one another
                selected = pl.concat([selected, found.select("key")])
    return rows.written


def selected_rows(candidate_file: Path, selection_file: Path) -> pa.Table:
    """The shard's candidates that the selection kept (OCCURRENCES), in order of key."""
    import polars as pl

    columns = ["key", "sentence_id"]
    candidates = pl.read_parquet(candidate_file, columns=columns, glob=False).with_row_index("place")
    parts = pq.ParquetFile(selection_file).iter_batches(_ROWS_JOINED)
    selected = [candidates.join(_frame(part), on=columns, how="semi") for part in parts]
    places = pl.concat([candidates.clear(), *selected]).sort("key")["place"].to_numpy()
    return pq.read_table(candidate_file, columns=OCCURRENCES.names).take(places).cast(OCCURRENCES)


def read_occurrences(path: Path) -> pa.Table:
    """The kept occurrences of a shard (OCCURRENCES)."""
    return pq.read_table(path).cast(OCCURRENCES)


def _prefix_digests(ids: list[int]) -> Iterator[bytes]:
    """The key of every token: the hash of the token ids up to and with it (4 bytes each, little endian)."""
    state = hashlib.blake2b(digest_size=8)  # as `hash_bytes`, going on from one prefix to the next
    for token_id in ids:
        state.update(token_id.to_bytes(4, "little"))
        yield state.digest()


def _sentence_digests(ids: list[int]) -> Iterator[bytes]:
    """As `_prefix_digests`, of all token ids of the sentence and the token's number."""
    whole = hashlib.blake2b(b"".join(token_id.to_bytes(4, "little") for token_id in ids), digest_size=8)
    for place in range(len(ids)):
        state = whole.copy()
        state.update(place.to_bytes(4, "little"))
        yield state.digest()


class _Chunk(NamedTuple):
    """Some sentences."""

    ids: list[str]
    texts: list[str]


def _chunks(sentences: pa.Table | Iterable[pa.RecordBatch], fraction: float) -> Iterator[_Chunk]:
    batches = sentences.to_batches(_SENTENCES_PER_CALL) if isinstance(sentences, pa.Table) else sentences
    for batch in batches:
        for start in range(0, len(batch), _SENTENCES_PER_CALL):
            part = batch.slice(start, _SENTENCES_PER_CALL)
            pairs = zip(part["sentence_id"].to_pylist(), part["text"].to_pylist(), strict=True)
            chosen = [pair for pair in pairs if within_fraction(pair[0], fraction)]
            if chosen:
                yield _Chunk(*map(list, zip(*chosen, strict=True)))


def _readable(
    chunk: _Chunk,
    found: list[TokenizedText],
    dedup: Dedup,
    positions: int | None,
    report_long: Callable[[LongSentence], None],
) -> NDArray[np.bool_]:
    """Which tokens of some sentences, one sentence's after the other's, the model was made to read."""
    parts = [np.ones(0, np.bool_)]
    for sentence_id, text, tokens in zip(chunk.ids, chunk.texts, found, strict=True):
        readable = length = len(tokens.ids)
        if positions is not None and length > positions:
            report_long(LongSentence(sentence_id, text[:_HEAD], length))
            readable = 0 if dedup == "sentence" else positions
        parts.append(np.arange(length) < readable)
    return np.concatenate(parts)


def _rows(
    chunk: _Chunk,
    found: list[TokenizedText],
    readable: NDArray[np.bool_],
    min_position: int,
    limits: NDArray[np.uint64],
    order: SourceOrder | None,
    digests: Callable[[list[int]], Iterator[bytes]],
) -> pl.DataFrame:
    """The readable occurrences of some sentences, but those whose key or place is above the limit of their token."""
    import polars as pl

    lengths = [len(tokens.ids) for tokens in found]
    sentence = np.repeat(np.arange(len(found)), lengths)
    sentence_id = ids_to_integers(pa.array(chunk.ids))
    token_id = np.fromiter(chain.from_iterable(tokens.ids for tokens in found), np.int32, len(sentence))
    key = np.frombuffer(b"".join(chain.from_iterable(digests(tokens.ids) for tokens in found)), ">u8")
    place = {} if order is None else {_PLACE: order.first_places_of(sentence_id).astype(np.uint64)[sentence]}
    real = ~np.fromiter(chain.from_iterable(tokens.special for tokens in found), np.bool_, len(sentence))
    position = _counted(real, lengths)
    below = place.get(_PLACE, key) <= _grown(limits, token_id, _NO_LIMIT)[token_id]
    wanted = np.flatnonzero(real & readable & (position >= min_position) & below)
    words = list(_words_around(chunk.texts, found, sentence[wanted].tolist(), wanted.tolist()))
    return pl.DataFrame(
        {
            "key": key[wanted].astype(np.uint64),
            "token_id": token_id[wanted],
            "word": pl.Series([word for word, _, _ in words], dtype=pl.String),
            "char_start": np.array([start for _, start, _ in words], np.int32),
            "char_end": np.array([end for _, _, end in words], np.int32),
            "position": position[wanted].astype(np.int32),
            "sentence_id": sentence_id[sentence[wanted]],
            **{name: values[wanted] for name, values in place.items()},
        }
    )


def _counted(real: NDArray[np.bool_], lengths: Sequence[int]) -> NDArray[np.int64]:
    """The position of every token in its sentence, in real tokens from 0."""
    so_far = np.cumsum(real)
    starts = np.cumsum([0, *lengths])[:-1]
    before = np.concatenate([[0], so_far])[starts]
    return so_far - 1 - np.repeat(before, lengths)


def _words_around(
    texts: list[str], found: list[TokenizedText], sentences: list[int], wanted: list[int]
) -> Iterator[tuple[str, int, int]]:
    """Word, start and end of the wanted tokens, counted over all sentences, of which `sentences` says whose each is."""
    starts = np.cumsum([0, *(len(tokens.ids) for tokens in found)]).tolist()
    last, words = -1, dict[int, tuple[str, int, int]]()
    for number, place in zip(sentences, wanted, strict=True):
        if number != last:
            last, tokens = number, found[number]
            words = dict(zip(tokens.text_positions, token_words(texts[number], tokens.text_spans), strict=True))
        yield words[place - starts[number]]


class _SmallestPerToken:
    """The smallest of the rows that were added, as `_smallest` of all of them together would give them."""

    def __init__(self, contexts_per_token: int, in_order: bool) -> None:
        self.limits = np.zeros(0, np.uint64)
        """By token id: the key, or the place, above which a row cannot be among the smallest any more."""
        self._contexts = contexts_per_token
        self._waiting = [_no_rows(in_order)]
        self._count = self._most = 0

    def add(self, rows: pl.DataFrame) -> None:
        self._waiting.append(rows)
        self._count += len(rows)
        if self._count > max(_ROWS_WAITING, self._most):
            self.rows()

    def rows(self) -> pl.DataFrame:
        import polars as pl

        best = _smallest(pl.concat(self._waiting), self._contexts)
        self._waiting, self._count, self._most = [best], len(best), 2 * len(best)
        full = best.filter(_rank_in_token() == self._contexts - 1)
        tokens = full["token_id"].to_numpy()
        self.limits = _grown(self.limits, tokens, _NO_LIMIT)
        self.limits[tokens] = full[_ranking(full)[0]].to_numpy()
        return best


def _no_rows(in_order: bool) -> pl.DataFrame:
    import polars as pl

    numbers = dict.fromkeys(("char_start", "char_end", "position"), pl.Int32)
    kinds = {"key": pl.UInt64, "token_id": pl.Int32, "word": pl.String, **numbers, "sentence_id": pl.UInt64}
    return pl.DataFrame(schema=kinds | ({_PLACE: pl.UInt64} if in_order else {}))


def _smallest(rows: pl.DataFrame, contexts_per_token: int) -> pl.DataFrame:
    """Distinct keys, each with its smallest sentence; of every token the smallest keys; in order of key.

    Rows that have a first place: each key with its first sentence, of every token the first keys, in order of place.
    The smallest of some rows' smallest and others' are the smallest of all: rows may be reduced in any parts.
    """
    distinct = rows.sort(_ranking(rows)).unique("key", keep="first", maintain_order=True)
    return distinct.filter(_rank_in_token() < contexts_per_token)


def _ranking(rows: pl.DataFrame) -> list[str]:
    """What rows are ordered by, to keep the smallest of them."""
    return [_PLACE, "position"] if _PLACE in rows.columns else ["key", "sentence_id"]


def _rank_in_token() -> pl.Expr:
    """How many rows of the same token come before."""
    import polars as pl

    return pl.int_range(pl.len()).over("token_id")


def _named(rows: pl.DataFrame, tokenizer: PreTrainedTokenizerBase, index: str) -> pa.Table:
    """Rows as they are written (OCCURRENCES, ORDERED_CANDIDATES): with the token's text, and ids as strings."""
    import polars as pl

    texts_of = token_texts(tokenizer, rows["token_id"].unique().to_list())
    named = rows.with_columns(
        pl.lit(index).alias("index"),
        pl.col("token_id").replace_strict(texts_of, return_dtype=pl.String).alias("token_str"),
    ).to_arrow()
    for name in ("key", "sentence_id"):
        named = named.set_column(named.column_names.index(name), name, integers_to_ids(rows[name].to_numpy()))
    schema = ORDERED_CANDIDATES if _PLACE in rows.columns else OCCURRENCES
    return named.select(schema.names).cast(schema)


def _merged(candidate_files: list[Path]) -> Iterator[pl.DataFrame]:
    """The rows of all files, cut into ranges of keys, or of places, that follow one another."""
    import polars as pl

    files = [_ranked_columns(file) for file in candidate_files]
    none = pl.DataFrame()
    held = [next(file, none) for file in files]
    while any(map(len, held)):
        by = next(_ranking(rows)[0] for rows in held if len(rows))
        end = min(rows[by][-1] for rows in held if len(rows))
        yield pl.concat([rows.filter(pl.col(by) <= end) for rows in held if len(rows)])
        held = [rows.filter(pl.col(by) > end) if len(rows) else rows for rows in held]
        held = [rows if len(rows) else next(file, none) for rows, file in zip(held, files, strict=True)]


def _ranked_columns(candidate_file: Path) -> Iterator[pl.DataFrame]:
    file = pq.ParquetFile(candidate_file)
    wanted = ["key", "token_id", "sentence_id"]
    wanted += ["position", _PLACE] if _PLACE in file.schema_arrow.names else []
    return map(_frame, file.iter_batches(_ROWS_MERGED, columns=wanted))


def _frame(batch: pa.RecordBatch) -> pl.DataFrame:
    import polars as pl

    return pl.DataFrame(pl.from_arrow(batch))


def _grown(values: NDArray, tokens: NDArray[np.int32], fill: int) -> NDArray:
    """Values by token id, with `fill` for tokens that have none yet."""
    missing = int(tokens.max(initial=-1)) + 1 - len(values)
    return np.concatenate([values, np.full(missing, fill, values.dtype)]) if missing > 0 else values
