"""Files of weights that are incomplete, damaged or in another format: each is refused with the remedy."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, modeling_utils

from latentlens_dag.errors import UserError
from latentlens_dag.models.loading import load_language_model, load_tokenizer, load_vlm
from latentlens_dag.models.weight_files import stored_dtypes, stored_weights
from tests.helpers.file_opens import counted_opens
from tests.models.conftest import read_weights, run_code_of

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:" + 64 * "0" + "\nsize 123456\n"
LOADS = [load_vlm, load_language_model, load_tokenizer]


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json", "tokenizer.model"])
@pytest.mark.parametrize("load", LOADS)
def test_a_pointer_of_git_lfs_is_refused_with_the_command_that_fetches_the_file(
    llava_copy: Path, load: Callable[..., object], name: str
) -> None:
    (llava_copy / name).write_text(POINTER)
    with pytest.raises(UserError, match=rf"{re.escape(name)} is a pointer of Git LFS.*`git lfs pull` in .*model\.$"):
        load(llava_copy)


@pytest.mark.parametrize("cut", [0, 7, 8, 500, 40_000, -1])
def test_a_file_that_is_cut_off_is_refused_with_its_sizes(llama_copy: Path, cut: int) -> None:
    file = llama_copy / "model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:cut])
    message = (
        f"is cut off: it has {len(whole[:cut]):,} of {len(whole):,} bytes"
        if cut in (40_000, -1)
        else "is cut off or dam"
    )
    with pytest.raises(UserError, match=rf"model\.safetensors {message}.*Download or copy it again"):
        load_language_model(llama_copy, device="cpu")


def test_a_damaged_header_is_refused(llama_copy: Path) -> None:
    file = llama_copy / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[20:30] = b"}" * 10
    file.write_bytes(content)
    with pytest.raises(UserError, match=r"model\.safetensors is cut off or damaged \("):
        load_language_model(llama_copy, device="cpu")


def _weight(**changed: object) -> dict[str, object]:
    return {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24], **changed}


@pytest.mark.parametrize(
    "header",
    [
        [1],
        {"w": [1]},
        {"w": 5},
        {"w": None},
        {"w": {}},
        {"w": _weight(), "v": "x"},
        {"w": _weight(dtype=4)},
        {"w": _weight(shape=6)},
        {"w": _weight(shape=[2, "3"])},
        {"w": _weight(data_offsets=24)},
        {"w": _weight(data_offsets=[0])},
        {"w": _weight(data_offsets=[0, None])},
    ],
)
def test_a_header_that_says_something_else_than_weights_counts_for_nothing_and_is_refused(
    tmp_path: Path, header: object
) -> None:
    text = json.dumps(header).encode()
    (tmp_path / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + bytes(24))
    assert stored_dtypes(tmp_path) == {}
    refused = pytest.raises(UserError, match=r"model\.safetensors is cut off or damaged \(")
    with refused, stored_weights(tmp_path, "tiny", "AutoModel"):
        pass


def test_a_sound_header_gives_the_elements_of_its_weights(tmp_path: Path) -> None:
    text = json.dumps({"__metadata__": {"format": "pt"}, "w": _weight()}).encode()
    (tmp_path / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + bytes(24))
    assert stored_dtypes(tmp_path) == {"float32": 6}
    with stored_weights(tmp_path, "tiny", "AutoModel") as found:
        assert found == {"w": 6}


def _shard(folder: Path) -> list[Path]:
    AutoModelForCausalLM.from_pretrained(folder).save_pretrained(folder, max_shard_size="60KB")
    (folder / "model.safetensors").unlink()  # which transformers leaves beside the shards
    return sorted(folder.glob("model-*.safetensors"))


def test_a_load_opens_each_shard_as_often_as_safetensors_does_and_leaves_none_open(llama_copy: Path) -> None:
    shards, original = _shard(llama_copy), modeling_utils.safe_open
    with counted_opens(shards) as opens:
        for shard in shards:
            with safe_open(shard, framework="pt"):
                pass
        alone = opens()
        load_language_model(llama_copy)
        assert opens() == alone
    assert len(alone) > 2
    assert modeling_utils.safe_open is original
    assert not {*shards} & {file.resolve() for file in Path("/proc/self/fd").iterdir()}


def test_transformers_opens_a_file_itself_where_it_asks_for_it_in_another_way_or_again(llama_copy: Path) -> None:
    file = llama_copy / "model.safetensors"
    with stored_weights(llama_copy, "tiny", "AutoModel"):
        held = modeling_utils.safe_open(str(file), framework="np")
        first, second = (modeling_utils.safe_open(str(file), framework="pt", device="cpu") for _ in range(2))
        assert type(held.get_tensor(key := next(iter(held.keys())))).__module__ == "numpy"
        assert first is not second
        assert (first.get_tensor(key) == second.get_tensor(key)).all()


def test_shards_that_are_missing_are_named(llama_copy: Path) -> None:
    shards = _shard(llama_copy)
    assert len(shards) > 2
    load_language_model(llama_copy, device="cpu")
    for shard in shards[1:]:
        shard.unlink()
    message = (
        rf"{len(shards) - 1} of its {len(shards)} weight files are missing, {shards[1].name}.* which model\.safeten"
    )
    with pytest.raises(UserError, match=message):
        load_language_model(llama_copy, device="cpu")


ODD_MAPS = [
    '{"weight_map": {"a": 3}}',
    '{"weight_map": {"a": 3, "b": "model.safetensors"}}',
    '{"weight_map": {"a": []}}',
]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"metadata": {}}', '{"weight_map": ["a"]}', *ODD_MAPS])
def test_an_index_that_cannot_be_read_is_refused(llama_copy: Path, content: str) -> None:
    _shard(llama_copy)
    (llama_copy / "model.safetensors.index.json").write_text(content)
    with pytest.raises(UserError, match=r"model\.safetensors\.index\.json does not say which file holds which weights"):
        load_language_model(llama_copy, device="cpu")


def test_shards_without_an_index_are_refused(llama_copy: Path) -> None:
    _shard(llama_copy)
    (llama_copy / "model.safetensors.index.json").unlink()
    with pytest.raises(UserError, match=r"It has model-00001-of-.*copy the index that belongs to these shards"):
        load_language_model(llama_copy, device="cpu")


@pytest.mark.parametrize("index", [True, False])
def test_two_sets_of_weights_are_refused(llama_copy: Path, language_folder: Path, index: bool) -> None:
    _shard(llama_copy)
    shutil.copy(language_folder / "model.safetensors", llama_copy)
    if not index:
        (llama_copy / "model.safetensors.index.json").unlink()
    with pytest.raises(
        UserError, match=r"two sets of weights: model\.safetensors, and model-00001-of-.*Move the unwanted set"
    ):
        load_language_model(llama_copy, device="cpu")


@pytest.mark.parametrize("other", ["model.fp16.safetensors", "consolidated.safetensors", "pytorch_model.bin"])
def test_files_that_are_not_read_are_no_second_set(llama_copy: Path, other: str) -> None:
    (llama_copy / other).write_bytes(b"not read")
    model = load_language_model(llama_copy, device="cpu")
    assert torch.equal(model.embedding, read_weights(llama_copy)["model.embed_tokens.weight"])


def _pickle_of_transformers(folder: Path) -> None:
    torch.save(read_weights(folder), folder / "pytorch_model.bin")


def _pickle_of_another(folder: Path) -> None:
    torch.save(read_weights(folder), folder / "weights.pt")


@pytest.mark.parametrize("pickle", [_pickle_of_transformers, _pickle_of_another])
@pytest.mark.parametrize("load", [load_vlm, load_language_model])
def test_pickles_are_not_read_and_the_code_of_the_message_converts_them(
    llava_copy: Path, load: Callable[..., Any], pickle: Callable[[Path], None]
) -> None:
    whole = read_weights(llava_copy)
    pickle(llava_copy)
    (llava_copy / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"Its weights are pickles \(\S+\), which are not read, .*any code") as error:
        load(llava_copy, device="cpu")
    run_code_of(str(error.value))
    load(llava_copy, device="cpu")
    assert all(torch.equal(weight, whole[key]) for key, weight in read_weights(llava_copy).items())


@pytest.mark.parametrize("name", ["last.ckpt", "model.pth", "weights.pkl", "flax.bin"])
def test_every_kind_of_pickle_is_refused(llama_copy: Path, name: str) -> None:
    (llama_copy / "model.safetensors").rename(llama_copy / name)
    with pytest.raises(UserError, match=rf"pickles \({re.escape(name)}\), which are not read"):
        load_language_model(llama_copy, device="cpu")


@pytest.mark.parametrize("config", [True, False])
def test_a_gguf_is_refused_with_the_lines_that_convert_it(llama_copy: Path, config: bool) -> None:
    file = llama_copy / "tiny-Q8_0.gguf"
    file.write_bytes(b"GGUF")
    (llama_copy / "model.safetensors").unlink()
    if not config:
        (llama_copy / "config.json").unlink()
    for source in (llama_copy, file):
        with pytest.raises(UserError, match=r"a GGUF file \(tiny-Q8_0\.gguf\), which cannot be read") as error:
            load_language_model(source, device="cpu")
        lines = [line.strip() for line in str(error.value).splitlines() if line.startswith("  ")]
        assert f'AutoModelForCausalLM.from_pretrained("{llama_copy}", gguf_file="{file.name}", ' in lines[2]
        compile("\n".join(lines), "message", "exec")
