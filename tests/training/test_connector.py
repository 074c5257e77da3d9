"""A connector between small models of several families: what is trained, what is stored, and what is loaded again."""

import re
import subprocess
import sys
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from latentlens_dag.errors import UserError
from latentlens_dag.models.loading import FullModel, load_vlm
from latentlens_dag.models.prompts import DEFAULT_PROMPT
from latentlens_dag.training.batches import Batches, PartCaption
from latentlens_dag.training.captions import Batch, caption_loss
from latentlens_dag.training.checkpoint import CHECKPOINT
from latentlens_dag.training.checkpoint_folder import save_llava
from latentlens_dag.training.connector import TrainedConnector, train_connector
from latentlens_dag.training.feature_files import Features, write_features
from latentlens_dag.training.prompt import prompt_tokens
from latentlens_dag.training.settings import ConnectorSettings
from latentlens_dag.training.standardization import Standardization
from latentlens_dag.training.vision_encoder import VisionEncoder
from tests.training.parts import ENCODERS, LANGUAGES, MERGING, SIZE, encoder, language_model, pictures

SHORT = ConnectorSettings(steps=6, tokens=300, warmup=2)
LLAVA = [name for name in ENCODERS if "registers" not in name and name not in MERGING]


def trained(
    language: FullModel, vision: VisionEncoder, folder: Path, settings: ConnectorSettings = SHORT, **options: Any
) -> TrainedConnector:
    images, captions = pictures(12)
    file = folder / "features.safetensors"
    if not file.exists():
        write_features(vision, images, file)
    return train_connector(
        language.language_model, Features([file]), vision.grid, captions, folder / "run", settings, **options
    )


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FullModel]:
    yield language_model("Llama", tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> VisionEncoder:
    return encoder("clip", tmp_path_factory.mktemp("clip"))


@pytest.mark.parametrize(
    ("family", "name", "kind"),
    [*((family, "clip", "mlp") for family in LANGUAGES[:3]), *(("Llama", name, "linear") for name in LLAVA)],
)
def test_the_saved_model_shows_its_language_model_what_the_connector_makes_of_the_features(
    family: str, name: str, kind: Any, tmp_path: Path
) -> None:
    language, vision = language_model(family, tmp_path / "language"), encoder(name, tmp_path / "vision")
    settings = ConnectorSettings(kind=kind, steps=6, tokens=300, warmup=2)
    result = trained(language, vision, tmp_path, settings)
    save_llava(language, vision, result.weights, kind, tmp_path / "model", "float32")
    vlm = load_vlm(tmp_path / "model", dtype="float32")
    images, captions = pictures(3)
    projector = vlm.model.model.multi_modal_projector
    raw = _features(vision, images)
    assert torch.allclose(vision.features(images).float(), raw, rtol=2**-8)  # they are kept in bfloat16
    expected = _projected(result.weights, raw, kind).flatten(0, 1)
    states = vlm.visual_states(images, [0], connector=True)
    assert torch.equal(projector.linear_1.weight, result.weights["linear_1.weight"])
    assert torch.allclose(states.connector, expected, atol=1e-5)  # type: ignore[arg-type]
    assert states.tokens["view"].unique().to_list() == ["global"]
    # The loss of the saved model on a caption, by transformers alone, is the one that was trained.
    before, after, ((caption,),) = prompt_tokens(language.language_model.tokenizer, [captions[0][:1]])
    talk = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": DEFAULT_PROMPT}]}]
    text = vlm.processor.apply_chat_template(talk, add_generation_prompt=True) + captions[0][0]
    given = vlm.processor(text=text, images=images[0], return_tensors="pt")
    assert given["input_ids"][0].tolist() == [*before, *[vlm.model.config.image_token_id] * 16, *after, *caption[:-1]]
    asked = [-100] * len(after) + caption
    with torch.no_grad():
        logits = vlm.model(**given).logits[0, -len(caption) :]
        slow = torch.nn.functional.cross_entropy(logits, torch.tensor(caption))
        batch = Batch(raw[:1], torch.tensor([[*after, *caption]]), torch.tensor([asked]), torch.ones(1, len(asked)))
        loss = caption_loss(language.language_model, projector, batch, before, 1.0)
    assert loss.item() == pytest.approx(slow.item(), rel=1e-3)


def _features(vision: VisionEncoder, images: list[Image.Image]) -> torch.Tensor:
    """The rows of the patches, written out: float32 [N, 16, 16]."""
    with torch.inference_mode():
        states = vision.model(pixel_values=vision.pixels(images), output_hidden_states=True).hidden_states
    rows: torch.Tensor = states[vision.layer][:, -16:]
    return rows


def _projected(weights: dict[str, torch.Tensor], raw: torch.Tensor, kind: str) -> torch.Tensor:
    hidden = raw @ weights["linear_1.weight"].T + weights["linear_1.bias"]
    hidden = torch.nn.functional.gelu(hidden) if kind == "mlp" else hidden
    return hidden @ weights["linear_2.weight"].T + weights["linear_2.bias"]


@pytest.mark.parametrize("family", LANGUAGES)
def test_the_loss_is_that_of_the_caption_alone_and_padding_on_the_right_changes_nothing(
    family: str, tmp_path: Path
) -> None:
    full = language_model(family, tmp_path)
    model, language = full.model, full.language_model
    connector = torch.nn.Linear(16, language.width)
    features, after, caption = torch.randn(1, 5, 16), [7, 8], [9, 10, 2]
    text, asked = [*after, *caption], [-100, -100, *caption]
    weights = torch.tensor([[1.0, 1.0, 5.0, 1.0, 1.0]])
    batch = Batch(features, torch.tensor([text]), torch.tensor([asked]), weights)
    loss = caption_loss(language, connector, batch, [1, 4], 0.5)
    embed = model.get_input_embeddings()
    inputs = torch.cat([embed(torch.tensor([[1, 4]])), connector(features) * 0.5, embed(torch.tensor([text]))], dim=1)
    chances = model(inputs_embeds=inputs).logits.log_softmax(-1)[0]
    slow = -sum(weight * chances[7 + at - 1, text[at]] for at, weight in ((2, 5), (3, 1), (4, 1))) / 7
    assert loss.item() == pytest.approx(slow.item(), rel=1e-4)
    more = Batch(
        features,
        torch.tensor([[*text, 0, 0]]),
        torch.tensor([[*asked, -100, -100]]),
        torch.cat([weights, torch.ones(1, 2)], dim=1),
    )
    assert caption_loss(language, connector, more, [1, 4], 0.5).item() == pytest.approx(loss.item(), rel=1e-5)


def test_training_lowers_the_loss_of_captions_and_permuted_captions_lower_it_less(
    llama: FullModel, clip: VisionEncoder, tmp_path: Path
) -> None:
    settings = ConnectorSettings(steps=60, tokens=600, warmup=5, learning_rate=0.02, kept=(("whole", 1.0),))
    first = trained(llama, clip, tmp_path / "a", ConnectorSettings(steps=1, tokens=600, warmup=1))
    last = trained(llama, clip, tmp_path / "b", settings)
    assert last.loss < first.loss - 0.02


def test_only_the_connector_learns(llama: FullModel, clip: VisionEncoder, tmp_path: Path) -> None:
    parts = {"language": llama.model, "vision": clip.model}
    before = {name: {key: value.clone() for key, value in part.state_dict().items()} for name, part in parts.items()}
    result, again = trained(llama, clip, tmp_path / "a"), trained(llama, clip, tmp_path / "b")
    for name, part in parts.items():
        assert all(torch.equal(before[name][key], value) for key, value in part.state_dict().items())
    assert all(torch.equal(value, again.weights[key]) for key, value in result.weights.items())


def test_a_checkpoint_of_other_settings_captions_features_grid_or_weights_is_refused(
    llama: FullModel, clip: VisionEncoder, tmp_path: Path
) -> None:
    trained(llama, clip, tmp_path)
    features = Features([tmp_path / "features.safetensors"])
    rows = torch.stack([features[number] for number in range(len(features))])
    save_file({"features": rows.flip(1).contiguous()}, tmp_path / "permuted")
    other: Any = deepcopy(llama.language_model)
    for weight in other.decoder.layers.parameters():
        weight.data *= 1.5
    own: list[Any] = [llama.language_model, features, clip.grid, pictures(12)[1], tmp_path / "run", SHORT]
    changes: dict[int, Any] = {
        0: other,
        1: Features([tmp_path / "permuted"]),
        2: (2, 8),
        3: pictures(12, seed=5)[1],
        5: ConnectorSettings(steps=6, tokens=300, warmup=2, seed=1),
    }
    train_connector(*own)
    for place, changed in changes.items():
        with pytest.raises(UserError, match="was made with"):
            train_connector(*(changed if number == place else one for number, one in enumerate(own)))


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"learning_rate": float("inf")}, "`learning_rate: inf` of a connector must be a finite number above 0"),
        ({"output_scale": float("nan")}, "`output_scale: nan`"),
        ({"whitening": float("inf")}, "`whitening: inf`"),
        ({"steps": 2.5}, "`steps: 2.5` of a connector must be a whole number"),
        ({"steps": "4"}, "`steps: 4`"),
        ({"seed": 2**70}, "`seed: "),
        ({"kind": "foo"}, "`kind: foo` of a connector must be mlp or linear"),
        ({"kept": {"whole": 1.0}}, "`kept: "),
        ({"kept": (("foo", 1.0),)}, "must be pairs of a rule"),
        ({"kept": (("whole", float("inf")),)}, "a finite share above 0"),
        ({"kept": ()}, "`kept: "),
        ({"whole_steps": 2}, "`whole_steps: 2`"),
    ],
)
def test_settings_that_make_no_training_are_refused(changed: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=re.escape(told)):
        ConnectorSettings(**changed)


