import gzip
import random
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from latentlens_dag.corpus import read_lines, write_sentences, write_shard
from latentlens_dag.errors import UserError
from latentlens_dag.identity import part_of, text_id, within_fraction

LINES = [f"Sentence number {number}." for number in range(200)]


def test_the_order_of_the_source_and_repeated_lines_change_no_byte(tmp_path: Path) -> None:
    shuffled = random.Random(0).sample(LINES + LINES[:50], 250)
    for name, lines in (("a", LINES), ("b", shuffled)):
        (tmp_path / f"{name}.txt").write_text("\n".join(f"  {line} " for line in lines), encoding="utf-8")
        write_sentences(tmp_path / f"{name}.txt", tmp_path / f"{name}.parquet")
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    assert sorted(pq.read_table(tmp_path / "a.parquet")["text"].to_pylist()) == sorted(LINES)


@pytest.mark.parametrize("shards", [1, 3, 7])
def test_every_sentence_is_in_exactly_one_shard(tmp_path: Path, shards: int) -> None:
    (tmp_path / "a.txt").write_text("\n".join(LINES), encoding="utf-8")
    write_sentences(tmp_path / "a.txt", tmp_path / "all.parquet")
    texts = []
    for shard in range(shards):
        write_shard(tmp_path / "all.parquet", shard, shards, tmp_path / "shard.parquet")
        table = pq.read_table(tmp_path / "shard.parquet")
        assert all(part_of(i, shards) == shard for i in table["sentence_id"].to_pylist())
        texts += table["text"].to_pylist()
    assert sorted(texts) == sorted(LINES)


def test_a_smaller_sample_lies_inside_a_larger_one_and_has_its_share() -> None:
    ids = [text_id(line) for line in LINES * 1 + [f"More {n}" for n in range(4000)]]
    tenth, half = ({i for i in ids if within_fraction(i, f)} for f in (0.1, 0.5))
    assert tenth < half
    assert 0.07 < len(tenth) / len(ids) < 0.13


def test_gzip_is_unpacked(tmp_path: Path) -> None:
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress("One.\nTwö.\n".encode()))
    assert list(read_lines(tmp_path / "a.txt.gz")) == ["One.", "Twö."]


def test_a_byte_order_mark_is_no_part_of_the_first_sentence(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfOne.\n")
    assert list(read_lines(tmp_path / "a.txt")) == ["One."]


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        (b"Good.\nB\xe9d.\n", "a.txt", r"line 2: byte 0xe9 at column 2 is not UTF-8"),
        (b"\n  \n", "a.txt", r"is empty"),
        (b"plain text", "a.txt.gz", r"cannot be unpacked"),
        (gzip.compress(b"Good.\n" * 999, mtime=0)[:-12], "a.txt.gz", r"cannot be unpacked"),
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
        write_sentences(tmp_path / name, out)
    assert out.read_bytes() == b"what was there"
