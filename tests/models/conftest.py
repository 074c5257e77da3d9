"""Folders of tiny models that a test may change, and their weights."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

from latentlens_dag.testing import tiny_tokenizer

Weights = dict[str, torch.Tensor]


@pytest.fixture(scope="session")
def language_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama whose head is the embedding."""
    folder, tokenizer = tmp_path_factory.mktemp("llama"), tiny_tokenizer()
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4}
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), tie_word_embeddings=True, **shape)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def llava_copy(llava_folder: Path, tmp_path: Path) -> Path:
    """A LLaVA that the test may change."""
    return Path(shutil.copytree(llava_folder, tmp_path / "model"))


@pytest.fixture
def llama_copy(language_folder: Path, tmp_path: Path) -> Path:
    """A Llama that the test may change."""
    return Path(shutil.copytree(language_folder, tmp_path / "model"))


def read_weights(folder: Path) -> Weights:
    """The weights of a model folder, by name."""
    return load_file(folder / "model.safetensors")


def write_weights(weights: Weights, folder: Path) -> None:
    """Replace the weights of a model folder."""
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def set_config(folder: Path, **values: object) -> None:
    """Set fields of a model's config.json."""
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def run_code_of(message: str, **names: object) -> None:
    """Run the indented lines of a message, as a user would."""
    exec("\n".join(line.strip() for line in message.splitlines() if line.startswith("  ")), dict(names))
