"""How fast the occurrences of a large corpus are selected, and how much memory that takes.

    python tests/benchmarks/occurrences.py [--sentences 3000000] [--shards 8] [--contexts-per-token 50]

Sentences of the demo corpus's words are made, written to a file and go through every step, each in a process of its
own, as in a build: distinct sentences, shards, candidates, selection, kept rows. The tokenizer is the demo model's.
"""

# ruff: noqa: T201
import argparse
import gzip
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from latentlens_dag.index import occurrences
from latentlens_dag.inputs import texts
from latentlens_dag.schema import OCCURRENCES
from latentlens_dag.storage.parquet import write_parquet
from latentlens_dag.storage.split_input import SharedInput, split_rows
from latentlens_dag.storage.warehouse import Warehouse

DEMO = Path(__file__).parents[2] / "assets" / "demo"


def make_sentences(count: int, out: Path) -> None:
    """So many lines of 6 to 10 words, drawn with a fixed seed; the k-th most frequent word is drawn as 1/k."""
    with gzip.open(DEMO / "corpus.txt.gz", "rt", encoding="utf-8") as file:
        words = sorted({word for line in file for word in line.split()})
    draw = np.random.default_rng(0)
    words = draw.permutation(np.array(words, object))
    weights = 1 / np.arange(1, len(words) + 1)
    with out.open("w", encoding="utf-8") as file:
        for start in range(0, count, 10_000):
            lengths = draw.integers(6, 11, min(10_000, count - start))
            drawn = draw.choice(words, lengths.sum(), p=weights / weights.sum())
            file.writelines(" ".join(part) + "\n" for part in np.split(drawn, np.cumsum(lengths)[:-1]))


def cut(paths: Warehouse, shards: int) -> None:
    """All shards of the sentences."""
    sentences = SharedInput(partial(texts.sentences_by_shard, paths.sentences("text"), shards), "one")
    for shard in range(shards):
        with split_rows(sentences, paths.split_input("corpus", "text", "shards"), shard, shards) as rows:
            texts.write_shard(rows, paths.shard("text", shard))


def offer(paths: Warehouse, shard: int, contexts_per_token: int) -> None:
    """The candidates of a shard."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(DEMO / "model")
    sentences = occurrences.read_sentences(paths.shard("text", shard))
    found = occurrences.candidates(tokenizer, sentences, "bench", contexts_per_token)
    write_parquet(found, paths.candidates("bench", shard), OCCURRENCES)


def keep(paths: Warehouse, shard: int) -> None:
    """The kept occurrences of a shard."""
    kept = occurrences.selected_rows(paths.candidates("bench", shard), paths.selection("bench"))
    write_parquet(kept, paths.occurrences("bench", shard), OCCURRENCES)


class Cost(NamedTuple):
    """What a step took in a process of its own, Python and imports counted."""

    wall_s: float
    cpu_s: float
    peak_gib: float


def measured(step: Callable[..., object], *arguments: object) -> Cost:
    """Run a step in a fresh process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_measure, (step, *arguments))


def _measure(step: Callable[..., object], *arguments: object) -> Cost:
    start = time.perf_counter()
    step(*arguments)
    used = resource.getrusage(resource.RUSAGE_SELF)
    return Cost(time.perf_counter() - start, used.ru_utime + used.ru_stime, used.ru_maxrss / 2**20)


def main() -> None:
    """Run all steps and print a line of each."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--sentences", type=int, default=3_000_000)
    parser.add_argument("--shards", type=int, default=8)
    parser.add_argument("--contexts-per-token", type=int, default=50)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        paths, lines = Warehouse(Path(folder)), Path(folder) / "lines.txt"
        make_sentences(asked.sentences, lines)
        shards, cap = range(asked.shards), asked.contexts_per_token
        files = [paths.candidates("bench", shard) for shard in shards]
        whole, out = paths.sentences("text"), paths.selection("bench")
        steps = {
            "sentences": [(texts.write_sentences, texts.TextFile("lines", lines), whole)],
            "shards": [(cut, paths, asked.shards)],
            "candidates": [(offer, paths, s, cap) for s in shards],
            "selection": [(occurrences.write_selection, files, cap, out)],
            "kept rows": [(keep, paths, s) for s in shards],
        }
        print(f"{asked.sentences:,} sentences, {asked.shards} shards, {cap} contexts per token", flush=True)
        for name, calls in steps.items():
            wall, cpu, peaks = zip(*(measured(*call) for call in calls), strict=True)
            rate, alone = asked.sentences / sum(wall), asked.sentences / sum(cpu)
            print(
                f"{name:12}{sum(wall):8.1f} s{rate:10,.0f} sentences/s{sum(cpu):8.1f} s of one core ({alone:,.0f}/s)"
                f"{max(peaks):7.2f} GiB at most",
                flush=True,
            )


if __name__ == "__main__":
    main()
