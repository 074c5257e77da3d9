"""Looking at a model: what is told is what the model does, and what cannot be read is refused with the reason."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image

from latentlens_dag.cli.main import cli
from latentlens_dag.errors import UserError
from latentlens_dag.index.state_tables import write_states
from latentlens_dag.models import inspection
from latentlens_dag.models.families import registry
from latentlens_dag.models.families.token_map import TokenMap
from latentlens_dag.models.hooks import capture_hidden_states
from latentlens_dag.models.inspection import covered_share, inspect_model, token_layout
from latentlens_dag.models.layers import auto_contextual_layers, auto_visual_layers
from latentlens_dag.models.loading import load_language_model, load_vlm
from latentlens_dag.models.self_checks import CHECKS, TEXT_CHECKS, failed_checks, noise_image
from latentlens_dag.models.text_checks import ModelCheck
from latentlens_dag.models.token_map_image import _NEWLINE, COLORS, draw_token_map
from latentlens_dag.testing import SENTENCES, tiny_project, tiny_vlm
from tests.helpers.command_line import run_command

FAMILIES = ["llava", "qwen2_vl", "llava_next"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    for family in FAMILIES:
        tiny_vlm(family, root / family)
    return root


@pytest.fixture(scope="module")
def language_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import LlamaConfig, LlamaForCausalLM

    from latentlens_dag.testing import tiny_tokenizer

    folder, tokenizer = tmp_path_factory.mktemp("language_model"), tiny_tokenizer()
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4}
    config = LlamaConfig(vocab_size=len(tokenizer), tie_word_embeddings=True, **shape)
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["inspect-model", *map(str, arguments)])


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_told_of_a_model_is_what_it_does(folders: Path, family: str) -> None:
    found, vlm = inspect_model(folders / family), load_vlm(folders / family, device="cpu")
    seen = vlm.visual_states([noise_image(150, 100)], [0]).tokens
    assert found.size.model_type == family
    assert found.size.model_class == type(vlm.model).__name__
    assert (found.size.blocks, found.size.width) == (vlm.depth, vlm.language_model.width)
    assert found.size.vocabulary == vlm.model.get_input_embeddings().num_embeddings
    assert found.layout is not None
    assert found.layout.tokens == len(seen) == sum(view.tokens for view in found.layout.views) + found.layout.newlines
    for view in found.layout.views:
        assert view.rows * view.columns == view.tokens == (seen["view"] == view.name).sum()
    boxes = seen.filter(seen["view"] != "newline").select("x0", "y0", "x1", "y1").rows()
    assert (tuple(found.layout.first_box), tuple(found.layout.last_box)) == (boxes[0], boxes[-1])
    assert [check.name for check in found.checks] == [*CHECKS]
    assert all(check.passed for check in found.checks)
    assert found.not_checked is None
    assert found.contextual_layers == auto_contextual_layers(vlm.depth)
    assert found.visual_layers == auto_visual_layers(vlm.depth)


def test_tiles_and_newlines_are_counted(folders: Path) -> None:
    layout = inspect_model(folders / "llava_next", localize=False).layout
    assert layout is not None
    assert [tuple(view) for view in layout.views] == [("global", 9, 1, 3, 3), ("tile", 24, 4, 4, 6)]
    assert layout.newlines == 4


def test_parameters_are_those_of_the_language_model_and_shared_ones_count_once(
    folders: Path, language_model: Path
) -> None:
    vlm, model = load_vlm(folders / "llava", device="cpu"), load_language_model(language_model, device="cpu")
    of_vlm = sum(p.numel() for p in vlm.model.model.language_model.parameters()) + vlm.model.lm_head.weight.numel()
    assert inspect_model(folders / "llava", localize=False).size.parameters == of_vlm
    found = inspect_model(language_model).size
    assert found.parameters == sum(p.numel() for p in model.decoder.parameters())  # the unembedding is the embedding
    assert (found.bytes_in_memory, found.dtype) == (4 * found.parameters, "float32")


def test_another_image_has_other_tokens_where_the_family_follows_it(folders: Path) -> None:
    found = inspect_model(folders / "qwen2_vl", Image.new("RGB", (90, 140)), localize=False).layout
    assert found is not None
    expected = load_vlm(folders / "qwen2_vl", device="cpu").token_map(90, 140)
    assert (found.width, found.height, found.tokens) == (90, 140, len(expected.view))
    assert (found.views[0].rows, found.views[0].columns) == (expected.row.max() + 1, expected.col.max() + 1)


def test_the_covered_share_is_that_of_the_pixels() -> None:
    random = np.random.default_rng(0)
    for _ in range(20):
        boxes = random.integers(-6, 30, (9, 4))
        boxes = np.concatenate([np.minimum(boxes[:, :2], boxes[:, 2:]), np.maximum(boxes[:, :2], boxes[:, 2:])], axis=1)
        pixels = np.zeros((17, 23), bool)
        for x0, y0, x1, y1 in boxes.clip(0):
            pixels[y0:y1, x0:x1] = True
        assert covered_share(boxes.astype(np.float32), 23, 17) == pytest.approx(pixels.mean())


def test_bytes_of_states_are_near_what_is_stored(folders: Path, tmp_path: Path) -> None:
    found = inspect_model(folders / "llava", localize=False)
    assert found.layout is not None
    assert found.cost.images_bytes is not None
    rows = 1000 * found.layout.tokens
    states = np.random.default_rng(0).normal(size=(rows, found.size.width)).astype(np.float32)
    ids = [f"{row // found.layout.tokens:016x}" for row in range(rows)]
    write_states(tmp_path / "states", ids, np.arange(rows, dtype=np.int32) % found.layout.tokens, states)
    stored = sum(file.stat().st_size for file in (tmp_path / "states").rglob("*") if file.is_file())
    assert found.cost.images_bytes == pytest.approx(stored * len(found.visual_layers), rel=0.2)


def test_times_add_up_to_those_of_1000_images(folders: Path) -> None:
    cost = inspect_model(folders / "llava", localize=False).cost
    assert cost.image_s is not None
    assert cost.images_s == pytest.approx(1000 * cost.image_s)
    assert cost.text_tokens_per_s == pytest.approx(16 * 32 / cost.text_batch_s)


def test_a_language_model_is_looked_at_without_an_image(language_model: Path) -> None:
    found = inspect_model(language_model)
    assert found.layout is None
    assert [check.name for check in found.checks] == list(TEXT_CHECKS)
    assert all(check.passed for check in found.checks)
    assert found.cost.image_s is None
    text = _run(language_model)
    assert text.exit_code == 0
    assert "a language model, for indexes and studies of texts" in text.output
    with pytest.raises(UserError, match="without vision: it cannot be shown an image"):
        inspect_model(language_model, noise_image(9, 9))


def test_the_place_of_tokens_is_checked_unasked_only_for_small_models(
    folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inspection, "_LOCALIZED_BYTES", 1000)
    found = inspect_model(folders / "llava")
    assert "localization" not in {check.name for check in found.checks}
    assert "--localize" in (found.not_checked or "")
    assert inspect_model(folders / "llava", localize=True).checks[-1].name == "localization"


def test_the_defs_yaml_is_one_that_a_project_loads_with_the_automatic_layers(folders: Path, tmp_path: Path) -> None:
    from latentlens_dag.dag.loading import find_study, load_definitions
    from latentlens_dag.storage.home import find_home

    project = tiny_project(tmp_path)
    here = project / "assets" / "mine"
    here.mkdir()
    (here / "defs.yaml").write_text(inspect_model(folders / "llava", localize=False).defs)
    (here / "sentences.txt").write_text("A dog.\n")
    shutil.copytree(project / "assets" / "tiny" / "pictures", here / "pictures")
    assert load_definitions(project, find_home(tmp_path / "home")) is not None
    study = find_study("my_study", project)
    assert (study.model_ref.path, study.layers) == (folders / "llava", [0, 1, 2])


def test_the_defs_yaml_of_a_language_model_is_that_of_a_study_of_texts_and_builds(
    language_model: Path, tmp_path: Path
) -> None:
    from tests.dag.conftest import build

    here = tmp_path / "assets" / "mine"
    here.mkdir(parents=True)
    (tmp_path / "workspace.yaml").write_text("load_from: []\n")
    (here / "defs.yaml").write_text(inspect_model(language_model).defs.replace("shards: 8", "shards: 1"))
    (here / "sentences.txt").write_text("\n".join(SENTENCES))
    (here / "texts.txt").write_text("A dog sleeps.\n")
    ran = build(tmp_path)
    assert {"study/my_study/text_tokens[00]", "study/my_study/latentlens/V02[00]", "study/my_study/catalog"} <= set(ran)


def test_the_defs_yaml_of_a_model_of_the_hub_loads_before_anything_of_it_is_downloaded(
    folders: Path, tmp_path: Path
) -> None:
    from latentlens_dag.dag.loading import find_study, load_definitions
    from latentlens_dag.models.model_ref import ModelRef
    from latentlens_dag.storage.home import find_home

    project, commit = tiny_project(tmp_path), "0123456789abcdef0123456789abcdef01234567"
    here = project / "assets" / "tiny"
    model = inspection._yaml_of_model(f"user/absent@{commit}", trusted=False)
    (here / "defs.yaml").write_text(inspection._defs(model, [1, 2], [0, 1, 2], "prefix", of_texts=False))
    (here / "sentences.txt").write_text("A dog.\n")
    assert load_definitions(project, find_home(tmp_path / "home")) is not None
    study = find_study("my_study", project)
    assert (study.model_ref, study.layers) == (ModelRef(repo="user/absent", revision=commit), [0, 1, 2])


def test_a_model_that_reads_both_ways_gets_an_index_by_sentences(
    folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "dedup: prefix" in inspect_model(folders / "llava", localize=False).defs
    failed = ModelCheck("causality", False, 1.0, "")
    monkeypatch.setattr("latentlens_dag.models.self_checks.causality", lambda model: failed)
    assert "dedup: sentence" in inspect_model(folders / "llava", localize=False).defs


@pytest.mark.parametrize("options", [[], ["--json"]])
@pytest.mark.parametrize("name", ["logits_reproduced", "visual_token_count", "localization"])
def test_a_failed_check_is_printed_and_ends_with_1(
    folders: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], name: str
) -> None:
    failed = ModelCheck(name, False, 0.5, "meaning")
    monkeypatch.setattr(f"latentlens_dag.models.self_checks.{name}", lambda *_, **__: failed)
    run = _run(folders / "llava", *options)
    assert run.exit_code == 1
    assert f"llava fails {name}: " in run.stderr
    if options:
        facts = json.loads(run.stdout)
        assert facts["failed"] == [name] and facts["dedup"] == "prefix"
        assert [check["passed"] for check in facts["checks"] if check["name"] == name] == [False]
    else:
        assert re.search(rf"^{name} +FAIL  0\.5  meaning$", run.stdout, re.MULTILINE)


def test_what_was_not_checked_has_not_failed(language_model: Path) -> None:
    model = load_language_model(language_model, device="cpu")
    checks = [ModelCheck("localization", False, None, "", why) for why in ("no map", None)]
    assert failed_checks(checks[:1], model) == [] and failed_checks(checks[1:], model) == ["localization"]


def test_a_failed_check_of_a_language_model_ends_with_1(language_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = ModelCheck("logits_reproduced", False, 0.5, "meaning")
    monkeypatch.setattr("latentlens_dag.models.self_checks.text_logits_reproduced", lambda *_: failed)
    assert _run(language_model, "--json").exit_code == 1


@pytest.mark.parametrize(
    ("looks", "needed"),
    [("ahead", {"causality", "padding_invariance"}), ("at the length", {"padding_invariance"})],
)
def test_a_text_pass_that_an_index_of_whole_sentences_can_read_is_no_failure(
    folders: Path, monkeypatch: pytest.MonkeyPatch, looks: str, needed: set[str]
) -> None:
    def change(states: torch.Tensor) -> torch.Tensor:
        return states + (states.mean(dim=1, keepdim=True) if looks == "ahead" else states.shape[1])

    run = _run_with(change, folders / "llava", monkeypatch)
    assert run.exit_code == 0, run.output
    for name in needed:
        assert re.search(rf"^{name} +needs `dedup: sentence`", run.stdout, re.MULTILINE)
    assert "  dedup: sentence\n" in run.stdout


def test_a_text_pass_that_looks_at_other_sentences_fails(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = _run_with(lambda s: s + s.mean(dim=0, keepdim=True), folders / "llava", monkeypatch)
    assert run.exit_code == 1
    assert re.search(r"^padding_invariance +FAIL", run.stdout, re.MULTILINE)


def _run_with(change: Callable[[torch.Tensor], torch.Tensor], folder: Path, monkeypatch: pytest.MonkeyPatch) -> Result:
    """Inspect a model whose first block gives other states."""
    from latentlens_dag.models import loading, vlm

    def load(*arguments: object, **options: object) -> vlm.Vlm:
        vlm = load_vlm(*arguments, **options)
        vlm.language_model.decoder.layers[0].register_forward_hook(lambda *a: change(a[2]))
        return vlm

    monkeypatch.setattr(loading, "load_vlm", load)
    return _run(folder, "--no-localize")


def test_a_paligemma_is_inspected_with_an_index_of_whole_sentences(tmp_path: Path) -> None:
    found = inspect_model(tiny_vlm("paligemma", tmp_path), localize=False)
    assert {check.name for check in found.checks if not check.passed} == {"causality", "padding_invariance"}
    assert (found.failed, found.dedup) == ([], "sentence")
    assert "  dedup: sentence\n" in found.defs


def test_json_and_text_tell_the_same(folders: Path) -> None:
    run = _run(folders / "llava_next", "--json", "--no-localize")
    assert run.exit_code == 0
    facts = json.loads(run.stdout)
    assert facts["size"]["model_type"] == "llava_next"
    assert facts["layout"]["newlines"] == 4
    text = _run(folders / "llava_next", "--no-localize").output
    assert "global 3 x 3, tile 4 x 6 in 4 tiles, 4 newlines" in text
    assert facts["defs"].strip() in text
    for check in facts["checks"]:
        assert f"{check['name']} " in text


def test_the_picture_has_the_boxes_of_every_view_where_they_lie(folders: Path, tmp_path: Path) -> None:
    run = _run(folders / "llava_next", "--no-localize", "--picture", tmp_path / "tokens.png")
    assert run.exit_code == 0
    drawn = Image.open(tmp_path / "tokens.png")
    colors = {color for _, color in drawn.getcolors(1 << 24)}
    assert {COLORS["global"], COLORS["tile"]} <= colors


@pytest.mark.parametrize("box", [[20, 0, 20, 10], [np.nan] * 4])
def test_a_newline_is_a_bar_at_the_end_of_its_row(tmp_path: Path, box: list[float]) -> None:
    zero = np.zeros(2, np.int32)
    places = TokenMap(["tile", "newline"], zero, zero, np.int32([0, 1]), np.float32([[0, 0, 20, 10], box]))
    draw_token_map(Image.new("RGB", (40, 10), "black"), places, tmp_path / "a")
    row = np.asarray(Image.open(tmp_path / "a"))[24 + 40 + 150]
    bar = np.flatnonzero((row == _NEWLINE).all(axis=-1)) - 24
    assert len(bar) >= 5
    assert (abs(bar - 20 * 1200 / 40) < 8).all()


def test_a_box_is_drawn_around_its_pixels_and_what_none_holds_is_pale(tmp_path: Path) -> None:
    boxes = np.float32([[10, 5, 30, 15], [30, 5, 50, 15]])  # of 60 x 20
    zero = np.zeros(2, np.int32)
    draw_token_map(
        Image.new("RGB", (60, 20), "black"),
        TokenMap(["global"] * 2, zero, zero, np.int32([0, 1]), boxes),
        tmp_path / "a",
    )
    pixels = np.asarray(Image.open(tmp_path / "a"))
    scale, margin, top = 1200 / 60, 24, 24 + 40
    at = lambda x, y: tuple(int(v) for v in pixels[round(top + y * scale), round(margin + x * scale)])  # noqa: E731
    assert at(20, 10) == at(40, 10) == (0, 0, 0)
    assert min(at(5, 10)) == min(at(55, 10)) > 150
    colored = (pixels == COLORS["global"]).all(axis=-1)
    for line, start, edges in (
        (colored[round(top + 13 * scale)], margin, [10, 30, 50]),
        (colored[:, round(margin + 25 * scale)][top:], 0, [5, 15]),
    ):
        found = (np.flatnonzero(line) - start) / scale
        distance = np.abs(found[:, None] - edges)
        assert distance.min(axis=0).max() < 0.2
        assert distance.min(axis=1).max() < 0.3


@pytest.mark.parametrize("nowhere", [0, np.nan])
def test_tokens_whose_place_is_not_known_have_no_boxes_and_cover_nothing(tmp_path: Path, nowhere: float) -> None:
    zero = np.zeros(3, np.int32)
    places = TokenMap(["unmapped"] * 3, zero, zero, zero, np.full((3, 4), nowhere, np.float32))
    layout = token_layout(places, 10, 10)
    assert (layout.tokens, layout.covered, layout.first_box, layout.last_box) == (3, 0, None, None)
    draw_token_map(Image.new("RGB", (10, 10)), places, tmp_path / "tokens.png")
    assert Image.open(tmp_path / "tokens.png").size[0] > 1200


@pytest.mark.parametrize("size", [(1, 1), (900, 9), (9, 900), (3000, 2000)])
def test_every_shape_of_image_can_be_drawn(folders: Path, tmp_path: Path, size: tuple[int, int]) -> None:
    places = load_vlm(folders / "llava_next", device="cpu").token_map(*size)
    draw_token_map(Image.new("RGB", size), places, tmp_path / "tokens.png")
    assert max(Image.open(tmp_path / "tokens.png").size) < 6000


def _changed(folder: Path, to: Path, **config: object) -> Path:
    shutil.copytree(folder, to)
    found = json.loads((to / "config.json").read_text())
    (to / "config.json").write_text(json.dumps(found | config))
    return to


@pytest.mark.parametrize(("model_type", "message"), [("mllama", "cross-attention"), ("blip-2", "connector mixes")])
def test_a_family_that_cannot_be_read_is_refused_before_its_weights_are_loaded(
    folders: Path, tmp_path: Path, model_type: str, message: str
) -> None:
    folder = _changed(folders / "llava", tmp_path / "model", model_type=model_type)
    for file in folder.glob("*.safetensors"):
        file.unlink()
    with pytest.raises(UserError, match=rf"`{model_type}`.*{message}"):
        inspect_model(folder)


def test_what_is_no_model_is_refused_with_the_reason(tmp_path: Path) -> None:
    for name in ("nowhere", "/nowhere/at/all", "../up"):
        with pytest.raises(UserError, match="there is no such folder"):
            inspect_model(name)
    with pytest.raises(UserError, match=r"nobody/nothing of the Hub cannot be downloaded: no answer .*HF_HUB_OFFLINE"):
        inspect_model("nobody/nothing")
    with pytest.raises(UserError, match=r"no config\.json"):
        inspect_model(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "nothing known"}')
    with pytest.raises(UserError, match="cannot be loaded as a language model"):
        inspect_model(tmp_path)


def test_a_broken_image_is_refused(folders: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n no picture")
    for name, message in (("broken.png", "cannot be read as an image"), ("absent.png", "cannot be opened")):
        run = _run(folders / "llava", "--image", tmp_path / name)
        assert isinstance(run.exception, UserError)
        assert message in str(run.exception)


def test_a_users_mistake_is_one_message_with_exit_code_2(folders: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"GIF89a")
    for arguments, message in (
        (["nowhere"], "nowhere is no model: there is no such folder"),
        ([str(folders / "llava"), "--image", str(tmp_path / "broken.png")], "Replace or remove it."),
    ):
        run = run_command(tmp_path, "inspect-model", *arguments)
        assert (run.returncode, run.stdout) == (2, "")
        assert message in run.stderr
        assert "Traceback" not in run.stderr


def test_a_text_batch_ends_at_the_deepest_automatic_layer(folders: Path) -> None:
    model, ran = load_vlm(folders / "llava", device="cpu").language_model, []
    with capture_hidden_states(model.decoder, [0, 1, 2], lambda states: ran.append(tuple(states.shape))):
        inspection._text_cost(model)
    assert ran == [(16, 32, 32)] * 6  # two passes, what enters the blocks 0, 1 and 2


def test_a_vision_tower_that_is_not_known_is_told_and_the_rest_is_too(
    folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import LlavaForConditionalGeneration

    monkeypatch.setattr(LlavaForConditionalGeneration, "get_encoder", lambda self, modality: self)
    run = _run(folders / "llava")
    assert run.exit_code == 0
    assert "not run: The vision tower of a LlavaForConditionalGeneration was not found" in run.output


def test_a_family_without_a_map_is_told_with_tokens_that_have_no_place(
    folders: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delitem(registry._MODULES, "llava")
    found = inspect_model(folders / "llava", picture=tmp_path / "tokens.png")
    assert found.layout is not None
    (view,) = found.layout.views
    assert (view.name, view.tokens) == ("unmapped", 9)
    assert (tmp_path / "tokens.png").is_file()
