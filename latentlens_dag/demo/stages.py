"""The stages of the demo model's training, in the order of the paper: language, vision, connector.

Each has a folder of its own below a work folder and ends with DONE.json, the figures that the model's card is
written from. A stage that has it is not run again, and an interrupted stage resumes from its checkpoint. A part that
misses a gate stops the training, because everything after it would only be worse.
"""

from __future__ import annotations

import logging
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from latentlens_dag.demo.scenes import HELD_OUT_FROM, SceneSource, scene_truth
from latentlens_dag.demo.training import Gate, check_gates, read_figures, write_figures

log = logging.getLogger(__name__)

LANGUAGE_GATES = (Gate("caption_recall", 0.85), Gate("oracle_mean", 0.98))
LAYERS = tuple(range(1, 8))
"""The layers the oracle connector is read at: all but the embeddings and the last."""


@dataclass(frozen=True)
class Workspace:
    """The folders of one training's stages, and its seed."""

    folder: Path
    seed: int
    source: SceneSource
    frozen: Path | None = None
    """A work folder or finished model whose language model and vision encoder are used; None: those of `folder`."""

    @property
    def language(self) -> Path:
        """Folder of stage 1."""
        return (self.frozen or self.folder) / "language"

    @property
    def vision(self) -> Path:
        """Folder of stage 2; the encoder lies in its subfolder model."""
        return (self.frozen or self.folder) / "vision"

    @property
    def connector(self) -> Path:
        """Folder of stage 3's checkpoint and figures."""
        return self.folder / "connector"

    @property
    def model(self) -> Path:
        """Folder of the finished model."""
        return self.folder / "model"

    @property
    def untrained(self) -> Path:
        """Folder of the same model with an untrained connector."""
        return self.folder / "model_untrained"


def run_language(workspace: Workspace) -> dict[str, Any]:
    """Stage 1: tokenizer and language model, gated on reading a text prefix and on the oracle connector."""
    figures = read_figures(workspace.language) or _train_language(workspace)
    check_gates("language", figures, LANGUAGE_GATES)
    return figures


def run_vision(workspace: Workspace) -> dict[str, Any]:
    """Stage 2: the vision encoder, gated on the patches of held-out scenes."""
    from latentlens_dag.demo.vision import GATES, VisionTraining, train_vision_encoder

    training = VisionTraining(seed=workspace.seed)
    figures = read_figures(workspace.vision) or train_vision_encoder(workspace.source, workspace.vision, training)
    check_gates("vision", figures, GATES)
    return figures


def run_connector(workspace: Workspace, held_out: int = 200) -> dict[str, Any]:
    """Stage 3: the connector and the finished models, gated on captions of held-out scenes."""
    from latentlens_dag.demo.assemble import GATES
    from latentlens_dag.demo.connector import ConnectorTraining

    training = ConnectorTraining(seed=workspace.seed)
    figures = read_figures(workspace.connector) or _train_connector(workspace, training, held_out)
    check_gates("connector", figures, GATES)
    return figures


def _train_language(workspace: Workspace) -> dict[str, Any]:
    import torch

    from latentlens_dag.demo.language import Schedule, load_language_model, train_language_model
    from latentlens_dag.demo.oracle import score_passages

    schedule = Schedule(compiled=shutil.which("g++") is not None)
    figures: dict[str, Any] = dict(
        train_language_model(workspace.source.world, workspace.language, workspace.seed, schedule)
    )
    model, tokenizer = load_language_model(workspace.language)
    scores = score_passages(workspace.source.world, model, tokenizer)
    figures |= {
        "caption_recall": scores.object_recall,
        "caption_precision": scores.object_precision,
        "caption_backgrounds": scores.background_recall,
        "oracle_mean": _oracle_mean(workspace, model, tokenizer),
        "seed": workspace.seed,
        "threads": torch.get_num_threads(),
        "parameters": sum(weight.numel() for weight in model.parameters()),
    }
    write_figures(workspace.language, figures)
    return figures


def _oracle_mean(workspace: Workspace, model: Any, tokenizer: Any, scenes: int = 24) -> float:
    """Share of patches that the lens reads when every visual token is the embedding of its true word.

    The index has as many contexts per token as the demo's.
    """
    from latentlens_dag.demo.corpus import corpus_sentences
    from latentlens_dag.demo.measure import CONTEXTS_PER_TOKEN
    from latentlens_dag.demo.oracle import encode_contexts, score_oracle

    contexts = encode_contexts(model, tokenizer, corpus_sentences(workspace.source.world), LAYERS, CONTEXTS_PER_TOKEN)
    words = [_patch_names(workspace.source, HELD_OUT_FROM + index) for index in range(scenes)]
    return float(score_oracle(workspace.source.world, model, tokenizer, contexts, LAYERS, words).mean)


def _patch_names(source: SceneSource, seed: int) -> list[str]:
    """The name that is true of each patch of the scene of `seed`."""
    scene, rendered = source(seed)
    return [scene.names[region] for region in scene_truth(rendered, scene).patch_regions]


def _train_connector(workspace: Workspace, training: Any, held_out: int) -> dict[str, Any]:
    from latentlens_dag.demo.assemble import caption_scores, save_model
    from latentlens_dag.demo.connector import train_connector, untrained_connector

    language, tokenizer, encoder = load_parts(workspace)
    connector, figures = train_connector(workspace.source, language, tokenizer, encoder, workspace.connector, training)
    save_model(language, tokenizer, encoder, connector, workspace.model)
    untrained = untrained_connector(workspace.source, language, encoder, training)
    save_model(language, tokenizer, encoder, untrained, workspace.untrained)
    started = time.monotonic()
    scores, pairs = caption_scores(workspace.model, workspace.source, held_out)
    for text, view in pairs[:5]:
        log.info("held out: %s | shown: %s, %s, %s", text, [item.name for item in view.objects], view.upper, view.lower)
    figures |= asdict(scores) | {"held_out_scenes": held_out, "evaluation_s": round(time.monotonic() - started, 1)}
    greedy, _ = caption_scores(workspace.model, workspace.source, held_out, beams=1)
    figures |= {f"greedy_{name}": value for name, value in asdict(greedy).items()}
    write_figures(workspace.connector, figures)
    return figures


def load_parts(workspace: Workspace) -> tuple[Any, Any, Any]:
    """The finished language model, its tokenizer and the finished vision encoder.

    Raises:
        FileNotFoundError: if a stage is not finished.
    """
    from transformers import CLIPVisionModel

    from latentlens_dag.demo.assemble import load_saved_parts
    from latentlens_dag.demo.language import load_language_model

    if workspace.frozen and (workspace.frozen / "model.safetensors").is_file():
        return load_saved_parts(workspace.frozen)
    for folder in (workspace.language, workspace.vision):
        if read_figures(folder) is None:
            raise FileNotFoundError(
                f"{folder} has no DONE.json, so its stage is not finished: "
                f"run python -m latentlens_dag.demo {folder.name} --work {folder.parent} first, "
                "or give --frozen the folder of a finished model (it holds model.safetensors)."
            )
    language, tokenizer = load_language_model(workspace.language)
    return language, tokenizer, CLIPVisionModel.from_pretrained(workspace.vision / "model")