@pytest.mark.parametrize(
    ("captions", "told"),
    [
        (["a red thing"] * 12, "The captions of image 0 are 'a red thing', not a list of texts"),
        ([["a"], [None], *[["b"]] * 10], "The captions of image 1 are"),
        ([["a \udc00"], *[["b"]] * 11], "has half a character"),
        ([["a red dog " * 5000], *[["b"]] * 11], "positions, but the prompt and an image take"),
    ],
)
def test_captions_that_cannot_be_learned_from_are_refused(
    captions: Any, told: str, llama: FullModel, clip: VisionEncoder, tmp_path: Path
) -> None:
    write_features(clip, pictures(12)[0], tmp_path / "features")
    features = Features([tmp_path / "features"])
    with pytest.raises(UserError, match=told):
        train_connector(llama.language_model, features, clip.grid, captions, tmp_path, SHORT)


def test_a_training_that_diverges_a_wrong_grid_and_steps_that_there_are_not_are_told(
    llama: FullModel, clip: VisionEncoder, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"The loss of step \d+ is nan: the training diverged"):
        trained(llama, clip, tmp_path / "a", ConnectorSettings(steps=9, tokens=300, warmup=1, learning_rate=1e20))
    features = Features([tmp_path / "a" / "features.safetensors"])
    with pytest.raises(UserError, match=r"of 16 visual tokens an image, no grid of \(3, 3\)"):
        train_connector(llama.language_model, features, (3, 3), pictures(12)[1], tmp_path / "b", SHORT)
    with pytest.raises(UserError, match="`kept_steps` has 99, but the training has the steps 0 to 6"):
        trained(llama, clip, tmp_path / "c", kept_steps=[2, 99])


