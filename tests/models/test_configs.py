"""config.json is read without transformers, and numbers that no model has are refused before a model is built."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from latentlens_dag.errors import UserError
from latentlens_dag.models import configs
from latentlens_dag.models.configs import check_objects, read_config
from latentlens_dag.models.loading import load_tokenizer


def _write(folder: Path, config: dict[str, Any]) -> Path:
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize("number", [10_001, 10**9, 2**70, 10**400])
@pytest.mark.parametrize(
    "place",
    [("num_hidden_layers",), ("text_config", "num_hidden_layers"), ("vision_config", "depth"), ("num_experts",)],
)
def test_more_layers_or_experts_than_any_model_has_are_refused_by_name(
    place: tuple[str, ...], number: int, tmp_path: Path
) -> None:
    config: Any = number
    for name in reversed(place):
        config = {name: config}
    with pytest.raises(UserError, match=rf"config\.json: `{place[-1]}` is 1.*10,000 are the most"):
        read_config(_write(tmp_path, {"model_type": "llava", **config}))


def test_sizes_of_large_models_are_read(tmp_path: Path) -> None:
    config = {
        "model_type": "qwen3_vl_moe",
        "text_config": {"num_hidden_layers": 94, "num_experts": 512, "vocab_size": 151_936, "hidden_size": 16_384},
        "vision_config": {"depth": 27, "deepstack_visual_indexes": [8, 16, 24]},
        "max_position_embeddings": 1_048_576,
        "tie_layers": True,
    }
    assert read_config(_write(tmp_path, config)) == config


@pytest.mark.parametrize("name", configs._OBJECT_FILES)
@pytest.mark.parametrize("content", [[], [{"a": 1}], "{}", 7, None, True])
def test_a_file_of_a_model_that_is_another_kind_of_json_is_named(tmp_path: Path, name: str, content: Any) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    (tmp_path / name).write_text(f"\n {json.dumps(content)}")
    with pytest.raises(UserError, match=rf"{name} must be a JSON object, and begins with"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("start", ["", "\n\t ", "\ufeff", "\ufeff\r\n"])
def test_an_object_is_taken_for_one_whatever_stands_before_it(tmp_path: Path, start: str) -> None:
    for name in configs._OBJECT_FILES:
        (tmp_path / name).write_text(f"{start}{{}}", "utf-8")
    check_objects(tmp_path)
