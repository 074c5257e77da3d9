"""What the lenses read on fresh scenes: the figures of a trained demo model, measured by building studies.

A project is written whose studies read the same fresh scenes through the model, through the model with an
untrained connector and, if real sentences are given, through an index of those alone. `build` builds it, and
the figures are read from its summaries.

Note: the shipped scenes were chosen to be good to look at, and these were not. Figures that stand for the method come
from these. What is chosen by figures (`CHOICES`) is chosen on other scenes than those, `CHOICE_FROM`: the best of
several settings looks better on the scenes that chose it than it is.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import chdir, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from latentlens_dag.demo.corpus import write_corpus
from latentlens_dag.demo.scenes import CHOICE_FROM, FRESH_FROM, SceneSource, random_scene, write_scenes
from latentlens_dag.demo.text import judged_words
from latentlens_dag.demo.world import World
from latentlens_dag.inputs.regions import OBJECT
from latentlens_dag.schema import DECLARED_LENSES, LATENTLENS
from latentlens_dag.storage.files import write_text
from latentlens_dag.storage.home import Home
from latentlens_dag.storage.warehouse import Warehouse
from latentlens_dag.study.interpretability import ALL

if TYPE_CHECKING:
    import polars as pl

FRESH, UNTRAINED, REAL = "fresh", "fresh_untrained", "fresh_real_sentences"
"""The studies."""
CONTEXTS_PER_TOKEN, UNIQUE = 3, "sentence"
"""The demo study's own settings, chosen on the scenes for choices (`tests/benchmarks/results/demo_choices.json`): of
many contexts of a word the nearest five all say that word, and one context with five sentences fits other pictures
too."""
CHOICES = (*((contexts, unique) for unique in ("none", "sentence") for contexts in (1, 3, 10, 50)), (3, "word"))
"""Of contexts per token and `unique`: what was compared on the scenes for choices."""
_CORPUS = """\
type: latentlens_dag.dag.components.Corpus
attributes: {{name: {name}, source: {{lines: {file}}}, shards: 1}}
---
"""
_INDEX = """\
type: latentlens_dag.dag.components.Index
attributes:
  {{name: {name}, language_model: {{path: {model}}}, corpus: {corpus}, layers: {layers},
    contexts_per_token: {contexts}}}
---
"""
_STUDY = """\
type: latentlens_dag.dag.components.Study
attributes:
  {{name: {name}, vlm: {{path: {model}}}, index: {index}, images: scenes, layers: {layers}, unique: {unique},
    lenses: [{lenses}], judge: {{regions: {{}}}}}}
