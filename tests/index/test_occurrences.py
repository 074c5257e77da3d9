import random
from collections import defaultdict
from itertools import pairwise
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latentlens_dag.errors import UserError
from latentlens_dag.index import occurrences as module
from latentlens_dag.index.occurrences import candidates, selected_rows, write_selection
from latentlens_dag.inputs.texts import SourceOrder, TextFile, read_order, write_order
from latentlens_dag.models.tokenization import token_texts, tokenize
from latentlens_dag.schema import OCCURRENCES, SENTENCES
from latentlens_dag.storage.hashing import hash_bytes, shard_of, text_id, within_fraction
from latentlens_dag.storage.parquet import write_parquet
from latentlens_dag.testing import SENTENCES as TEXTS
from latentlens_dag.testing import tiny_tokenizer
from tests.helpers.keys import prefix_keys, sentence_keys

TOKENIZER = tiny_tokenizer()
MANY = [f"{a} {b}" for a in TEXTS for b in TEXTS] + [f"The dog {text.lower()}" for text in TEXTS]


def _table(texts: list[str]) -> pa.Table:
    rows = sorted((text_id(text), text) for text in set(texts))
    return pa.table([[i for i, _ in rows], [t for _, t in rows]], schema=SENTENCES)


def _order(tmp_path: Path, texts: list[str]) -> SourceOrder:
    (tmp_path / "lines.txt").write_text("\n".join(texts), encoding="utf-8")
    write_order(TextFile("lines", tmp_path / "lines.txt"), tmp_path / "order.parquet")
    return read_order(tmp_path / "order.parquet")


def _kept(tmp_path: Path, texts: list[str], shards: int, cap: int, **options: object) -> list[dict]:
    files = []
    for shard in range(shards):
        mine = [text for text in texts if shard_of(text_id(text), shards) == shard]
        file = tmp_path / f"{shards}_{shard}.parquet"
        write_parquet(candidates(TOKENIZER, _table(mine), "x", cap, **options), file)
        files.append(file)
    write_selection(files, cap, tmp_path / "selection.parquet")
    rows = [row for file in files for row in selected_rows(file, tmp_path / "selection.parquet").to_pylist()]
    return sorted(rows, key=lambda row: row["key"])


def _slow_definition(texts: list[str], cap: int, min_position: int = 1) -> set[tuple[str, str]]:
    """Per token the `cap` smallest keys, each with the smallest sentence that has the prefix."""
    owners: dict[str, str] = {}
    tokens: dict[str, int] = {}
    for text in texts:
        (sentence,) = tokenize(TOKENIZER, [text])
        for place, key in enumerate(prefix_keys(sentence.ids)):
            if not sentence.special[place] and place - 1 >= min_position:  # one special, at the beginning
                owners[key] = min(owners.get(key, "g"), text_id(text))
                tokens[key] = sentence.ids[place]
    by_token: dict[int, list[str]] = defaultdict(list)
    for key in sorted(owners):
        by_token[tokens[key]].append(key)
    return {(key, owners[key]) for keys in by_token.values() for key in keys[:cap]}


@pytest.mark.parametrize("shards", [1, 2, 5])
@pytest.mark.parametrize("cap", [1, 3, 50])
def test_the_kept_occurrences_are_those_of_the_slow_definition(tmp_path: Path, shards: int, cap: int) -> None:
    found = {(row["key"], row["sentence_id"]) for row in _kept(tmp_path, MANY, shards, cap)}
    assert found == _slow_definition(MANY, cap)


def _first_definition(texts: list[str], cap: int) -> set[tuple[str, str]]:
    """Going through the source: of every token the first `cap` prefixes that were not met before."""
    seen: dict[str, str] = {}
    count: dict[int, int] = defaultdict(int)
    for text in texts:
        (sentence,) = tokenize(TOKENIZER, [text])
        for place, key in enumerate(prefix_keys(sentence.ids)):
            token = sentence.ids[place]
            if place > 1 and key not in seen and count[token] < cap:  # one special, at the beginning
                seen[key] = text_id(text)
                count[token] += 1
    return set(seen.items())


