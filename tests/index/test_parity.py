"""The authors' reference library and this package on the same model and sentences, where the library is installed.

Its positions count a beginning-of-sequence token and it leaves out 0 and 1, so `min_position` is 2 for a tokenizer
that puts none and 1 for one that puts one. The sentences avoid what it does otherwise: they are ASCII (tokens of the
same text share one cap there), the tokenizer pads on the right, and no layer has fewer rows than are asked for.
"""

import random
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pytest
import torch

from latentlens_dag.index.encode import encode
from latentlens_dag.index.occurrences import candidates, read_sentences, selected_rows, write_selection
from latentlens_dag.inputs.texts import (
    TextFile,
    read_order,
    sentences_by_shard,
    write_order,
    write_sentences,
    write_shard,
)
from latentlens_dag.models.language_model import LanguageModel
from latentlens_dag.models.loading import language_model_of
from latentlens_dag.search.exact import Block, cosine_top_k
from latentlens_dag.storage.parquet import write_parquet
from latentlens_dag.storage.split_input import rows_of_part
from latentlens_dag.testing import SENTENCES, tiny_tokenizer

reference = pytest.importorskip("latentlens.extract", reason="the package `latentlens` is not installed")

LAYERS, SHARDS = [1, 2], 3
MANY = random.Random(0).sample([f"{a} {b}" for a in SENTENCES for b in SENTENCES], 40)
SOURCE = [*MANY, *SENTENCES, *MANY[:5]]


class Built(NamedTuple):
    theirs: object
    rows: list[dict]
    """Ours, each with its text and what its position is called there."""
    blocks: list[Block]
    """Ours: the place in `rows` is the key."""


def _model(bos: bool) -> tuple[torch.nn.Module, LanguageModel]:
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = tiny_tokenizer()
    if not bos:
        from tokenizers.processors import ByteLevel

        tokenizer.backend_tokenizer.post_processor = ByteLevel(trim_offsets=False)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4}
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), pad_token_id=0, **sizes)).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2) if parameter.ndim > 1 else None
    return model, language_model_of("tiny", model, tokenizer)


def _ours(model: LanguageModel, folder: Path, bos: bool, cap: int) -> tuple[list[dict], list[Block]]:
    (folder / "lines.txt").write_text("\n".join(SOURCE), encoding="utf-8")
    source = TextFile("lines", folder / "lines.txt")
    write_sentences(source, folder / "sentences.parquet")
    write_order(source, folder / "order.parquet")
    order, shards = read_order(folder / "order.parquet"), [folder / f"shard_{n}.parquet" for n in range(SHARDS)]
    files = [folder / f"candidates_{n}.parquet" for n in range(SHARDS)]
    for number, (shard, file) in enumerate(zip(shards, files, strict=True)):
        sentences = partial(sentences_by_shard, folder / "sentences.parquet", SHARDS)
        write_shard(rows_of_part(sentences, number), shard)
        offered = candidates(
            model.tokenizer, read_sentences(shard), "x", cap, min_position=1 if bos else 2, order=order
        )
        write_parquet(offered, file)
    write_selection(files, cap, folder / "selection.parquet")
    kept = pa.concat_tables([selected_rows(file, folder / "selection.parquet") for file in files])
    sentences = pa.concat_tables([pa.Table.from_batches(read_sentences(shard)) for shard in shards])
    encoded = encode(model, kept, sentences, LAYERS, folder)
    texts = dict(zip(sentences["sentence_id"].to_pylist(), sentences["text"].to_pylist(), strict=True))
    rows = [
        row | {"caption": texts[row["sentence_id"]], "their_position": row["position"] + bos}
        for row in kept.to_pylist()
    ]
    keys = np.arange(len(rows), dtype=np.uint64)
    return rows, [Block(layer, keys, encoded[layer].vectors) for layer in LAYERS]


@pytest.fixture(scope="module", params=[(False, 3), (False, 50), (True, 2)], ids=["no bos, 3", "no bos, 50", "bos, 2"])
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Built:
    bos, cap = request.param
    model, language_model = _model(bos)
    ours = _ours(language_model, tmp_path_factory.mktemp("parity"), bos, cap)
    tokenizer = language_model.tokenizer
    theirs = reference.build_index(
        "tiny", SOURCE, LAYERS, cap, batch_size=7, show_progress=False, model=model, tokenizer=tokenizer
    )
    return Built(theirs, *ours)


def test_the_same_occurrences_are_kept(built: Built) -> None:
    theirs = [(m["caption"], m["position"], m["token_id"]) for m in built.theirs._layers_data[LAYERS[0]]["metadata"]]
    ours = [(row["caption"], row["their_position"], row["token_id"]) for row in built.rows]
    assert len(theirs) > 100
    assert sorted(ours) == sorted(theirs)


def test_the_five_nearest_are_the_same_and_their_cosines_within_a_thousandth(built: Built) -> None:
    queries = torch.randn(50, 32, generator=torch.Generator().manual_seed(0))
    found = cosine_top_k(queries.numpy(), built.blocks, 5)
    for query, theirs in enumerate(built.theirs.search(queries, top_k=5)):
        cosine = found.cosine[query].tolist()
        assert cosine == pytest.approx([neighbor.similarity for neighbor in theirs], abs=1e-3)
        rows = [built.rows[int(key)] for key in found.key[query]]
        layers = found.contextual_layer[query].tolist()
        ours = {(layer, row["caption"], row["their_position"]) for layer, row in zip(layers, rows, strict=True)}
        # Ours are stored in half precision: an answer may differ where the fifth and the sixth are as near as that.
        clear = [one for one in theirs if one.similarity > cosine[-1] + 1e-3]
        assert len(clear) >= 3
        assert {(one.contextual_layer, one.caption, one.position) for one in clear} <= ours