---
"""
_IMAGES = """\
type: latentlens_dag.dag.components.ImageSet
attributes: {name: scenes, source: {folder: scenes}, regions: {masks: regions.parquet}}
"""


def measure(
    source: SceneSource,
    model: Path,
    untrained: Path,
    folder: Path,
    scenes: int = 64,
    real: Path | None = None,
    first: int = FRESH_FROM,
) -> dict[str, Any]:
    """Build the studies of a model in the project `folder` and give their figures.

    Args:
        source: the world the scenes are drawn from.
        model: folder of the trained model.
        untrained: folder of the same model with an untrained connector.
        folder: where the project is written; what is already built there and up to date is not built again.
        scenes: how many fresh scenes.
        real: a text file of real sentences, one per line; those with a word of the world become a second index.
        first: seed of the first scene: `CHOICE_FROM` to compare connectors of which one is to be chosen.

    Raises:
        UserError: if the project cannot be built.
    """
    indexes = {"own": Index("own", model)}
    studies = {FRESH: Study(model, "own"), UNTRAINED: Study(untrained, "own")}
    corpora = {}
    if real is not None:
        corpora["real"] = sentences_about(source.world, real.read_text(encoding="utf-8").splitlines())
        indexes["real"], studies[REAL] = Index("real", model), Study(model, "real")
    write_project(source, folder, first, scenes, corpora, indexes, studies)
    warehouse = _build(folder, studies)
    return {"scenes": scenes, "first_scene": first} | {name: study_figures(warehouse, name) for name in studies}


def measure_choices(source: SceneSource, model: Path, folder: Path, scenes: int = 64) -> dict[str, Any]:
    """Read the scenes for choices by LatentLens with each of `CHOICES`; give the figures of each.

    Gives `choices`, a list of {"contexts_per_token", "unique", "distinct_words", and by patch group "interpretable",
    "interpretable_chance", "concrete", "concrete_chance"}: means of the layers 1 and up, shares in 0..1.

    Args:
        source: the world the scenes are drawn from.
        model: folder of the trained model.
        folder: where the project is written, as by `measure`.
        scenes: how many scenes.

    Raises:
        UserError: if the project cannot be built.
    """
    indexes = {f"contexts_{number}": Index("own", model, number) for number in sorted({c for c, _ in CHOICES})}
    names = {choice: "contexts_{}_{}".format(*choice) for choice in CHOICES}
    studies = {name: Study(model, f"contexts_{c}", unique, (LATENTLENS,)) for (c, unique), name in names.items()}
    write_project(source, folder, CHOICE_FROM, scenes, {}, indexes, studies)
    warehouse = _build(folder, studies)
    rows = [_choice(*choice, study_figures(warehouse, name)[LATENTLENS]) for choice, name in names.items()]
    return {"scenes": scenes, "first_scene": CHOICE_FROM, "choices": rows}


def _choice(contexts: int, unique: str, figures: dict[str, Any]) -> dict[str, Any]:
    row = {"contexts_per_token": contexts, "unique": unique, "distinct_words": figures["distinct_words"]}
    for group in (ALL, OBJECT):
        measures = {"interpretable": figures[group]["interpretable"], "concrete": figures[group]}
        row[group] = {name: one["mean"] for name, one in measures.items()}
        row[group] |= {f"{name}_chance": one["mean_chance"] for name, one in measures.items()}
    return row


class Index(NamedTuple):
    """An index of a project: of which corpus, in whose language model."""

    corpus: str
    model: Path
    contexts_per_token: int = CONTEXTS_PER_TOKEN


class Study(NamedTuple):
    """A study of a project: of which model, through which index."""

    model: Path
    index_name: str
    unique: str = UNIQUE
    lenses: Sequence[str] = tuple(DECLARED_LENSES)


def _build(folder: Path, studies: Iterable[str]) -> Warehouse:
    from latentlens_dag.cli.build import build

    home = Home(folder.resolve() / ".latentlens")
    with chdir(folder), redirect_stdout(sys.stderr):
        build.main([*studies, "--home", str(home.root)], standalone_mode=False)
    return home.warehouse


def write_project(
    source: SceneSource,
    folder: Path,
    first: int,
    scenes: int,
    corpora: Mapping[str, Sequence[str]],
    indexes: Mapping[str, Index],
    studies: Mapping[str, Study],
) -> None:
    """Write workspace.yaml and assets/fresh of a project.

    Args:
        source: the world the scenes are drawn from.
        folder: of the project.
        first: seed of the first scene.
        scenes: how many.
        corpora: sentences by the name of the corpus; the demo's own, `own`, is written in any case.
        indexes: by name.
        studies: by name; all of one depth.
    """
    from latentlens_dag.models.configs import read_config

    assets = folder / "assets" / "fresh"
    write_scenes(
        source.world, source.atlas, assets, [random_scene(source.world, first + number) for number in range(scenes)]
    )
    write_corpus(source.world, assets / "own.txt.gz")
    text = _CORPUS.format(name="own", file="own.txt.gz")
    for name, lines in corpora.items():
        write_text("\n".join(lines) + "\n", assets / f"{name}.txt")
        text += _CORPUS.format(name=name, file=f"{name}.txt")
    depth = (read_config(next(iter(studies.values())).model) or {})["text_config"]["num_hidden_layers"]
    for name, index in indexes.items():
        own = {"corpus": index.corpus, "model": _quoted(index.model), "contexts": index.contexts_per_token}
        text += _INDEX.format(name=name, layers=list(range(1, depth)), **own)
    for name, study in studies.items():
        own = {"index": study.index_name, "unique": study.unique, "lenses": ", ".join(study.lenses)}
        text += _STUDY.format(name=name, model=_quoted(study.model), layers=list(range(depth)), **own)
    write_text(text + _IMAGES, assets / "defs.yaml")
    write_text("load_from: []\n", folder / "workspace.yaml")


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