@pytest.mark.parametrize("shards", [1, 2, 5])
@pytest.mark.parametrize("cap", [1, 3, 50])
def test_with_an_order_the_kept_occurrences_are_the_first_of_the_source(tmp_path: Path, shards: int, cap: int) -> None:
    source = random.Random(cap).sample(MANY, len(MANY)) + MANY[:9]  # some come again
    rows = _kept(tmp_path, source, shards, cap, order=_order(tmp_path, source))
    assert {(row["key"], row["sentence_id"]) for row in rows} == _first_definition(source, cap)
    assert list(rows[0]) == OCCURRENCES.names


@settings(max_examples=10, deadline=None)
@given(order=st.randoms(use_true_random=False), shards=st.integers(2, 6), cap=st.integers(1, 4))
def test_the_number_of_shards_does_not_change_which_are_first(
    tmp_path_factory: pytest.TempPathFactory, order: random.Random, shards: int, cap: int
) -> None:
    folder, texts = tmp_path_factory.mktemp("first"), order.sample(MANY, 30)
    places = _order(folder, texts)
    assert _kept(folder, texts, shards, cap, order=places) == _kept(folder, texts, 1, cap, order=places)


def test_a_sentence_that_the_order_does_not_have_is_refused(tmp_path: Path) -> None:
    for known in ([], MANY[:3], MANY[1:]):
        with pytest.raises(ValueError, match=r"does not have sentence [0-9a-f]{16}"):
            candidates(TOKENIZER, _table(MANY), "x", 5, order=_order(tmp_path, known))


@pytest.mark.parametrize("in_order", [False, True])
@pytest.mark.parametrize("rows", [1, 30])
@pytest.mark.parametrize("cap", [1, 4])
def test_nothing_depends_on_how_many_rows_are_held_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int, cap: int, in_order: bool
) -> None:
    options = {"order": _order(tmp_path, MANY)} if in_order else {}
    expected = _kept(tmp_path, MANY, 3, cap, **options)
    bytes_of = {file.name: file.read_bytes() for file in tmp_path.glob("*.parquet")}
    assert len(bytes_of) == 4 + in_order
    for name in ("_ROWS_WAITING", "_ROWS_MERGED", "_ROWS_JOINED", "_SENTENCES_PER_CALL"):
        monkeypatch.setattr(module, name, rows)
    assert _kept(tmp_path, MANY, 3, cap, **options) == expected
    assert {file.name: file.read_bytes() for file in tmp_path.glob("*.parquet")} == bytes_of


def test_sentences_that_come_in_batches_offer_what_they_offer_together() -> None:
    table = _table(MANY)
    batches = (batch for batch in table.to_batches(7))  # gone once read
    assert candidates(TOKENIZER, batches, "x", 3).equals(candidates(TOKENIZER, table, "x", 3))


@pytest.mark.parametrize("in_order", [False, True])
def test_the_order_of_a_shards_sentences_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_order: bool
) -> None:
    order = _order(tmp_path, MANY) if in_order else None
    expected = candidates(TOKENIZER, _table(MANY), "x", 2, order=order)
    monkeypatch.setattr(module, "_ROWS_WAITING", 1)
    monkeypatch.setattr(module, "_SENTENCES_PER_CALL", 1)
    assert candidates(TOKENIZER, _table(MANY)[::-1], "x", 2, order=order).equals(expected)


def test_rows_that_can_no_longer_be_kept_are_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    real = module._rows
    monkeypatch.setattr(module, "_rows", lambda *args: (made.append(len(found := real(*args))), found)[1])
    monkeypatch.setattr(module, "_SENTENCES_PER_CALL", 8)
    monkeypatch.setattr(module, "_ROWS_WAITING", 1)
    candidates(TOKENIZER, _table(MANY), "x", 1)
    assert sum(made[-3:]) < sum(made[:3]) / 4


ROWS = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 3)), max_size=40)  # key, sentence


