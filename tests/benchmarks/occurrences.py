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
from pathlib import Path

import numpy as np

from latentlens_dag import corpus, occurrences
from latentlens_dag.schema import OCCURRENCES
from latentlens_dag.warehouse import Warehouse, write_parquet

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


def offer(paths: Warehouse, shard: int, contexts_per_token: int) -> None:
    """The candidates of a shard."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(DEMO / "model")
    sentences = occurrences.read_sentences(paths.shard("text", shard))
    found = occurrences.candidates(tokenizer, sentences, "bench", contexts_per_token)
    write_parquet(found, paths.candidates("bench", shard), OCCURRENCES)


def keep(paths: Warehouse, shard: int) -> None:
    """The kept occurrences of a shard."""
    kept = occurrences.kept_rows(paths.candidates("bench", shard), paths.selection("bench"))
    write_parquet(kept, paths.occurrences("bench", shard), OCCURRENCES)


def measured(step: Callable[..., object], *arguments: object) -> tuple[float, float]:
    """Seconds and peak GiB of a step in a fresh process; the peak counts Python and its imports."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_measure, (step, *arguments))


def _measure(step: Callable[..., object], *arguments: object) -> tuple[float, float]:
    start = time.perf_counter()
    step(*arguments)
    return time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


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
            "sentences": [(corpus.write_sentences, corpus.TextSource("lines", lines), whole)],
            "shards": [(corpus.write_shard, whole, s, asked.shards, paths.shard("text", s)) for s in shards],
            "candidates": [(offer, paths, s, cap) for s in shards],
            "selection": [(occurrences.write_selection, files, cap, out)],
            "kept rows": [(keep, paths, s) for s in shards],
        }
        print(f"{asked.sentences:,} sentences, {asked.shards} shards, {cap} contexts per token", flush=True)
        for name, calls in steps.items():
            seconds, peaks = zip(*(measured(*call) for call in calls), strict=True)
            rate = asked.sentences / sum(seconds)
            print(f"{name:12}{sum(seconds):8.1f} s{rate:12,.0f} sentences/s{max(peaks):8.2f} GiB at most", flush=True)


if __name__ == "__main__":
    main()
