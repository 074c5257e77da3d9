import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from tokenizers.processors import TemplateProcessing

from latentlens_dag.errors import UserError
from latentlens_dag.index import encode as module
from latentlens_dag.index.encode import LayerVectors, encode, encode_missing
from latentlens_dag.index.layer_tables import commit_fragments, write_fragments
from latentlens_dag.index.occurrences import candidates
from latentlens_dag.models import text_batches
from latentlens_dag.models.loading import load_vlm
from latentlens_dag.models.vlm import Vlm
from latentlens_dag.schema import SENTENCES
from latentlens_dag.storage.hashing import text_id
from latentlens_dag.testing import SENTENCES as TEXTS
from latentlens_dag.testing import tiny_llava, tiny_tokenizer


def _sentences() -> pa.Table:
    rows = sorted((text_id(text), text) for text in TEXTS)
    return pa.table([[i for i, _ in rows], [t for _, t in rows]], schema=SENTENCES)


@pytest.mark.parametrize("tokens_per_batch", [1, 64, 2048])
@pytest.mark.parametrize("padding_side", ["left", "right"])
def test_states_are_those_of_each_sentence_alone(
    llava: Vlm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tokens_per_batch: int, padding_side: str
) -> None:
    monkeypatch.setattr(text_batches, "_TOKENS_PER_BATCH", {"cpu": tokens_per_batch})
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


