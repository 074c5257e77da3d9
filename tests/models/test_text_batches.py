"""Batches of texts in threads: the same states, from modules of their own with the same weights."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from latentlens_dag.models import text_batches
from latentlens_dag.models.model_parts import ModelParts
from latentlens_dag.models.text_batches import run_in_batches
from latentlens_dag.models.vlm import Vlm
from latentlens_dag.testing import SENTENCES as TEXTS


@pytest.fixture
def four_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Small batches, and four threads for them."""
    before = torch.get_num_threads()
    monkeypatch.setattr(text_batches, "_TOKENS_PER_BATCH", {"cpu": 30})
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


class _Text:
    def __init__(self, ids: list[int]) -> None:
        self.ids = ids


def _texts(llava: Vlm) -> list[_Text]:
    tokenizer = llava.language_model.tokenizer
    return sorted((_Text(ids) for ids in tokenizer(list(TEXTS))["input_ids"]), key=lambda text: len(text.ids))


def _readers(model: ModelParts, texts: list[_Text]) -> list[ModelParts]:
    """The models that read the batches, where every thread waits until all have one."""
    seen: list[ModelParts] = []
    all_threads = threading.Barrier(len(text_batches._copies(model, len(texts))))

    def read(given: ModelParts, _: list[_Text]) -> None:
        seen.append(given)
        if len(seen) <= all_threads.parties:
            all_threads.wait(timeout=20)

    assert [text for batch in run_in_batches(model, texts, read) for text in batch] == texts
    return list({id(one): one for one in seen}.values())


@pytest.mark.usefixtures("four_threads")
def test_states_have_the_same_bytes_however_many_threads_read_the_batches(llava: Vlm) -> None:
    model, layers = llava.language_model, [0, 1, 2]
    found = model.text_states(list(TEXTS) * 5, layers).states
    torch.set_num_threads(1)
    alone = model.text_states(list(TEXTS) * 5, layers).states
    assert all(torch.equal(found[layer], alone[layer]) for layer in layers)


@pytest.mark.usefixtures("four_threads")
def test_every_thread_has_modules_of_its_own_with_the_same_weights(llava: Vlm) -> None:
    model = llava.language_model
    readers = _readers(model, _texts(llava))
    blocks: list[Any] = [one.decoder.layers for one in readers]
    assert len(readers) == len({id(of_one[0]) for of_one in blocks}) == 4
    for one in readers:
        pairs = zip(one.decoder.parameters(), model.decoder.parameters(), strict=True)
        assert all(mine is weight for mine, weight in pairs)


@pytest.mark.usefixtures("four_threads")
def test_a_wide_model_is_read_with_one_batch_at_a_time(llava: Vlm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_batches, "_SMALL_WIDTH", llava.language_model.width - 1)
    assert _readers(llava.language_model, _texts(llava)) == [llava.language_model]


@pytest.mark.usefixtures("four_threads")
def test_a_model_whose_forward_was_replaced_is_not_copied(llava: Vlm, monkeypatch: pytest.MonkeyPatch) -> None:
    decoder: Any = llava.language_model.decoder
    monkeypatch.setitem(vars(decoder.layers[0]), "forward", decoder.layers[0].forward)
    assert _readers(llava.language_model, _texts(llava)) == [llava.language_model]


@pytest.mark.usefixtures("four_threads")
def test_a_model_with_hooks_or_code_of_others_is_read_in_one_thread(
    llava: Vlm, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder: Any = llava.language_model.decoder
    for register in (decoder.layers[0].register_forward_hook, decoder.layers[0].register_forward_pre_hook):
        hook = register(lambda *_: None)
        assert _readers(llava.language_model, _texts(llava)) == [llava.language_model]
        hook.remove()
    assert len(_readers(llava.language_model, _texts(llava))) == 4
    own = type("OwnBlock", (type(decoder.layers[0]),), {"__module__": "transformers_modules.own"})
    monkeypatch.setattr(decoder.layers[0], "__class__", own)
    assert _readers(llava.language_model, _texts(llava)) == [llava.language_model]


@pytest.mark.usefixtures("four_threads")
def test_hooks_that_transformers_leaves_in_a_model_stop_no_thread(llava: Vlm) -> None:
    decoder: Any = llava.language_model.decoder
    decoder(input_ids=torch.tensor([[1, 2]]), output_hidden_states=True)
    assert decoder.layers[0]._forward_hooks
    assert len(_readers(llava.language_model, _texts(llava))) == 4


@pytest.mark.usefixtures("four_threads")
def test_a_buffer_that_a_pass_writes_is_that_of_its_thread(llava: Vlm) -> None:
    readers = _readers(llava.language_model, _texts(llava))
    buffers = [dict(one.decoder.named_buffers()) for one in readers]
    assert buffers[0]
    assert all(len({id(of_one[name]) for of_one in buffers}) == 4 for name in buffers[0])


class _Refuses:
    def __getattr__(self, name: str) -> Any:
        raise KeyError(name)


@pytest.mark.usefixtures("four_threads")
@pytest.mark.parametrize("own", [threading.Lock(), _Refuses()], ids=["lock", "attributes"])
def test_a_model_that_cannot_be_copied_is_read_in_one_thread(
    own: Any, llava: Vlm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(llava.language_model.decoder, "own", own, raising=False)
    assert _readers(llava.language_model, _texts(llava)) == [llava.language_model]


@pytest.mark.usefixtures("four_threads")
def test_who_stops_taking_batches_has_no_more_of_them_read(llava: Vlm) -> None:
    may_end, read = threading.Event(), list[int]()

    def wait(_: ModelParts, batch: list[_Text]) -> None:
        read.append(len(batch))
        if len(read) > 1:
            may_end.wait(timeout=20)

    texts = _texts(llava) * 10
    batches = run_in_batches(llava.language_model, sorted(texts, key=lambda text: len(text.ids)), wait)
    next(batches)
    threading.Timer(0.2, may_end.set).start()
    batches.close()
    assert len(read) <= 1 + 4 < len(texts) // 3


@pytest.mark.usefixtures("four_threads")
def test_a_batch_beyond_the_memory_is_read_again_in_smaller_ones_and_nothing_is_lost(llava: Vlm) -> None:
    texts, done, failed = _texts(llava), list[_Text](), list[int]()

    def read(_: ModelParts, batch: list[_Text]) -> None:
        if len(batch) * len(batch[-1].ids) > 20:
            failed.append(len(batch))
            raise torch.OutOfMemoryError("no memory left")
        done.extend(batch)

    assert [text for batch in run_in_batches(llava.language_model, texts, read) for text in batch] == texts
    assert failed
    assert {id(text) for text in done} == {id(text) for text in texts}
