from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from latentlens_dag.errors import UserError
from latentlens_dag.training.connector_file import ConnectorFacts, load_connector, save_connector

FACTS = ConnectorFacts("mlp", "llama", "a" * 64, "clip", "b" * 64, -2, 1, 200, {"seed": 0, "kept": [["whole", 1.0]]})


def weights() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    shapes = {"linear_1.weight": (8, 4), "linear_1.bias": (8,), "linear_2.weight": (8, 8), "linear_2.bias": (8,)}
    return {name: torch.randn(shape) for name, shape in shapes.items()}


def test_a_connector_is_read_as_it_was_written_in_bfloat16_and_equal_ones_are_equal_bytes(tmp_path: Path) -> None:
    save_connector(weights(), FACTS, tmp_path / "one")
    save_connector(weights(), FACTS, tmp_path / "other")
    loaded, facts = load_connector(tmp_path / "one")
    assert facts == FACTS
    assert all(torch.equal(loaded[name], weight.bfloat16().float()) for name, weight in weights().items())
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()


@pytest.mark.parametrize("damage", ["another format", "cut", "text", "no facts", "a folder"])
def test_what_is_no_connector_is_refused_by_name(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "connector.safetensors"
    save_connector(weights(), FACTS, path)
    if damage == "another format":
        save_file(weights(), path)
    elif damage == "no facts":
        save_file(weights(), path, {"latentlens-dag connector 1": "[]"})
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:-40])
    elif damage == "text":
        path.write_text("a text")
    else:
        path.unlink()
        path.mkdir()
    with pytest.raises(UserError, match=r"connector\.safetensors (is no file of|cannot be read as) a connector"):
        load_connector(path)
