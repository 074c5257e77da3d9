from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from latentlens_dag import encode as module
from latentlens_dag.encode import encode
from latentlens_dag.errors import UserError
from latentlens_dag.identity import text_id
from latentlens_dag.models import Vlm
from latentlens_dag.occurrences import candidates
from latentlens_dag.schema import SENTENCES
from latentlens_dag.testing import SENTENCES as TEXTS


def _sentences() -> pa.Table:
    rows = sorted((text_id(text), text) for text in TEXTS)
    return pa.table([[i for i, _ in rows], [t for _, t in rows]], schema=SENTENCES)


@pytest.mark.parametrize("tokens_per_batch", [1, 64, 2048])
@pytest.mark.parametrize("padding_side", ["left", "right"])
def test_states_are_those_of_each_sentence_alone(
    llava: Vlm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tokens_per_batch: int, padding_side: str
) -> None:
    monkeypatch.setattr(module, "_TOKENS_PER_BATCH", tokens_per_batch)
    model, sentences = llava.language_model, _sentences()
    monkeypatch.setattr(model.tokenizer, "padding_side", padding_side)
    rows = candidates(model.tokenizer, sentences, "x", 3)
    found = encode(model, rows, sentences, [0, 1, 2], tmp_path)
    texts = dict(zip(sentences["sentence_id"].to_pylist(), sentences["text"].to_pylist(), strict=True))
    for number, row in enumerate(rows.to_pylist()):
        ids = model.tokenizer(texts[row["sentence_id"]], return_tensors="pt")["input_ids"]
        with torch.inference_mode():
            slow = model.decoder(input_ids=ids, output_hidden_states=True).hidden_states
        for layer in (0, 1, 2):
            state = slow[layer][0, row["position"] + 1].numpy()  # <bos> comes first
            assert ids[0, row["position"] + 1] == row["token_id"]
            assert np.isclose(found[layer].norms[number], np.linalg.norm(state), rtol=1e-4)
            assert np.allclose(found[layer].vectors[number], state / np.linalg.norm(state), atol=1e-3)


def test_progress_ends_at_the_whole(llava: Vlm, tmp_path: Path) -> None:
    model, sentences, told = llava.language_model, _sentences(), []
    rows = candidates(model.tokenizer, sentences, "x", 3)
    encode(model, rows, sentences, [1], tmp_path, lambda done, total: told.append((done, total)))
    assert told[-1][0] == told[-1][1] > 0


def test_nothing_to_encode_gives_empty_arrays(llava: Vlm, tmp_path: Path) -> None:
    empty = candidates(llava.language_model.tokenizer, _sentences().slice(0, 0), "x", 3)
    found = encode(llava.language_model, empty, _sentences(), [1], tmp_path)
    assert found[1].vectors.shape == (0, llava.language_model.width)


def test_a_layer_that_the_model_lacks_is_refused(llava: Vlm, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Layer 7"):
        encode(llava.language_model, _sentences(), _sentences(), [7], tmp_path)
