"""`python -m latentlens_dag.demo`: how maintainers draw the demo world and train its model.

Users never need this: the atlas, the scenes and the trained weights are shipped. Every command can be
interrupted; run again, it resumes.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from latentlens_dag.demo import stages
from latentlens_dag.demo.atlas import DEBIAN_FONT, write_atlas
from latentlens_dag.demo.captioned import write_captioned_scenes
from latentlens_dag.demo.card import write_card
from latentlens_dag.demo.corpus import write_corpus
from latentlens_dag.demo.measure import measure, measure_choices
from latentlens_dag.demo.scenes import CHOICE_FROM, FRESH_FROM, SceneSource, demo_scenes, write_scenes
from latentlens_dag.demo.training import GateError, read_figures, write_figures
from latentlens_dag.demo.world import load_world, world_folder
from latentlens_dag.errors import UserError
from latentlens_dag.storage.home import find_home

CHOICE = "measure_choice"
"""The folder of what is measured on the scenes for choices."""
DEFAULT_WORK = Path(".latentlens/demo-training")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; gives 0, or 1 if a gate failed, a file is missing or a build failed."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        figures = options.run(options)
    except (GateError, FileNotFoundError, UserError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(json.dumps(figures, indent=2, sort_keys=True) + "\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m latentlens_dag.demo", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    atlas = commands.add_parser("atlas", help="render the sprites with a color emoji font")
    atlas.add_argument("--font", type=Path, help="file of Noto Color Emoji (default: where Debian puts it)")
    atlas.set_defaults(run=_atlas)
    scenes = commands.add_parser("scenes", help="draw the held-out scenes and their regions")
    scenes.add_argument("--out", type=Path, help="folder (default: assets/demo of the checkout)")
    scenes.set_defaults(run=_scenes)
    captioned = commands.add_parser("captioned", help="draw pictures with captions, for connectors of a project")
    captioned.add_argument("--out", type=Path, required=True, help="folder")
    captioned.add_argument("--count", type=int, default=8000, help="scenes (default: %(default)s)")
    captioned.add_argument("--parts", type=int, default=12, help="captions of parts of each (default: %(default)s)")
    captioned.add_argument("--seed", type=int, default=0)
    captioned.set_defaults(run=_captioned)
    corpus = commands.add_parser("corpus", help="write the sentences of the demo's index")
    corpus.set_defaults(run=_corpus)
    titles = {"language": "stage 1", "vision": "stage 2", "connector": "stage 3 and the finished model"}
    for name, title in titles.items():
        stage = commands.add_parser(name, help=f"train {title}")
        _add_training_options(stage)
        if name == "connector":
            stage.add_argument(
                "--frozen",
                type=Path,
                help="work folder or finished model with the frozen language model and encoder (default: --work)",
            )
        stage.set_defaults(run=_stage, stage=name, frozen=None)
    train = commands.add_parser("train", help="all three stages in order")
    _add_training_options(train)
    train.set_defaults(run=_train, frozen=None)
    measure = commands.add_parser("measure", help="read fresh scenes with the finished model")
    _add_work_option(measure)
    measure.add_argument("--scenes", type=int, default=64, help="fresh scenes (default: %(default)s)")
    measure.add_argument("--sentences", type=Path, help="real sentences for an index of their own, one per line")
    measure.add_argument("--for-choice", action="store_true", help="the scenes on which a connector is chosen")
    measure.set_defaults(run=_measure)
    choices = commands.add_parser("choices", help="read the scenes for choices with other settings of the index")
    _add_work_option(choices)
    choices.add_argument("--scenes", type=int, default=64, help="scenes (default: %(default)s)")
    choices.set_defaults(run=_choices)
    card = commands.add_parser("card", help="write the model's card from the stages' figures and the built study")
    _add_work_option(card)
    card.add_argument(
        "--home", type=Path, help="home where the study `demo` is built (default: LATENTLENS_HOME or .latentlens)"
    )
    card.add_argument(
        "--seeds", type=Path, nargs="+", default=[], help="work folders of connectors of other seeds, already measured"
    )
    card.set_defaults(run=_card)
    return parser


_COMMANDS = {CHOICE: "measure --for-choice"}


def _add_work_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--work", type=Path, default=DEFAULT_WORK, help="folder of all stages (default: %(default)s)")


def _add_training_options(parser: argparse.ArgumentParser) -> None:
    _add_work_option(parser)
    parser.add_argument("--seed", type=int, default=0, help="seed of weights, texts and scenes (default: %(default)s)")
    parser.add_argument("--threads", type=int, help="CPU threads (default: all)")


def _atlas(options: argparse.Namespace) -> dict[str, Any]:
    path = world_folder() / "atlas.webp"
    write_atlas(load_world(), path, options.font or DEBIAN_FONT)
    return {"atlas": str(path), "size_bytes": path.stat().st_size}


def _card(options: argparse.Namespace) -> dict[str, Any]:
    figures = _figures_of(options.work, ("language", "vision", "connector", "measure", "choices"))
    seeds = [_figures_of(work, ("connector", CHOICE)) for work in (options.work, *options.seeds)]
    seeds = [{"connector": seed["connector"], "measure": seed[CHOICE]} for seed in seeds]
    out = world_folder().parent / "model" / "README.md"
    write_card(load_world(), figures, find_home(options.home).warehouse, out, seeds, figures["choices"])
    return {"card": str(out)}


def _figures_of(work: Path, stages: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The figures of `stages` in a work folder."""
    found = {name: read_figures(work / name) for name in stages}
    if missing := [name for name, figures in found.items() if figures is None]:
        raise FileNotFoundError(
            f"{work} has no figures of {missing[0]}: "
            f"run python -m latentlens_dag.demo {_COMMANDS.get(missing[0], missing[0])} --work {work} first."
        )
    return {name: figures or {} for name, figures in found.items()}


