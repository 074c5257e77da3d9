import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

import latentlens_dag.demo.connector as stage
from latentlens_dag.demo.assemble import QUESTION, generate_captions, save_model, score_captions
from latentlens_dag.demo.connector import (
    ConnectorTraining,
    choose_patches,
    sample_batch,
    scene_features,
    train_connector,
)
from latentlens_dag.demo.scenes import GRID, PATCHES, SceneSource, View, VisibleObject, scene_truth
from latentlens_dag.demo.stages import Workspace, load_parts
from latentlens_dag.demo.text_captions import PROMPT, mentioned_names
from latentlens_dag.demo.vision import VisionShape, new_encoder, normalize, patch_features
from latentlens_dag.models.loading import language_model_of
from latentlens_dag.training.captions import IGNORED, Batch, caption_loss, embedding_rms
from latentlens_dag.training.modules import llava_weights, new_connector

TINY = ConnectorTraining(
    steps=4, scenes=6, warmup=2, tokens=260, last_steps=2, output_scale=2.0, finished_scale=3.0, whitening=0.0
)
SHAPE = VisionShape(hidden=16, layers=1, heads=2, mlp=16)


@pytest.fixture(scope="module")
def source() -> SceneSource:
    return SceneSource.open()


@pytest.fixture(scope="module")
def tokenizer(source: SceneSource) -> PreTrainedTokenizerFast:
    """Words of the world as tokens, cut at spaces; <bos> first, like the demo's own."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    prompt = ["\n", "Describe", "this", "image", "in", "detail"]
    words = [*source.world.class_names, "There", "is", "a", "the", "above", "and", ".", ",", *prompt]
    vocabulary = {
        word: index for index, word in enumerate(["<pad>", "<bos>", "<eos>", "<image>", "<unk>", *dict.fromkeys(words)])
    }
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(" ", "removed"), pre_tokenizers.Punctuation()]
    )
    tokenizer.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>", unk_token="<unk>",
        extra_special_tokens={"image_token": "<image>"},
    )  # fmt: skip


def tiny_language(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=512, pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


def tiny_parts(tokenizer: PreTrainedTokenizerFast) -> tuple[Any, Any]:
    language = tiny_language(tokenizer)
    return language, new_encoder(SHAPE).eval()


def projected(weights: dict[str, torch.Tensor], raw: torch.Tensor) -> torch.Tensor:
    """LLaVA's connector, written out."""
    hidden = torch.nn.functional.gelu(raw @ weights["linear_1.weight"].T + weights["linear_1.bias"])
    return hidden @ weights["linear_2.weight"].T + weights["linear_2.bias"]


def save_tiny_model(source: SceneSource, tokenizer: PreTrainedTokenizerFast, out: Path) -> tuple[Any, Any]:
    """Its parts, as they were given to be saved."""
    language, encoder = tiny_parts(tokenizer)
    features = scene_features(source, encoder, TINY)
    save_model(
        language,
        tokenizer,
        encoder,
        llava_weights(new_connector(16, 32, seed=0), features.standardization, output_rms=0.02),
        out,
    )
    return language, encoder


@pytest.mark.parametrize(
    ("kind", "count"), [("whole", PATCHES), ("subset", 40), ("window", 6), ("region", 3), ("few", 5)]
)
def test_as_many_patches_are_kept_as_asked(source: SceneSource, kind: Any, count: int) -> None:
    scene, rendered = source(3)
    truth = scene_truth(rendered, scene)
    for seed in range(20):
        kept = choose_patches(kind, truth, count, (2, 3), random.Random(seed))
        assert kept.sum() == count
        if kind == "region":
            assert len(set(truth.patch_regions[kept].tolist())) == 1
        if kind == "window":
            rows, columns = np.nonzero(kept.reshape(GRID, GRID))
            assert (np.ptp(rows), np.ptp(columns)) == (1, 2)


@pytest.mark.parametrize("whitening", [0.0, 0.05])
def test_the_folded_connector_takes_raw_features_and_gives_embeddings_of_the_asked_size(
    source: SceneSource, tokenizer: PreTrainedTokenizerFast, whitening: float
) -> None:
    _, encoder = tiny_parts(tokenizer)
    plain = scene_features(source, encoder, TINY)
    features = scene_features(source, encoder, replace(TINY, whitening=whitening))
    connector = new_connector(16, 32, seed=0)
    folded = llava_weights(connector, features.standardization, output_rms=0.02)
    raw = plain.rows.float() * plain.standardization.rms + plain.standardization.mean
    output = projected(folded, raw)
    assert torch.allclose(output, connector(plain.rows.float() @ features.standardization.whitening) * 0.02, atol=1e-5)
    assert 0.01 < output.pow(2).mean().sqrt() < 0.04