def test_features_and_checkpoints_that_cannot_be_read_are_told(
    llama: FullModel, clip: VisionEncoder, tmp_path: Path
) -> None:
    trained(llama, clip, tmp_path)
    file = tmp_path / "features.safetensors"
    (tmp_path / "cut").write_bytes(file.read_bytes()[:-9])
    save_file({"other": torch.ones(2)}, tmp_path / "other")
    save_file({"features": torch.ones(2, 3)}, tmp_path / "flat")
    for name in ("missing", "cut", "other", "flat"):
        with pytest.raises(UserError, match=name):
            Features([tmp_path / name])
    with pytest.raises(UserError, match="not those of images"):
        Features([])
    checkpoint = tmp_path / "run" / CHECKPOINT
    checkpoint.write_bytes(checkpoint.read_bytes()[:-9])
    with pytest.raises(UserError, match=r"cannot be read: .* Remove it to start anew"):
        trained(llama, clip, tmp_path)


def test_images_that_are_all_the_same_are_refused(llama: FullModel, clip: VisionEncoder, tmp_path: Path) -> None:
    save_file({"features": torch.ones(3, 16, 16)}, tmp_path / "same")
    with pytest.raises(UserError, match="the same features for all of a sample of 48 visual tokens"):
        train_connector(
            llama.language_model, Features([tmp_path / "same"]), (4, 4), pictures(3)[1], tmp_path / "run", SHORT
        )


