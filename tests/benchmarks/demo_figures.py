"""The demo's figures of fresh scenes, and the scenes on which its settings were chosen.

    python -m tests.benchmarks.demo_figures FOLDER [--scenes 64]

Fresh scenes (`FRESH_FROM`) are read by the shipped model, by it with an untrained connector, and through an index of
real sentences; scenes for choices (`CHOICE_FROM`) by the shipped model with other contexts per token and `unique`.
Figures go to `results/`, with which README and the model's card are compared (`tests/demo`). About half an hour of one
core; what FOLDER holds already is not built again.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from latentlens_dag.demo.assemble import load_saved_parts, save_model
from latentlens_dag.demo.connector import ConnectorTraining, untrained_connector
from latentlens_dag.demo.measure import measure, measure_choices
from latentlens_dag.demo.scenes import SceneSource
from tests.benchmarks.results import write_results
from tests.downloads import cache, made_once
from tests.real.sentences import SENTENCES

MODEL = Path(__file__).parents[2] / "assets" / "demo" / "model"


def main() -> None:
    """Measure and write both results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--scenes", type=int, default=64)
    given = parser.parse_args()
    source = SceneSource.open()
    untrained = given.folder / "model_untrained"
    if not untrained.is_dir():
        save_untrained(source, untrained)
    real = made_once(cache() / "sentences" / f"latentlens-{SENTENCES.sha256[:8]}.txt", SENTENCES.download)
    write_results("demo_fresh_scenes", measure(source, MODEL, untrained, given.folder / "fresh", given.scenes, real))
    write_results("demo_choices", measure_choices(source, MODEL, given.folder / "choices", given.scenes))


def save_untrained(source: SceneSource, folder: Path) -> None:
    """The shipped model as it was before its connector's first step."""
    language, tokenizer, encoder = load_saved_parts(MODEL)
    connector = untrained_connector(source, language, encoder, ConnectorTraining(seed=0))
    save_model(language, tokenizer, encoder, connector, folder)


if __name__ == "__main__":
    main()
