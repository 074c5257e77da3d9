"""What the lenses read on fresh scenes: the figures of a trained demo model, measured by building studies.

A project is written whose studies read the same fresh scenes through the model, through the model with an
untrained connector and, if real sentences are given, through an index of those alone. `build` builds it, and
the figures are read from its summaries.

Note: the shipped scenes were chosen to be good to look at, and these were not. Figures that stand for the method come
from these.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable
from contextlib import chdir, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latentlens_dag.demo.corpus import write_corpus
from latentlens_dag.demo.scenes import FRESH_FROM, SceneSource, random_scene, write_scenes
from latentlens_dag.demo.text import judged_words
from latentlens_dag.demo.world import World
from latentlens_dag.storage.files import write_text
from latentlens_dag.storage.home import Home
from latentlens_dag.storage.warehouse import Warehouse

if TYPE_CHECKING:
    import polars as pl

FRESH, UNTRAINED, REAL = "fresh", "fresh_untrained", "fresh_real_sentences"
"""The studies."""
CONTEXTS_PER_TOKEN, UNIQUE = 3, "sentence"
"""The demo study's own settings. Of many contexts of a word the nearest five all say that word, and of few the nearest
five are one sentence at five layers: three contexts, and five answers from five sentences, give two words and more."""
_CORPUS = """\
type: latentlens_dag.dag.components.Corpus
attributes: {{name: {name}, source: {{lines: {file}}}, shards: 1}}
---
type: latentlens_dag.dag.components.Index
attributes:
  {{name: {name}, language_model: {{path: {model}}}, corpus: {name}, layers: {layers}, contexts_per_token: {contexts}}}
---
"""
_STUDY = """\
type: latentlens_dag.dag.components.Study
attributes:
  {{name: {name}, vlm: {{path: {model}}}, index: {index}, images: scenes, layers: {layers}, unique: {unique},
    judge: {{regions: {{}}}}}}
---
"""
_IMAGES = """\
type: latentlens_dag.dag.components.ImageSet
attributes: {name: scenes, source: {folder: scenes}, regions: {masks: regions.parquet}}
"""


def measure(
    source: SceneSource, model: Path, untrained: Path, folder: Path, scenes: int = 64, real: Path | None = None
) -> dict[str, Any]:
    """Build the studies of a model in the project `folder` and give their figures.

    Args:
        source: the world the scenes are drawn from.
        model: folder of the trained model.
        untrained: folder of the same model with an untrained connector.
        folder: where the project is written; what is already built there and up to date is not built again.
        scenes: how many fresh scenes.
        real: a text file of real sentences, one per line; those with a word of the world become a second index.

    Raises:
        UserError: if the project cannot be built.
    """
    from latentlens_dag.cli.build import build

    studies = write_project(source, model, untrained, folder, scenes, real)
    home = Home(folder.resolve() / ".latentlens")
    with chdir(folder), redirect_stdout(sys.stderr):
        build.main([*studies, "--home", str(home.root)], standalone_mode=False)
    return {"scenes": scenes} | {study: study_figures(home.warehouse, study) for study in studies}


def write_project(
    source: SceneSource, model: Path, untrained: Path, folder: Path, scenes: int, real: Path | None
) -> list[str]:
    """Write workspace.yaml and assets/fresh of the project; give the names of its studies."""
    from latentlens_dag.models.configs import read_config

    assets = folder / "assets" / "fresh"
    drawn = [random_scene(source.world, FRESH_FROM + number) for number in range(scenes)]
    write_scenes(source.world, source.atlas, assets, drawn)
    write_corpus(source.world, assets / "corpus.txt.gz")
    depth = (read_config(model) or {})["text_config"]["num_hidden_layers"]
    index = {"model": _quoted(model), "layers": list(range(1, depth)), "contexts": CONTEXTS_PER_TOKEN}
    text = _CORPUS.format(name="own", file="corpus.txt.gz", **index)
    studies = {FRESH: (model, "own"), UNTRAINED: (untrained, "own")}
    if real is not None:
        lines = real.read_text(encoding="utf-8").splitlines()
        write_text("\n".join(sentences_about(source.world, lines)) + "\n", assets / "real.txt")
        text += _CORPUS.format(name="real", file="real.txt", **index)
        studies[REAL] = (model, "real")
    for name, (vlm, corpus) in studies.items():
        layers = list(range(depth))
        text += _STUDY.format(name=name, model=_quoted(vlm), index=corpus, layers=layers, unique=UNIQUE)
    write_text(text + _IMAGES, assets / "defs.yaml")
    write_text("load_from: []\n", folder / "workspace.yaml")
    return list(studies)


def _quoted(folder: Path) -> str:
    """An absolute path as a YAML string, whatever its characters."""
    return json.dumps(str(folder.resolve()))


def sentences_about(world: World, lines: Iterable[str], longest: int = 20) -> list[str]:
    """The distinct sentences of at most `longest` words that hold a word the judge may ask for."""
    judged = set(judged_words(world))
    words = {line: re.findall(r"\w+", line.lower()) for line in dict.fromkeys(map(str.strip, lines))}
    return [line for line, found in words.items() if len(found) <= longest and judged.intersection(found)]


def study_figures(warehouse: Warehouse, study: str) -> dict[str, Any]:
    """Shares of tokens by lens and patch group, judged by all answers: per layer, and the mean of layers 1 and up.

    Gives {lens: {"distinct_words": .., group: {"concrete": [..], "chance": [..], "mean": .., "mean_chance": ..,
    "mean_excess": .., "interpretable": {"shares": [..], "chance": [..], "mean": ..}}}}: of `concrete`, and below it the
    same of `interpretable`. Lists are by visual layer from 0, shares in 0..1, distinct words are of the five answers.
    """
    import polars as pl

    shares = pl.read_parquet(warehouse.summary(study, "interpretability")).sort("visual_layer")
    words = pl.read_parquet(warehouse.summary(study, "diversity")).filter(pl.col("visual_layer") >= 1)
    found: dict[str, Any] = {}
    shares = shares.filter(pl.col("k") == pl.col("k").max())
    for (lens, group), rows in shares.group_by("lens", "patch_group", maintain_order=True):
        concrete, interpretable = (rows.filter(measure=measure) for measure in ("concrete", "interpretable"))
        figures = _group_figures(concrete, "concrete") | {"interpretable": _group_figures(interpretable, "shares")}
        found.setdefault(str(lens), {})[str(group)] = figures
    for (lens,), rows in words.group_by("lens"):
        found[str(lens)]["distinct_words"] = round(float(rows["distinct_words"].mean()), 3)  # type: ignore[arg-type]
    return found


def _group_figures(rows: pl.DataFrame, name: str) -> dict[str, Any]:
    """The figures of one measure, from a row per layer; its shares get this name."""
    shares, chance = rows["share"].to_list(), rows["chance"].to_list()
    inner = list(zip(shares, chance, strict=True))[1:]
    means = {
        "mean": sum(share for share, _ in inner) / len(inner),
        "mean_chance": sum(by_chance for _, by_chance in inner) / len(inner),
        "mean_excess": sum((share - by_chance) / (1 - by_chance) for share, by_chance in inner) / len(inner),
    }
    lists = {name: [round(share, 4) for share in shares], "chance": [round(share, 4) for share in chance]}
    return lists | {name: round(value, 4) for name, value in means.items()}