@settings(deadline=None)
@given(rows=ROWS, cuts=st.lists(st.integers(0, 40), max_size=4), cap=st.integers(1, 4))
def test_the_first_of_the_first_of_parts_are_the_first_of_all(
    rows: list[tuple[int, int]], cuts: list[int], cap: int
) -> None:
    names = {"key": pl.UInt64, "first_place": pl.UInt64, "position": pl.Int32, "token_id": pl.Int32}
    numbered = [(key, place, position, key % 3) for position, (key, place) in enumerate(rows)]
    frame = pl.DataFrame(numbered, schema=names, orient="row")
    ends = [0, *sorted(min(cut, len(rows)) for cut in cuts), len(rows)]
    folded = frame.clear()
    for start, end in pairwise(ends):
        folded = module._smallest(pl.concat([folded, module._smallest(frame[start:end], cap)]), cap)
    assert folded.equals(module._smallest(frame, cap))
    seen: dict[int, tuple] = {}
    for row in sorted(numbered, key=lambda row: row[1:3]):
        if row[0] not in seen and sum(row[3] == other[3] for other in seen.values()) < cap:
            seen[row[0]] = row
    assert folded.rows() == list(seen.values())


@settings(deadline=None)
@given(rows=ROWS, cuts=st.lists(st.integers(0, 40), max_size=4), cap=st.integers(1, 4))
def test_the_smallest_of_the_smallest_of_parts_are_the_smallest_of_all(
    rows: list[tuple[int, int]], cuts: list[int], cap: int
) -> None:
    names = {"key": pl.UInt64, "sentence_id": pl.UInt64, "token_id": pl.Int32}
    frame = pl.DataFrame([(key, s, key % 3) for key, s in rows], schema=names, orient="row")  # a key has one token
    ends = [0, *sorted(min(cut, len(rows)) for cut in cuts), len(rows)]
    folded = frame.clear()
    for start, end in pairwise(ends):
        folded = module._smallest(pl.concat([folded, module._smallest(frame[start:end], cap)]), cap)
    assert folded.equals(module._smallest(frame, cap))
    owners: dict[int, int] = {}
    for key, sentence in rows:
        owners[key] = min(sentence, owners.get(key, sentence))
    slow = [key for token in range(3) for key in sorted(key for key in owners if key % 3 == token)[:cap]]
    assert folded.select("key", "sentence_id").rows() == [(key, owners[key]) for key in sorted(slow)]


@pytest.mark.parametrize("asked", [{"truncation": True, "max_length": 5}, {"padding": "max_length", "max_length": 99}])
def test_sentences_are_read_whole_and_alone_whatever_was_asked_of_the_tokenizer_before(asked: dict) -> None:
    tokenizer = tiny_tokenizer()
    whole = [(found.ids, found.spans) for found in tokenize(tokenizer, list(TEXTS))]
    tokenizer(list(TEXTS), **asked)
    assert [(found.ids, found.spans) for found in tokenize(tokenizer, list(TEXTS))] == whole
    one = tiny_tokenizer()(list(TEXTS), return_offsets_mapping=True)
    assert whole == list(zip(one["input_ids"], one["offset_mapping"], strict=True))
    first = tokenize(tokenizer, list(TEXTS))[0]
    assert first.special == [True, *[False] * (len(first.ids) - 1)]


def test_a_tokenizer_that_knows_no_offsets_is_refused_with_a_way_out() -> None:
    from transformers import ByT5Tokenizer

    with pytest.raises(UserError, match=r"ByT5Tokenizer.* not a fast one.*tokenizer\.json"):
        candidates(ByT5Tokenizer(), _table(["A dog."]), "x", 5)


@settings(max_examples=10, deadline=None)
@given(order=st.randoms(use_true_random=False), shards=st.integers(1, 6), cap=st.integers(1, 4))
def test_order_and_shards_do_not_change_what_is_kept(
    tmp_path_factory: pytest.TempPathFactory, order: random.Random, shards: int, cap: int
) -> None:
    texts = MANY[:20]
    shuffled = order.sample(texts, len(texts))
    one = _kept(tmp_path_factory.mktemp("a"), texts, 1, cap)
    assert _kept(tmp_path_factory.mktemp("b"), shuffled, shards, cap) == one