def _captioned(options: argparse.Namespace) -> dict[str, Any]:
    write_captioned_scenes(SceneSource.open(), options.out, options.count, options.parts, options.seed)
    return {"folder": str(options.out), "scenes": options.count, "captions": options.count * (1 + options.parts)}


def _corpus(options: argparse.Namespace) -> dict[str, Any]:
    path = world_folder().parent / "corpus.txt.gz"
    return {"corpus": str(path), "sentences": write_corpus(load_world(), path)}


def _scenes(options: argparse.Namespace) -> dict[str, Any]:
    source = SceneSource.open()
    folder = options.out or world_folder().parent
    scenes = demo_scenes(source.world)
    regions = write_scenes(source.world, source.atlas, folder, scenes)
    return {"folder": str(folder), "scenes": len(scenes), "regions": regions}


def _measure(options: argparse.Namespace) -> dict[str, Any]:
    work: Path = options.work
    name, first = (CHOICE, CHOICE_FROM) if options.for_choice else ("measure", FRESH_FROM)
    model, untrained = work / "model", work / "model_untrained"
    figures = measure(SceneSource.open(), model, untrained, work / name, options.scenes, options.sentences, first)
    write_figures(work / name, figures)
    return figures


def _choices(options: argparse.Namespace) -> dict[str, Any]:
    folder: Path = options.work / "choices"
    figures = measure_choices(SceneSource.open(), options.work / "model", folder, options.scenes)
    write_figures(folder, figures)
    return figures


def _stage(options: argparse.Namespace) -> dict[str, Any]:
    if options.threads:
        import torch

        torch.set_num_threads(options.threads)
    workspace = stages.Workspace(options.work, options.seed, SceneSource.open(), options.frozen)
    runs = {"language": stages.run_language, "vision": stages.run_vision, "connector": stages.run_connector}
    return runs[options.stage](workspace)


def _train(options: argparse.Namespace) -> dict[str, Any]:
    return {
        stage: _stage(argparse.Namespace(**vars(options), stage=stage)) for stage in ("language", "vision", "connector")
    }


if __name__ == "__main__":
    sys.exit(main())