def test_whitening_divides_each_direction_by_the_root_of_its_variance_and_what_is_added(
    source: SceneSource, tokenizer: PreTrainedTokenizerFast
) -> None:
    _, encoder = tiny_parts(tokenizer)
    plain, white = (
        torch.linalg.eigvalsh(rows.T @ rows / len(rows))
        for rows in (
            scene_features(source, encoder, replace(TINY, whitening=added)).rows.float().flatten(0, 1)
            for added in (0.0, 0.05)
        )
    )
    assert torch.allclose(white, plain / (plain + 0.05 * plain.mean()), rtol=0.02)


def test_a_fixed_size_is_that_of_the_batch_however_large_the_connector_answers(
    source: SceneSource, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    language, encoder = tiny_parts(tokenizer)
    features = scene_features(source, encoder, TINY)
    batch, connector = sample_batch(source, features, tokenizer, TINY, 0), new_connector(16, 32, seed=0)
    parts, losses = language_model_of("tiny", language, tokenizer), []
    for factor in (1.0, 7.0):
        connector[2].weight.data *= factor  # type: ignore[index,union-attr,operator]
        losses.append(caption_loss(parts, connector, batch, [1], 0.02, fixed_size=True).item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    fixed, _ = train_connector(source, language, tokenizer, encoder, tmp_path, TINY)
    raw = features.rows.float() * features.standardization.rms + features.standardization.mean
    asked = 3.0 * embedding_rms(language)
    assert projected(fixed, raw).pow(2).mean().sqrt().item() == pytest.approx(asked, rel=0.01)


def test_names_count_as_much_as_asked(source: SceneSource, tokenizer: PreTrainedTokenizerFast) -> None:
    _, encoder = tiny_parts(tokenizer)
    features = scene_features(source, encoder, TINY)
    batch = sample_batch(source, features, tokenizer, replace(TINY, name_weight=5.0), 0)
    names = {tokenizer.convert_tokens_to_ids(name) for name in source.world.class_names}
    expected = [[5.0 if token in names else 1.0 for token in row] for row in batch.targets.tolist()]
    assert batch.weights.tolist() == expected
    assert {1.0, 5.0} == {weight for row in expected for weight in row}


def test_a_batch_is_a_function_of_its_step(source: SceneSource, tokenizer: PreTrainedTokenizerFast) -> None:
    _, encoder = tiny_parts(tokenizer)
    features = scene_features(source, encoder, TINY)
    prompt = tokenizer.encode(PROMPT, add_special_tokens=False)
    for step in range(6):
        batch, again = (sample_batch(source, features, tokenizer, TINY, step) for _ in range(2))
        assert all(torch.equal(one, other) for one, other in zip(batch, again, strict=True))
        assert batch.token_ids[:, : len(prompt)].tolist() == [prompt] * len(batch.token_ids)
        asked = batch.targets != IGNORED
        assert torch.equal(batch.targets[asked], batch.token_ids[asked])
        assert not asked[:, : len(prompt)].any()
        assert (batch.targets == tokenizer.eos_token_id).sum(dim=1).tolist() == [1] * len(batch.targets)


def test_a_step_keeps_what_its_part_of_the_training_asks_for(
    source: SceneSource, tokenizer: PreTrainedTokenizerFast
) -> None:
    features = scene_features(source, tiny_parts(tokenizer)[1], TINY)
    shares = {"kinds": (("whole", 0.3), ("window", 0.7)), "last_kinds": (("whole", 1.0),)}
    training = replace(TINY, steps=90, small_steps=30, last_steps=20, **shares)  # type: ignore[arg-type]
    kept = [sample_batch(source, features, tokenizer, training, step).features.shape[1] for step in range(90)]
    assert all(count < PATCHES for count in kept[:30])
    assert 5 < sum(count == PATCHES for count in kept[30:70]) < 20
    assert kept[70:] == [PATCHES] * 20


def test_only_the_connector_learns_and_an_interrupted_training_ends_with_the_same_weights(
    source: SceneSource, tokenizer: PreTrainedTokenizerFast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    language, encoder = tiny_parts(tokenizer)
    before = {name: weight.to(torch.bfloat16).clone() for name, weight in language.state_dict().items()}
    straight, _ = train_connector(source, language, tokenizer, encoder, tmp_path / "straight", TINY, checkpoint_s=1000)
    sample = stage.sample_batch

    def killed_at_step_two(*arguments: Any) -> Batch:
        if arguments[-1] == 2:
            raise KeyboardInterrupt
        return sample(*arguments)

    monkeypatch.setattr(stage, "sample_batch", killed_at_step_two)
    with pytest.raises(KeyboardInterrupt):
        train_connector(source, language, tokenizer, encoder, tmp_path / "killed", TINY, checkpoint_s=-1)
    monkeypatch.undo()
    resumed, figures = train_connector(
        source, language, tokenizer, encoder, tmp_path / "killed", TINY, checkpoint_s=1000
    )
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)
    assert all(torch.equal(before[name], weight) for name, weight in language.state_dict().items())
    assert figures["steps"] == 4


def test_the_saved_model_loads_with_the_auto_classes_and_is_what_was_trained(
    source: SceneSource, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    save_tiny_model(source, tokenizer, tmp_path)
    model, processor = AutoModelForImageTextToText.from_pretrained(tmp_path), AutoProcessor.from_pretrained(tmp_path)
    image = source(4)[1].image
    talk = [{"role": "user", "content": [{"type": "image", "image": image}, {"type": "text", "text": QUESTION}]}]
    inputs = processor.apply_chat_template(talk, tokenize=True, return_dict=True, return_tensors="pt")
    expected = [1, *[3] * PATCHES, *tokenizer.encode(PROMPT, add_special_tokens=False)]
    assert inputs["input_ids"][0].tolist() == expected
    rendered = processor(text=processor.apply_chat_template(talk), images=image, return_tensors="pt")
    assert rendered["input_ids"][0].tolist() == expected
    assert torch.allclose(inputs["pixel_values"], normalize(np.asarray(image)[None]), atol=1e-5)
    with torch.no_grad():
        pixels = inputs["pixel_values"].to(model.dtype)
        visual = model.model.get_image_features(pixels).pooler_output[0]
        raw = patch_features(model.model.vision_tower, pixels)
        assert torch.equal(visual, model.model.multi_modal_projector(raw)[0])
    assert model.dtype == torch.bfloat16
    assert len(generate_captions(model, processor, [image] * 2)) == 2
    assert (model.generation_config.num_beams, model.generation_config.length_penalty) == (5, 2.0)
    greedy = model.generate(**inputs.to(model.dtype), num_beams=1)[0, inputs["input_ids"].shape[1] :]
    text = processor.tokenizer.decode(greedy, skip_special_tokens=True).strip()
    assert (
        generate_captions(model, processor, [image], beams=1) == [text] != generate_captions(model, processor, [image])
    )


def test_a_connector_trained_between_the_parts_of_a_saved_model_is_the_one_trained_between_the_parts_themselves(
    source: SceneSource, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    language, encoder = save_tiny_model(source, tokenizer, tmp_path / "model")
    parts = load_parts(Workspace(tmp_path / "other", 0, source, frozen=tmp_path / "model"))
    here, _ = train_connector(source, language, tokenizer, encoder, tmp_path / "here", TINY)
    again, _ = train_connector(source, parts[0], parts[1], parts[2], tmp_path / "again", TINY)
    assert all(torch.equal(here[name], again[name]) for name in here)


def test_a_work_folder_without_finished_stages_has_no_parts(source: SceneSource, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"language has no DONE\.json"):
        load_parts(Workspace(tmp_path, 0, source))


def test_captions_are_scored_by_the_names_in_them(source: SceneSource) -> None:
    seen = tuple(VisibleObject(name, "red", "small", "left", "top") for name in ("duck", "car"))
    scores = score_captions(
        source.world, [("There is a duck and an orange key above the sky.", View("sky", "sand", seen))]
    )
    assert scores.object_recall == 0.5
    assert scores.object_precision == 0.5
    assert scores.background_recall == 0.5


def test_orange_is_a_color_before_a_noun_and_a_fruit_alone(source: SceneSource) -> None:
    assert mentioned_names(source.world, "An orange tiger on sand.") == {"tiger", "sand"}
    assert mentioned_names(source.world, "An orange orange on sand.") == {"orange", "sand"}
    assert mentioned_names(source.world, "A big orange and the sky.") == {"orange", "sky"}