def test_weights_of_another_kind_or_between_other_models_are_no_model(
    llama: FullModel, clip: VisionEncoder, tmp_path: Path
) -> None:
    weights = trained(llama, clip, tmp_path).weights
    with pytest.raises(UserError, match="`kind: linear` is not that of this connector"):
        save_llava(llama, clip, weights, "linear", tmp_path / "model", "float32")
    with pytest.raises(UserError, match="`dtype: foo`"):
        save_llava(llama, clip, weights, "mlp", tmp_path / "model", "foo")
    wide = weights | {"linear_1.weight": torch.ones(32, 99)}
    with pytest.raises(UserError, match="it was trained between others"):
        save_llava(llama, clip, wide, "mlp", tmp_path / "model", "float32")


def test_the_connector_is_kept_at_the_steps_that_are_asked_for(
    llama: FullModel, clip: VisionEncoder, tmp_path: Path
) -> None:
    kept: dict[int, dict[str, torch.Tensor]] = {}
    result = trained(llama, clip, tmp_path, kept_steps=[0, 3, 6], keep=kept.__setitem__)
    assert list(kept) == [0, 3, 6]
    assert all(torch.equal(kept[6][name], weight) for name, weight in result.weights.items())
    assert not torch.equal(kept[0]["linear_1.weight"], kept[3]["linear_1.weight"])


def test_the_sequences_are_a_function_of_seed_and_step_and_keep_what_the_settings_ask_for(
    llama: FullModel, clip: VisionEncoder, tmp_path: Path
) -> None:
    images, captions = pictures(12)
    write_features(clip, images, tmp_path / "features")
    features, tokenizer = Features([tmp_path / "features"]), llama.language_model.tokenizer
    settings = ConnectorSettings(steps=40, tokens=400, kept=(("few", 1.0),), whole_steps=0.25)
    standardization = Standardization.of(features.sample(200))
    tokens = prompt_tokens(tokenizer, captions)
    batches = Batches(features, clip.grid, standardization, tokens.captions, [5, 6], settings)
    for step in range(40):
        one, other = batches(step), batches(step)
        assert all(torch.equal(first, second) for first, second in zip(one, other, strict=True))
        assert one.features.shape[1] == 16 if step >= 30 else one.features.shape[1] <= 8
        assert one.token_ids[:, :2].tolist() == [[5, 6]] * len(one.token_ids)
        assert (one.targets[:, :2] == -100).all()
        assert one.features.shape[0] * (one.features.shape[1] + 12) <= 500


def test_a_step_of_captions_of_parts_keeps_exactly_the_visual_tokens_that_each_is_about(
    llama: FullModel, clip: VisionEncoder, tmp_path: Path
) -> None:
    images, captions = pictures(6)
    write_features(clip, images, tmp_path / "features")
    features = Features([tmp_path / "features"])
    tokens = prompt_tokens(llama.language_model.tokenizer, captions)
    parts = [
        PartCaption(image, patches, [image, *patches]) for image in range(6) for patches in ((0,), (3,), (2, 7, 9))
    ]
    settings = ConnectorSettings(steps=30, tokens=200, kept=(("captioned", 1.0),), whole_steps=0.1)
    standardization = Standardization.of(features.sample(200))
    batches = Batches(features, clip.grid, standardization, tokens.captions, [5], settings, parts)
    counts = set()
    for step in range(27):
        batch = batches(step)
        about = [[one for one in row if one != -100] for row in batch.targets.tolist()]
        counts.add(batch.features.shape[1])
        assert len({image for image, *_ in about}) == len(about) > 1
        for rows, (image, *patches) in zip(batch.features, about, strict=True):
            assert torch.equal(rows, standardization(features[image][patches]))
    assert counts == {1, 3}
    assert batches(27).features.shape[1] == 16  # the last tenth keeps all


def test_captions_of_parts_are_needed_by_their_rule_and_must_be_of_the_grid(
    llama: FullModel, clip: VisionEncoder, tmp_path: Path
) -> None:
    images, captions = pictures(3)
    write_features(clip, images, tmp_path / "features")
    features, language = Features([tmp_path / "features"]), llama.language_model
    captioned = ConnectorSettings(steps=2, tokens=200, kept=(("captioned", 1.0),))
    with pytest.raises(UserError, match="has the rule `captioned`, but no caption is of a part of an image"):
        train_connector(language, features, clip.grid, captions, tmp_path / "run", captioned)
    for image, patches in ((3, [0]), (0, [16]), (0, [])):
        with pytest.raises(UserError, match="there are 3 images of 16 visual tokens"):
            parts = [(image, patches, "A dog.")]
            train_connector(language, features, clip.grid, captions, tmp_path / "run", captioned, parts=parts)
    result = train_connector(
        language, features, clip.grid, captions, tmp_path / "run", captioned, parts=[(0, [3, 1], "A dog.")]
    )
    assert [facts.images for facts in result.facts] == [1, 1]