def test_only_what_is_needed_is_read_in_batches_of_at_most_so_many_tokens(
    llava: Vlm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_batches, "_TOKENS_PER_BATCH", {"cpu": 30})
    model, sentences, shapes, told = llava.language_model, _sentences(), [], []
    rows = candidates(model.tokenizer, sentences, "x", 3)
    last = dict(zip(sentences["sentence_id"].to_pylist(), (9, 1, 2, 3, 9, 4, 5, 0), strict=True))  # no token of one
    kept = [row["position"] <= last[row["sentence_id"]] for row in rows.to_pylist()]
    rows = rows.filter(pa.array(kept))
    longest: dict[str, int] = {}
    for row in rows.to_pylist():
        longest[row["sentence_id"]] = max(longest.get(row["sentence_id"], 0), row["position"] + 2)  # <bos> and itself
    hook = model.decoder.register_forward_pre_hook(
        lambda module, args, kwargs: shapes.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    with hook:
        encode(model, rows, sentences, [1], tmp_path, lambda done, total: told.append((done, total)))
    assert sum(number for number, _ in shapes) == len(longest) < len(sentences)
    assert [length for _, length in shapes] == sorted(length for _, length in shapes)
    assert shapes[-1][1] == max(longest.values())
    assert told[-1] == (sum(longest.values()), sum(longest.values()))
    assert 1 < len(shapes) < len(longest)
    assert all(number * length <= 30 for number, length in shapes)


@pytest.mark.parametrize("fits", [40, 20])
def test_where_memory_does_not_hold_a_batch_the_next_ones_are_smaller_and_nothing_is_lost(
    llava: Vlm, tmp_path: Path, fits: int
) -> None:
    model, sentences = llava.language_model, _sentences()
    rows = candidates(model.tokenizer, sentences, "x", 3)
    (tmp_path / "all").mkdir()
    expected = encode(model, rows, sentences, [1, 2], tmp_path / "all")[2]
    shapes: list[int] = []

    def small_memory(_module: object, _args: object, kwargs: dict[str, torch.Tensor]) -> None:
        shapes.append(kwargs["input_ids"].numel())
        if shapes[-1] > fits:
            raise torch.OutOfMemoryError("no memory left")

    hook = model.decoder.register_forward_pre_hook(small_memory, with_kwargs=True)
    try:
        found = encode(model, rows, sentences, [1, 2], tmp_path)[2]
    finally:
        hook.remove()
    failed = [size for size in shapes if size > fits]
    assert 1 <= len(failed) <= 5
    assert shapes[: len(failed)] == failed  # once it was too much, never again
    assert np.allclose(found.vectors, expected.vectors, atol=1e-3)


def test_a_memory_that_holds_not_one_sentence_is_said(
    llava: Vlm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_memory(*_: object) -> None:
        raise torch.OutOfMemoryError("no memory left")

    monkeypatch.setattr(module, "_encode_batch", no_memory)
    model, sentences = llava.language_model, _sentences()
    with pytest.raises(UserError, match=r"does not fit into the memory of cpu beside one sentence of \d+ tokens"):
        encode(model, candidates(model.tokenizer, sentences, "x", 3), sentences, [1], tmp_path)


@pytest.mark.parametrize("bad", [0.0, float("nan"), float("inf")])
def test_a_state_without_direction_is_refused_with_the_sentence_that_made_it(tmp_path: Path, bad: float) -> None:
    model = load_vlm(tiny_llava(tmp_path / "model"), device="cpu").language_model
    sentences = _sentences()
    rows = candidates(model.tokenizer, sentences, "x", 3)
    wanted = rows.slice(3, 1)
    texts = dict(zip(sentences["sentence_id"].to_pylist(), sentences["text"].to_pylist(), strict=True))
    row = wanted.to_pylist()[0]
    with torch.no_grad():
        model.embedding[row["token_id"]] = bad
    beginning = texts[row["sentence_id"]][: row["char_start"] + 1]
    with pytest.raises(ValueError, match=re.escape(beginning)) as raised:
        encode(model, wanted, sentences, [0], tmp_path)
    assert f"token {row['position'] + 1} (from 0, specials counted)" in str(raised.value)
    assert f"at layer 0 has length {bad}" in str(raised.value)


def test_positions_leave_out_whatever_specials_the_tokenizer_puts_first(llava: Vlm, tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    specials = [("<bos>", 1), ("<eos>", 2)]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<bos> <eos> $A", special_tokens=specials)
    model, sentences = replace(llava.language_model, tokenizer=tokenizer), _sentences()
    rows = candidates(tokenizer, sentences, "x", 3)
    found = encode(model, rows, sentences, [0], tmp_path)[0]
    expected = model.embedding.detach()[rows["token_id"].to_pylist()]
    assert np.allclose(found.norms[:, None] * found.vectors, expected.numpy(), atol=5e-3)


def test_more_sentences_than_are_tokenized_at_once_are_all_encoded(llava: Vlm, tmp_path: Path) -> None:
    model = llava.language_model
    pairs = sorted((text_id(text), text) for text in (f"{number}" for number in range(1500)))
    sentences = pa.table([[i for i, _ in pairs], [t for _, t in pairs]], schema=SENTENCES)
    rows = candidates(model.tokenizer, sentences, "x", 2000, min_position=0)
    assert len(set(rows["sentence_id"].to_pylist())) > 1000
    found = encode(model, rows, sentences, [0], tmp_path)[0]
    expected = model.embedding.detach()[rows["token_id"].to_pylist()]
    assert np.allclose(found.norms[:, None] * found.vectors, expected.numpy(), atol=5e-3)


def _stored(folder: Path, rows: pa.Table, encoded: LayerVectors, encoder: str = "model") -> Path:
    """A committed layer table of these rows."""
    table = folder / "stored.lance"
    write_fragments(table, folder / "stored.json", rows, *encoded, encoder)
    commit_fragments(table, [folder / "stored.json"], "test")
    return table


@pytest.mark.parametrize("held", [0, 1, 7, -1, None], ids=["none", "one", "some", "all but one", "all"])
def test_rows_that_the_tables_hold_are_not_read_again(
    llava: Vlm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held: int | None
) -> None:
    model, sentences = llava.language_model, _sentences()
    rows = candidates(model.tokenizer, sentences, "x", 3)
    (tmp_path / "whole").mkdir()
    whole = encode(model, rows, sentences, [1, 2], tmp_path / "whole")
    mixed = np.random.default_rng(0).permutation(len(rows))
    part = mixed[:held] if held is not None else mixed
    tables = {1: tmp_path / "none.lance", 2: tmp_path / "none.lance"}
    if len(part):
        marked = LayerVectors(whole[1].vectors[part], whole[1].norms[part] + 1000)  # so that one sees whose they are
        tables[1] = _stored(tmp_path, rows.take(pa.array(part)), marked)
    read: list[int] = []
    real = module.encode
    monkeypatch.setattr(
        module,
        "encode",
        lambda model, new, *args, **options: (read.append(len(new)), real(model, new, *args, **options))[1],
    )
    (tmp_path / "scratch").mkdir()
    only_first = {1: tables[1]}
    found = encode_missing(lambda: model, "model", rows, sentences, tables=only_first, scratch=tmp_path / "scratch")
    assert read == ([len(rows) - len(part)] if len(part) < len(rows) else [])
    assert found.read == len(rows) - len(part)
    stored = np.isin(np.arange(len(rows)), part)
    assert np.allclose(found.encoded[1].norms, whole[1].norms + 1000 * stored, rtol=1e-3)
    assert np.allclose(found.encoded[1].vectors, whole[1].vectors, atol=1e-3)


def test_a_layer_without_a_table_is_read_and_the_others_are_not(
    llava: Vlm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, sentences = llava.language_model, _sentences()
    rows = candidates(model.tokenizer, sentences, "x", 3)
    (tmp_path / "whole").mkdir()
    whole = encode(model, rows, sentences, [1, 2], tmp_path / "whole")
    tables = {1: _stored(tmp_path, rows, whole[1]), 2: tmp_path / "none.lance"}
    layers: list[list[int]] = []
    real = module.encode
    monkeypatch.setattr(
        module, "encode", lambda m, r, s, wanted, *a, **kw: (layers.append(wanted), real(m, r, s, wanted, *a, **kw))[1]
    )
    found = encode_missing(lambda: model, "model", rows, sentences, tables=tables, scratch=tmp_path)
    assert layers == [[2]]
    for layer in (1, 2):
        assert np.array_equal(found.encoded[layer].vectors, whole[layer].vectors)


def test_the_model_is_not_loaded_where_nothing_is_new_and_another_encoders_rows_are_not_taken(
    llava: Vlm, tmp_path: Path
) -> None:
    model, sentences = llava.language_model, _sentences()
    rows = candidates(model.tokenizer, sentences, "x", 3)
    (tmp_path / "whole").mkdir()
    tables = {1: _stored(tmp_path, rows, encode(model, rows, sentences, [1], tmp_path / "whole")[1])}

    def load() -> None:
        raise RuntimeError("loaded")

    (tmp_path / "one").mkdir()
    assert encode_missing(load, "model", rows, sentences, tables=tables, scratch=tmp_path / "one").read == 0
    for encoder in ("another", ""):
        (tmp_path / f"other{encoder}").mkdir()
        with pytest.raises(RuntimeError, match="loaded"):
            encode_missing(load, encoder, rows, sentences, tables=tables, scratch=tmp_path / f"other{encoder}")


def _largest_error(vlm: Vlm, rows: pa.Table, encoded: LayerVectors, layer: int) -> float:
    """Of the states, against those of each sentence alone and whole, relative to their lengths."""
    texts, worst = {text_id(text): text for text in TEXTS}, 0.0
    model = vlm.language_model
    for number, row in enumerate(rows.to_pylist()):
        ids = model.tokenizer(texts[row["sentence_id"]], return_tensors="pt")["input_ids"]
        with torch.inference_mode():
            states = model.decoder(input_ids=ids, output_hidden_states=True).hidden_states[layer]
        state = states[0, row["position"] + 1].numpy()
        error = np.linalg.norm(encoded.vectors[number] * encoded.norms[number] - state) / np.linalg.norm(state)
        worst = max(worst, float(error))
    return worst


@pytest.mark.parametrize("tokens_per_batch", [1, 2048])
def test_where_a_model_looks_ahead_states_are_those_of_whole_sentences(
    bidirectional: Vlm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tokens_per_batch: int
) -> None:
    monkeypatch.setattr(text_batches, "_TOKENS_PER_BATCH", {"cpu": tokens_per_batch})
    model = bidirectional.language_model
    rows = candidates(model.tokenizer, _sentences(), "x", 3, dedup="sentence")
    rows = rows.filter(pa.array([row["position"] < 4 for row in rows.to_pylist()]))  # so that much would be cut off
    (tmp_path / "cut").mkdir()
    cut = encode(model, rows, _sentences(), [2], tmp_path / "cut")
    assert _largest_error(bidirectional, rows, cut[2], 2) > 0.05  # the test can tell
    whole = encode(model, rows, _sentences(), [1, 2], tmp_path, whole=True)
    assert max(_largest_error(bidirectional, rows, whole[layer], layer) for layer in (1, 2)) < 2e-3


def test_whole_sentences_are_read_for_new_rows_too(bidirectional: Vlm, tmp_path: Path) -> None:
    model = bidirectional.language_model
    rows = candidates(model.tokenizer, _sentences(), "x", 3, dedup="sentence")
    rows = rows.filter(pa.array([row["position"] < 4 for row in rows.to_pylist()]))
    none = {2: tmp_path / "none.lance"}
    found = encode_missing(lambda: model, "model", rows, _sentences(), tables=none, scratch=tmp_path, whole=True)
    assert _largest_error(bidirectional, rows, found.encoded[2], 2) < 2e-3
