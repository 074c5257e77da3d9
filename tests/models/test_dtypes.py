"""The dtype of a model: declared, or by a rule over checkpoint and device."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from latentlens_dag import device
from latentlens_dag.errors import UserError
from latentlens_dag.models import dtypes
from latentlens_dag.models.dtypes import check_one_dtype, chosen_dtype

GIB = 1 << 30


def _checkpoint(folder: Path, config: dict[str, Any], size_bytes: int = 0) -> Path:
    (folder / "config.json").write_text(json.dumps(config))
    if size_bytes:
        with (folder / "model.safetensors").open("wb") as file:
            file.truncate(size_bytes)
    return folder


def _has_bfloat16(monkeypatch: pytest.MonkeyPatch, has: bool) -> None:
    monkeypatch.setattr(dtypes, "has_bfloat16", lambda device: has)


@pytest.mark.parametrize(
    ("config", "size_bytes", "has", "chosen"),
    [
        ({"dtype": "bfloat16"}, 2 * GIB, True, "bfloat16"),
        ({"torch_dtype": "float16"}, 2 * GIB, True, "bfloat16"),
        ({"text_config": {"dtype": "bfloat16"}}, GIB, True, "bfloat16"),
        ({"dtype": "bfloat16"}, 2 * GIB, False, "float32"),
        ({"dtype": "bfloat16"}, GIB - 1, True, "float32"),
        ({"dtype": "float32"}, 2 * GIB, True, "float32"),
    ],
)
def test_a_cpu_takes_float32_but_for_large_16_bit_checkpoints_where_it_has_bfloat16(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: dict[str, Any], size_bytes: int, has: bool, chosen: str
) -> None:
    _has_bfloat16(monkeypatch, has)
    assert chosen_dtype(_checkpoint(tmp_path, config, size_bytes), "cpu") == chosen


@pytest.mark.parametrize(("size_bytes", "chosen"), [(GIB, "bfloat16"), (GIB - 1000, "float32")])
def test_weights_in_files_of_any_names_count_where_an_index_names_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size_bytes: int, chosen: str
) -> None:
    _has_bfloat16(monkeypatch, True)
    _checkpoint(tmp_path, {"dtype": "bfloat16"})
    for name, size in (("frozen-00001.safetensors", size_bytes - 9), ("connector.safetensors", 9)):
        with (tmp_path / name).open("wb") as file:
            file.truncate(size)
    places = {"lm_head.weight": "frozen-00001.safetensors", "a": "connector.safetensors"}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    assert chosen_dtype(tmp_path, "cpu") == chosen


@pytest.mark.parametrize(
    ("stored", "has", "chosen"),
    [
        ("float16", False, "float16"),
        ("float32", True, "float32"),
        ("bfloat16", True, "bfloat16"),
        ("bfloat16", False, "float32"),
    ],
)
def test_a_gpu_takes_the_dtype_of_the_checkpoint_unless_it_lacks_bfloat16(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stored: str, has: bool, chosen: str
) -> None:
    _has_bfloat16(monkeypatch, has)
    for place in ("cuda", "cuda:1"):
        assert chosen_dtype(_checkpoint(tmp_path, {"dtype": stored}), place) == chosen


def test_a_config_without_a_dtype_leaves_it_to_the_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _has_bfloat16(monkeypatch, True)
    weights = {
        "a": torch.zeros(5, 3, dtype=torch.bfloat16),
        "b": torch.zeros(14),
        "c": torch.zeros(99, dtype=torch.int8),
    }
    save_file(weights, _checkpoint(tmp_path, {"model_type": "llama"}) / "model.safetensors")
    assert chosen_dtype(tmp_path, "cuda") == "bfloat16"
    save_file({**weights, "b": torch.zeros(16)}, tmp_path / "model.safetensors")
    assert chosen_dtype(tmp_path, "cuda") == "float32"


def test_a_named_dtype_is_taken_on_every_device(tmp_path: Path) -> None:
    for name in dtypes.DTYPES:
        for place in ("cpu", "cuda"):
            assert chosen_dtype(tmp_path, place, name) == name


def test_auto_is_the_rule(tmp_path: Path) -> None:
    assert chosen_dtype(_checkpoint(tmp_path, {"dtype": "bfloat16"}), "cpu", "auto") == "float32"


def test_another_dtype_than_that_of_the_stored_states_is_refused_unless_it_is_declared() -> None:
    with pytest.raises(UserError, match=r"`dtype: auto` of Index words is bfloat16 .* `dtype: float32` to go on"):
        check_one_dtype("bfloat16", "float32", None, "Index words")
    check_one_dtype("bfloat16", "float32", "bfloat16", "Index words")
    check_one_dtype("float32", "float32", None, "Index words")
    check_one_dtype("bfloat16", None, None, "Index words")


@pytest.mark.parametrize(
    ("text", "has"),
    [
        ("flags\t\t: fpu avx512_bf16 sse\n", True),
        ("Features\t: fp asimd bf16 i8mm\n", True),
        ("flags\t\t: fpu avx512f\nbugs\t: bf16\n", False),
    ],
)
def test_the_processor_says_whether_it_has_bfloat16(monkeypatch: pytest.MonkeyPatch, text: str, has: bool) -> None:
    monkeypatch.setattr(Path, "read_text", lambda self, **options: text)
    assert device.has_bfloat16.__wrapped__("cpu") is has


def test_the_rule_needs_no_torch_on_a_machine_without_a_gpu(tmp_path: Path) -> None:
    _checkpoint(tmp_path, {"dtype": "bfloat16"}, 2 * GIB)
    code = """
import sys
from latentlens_dag import device
device._GPU_DRIVERS = ()
from latentlens_dag.models.dtypes import chosen_dtype
print(chosen_dtype(sys.argv[1]), "torch" in sys.modules)
"""
    run = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True)
    assert run.stdout.split()[1] == "False"
    assert run.stdout.split()[0] in ("float32", "bfloat16")
