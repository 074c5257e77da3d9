import csv
import gzip
import io
import json
import random
import shutil
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latentlens_dag.errors import UserError
from latentlens_dag.inputs import texts as corpus
from latentlens_dag.inputs.texts import (
    MAX_CHARACTERS,
    TextFile,
    read_order,
    read_texts,
    sentences_by_shard,
    texts_by_batch,
    write_batch,
    write_order,
    write_sentences,
    write_shard,
)
from latentlens_dag.storage.hashing import shard_of, text_id, within_fraction
from latentlens_dag.storage.split_input import SharedInput, rows_of_part, split_rows

LINES = [f"Sentence number {number}." for number in range(200)]


def plain(path: Path) -> TextFile:
    return TextFile("lines", path)


def test_the_order_of_the_source_and_repeated_lines_change_no_byte(tmp_path: Path) -> None:
    shuffled = random.Random(0).sample(LINES + LINES[:50], 250)
    for name, lines in (("a", LINES), ("b", shuffled)):
        (tmp_path / f"{name}.txt").write_text("\n".join(f"  {line} " for line in lines), encoding="utf-8")
        write_sentences(plain(tmp_path / f"{name}.txt"), tmp_path / f"{name}.parquet")
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    assert sorted(pq.read_table(tmp_path / "a.parquet")["text"].to_pylist()) == sorted(LINES)


def test_an_order_says_where_each_sentence_came_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus, "_BATCH", 7)
    lines = random.Random(0).sample(LINES + LINES[:50], 250)
    (tmp_path / "a.txt").write_text("\n\n".join(f"  {line} " for line in lines), encoding="utf-8")  # empty lines too
    assert write_order(plain(tmp_path / "a.txt"), tmp_path / "order.parquet") == len(LINES)
    found = pq.read_table(tmp_path / "order.parquet")
    ids = sorted(text_id(line) for line in LINES)
    assert found["sentence_id"].to_pylist() == ids
    expected = [next(place for place, line in enumerate(lines) if text_id(line) == i) for i in ids]
    assert found["first_place"].to_pylist() == expected
    assert read_order(tmp_path / "order.parquet").first_places.tolist() == expected


@pytest.mark.parametrize("shards", [1, 3, 7])
def test_every_sentence_is_in_exactly_one_shard(tmp_path: Path, shards: int) -> None:
    (tmp_path / "a.txt").write_text("\n".join(LINES), encoding="utf-8")
    write_sentences(plain(tmp_path / "a.txt"), tmp_path / "all.parquet")
    texts = []
    for shard in range(shards):
        sentences = partial(sentences_by_shard, tmp_path / "all.parquet", shards)
        write_shard(rows_of_part(sentences, shard), tmp_path / "shard.parquet")
        table = pq.read_table(tmp_path / "shard.parquet")
        assert all(shard_of(i, shards) == shard for i in table["sentence_id"].to_pylist())
        texts += table["text"].to_pylist()
    assert sorted(texts) == sorted(LINES)


def test_a_smaller_sample_lies_inside_a_larger_one_and_has_its_share() -> None:
    ids = [text_id(line) for line in LINES * 1 + [f"More {n}" for n in range(4000)]]
    tenth, half = ({i for i in ids if within_fraction(i, f)} for f in (0.1, 0.5))
    assert tenth < half
    assert 0.07 < len(tenth) / len(ids) < 0.13


def test_gzip_is_unpacked(tmp_path: Path) -> None:
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress("One.\nTwö.\n".encode()))
    assert list(read_texts(plain(tmp_path / "a.txt.gz"))) == ["One.", "Twö."]


def test_a_byte_order_mark_is_no_part_of_the_first_sentence(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfOne.\n")
    assert list(read_texts(plain(tmp_path / "a.txt"))) == ["One."]


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        (b"Good.\nB\xe9d.\n", "a.txt", r"line 2: byte 0xe9 at column 2 is not UTF-8"),
        (b"\n  \n", "a.txt", r"is empty"),
        (b"plain text", "a.txt.gz", r"cannot be decompressed"),
        (gzip.compress(b"Good.\n" * 999, mtime=0)[:-12], "a.txt.gz", r"cannot be decompressed"),
        (b"Good.\n" + b"x" * (MAX_CHARACTERS + 1), "a.txt", r"line 2: 100,001 characters are no sentence"),
        (None, "a.txt", r"does not exist"),
    ],
)
def test_a_wrong_source_is_told_and_harms_nothing(
    tmp_path: Path, content: bytes | None, name: str, message: str
) -> None:
    out = tmp_path / "out.parquet"
    out.write_bytes(b"what was there")
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        write_sentences(plain(tmp_path / name), out)
    assert out.read_bytes() == b"what was there"