@settings(max_examples=15, deadline=None)
@given(order=st.randoms(use_true_random=False), fraction=st.floats(0.02, 1), cap=st.integers(1, 4))
@pytest.mark.parametrize("dedup", ["prefix", "sentence"])
def test_what_a_fraction_keeps_is_the_part_of_the_whole_whose_sentences_it_has_and_under_the_cap_no_less(
    tmp_path_factory: pytest.TempPathFactory, order: random.Random, fraction: float, cap: int, dedup: str
) -> None:
    folder, texts = tmp_path_factory.mktemp("part"), order.sample(MANY, 40)

    def part_and_index(most: int) -> tuple[list[dict], list[dict]]:
        whole = _kept(folder, texts, 2, most, dedup=dedup)
        part = [row for row in whole if within_fraction(row["sentence_id"], fraction)]
        return part, _kept(folder, texts, 3, most, dedup=dedup, fraction=fraction)

    part, index = part_and_index(10_000)
    assert part == index
    part, index = part_and_index(cap)
    assert all(row in index for row in part)


@settings(max_examples=10, deadline=None)
@given(order=st.randoms(use_true_random=False), fraction=st.floats(0.02, 1), cap=st.integers(1, 4))
def test_of_first_occurrences_the_part_is_inside_what_the_fraction_keeps(
    tmp_path_factory: pytest.TempPathFactory, order: random.Random, fraction: float, cap: int
) -> None:
    folder, texts = tmp_path_factory.mktemp("part"), order.sample(MANY, 40)
    places = _order(folder, texts)
    index = _kept(folder, texts, 2, cap, order=places, fraction=fraction)
    whole = _kept(folder, texts, 2, cap, order=places)
    assert all(row in index for row in whole if within_fraction(row["sentence_id"], fraction))


@pytest.mark.parametrize("min_position", [0, 1, 2])
def test_positions_are_counted_in_real_tokens_from_min_position(tmp_path: Path, min_position: int) -> None:
    rows = _kept(tmp_path, MANY, 1, 10_000, min_position=min_position)
    assert min(row["position"] for row in rows) == min_position


def test_specials_are_never_kept(tmp_path: Path) -> None:
    ids = {row["token_id"] for row in _kept(tmp_path, MANY, 1, 10_000, min_position=0)}
    assert not ids & set(TOKENIZER.all_special_ids)


def test_the_word_is_the_one_around_the_token_in_its_sentence(tmp_path: Path) -> None:
    texts = {text_id(text): text for text in MANY}
    for row in _kept(tmp_path, MANY, 1, 10_000):
        assert texts[row["sentence_id"]][row["char_start"] : row["char_end"]] == row["word"]
    rows = [row for row in _kept(tmp_path, ["She put an apple there."], 1, 9) if row["word"] == "apple"]
    assert len(rows) > 1  # a word of several tokens: each carries the whole word
    assert {(row["char_start"], row["char_end"]) for row in rows} == {(11, 16)}


def test_a_piece_of_a_character_has_a_text_that_tells_it_from_others() -> None:
    ids = TOKENIZER("日本", add_special_tokens=False)["input_ids"]
    texts = token_texts(TOKENIZER, ids)
    assert len(set(texts.values())) == len(set(ids))
    assert not any("\ufffd" in text for text in texts.values())


def test_an_empty_shard_offers_nothing_and_takes_nothing_from_the_others(tmp_path: Path) -> None:
    assert candidates(TOKENIZER, _table([]), "x", 5).num_rows == 0
    assert _kept(tmp_path, MANY[:2], 40, 5) == _kept(tmp_path, MANY[:2], 1, 5)
    assert _kept(tmp_path, [], 2, 5) == []


def test_a_token_without_text_is_given_as_the_tokenizer_writes_it() -> None:
    class Silent:
        def decode(self, ids: list[int], **options: bool) -> str:
            return "" if ids == [1] else "dog"

        def convert_ids_to_tokens(self, token_id: int) -> str:
            return f"<{token_id}>"

    assert token_texts(Silent(), [1, 2]) == {1: "<1>", 2: "dog"}


def test_a_key_is_the_hash_of_the_token_ids_up_to_and_with_its_own() -> None:
    expected = [hash_bytes(bytes([1, 0, 0, 0])), hash_bytes(bytes([1, 0, 0, 0, 0x70, 0x11, 1, 0]))]
    assert [digest.hex() for digest in module._prefix_digests([1, 70_000])] == expected


