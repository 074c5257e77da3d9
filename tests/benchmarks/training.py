"""How fast a connector is trained, against the bare passes of the frozen language model on the same tokens.

    python -m tests.benchmarks.training [--language FOLDER] [--steps 60]

The bare passes are forward and backward through the language model alone, on random embeddings of the same shapes,
with the loss at the same positions: what no trainer can save. Both take turns step by step, in one process, so that
other work on the machine slows both. The last lines say what share of the training the bare passes are (the aim is at
least 85 %), and the memory of the process after the first steps and at the end.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from latentlens_dag.demo.scenes import SceneSource
from latentlens_dag.models.loading import load_language_model
from latentlens_dag.training.batches import Batches
from latentlens_dag.training.captions import Batch, caption_loss, embedding_rms
from latentlens_dag.training.connector import training_dtype
from latentlens_dag.training.feature_files import Features, write_features
from latentlens_dag.training.modules import new_connector
from latentlens_dag.training.prompt import prompt_tokens
from latentlens_dag.training.schedule import take_step
from latentlens_dag.training.settings import ConnectorSettings
from latentlens_dag.training.standardization import Standardization
from latentlens_dag.training.trainer import new_optimizer
from latentlens_dag.training.vision_encoder import load_vision_encoder
from tests.training.parts import save_encoder

DEMO = Path(__file__).parents[2] / "assets" / "demo" / "model"
_SCENES = 60


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--language", type=Path, default=DEMO, help="a language model (default: the demo's)")
    parser.add_argument("--steps", type=int, default=60)
    options = parser.parse_args()
    language = load_language_model(options.language, dtype=training_dtype("cpu"))
    language.decoder.requires_grad_(False)
    language.unembedding.requires_grad_(False)
    settings, source = ConnectorSettings(), SceneSource.open()
    with tempfile.TemporaryDirectory() as folder:
        encoder = load_vision_encoder(save_encoder("clip", Path(folder) / "encoder"))
        scenes = [source(number) for number in range(_SCENES)]
        write_features(encoder, (rendered.image for _, rendered in scenes), Path(folder) / "features")
        features = Features([Path(folder) / "features"])
        captions = [[f"There are {', '.join(scene.names)}."] for scene, _ in scenes]
        tokens = prompt_tokens(language.tokenizer, captions)
        standardization = Standardization.of(features.sample(_SCENES), settings.whitening)
        batches = Batches(features, encoder.grid, standardization, tokens.captions, tokens.after, settings)
        connector = new_connector(features.hidden, language.width, 0)
        optimizer = new_optimizer(connector, settings.learning_rate)
        rms = settings.output_scale * embedding_rms(language.decoder)
        whole, bare, memory = [], [], []
        for step in range(options.steps):
            began = time.perf_counter()
            batch = batches(step)
            take_step(
                optimizer,
                caption_loss(language, connector, batch, tokens.before, rms),
                connector.parameters(),
                settings.learning_rate,
            )
            whole.append(time.perf_counter() - began)
            bare.append(_bare(language, batch, len(tokens.before)))
            memory.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)
    _report(whole, bare, memory)


def _bare(language: Any, batch: Batch, before: int) -> float:
    """Seconds of a forward and backward pass through the language model alone, for sequences of these shapes."""
    length = before + batch.features.shape[1] + batch.token_ids.shape[1]
    dtype = language.embedding.dtype
    inputs = torch.randn(len(batch.features), length, language.width).to(dtype).requires_grad_()
    ones = torch.ones(inputs.shape[:2], dtype=torch.int64)
    is_target = batch.targets != -100
    began = time.perf_counter()
    states = language.decoder(inputs_embeds=inputs, attention_mask=ones, use_cache=False).last_hidden_state
    logits = language.unembedding(states[:, -batch.token_ids.shape[1] - 1 : -1][is_target]).float()
    torch.nn.functional.cross_entropy(logits, batch.targets[is_target]).backward()
    return time.perf_counter() - began


def _report(whole: list[float], bare: list[float], memory: list[float]) -> None:
    after = slice(5, None)  # the first steps are slower
    shares = [one / other for one, other in zip(bare[after], whole[after], strict=True)]
    print(f"a step      {statistics.median(whole[after]) * 1000:7.1f} ms")  # noqa: T201
    print(f"bare passes {statistics.median(bare[after]) * 1000:7.1f} ms")  # noqa: T201
    print(f"bare / step {statistics.median(shares):7.1%} (sums: {sum(bare[after]) / sum(whole[after]):.1%})")  # noqa: T201
    print(f"memory {memory[4]:.2f} GiB after 5 steps, {memory[-1]:.2f} GiB at the end")  # noqa: T201


if __name__ == "__main__":
    main()