def test_the_finished_connector_has_the_size_that_is_asked_for(
    llama: FullModel, clip: VisionEncoder, tmp_path: Path
) -> None:
    settings = ConnectorSettings(steps=3, tokens=200, fixed_size=True, output_scale=4.0)
    smaller = replace(settings, finished_scale=3.0)
    weights = [
        trained(llama, clip, tmp_path / name, settings=one).weights for name, one in (("a", settings), ("b", smaller))
    ]
    assert torch.equal(weights[0]["linear_1.weight"], weights[1]["linear_1.weight"])
    torch.testing.assert_close(0.75 * weights[0]["linear_2.weight"], weights[1]["linear_2.weight"])
    with pytest.raises(UserError, match="with `fixed_size: true`"):
        ConnectorSettings(finished_scale=3.0)


def test_images_without_captions_and_captions_without_images_are_refused(
    llama: FullModel, clip: VisionEncoder, tmp_path: Path
) -> None:
    images, captions = pictures(3)
    write_features(clip, images, tmp_path / "features")
    features = Features([tmp_path / "features"])
    with pytest.raises(UserError, match="1 images have no caption, such as the one of number 1"):
        train_connector(llama.language_model, features, clip.grid, [captions[0], [], captions[2]], tmp_path, SHORT)
    with pytest.raises(UserError, match="features of 3 images and captions of 2"):
        train_connector(llama.language_model, features, clip.grid, captions[:2], tmp_path, SHORT)


@pytest.mark.parametrize("family", LANGUAGES[3:])
def test_a_language_model_whose_logits_llava_would_not_compute_is_refused(
    family: str, clip: VisionEncoder, tmp_path: Path
) -> None:
    language = language_model(family, tmp_path / "language")
    result = trained(language, clip, tmp_path)
    with pytest.raises(UserError, match="its logits are scaled, soft-capped, or have a bias"):
        save_llava(language, clip, result.weights, "mlp", tmp_path / "model", "float32")


@pytest.mark.parametrize(
    ("name", "layer", "pool", "grid"),
    [
        ("clip", -2, 2, 2),
        ("siglip", -1, 4, 1),
        ("siglip whose patches leave pixels over", -1, 2, 2),
        ("dinov2 of a larger image", -2, 1, 4),
        ("dinov2 with registers", -1, 1, 4),
        ("dinov2 with registers", 1, 2, 2),
        ("swin", -1, 1, 4),
        ("resnet", -1, 2, 2),
        ("convnext", 0, 1, 8),
    ],
)
def test_pooled_patches_registers_and_maps_become_llava_with_a_tower_of_our_own(
    llama: FullModel, name: str, layer: int, pool: int, grid: int, tmp_path: Path
) -> None:
    vision = encoder(name, tmp_path / "vision", layer, pool)
    result = trained(llama, vision, tmp_path)
    save_llava(llama, vision, result.weights, "mlp", tmp_path / "model", "float32")
    vlm, (images, _) = load_vlm(tmp_path / "model", dtype="float32"), pictures(3)
    states = vlm.visual_states(images, [0], connector=True)
    expected = _projected(result.weights, vision.features(images).float(), "mlp").flatten(0, 1)
    torch.testing.assert_close(states.connector, expected, rtol=0.02, atol=0.02)  # features are kept in bfloat16
    side = 7 * pool if "over" in name else SIZE / grid  # the pixels that patches leave over are in no box
    boxes = states.tokens.filter(image_index=0).select("x0", "y0", "x1", "y1").rows()
    slow = [(x * side, y * side, (x + 1) * side, (y + 1) * side) for y in range(grid) for x in range(grid)]
    assert boxes == slow


def test_a_checkpoint_with_our_tower_is_loaded_by_transformers_once_its_module_is_imported(
    llama: FullModel, tmp_path: Path
) -> None:
    vision = encoder("dinov2 with registers", tmp_path / "vision", pool=2)
    save_llava(llama, vision, trained(llama, vision, tmp_path).weights, "mlp", tmp_path / "model", "float32")
    code = (
        "import sys; from transformers import AutoModelForImageTextToText; "
        "import latentlens_dag.models.vision_grid; "
        "_, info = AutoModelForImageTextToText.from_pretrained(sys.argv[1], output_loading_info=True); "
        "assert not any(info.values()), info"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "model")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