def test_the_key_of_a_sentence_is_the_hash_of_all_its_token_ids_and_the_place() -> None:
    ids = b"".join(token_id.to_bytes(4, "little") for token_id in (1, 70_000))
    expected = [hash_bytes(ids + bytes(4)), hash_bytes(ids + bytes([1, 0, 0, 0]))]
    assert [digest.hex() for digest in module._sentence_digests([1, 70_000])] == expected


@pytest.mark.parametrize("shards", [1, 3])
def test_with_whole_sentences_every_token_of_every_sentence_is_an_occurrence_of_its_own(
    tmp_path: Path, shards: int
) -> None:
    rows = _kept(tmp_path, MANY, shards, 10_000, dedup="sentence")
    slow = set()
    for text in MANY:
        (sentence,) = tokenize(TOKENIZER, [text])
        slow |= {(key, text_id(text)) for key in sentence_keys(sentence.ids)[2:]}  # <bos> and the first token
    assert {(row["key"], row["sentence_id"]) for row in rows} == slow
    assert len(rows) == len(slow) > len(_kept(tmp_path, MANY, shards, 10_000))
    few = _kept(tmp_path, MANY, shards, 2, dedup="sentence")
    by_token: dict[int, list[str]] = defaultdict(list)
    for row in rows:
        by_token[row["token_id"]].append(row["key"])
    assert [row["key"] for row in few] == sorted(key for keys in by_token.values() for key in sorted(keys)[:2])


def test_sentences_of_the_same_tokens_count_once_whatever_their_blanks(tmp_path: Path) -> None:
    texts = ["The dog runs", " The dog runs"]  # the tokenizer puts a blank first
    assert tokenize(TOKENIZER, texts)[0].ids == tokenize(TOKENIZER, texts)[1].ids
    rows = _kept(tmp_path, texts, 2, 10, dedup="sentence")
    assert {row["sentence_id"] for row in rows} == {min(map(text_id, texts))}


def _slow_special(text: str) -> list[bool]:
    """Which tokens are special, by their names."""
    ids = TOKENIZER(text)["input_ids"]
    return [TOKENIZER.convert_ids_to_tokens(token_id) in ("<pad>", "<bos>", "<eos>", "<image>") for token_id in ids]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.sampled_from(["The dog", "<eos>", " sleeps", "<pad>", "<image>", " eos ", "<bos>", "< pad >"]), min_size=1
    )
)
def test_special_tokens_that_a_sentence_spells_out_are_special_and_never_offered(parts: list[str]) -> None:
    text = "".join(parts)
    (tokens,) = tokenize(TOKENIZER, [text])
    assert tokens.special == _slow_special(text)
    rows = candidates(TOKENIZER, _table([text]), "x", 50, min_position=0).to_pylist()
    real = [token_id for token_id, special in zip(tokens.ids, tokens.special, strict=True) if not special]
    assert {row["token_id"] for row in rows} == set(real)
    assert all(real[row["position"]] == row["token_id"] for row in rows)  # positions count without specials


@pytest.mark.parametrize("positions", [4, 7, 50])
@pytest.mark.parametrize("dedup", ["prefix", "sentence"])
def test_what_lies_beyond_the_models_positions_is_not_offered_and_the_sentence_is_reported(
    dedup: str, positions: int
) -> None:
    long = []
    rows = candidates(TOKENIZER, _table(TEXTS), "x", 50, dedup=dedup, positions=positions, report_long=long.append)
    everything = candidates(TOKENIZER, _table(TEXTS), "x", 50, dedup=dedup)
    lengths = {text_id(text): len(tokens.ids) for text, tokens in zip(TEXTS, tokenize(TOKENIZER, TEXTS), strict=True)}
    too_long = {sentence for sentence, length in lengths.items() if length > positions}
    assert {(one.sentence_id, one.tokens) for one in long} == {(one, lengths[one]) for one in too_long}
    whole = dedup == "sentence"
    # <bos> comes first, so the token at position 3 is the fifth that the model reads
    stays = [
        r["position"] + 1 < (0 if whole and r["sentence_id"] in too_long else positions) for r in everything.to_pylist()
    ]
    assert rows.equals(everything.filter(pa.array(stays)))
    assert not too_long or str(positions) in module.long_sentences_warning(long, "some model", positions, dedup)