ROWS = ["One, with a comma.", 'Two "quoted".', "Three\nlines.", "", "Vier äöü."]


def _table(path: Path) -> None:
    quoted = [text.replace('"', '""') for text in ROWS]
    content = {
        ".csv": "id,text\n" + "".join(f'{number},"{text}"\n' for number, text in enumerate(quoted)),
        ".jsonl": "".join(json.dumps({"id": number, "text": text}) + "\n" for number, text in enumerate(ROWS)),
    }
    if path.suffix == ".parquet":
        pq.write_table(pa.table({"id": range(len(ROWS)), "text": [*ROWS[:3], None, ROWS[4]]}), path)
    elif path.suffix == ".gz":
        path.write_bytes(gzip.compress(content[Path(path.stem).suffix].encode()))
    else:
        path.write_text(content[path.suffix], encoding="utf-8")


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a.jsonl", "a.jsonl.gz", "a.parquet"])
def test_a_column_of_a_table_is_a_source(tmp_path: Path, name: str) -> None:
    _table(tmp_path / name)
    source = TextFile(name.split(".")[1], tmp_path / name, "text")  # type: ignore[arg-type]
    assert list(read_texts(source)) == [text for text in ROWS if text]


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet"])
def test_a_column_that_is_not_there_is_told_with_those_that_are(tmp_path: Path, name: str) -> None:
    _table(tmp_path / name)
    with pytest.raises(UserError, match="no column 'sentence'; it has id, text"):
        list(read_texts(TextFile(name.split(".")[1], tmp_path / name, "sentence")))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b'text\n"never closed\n', r"line \d: unexpected end of data"),
        ("a.csv", b"", r"no column 'text'; it has none"),
        ("a.csv", b"text\nB\xe9d.\n", r"line 2: byte 0xe9 at column 2 is not UTF-8"),
        ("a.jsonl", b'{"text": "a"}\n{"text": \n', r"line 2: no JSON"),
        ("a.jsonl", b'{"text": 7}\n', r"line 1: text is 7, not text"),
        ("a.jsonl", b"[1]\n", r"line 1 has no column 'text'"),
        ("a.parquet", b"PAR1 no", r"is not a Parquet file"),
    ],
)
def test_a_wrong_table_is_told(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        list(read_texts(TextFile(name.split(".")[1], tmp_path / name, "text")))  # type: ignore[arg-type]


def test_sentences_that_memory_does_not_hold_are_sorted_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "\n".join(f"{number % 450_000} {'word ' * 40}" for number in range(600_000))
    (tmp_path / "a.txt").write_text(text, encoding="utf-8")
    for name, memory in (("small", "100MB"), ("large", "1GB")):
        monkeypatch.setattr(corpus, "_SORT_MEMORY", memory)
        assert write_sentences(plain(tmp_path / "a.txt"), tmp_path / f"{name}.parquet") == 450_000
    assert (tmp_path / "small.parquet").read_bytes() == (tmp_path / "large.parquet").read_bytes()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.txt", "large.parquet", "small.parquet"]


@settings(deadline=None, max_examples=20)
@given(lines=st.lists(st.sampled_from(LINES), min_size=1, max_size=60), parts=st.integers(1, 9), data=st.data())
def test_shards_and_batches_of_one_reading_have_the_bytes_of_those_that_each_read_alone(
    lines: list[str], parts: int, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("split")
    (folder / "a.txt").write_text("\n".join(lines), encoding="utf-8")
    write_sentences(plain(folder / "a.txt"), folder / "all.parquet")
    for name, read, write in (
        ("shard", partial(sentences_by_shard, folder / "all.parquet", parts), write_shard),
        ("batch", partial(texts_by_batch, plain(folder / "a.txt"), parts), write_batch),
    ):
        for part in data.draw(st.permutations(range(parts))):
            with split_rows(SharedInput(read, "1"), folder / name, part, parts) as rows:
                count = write(rows, folder / f"{name}.parquet")
            write(rows_of_part(read, part), folder / "alone.parquet")
            assert (folder / f"{name}.parquet").read_bytes() == (folder / "alone.parquet").read_bytes()
            texts = pq.read_table(folder / "alone.parquet")["text"].to_pylist()
            mine = {line for line in lines if shard_of(text_id(line), parts) == part}
            assert (sorted(texts), count) == (sorted(mine), len(texts))


@pytest.mark.parametrize(
    "line",
    [
        pytest.param('{"text": "cut \\ud83d"}', id="half an emoji"),
        pytest.param('{"text": "a", "x": ' + "[" * 9**5 + "]" * 9**5 + "}", id="lists too deep"),
        pytest.param('{"text": ' * 2000 + "1" + "}" * 2000, id="objects too deep"),
        pytest.param('{"text": "a", "x": ' + "9" * 5000 + "}", id="a number too long"),
        pytest.param('{"text": "a", "text": "b"}', id="a key twice"),
        pytest.param('{"text": ["a"]}', id="a list"),
        pytest.param('{"text": {"a": "b"}}', id="an object"),
        pytest.param('"text"', id="a text alone"),
        pytest.param('{"text": "a\\u0000"}', id="NUL"),
        pytest.param("\x00", id="a NUL byte"),
    ],
)
def test_a_line_of_jsonl_that_cannot_be_read_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "a.jsonl").write_text(f'{{"text": "fine"}}\n{line}\n')
    with pytest.raises(UserError, match=r"a\.jsonl, line 2"):
        write_sentences(TextFile("jsonl", tmp_path / "a.jsonl", "text"), tmp_path / "sentences.parquet")


@pytest.mark.parametrize("row", ["1,A dog, a cat and a ball.", "1"], ids=["too many", "too few"])
def test_a_row_of_csv_with_too_many_or_too_few_fields_is_named(tmp_path: Path, row: str) -> None:
    (tmp_path / "a.csv").write_text(f"id,text\n{row}\n2,Snow.\n")
    with pytest.raises(
        UserError, match=r"a\.csv, line 2: the row has (more|fewer) fields than the header, which has 2"
    ):
        list(read_texts(TextFile("csv", tmp_path / "a.csv", "text")))


fields = st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0\r"), max_size=6), min_size=1, max_size=4)


@settings(deadline=None, max_examples=80)
@given(rows=st.lists(fields, max_size=5), width=st.integers(1, 4), data=st.data())
def test_a_csv_is_read_whole_exactly_where_all_its_rows_are_as_long_as_its_header(
    rows: list[list[str]], width: int, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.mktemp("csv") / "a.csv"
    column = data.draw(st.integers(0, width - 1))
    table = io.StringIO()
    csv.writer(table, quoting=csv.QUOTE_ALL).writerows([[f"c{number}" for number in range(width)], *rows])
    file.write_text(table.getvalue(), encoding="utf-8", newline="")
    source = TextFile("csv", file, f"c{column}")
    if all(len(row) == width for row in rows):
        assert list(read_texts(source)) == [text for row in rows if (text := row[column].strip())]
    else:
        with pytest.raises(UserError, match=r"a\.csv, line \d+: the row has (more|fewer) fields than"):
            list(read_texts(source))


def test_a_column_that_comes_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,id,text\na,1,b\n")
    pq.write_table(pa.table([["a"], ["b"]], names=["text", "text"]), tmp_path / "a.parquet")
    for kind in ("csv", "parquet"):
        with pytest.raises(UserError, match=rf"a\.{kind} has several columns 'text'"):
            list(read_texts(TextFile(kind, tmp_path / f"a.{kind}", "text")))  # type: ignore[arg-type]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "latin-1", "cp1252"])
@pytest.mark.parametrize("kind", ["lines", "csv", "jsonl"])
def test_texts_of_another_encoding_are_refused_with_what_to_do(tmp_path: Path, kind: str, encoding: str) -> None:
    content = {"lines": "Caf\u00e9.\n", "csv": "text\nCaf\u00e9.\n", "jsonl": '{"text": "Caf\u00e9."}\n'}[kind]
    (tmp_path / "a.txt").write_bytes(content.encode(encoding))
    with pytest.raises(UserError, match=r"a\.txt") as refused:
        list(read_texts(TextFile(kind, tmp_path / "a.txt", None if kind == "lines" else "text")))  # type: ignore[arg-type]
    if kind == "lines":
        likely = {"latin-1": "latin1", "cp1252": "latin1", "utf-32": "utf-32"}.get(encoding, "utf-16")
        assert f"iconv -f {likely} " in str(refused.value)


def test_a_parquet_corpus_with_damaged_pages_is_named(tmp_path: Path) -> None:
    damaged = Path(__file__).parent / "files" / "dictionary_index.parquet"  # an index beyond its dictionary
    shutil.copy(damaged, tmp_path / "corpus.parquet")
    with pytest.raises(UserError, match=r"corpus\.parquet"):
        list(read_texts(TextFile("parquet", tmp_path / "corpus.parquet", "text")))


def test_a_parquet_corpus_whose_texts_are_not_utf_8_is_named(tmp_path: Path) -> None:
    column = pa.array([b"fine", b"caf\xe9"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"text": column}), tmp_path / "corpus.parquet")
    with pytest.raises(UserError, match=r"corpus\.parquet"):
        list(read_texts(TextFile("parquet", tmp_path / "corpus.parquet", "text")))
