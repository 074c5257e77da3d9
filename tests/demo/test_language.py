"""The tokenizer and a tiny training run of the demo's language model."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from latentlens_dag.demo import language
from latentlens_dag.demo.text import judged_words
from latentlens_dag.demo.text_captions import PROMPT
from latentlens_dag.demo.world import World, load_world

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

TINY = language.Schedule(steps=4, rows=1, row_length=64, warmup=1, save_every_s=0.0)


@pytest.fixture(scope="module")
def world() -> World:
    return load_world()


@pytest.fixture(scope="module")
def tokenizer(world: World, tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    folder = tmp_path_factory.mktemp("tokenizer")
    language.train_tokenizer(world, seed=1, documents=6000).save_pretrained(folder)
    return transformers.AutoTokenizer.from_pretrained(folder)


def test_every_judged_word_is_one_token_wherever_it_stands(world: World, tokenizer) -> None:  # type: ignore[no-untyped-def]
    for word in judged_words(world):
        alone, within = language.word_token(tokenizer, word), tokenizer(f"the {word} was")["input_ids"]
        assert alone is not None and within[2] == alone and len(within) == 4, word


def test_encoded_text_starts_with_bos_and_knows_its_characters(tokenizer) -> None:  # type: ignore[no-untyped-def]
    text = "The apple fell on the snow."
    encoded = tokenizer(text, return_offsets_mapping=True)
    assert encoded["input_ids"][0] == tokenizer.bos_token_id
    words = [text[start:end] for start, end in encoded["offset_mapping"][1:]]
    assert words == ["The", "apple", "fell", "on", "the", "snow", "."]


def test_the_prompt_is_the_same_tokens_after_text_and_after_images(tokenizer) -> None:  # type: ignore[no-untyped-def]
    prompt = tokenizer(PROMPT, add_special_tokens=False)["input_ids"]
    for prefix in ("apple, duck", "<image><image>"):
        assert tokenizer(prefix + PROMPT)["input_ids"][-len(prompt) :] == prompt


def test_packed_rows_hold_whole_documents() -> None:
    lengths = {1: 5, 2: 9, 3: 3, 4: 7, 5: 30, 6: 2}
    documents = [[language.Token(number, 1.0)] * length for number, length in lengths.items()]
    packed = language.pack(documents, rows=2, length=12)
    for row in packed:
        assert len(row) <= 12
        assert all(sum(token.id == number for token in row) in (0, length) for number, length in lengths.items())


def test_passages_are_read_and_not_learned_but_for_marked_words(world: World, tokenizer) -> None:  # type: ignore[no-untyped-def]
    batches = language.Batches(world, tokenizer, seed=1, schedule=TINY)
    tokens = batches.tokens("Dog \x02ran home\x03 sky" + PROMPT + "A dog.")
    learned = tokenizer.decode([token.id for token in tokens if token.weight], skip_special_tokens=True)
    assert learned.split() == ["ran", "home", "Describe", "this", "image", "in", "detail.", "A", "dog."]
    assert {token.weight for token in tokens[-4:-1]} == {TINY.caption_weight}
    assert {token.weight for token in batches.tokens("A dog ran.")} == {1.0}
    whole = tokenizer("Dog ran home sky" + PROMPT + "A dog.")["input_ids"]
    assert [token.id for token in tokens] == [*whole, tokenizer.eos_token_id]


def test_the_loss_is_the_mean_of_the_learned_tokens_by_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(language, "has_bfloat16", lambda: False)
    model = language.new_model(0)
    ids = torch.randint(4, language.VOCABULARY, (2, 7), generator=torch.Generator().manual_seed(0))
    weights = torch.tensor([[1.0, 0, 1, 2, 2, 0, 1], [1, 1, 0, 0, 2, 2, 2]])
    with torch.no_grad():
        predicted = torch.log_softmax(model(input_ids=ids).logits[:, :-1].float(), dim=-1)
    lost = [
        (-predicted[row, place, ids[row, place + 1]] * weights[row, place + 1], weights[row, place + 1])
        for row in range(2)
        for place in range(6)
    ]
    loss, learned = language._step(model, model.model, torch.optim.SGD(model.parameters()), (ids, weights), 0.0)
    assert learned == 8
    assert loss == pytest.approx(float(sum(part for part, _ in lost) / sum(weight for _, weight in lost)), rel=1e-5)


def test_a_resumed_run_ends_with_the_weights_of_an_uninterrupted_one(
    world: World, tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # type: ignore[no-untyped-def]
    step = language._step
    for name in ("whole", "broken"):
        tokenizer.save_pretrained(tmp_path / name)
    language.train_language_model(world, tmp_path / "whole", seed=3, schedule=TINY)
    done = []

    def breaks(*arguments):  # type: ignore[no-untyped-def]
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(1)
        return step(*arguments)

    monkeypatch.setattr(language, "_step", breaks)
    with pytest.raises(KeyboardInterrupt):
        language.train_language_model(world, tmp_path / "broken", seed=3, schedule=TINY)
    monkeypatch.setattr(language, "_step", step)
    language.train_language_model(world, tmp_path / "broken", seed=3, schedule=TINY)
    whole, broken = (language.load_language_model(tmp_path / name)[0].state_dict() for name in ("whole", "broken"))
    assert all(torch.equal(whole[key], broken[key]) for key in whole)


def test_the_learning_rate_rises_and_falls_to_a_fiftieth() -> None:
    schedule = dataclasses.replace(TINY, steps=100, warmup=10)
    rates = [schedule.rate(step) for step in range(101)]
    assert max(rates) == rates[10] == schedule.learning_rate
    assert rates[100] == pytest.approx(schedule.learning_rate / 50)
