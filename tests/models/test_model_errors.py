"""What is wrong with a model, its processor or what it is asked, told in one message; and what the machine lacks."""

import errno
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from latentlens_dag.cli.main import main
from latentlens_dag.errors import UserError
from latentlens_dag.models.inspection import inspect_model
from latentlens_dag.models.loading import language_model_of, load_language_model, load_tokenizer, load_vlm
from latentlens_dag.models.vlm import Vlm
from latentlens_dag.storage.full_disk import remedy
from latentlens_dag.testing import CHAT_TEMPLATE, tiny_tokenizer
from tests.models.test_language_families import tiny_language_model

IMAGE = Image.new("RGB", (40, 30), "red")


def _without(pattern: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        found = list(folder.glob(pattern))
        assert found
        for file in found:
            file.unlink()

    return change


def _set(name: str, **values: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / name).write_text(json.dumps(json.loads((folder / name).read_text()) | values))

    return change


def _drop_the_image(folder: Path) -> None:
    assert "<image>" in CHAT_TEMPLATE
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE.replace("<image>", ""))


def _pickle(folder: Path) -> None:
    from safetensors.torch import load_file

    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


FAULTS = {
    "no processor": (_without("*processor_config.json"), r"cannot be loaded as a vision-language model: "),
    "no chat template": (_without("chat_template.jinja"), r"has no chat template, .*chat_template\.jinja"),
    "a template without the image": (_drop_the_image, r"its chat template leaves it out, and the prompt has no image"),
    "another number of tokens": (
        _set("processor_config.json", patch_size=8),
        r"and its processor do not match: .*tokens: \d+, features: \d+.*processor_config\.json",
    ),
    "only pickled weights": (_pickle, r"Its weights are pickles \(pytorch_model\.bin\), .*convert them once"),
    "no weights": (_without("*.safetensors"), r"has no model\.safetensors and no .*Finish the download"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_model_that_cannot_be_asked_about_an_image_is_told(llava_folder: Path, tmp_path: Path, fault: str) -> None:
    change, message = FAULTS[fault]
    folder = Path(shutil.copytree(llava_folder, tmp_path / "model"))
    change(folder)
    with pytest.raises(UserError, match=message):
        inspect_model(folder, localize=False)


def test_a_crop_that_no_memory_holds_is_told(llava_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(llava_folder, tmp_path / "model"))
    file = folder / "processor_config.json"
    settings = json.loads(file.read_text())
    settings["image_processor"]["crop_size"] = {"height": 2**31, "width": 480}
    file.write_text(json.dumps(settings))
    with pytest.raises(UserError, match="Unable to allocate"):
        load_vlm(folder).visual_states([IMAGE], [0])


def test_an_image_token_that_no_tokenizer_has_is_told(llava_folder: Path, tmp_path: Path) -> None:
    for number, token in enumerate((-1, 2**40)):
        folder = Path(shutil.copytree(llava_folder, tmp_path / f"model{number}"))
        _set("config.json", image_token_index=token, image_token_id=token)(folder)
        with pytest.raises(UserError, match=rf"model{number}"):
            load_vlm(folder).visual_states([IMAGE], [0])


def test_tokens_before_the_patches_that_no_memory_holds_are_told(llava_folder: Path, tmp_path: Path) -> None:
    vlm = load_vlm(llava_folder)
    vlm.processor.num_additional_image_tokens = 2**50
    with pytest.raises(UserError, match="settings of its processor are not those of its family"):
        vlm.token_maps([(40, 30)])


class PanicException(BaseException):
    """As the Rust below tokenizers raises it."""


def test_a_panic_below_a_library_is_told_and_an_interrupt_is_none(
    llama_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def panic(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", panic)
    error: BaseException = PanicException("range end index 7 out of range")
    with pytest.raises(UserError, match="cannot be loaded as a tokenizer: PanicException: range end index 7"):
        load_tokenizer(llama_folder)
    error = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        load_tokenizer(llama_folder)


@pytest.fixture(scope="module")
def llama_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("llama")
    tiny_language_model("Llama").save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def _write(name: str, text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_text(text) and None


_LOADED_AS = r"^\S+/model cannot be loaded as a "
_COMPARE = r"\. Compare config\.json and the files of the tokenizer and the processor with the published ones\."
_NO_TOKENIZER = r"its folder has no tokenizer files \(tokenizer\.json; .*Copy the published ones"
_LLAMA_FAULTS = {
    "a width that is no multiple of the heads": (
        _set("config.json", hidden_size=4096, num_attention_heads=9),
        r"language model: StrictDataclassClassV\w+: .*'validate_architecture': ValueError: .*4096.*heads \(9\)",
    ),
    "no width": (_set("config.json", hidden_size=None), r"language model: Strict\w+: .*'hidden_size': .*got NoneType"),
    "a width of words": (
        _set("config.json", hidden_size="32"),
        r"language model: Strict\w+: .*'hidden_size': .*got str",
    ),
    "no heads": (_set("config.json", num_attention_heads=0), r"language model: ZeroDivisionError: "),
    "a negative size": (_set("config.json", vocab_size=-1), r"language model: RuntimeError: .*negative dimension"),
    "a config within": (_set("config.json", text_config={"hidden_size": 32}), r"language model: AttributeError: "),
    "an unknown rope": (
        _set("config.json", rope_parameters={"rope_type": "nonsense", "rope_theta": 1e4}),
        r"language model: KeyError: 'nonsense'",
    ),
    "a tokenizer's config with a list of tokens": (
        _write("tokenizer_config.json", '{"added_tokens_decoder": []}'),
        r"tokenizer: AttributeError: ",
    ),
    "a tokenizer without a model": (_write("tokenizer.json", "{}"), r"tokenizer: \w+: "),
}


@pytest.mark.parametrize("fault", _LLAMA_FAULTS)
def test_what_transformers_raises_for_a_damaged_file_is_told_in_one_line_with_its_type_and_what_to_compare(
    llama_folder: Path, tmp_path: Path, fault: str
) -> None:
    change, message = _LLAMA_FAULTS[fault]
    folder = Path(shutil.copytree(llama_folder, tmp_path / "model"))
    change(folder)
    with pytest.raises(UserError, match=f"{_LOADED_AS}{message}.*{_COMPARE}") as raised:
        load_language_model(folder, device="cpu")
    assert "\n" not in str(raised.value) and type(raised.value.__cause__).__name__ in str(raised.value)


def test_inspect_model_ends_with_2_for_a_file_that_transformers_cannot_read(
    llama_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(llama_folder, tmp_path / "model"))
    _set("config.json", num_attention_heads=9)(folder)
    for debug in (False, True):
        monkeypatch.setattr(sys, "argv", ["latentlens-dag", "inspect-model", str(folder), *(["--debug"] * debug)])
        with pytest.raises(SystemExit) as left:
            main()
        text = capsys.readouterr().err
        assert left.value.code == 2 and "model cannot be loaded as a language model: Strict" in text
        assert ("validate_architecture\n" in text) == debug  # a frame of the traceback


@pytest.mark.parametrize("load", [load_language_model, load_tokenizer])
def test_a_folder_without_tokenizer_files_is_told(
    llama_folder: Path, tmp_path: Path, load: Callable[..., object]
) -> None:
    folder = Path(shutil.copytree(llama_folder, tmp_path / "model"))
    _without("tokenizer.json")(folder)
    for _ in range(2):  # with the tokenizer's config alone, and without any
        with pytest.raises(UserError, match=f"{_LOADED_AS}tokenizer: {_NO_TOKENIZER}"):
            load(folder)
        (folder / "tokenizer_config.json").unlink(missing_ok=True)


def test_a_vlm_without_tokenizer_files_is_told(llava_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(llava_folder, tmp_path / "model"))
    _without("tokenizer*")(folder)
    with pytest.raises(UserError, match=f"{_LOADED_AS}vision-language model: {_NO_TOKENIZER}"):
        load_vlm(folder, device="cpu")


@pytest.mark.parametrize("before", [True, False])
def test_a_decoder_with_projections_beside_its_embedding_is_refused_with_the_widths(before: bool) -> None:
    from transformers import OPTConfig, OPTForCausalLM

    tokenizer = tiny_tokenizer()
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "ffn_dim": 64}
    config = OPTConfig(vocab_size=len(tokenizer), word_embed_proj_dim=16, do_layer_norm_before=before, **shape)
    message = r"embedding is 16 wide and its unembedding 16, but its residual stream 32 .*compare states with rows of"
    with pytest.raises(UserError, match=message):
        language_model_of("opt", OPTForCausalLM(config), tokenizer)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (IMAGE, r"`images` is a Image, but must be a list of PIL images"),
        ("a.png", r"`images` is a str, but must be a list"),
        (["a.png"], r"`images\[0\]` is a str, but must be a PIL image, as `PIL\.Image\.open"),
        ([IMAGE, Path("a.png")], r"`images\[1\]` is a PosixPath"),
    ],
)
def test_what_is_no_list_of_images_is_told(llava: Vlm, images: object, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        llava.visual_states(images, [0])


def test_a_model_is_one_line_for_people(llava: Vlm) -> None:
    assert "LlavaForConditionalGeneration, 3 blocks, width 32, torch.float32 on cpu>" in repr(llava)
    for one in (llava, llava.language_model):
        assert llava.name in repr(one) and "\n" not in repr(one) and len(repr(one)) < 400


@pytest.mark.parametrize("held", [1, 2, 5])
def test_as_many_images_at_a_time_as_the_memory_holds_give_the_same_states(
    llava: Vlm, monkeypatch: pytest.MonkeyPatch, held: int
) -> None:
    images = [Image.new("RGB", (48, 48), (20 * number, 9, 90)) for number in range(9)]
    whole, forward, sizes = llava.visual_states(images, [0, 2]), Vlm._forward, []

    def small_memory(vlm: Vlm, part: list[Image.Image], *arguments: object) -> object:
        if len(part) > held:
            raise torch.OutOfMemoryError("CUDA out of memory")
        sizes.append(len(part))
        return forward(vlm, part, *arguments)

    monkeypatch.setattr(Vlm, "_forward", small_memory)
    parts = llava.visual_states(images, [0, 2])
    assert sum(sizes) == 9 and max(sizes) <= held
    assert parts.tokens.equals(whole.tokens)
    for layer in (0, 2):
        assert torch.allclose(parts.states[layer], whole.states[layer], atol=1e-5)


@pytest.mark.parametrize("held", [1, 3, 8])
def test_images_that_come_pass_after_pass_have_the_bits_of_images_in_a_list(
    llava: Vlm, monkeypatch: pytest.MonkeyPatch, held: int
) -> None:
    images = [Image.new("RGB", (48 + number, 48), (9 * number, 9, 90)) for number in range(21)]
    forward, firsts = Vlm._forward, []

    def small_memory(vlm: Vlm, part: list[Image.Image], *arguments: object) -> object:
        if len(part) > held:
            raise torch.OutOfMemoryError("CUDA out of memory")
        firsts.append(images.index(part[0]))
        return forward(vlm, part, *arguments)

    monkeypatch.setattr(Vlm, "_forward", small_memory)
    whole = llava.visual_states(images, [0, 2], connector=True)
    size = {1: 1, 3: 2, 8: 8}[held]  # halved until it fits
    assert firsts == [*range(0, 21, size)]
    passes = (images[start : start + 8] for start in range(0, 21, 8))
    found = llava.states_in_passes(passes, [0, 2], connector=True)
    assert firsts == [*range(0, 21, size)] * 2
    assert found.tokens.equals(whole.tokens)
    assert found.connector is not None and whole.connector is not None
    assert torch.equal(found.connector, whole.connector)
    assert all(torch.equal(found.states[layer], whole.states[layer]) for layer in (0, 2))


def test_an_image_that_the_memory_does_not_hold_alone_is_told(llava: Vlm, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_memory(*_: object) -> object:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Vlm, "_forward", no_memory)
    told = (
        r"does not fit into the memory of cpu beside one image of 40 x 30 pixels.*smaller model.*CUDA_VISIBLE_DEVICES"
    )
    with pytest.raises(UserError, match=told):
        llava.visual_states([IMAGE], [0])


def test_a_full_disk_is_told_with_the_places_and_the_way_out(tmp_path: Path) -> None:
    named = str(tmp_path / "absent" / "table.lance")
    full = OSError(errno.ENOSPC, "No space left on device", named)
    told = remedy(full, tmp_path / "home") or ""
    assert f"{tmp_path}: " in told and " MB" in told and "TMPDIR" in told and "What was finished stays" in told
    of_step = RuntimeError(f"study/tiny/visual[00] failed: OSError: {full}")
    assert remedy(of_step, tmp_path) == remedy(full, tmp_path)
    assert remedy(RuntimeError("(sqlite3.OperationalError) database or disk is full"), tmp_path)


def test_a_device_without_memory_is_told_and_other_errors_are_left_alone(tmp_path: Path) -> None:
    told = remedy(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), tmp_path) or ""
    assert "smaller model, fewer layers" in told and "CUDA_VISIBLE_DEVICES" in told
    assert remedy(ValueError("something else"), tmp_path) is None
