"""What README says of the demo, in pieces that follow from its tables and results."""

from __future__ import annotations

from typing import Any, NamedTuple

import polars as pl

from latentlens_dag.demo.claims import support
from latentlens_dag.demo.measure import FRESH, REAL, UNTRAINED
from latentlens_dag.schema import LENSES
from latentlens_dag.storage.warehouse import Warehouse
from tests.benchmarks.results import read_results

TABLES = ("interpretability", "layer_alignment")


class Figures(NamedTuple):
    """All that README's sentences on the demo follow from."""

    shares: pl.DataFrame
    """INTERPRETABILITY of the demo study, judged by all answers."""
    alignment: pl.DataFrame
    fresh: dict[str, Any]
    training: dict[str, Any]


def figures(warehouse: Warehouse) -> Figures:
    """Those of a home in which the demo is built."""
    shares, alignment = (pl.read_parquet(warehouse.summary("demo", name)) for name in TABLES)
    fresh, training = read_results("demo_fresh_scenes"), read_results("demo_training")
    return Figures(shares.filter(pl.col("k") == 5), alignment, fresh, training)


def readme_pieces(found: Figures) -> list[str]:
    """Rows of tables and pieces of sentences, white space aside."""
    accuracy = found.training["stages"]["vision"]["object_accuracy"]
    return [
        *_table(found.shares),
        *_of_logitlens(found.shares),
        *_of_fresh_scenes(found.fresh),
        *_of_captions(found.training),
        *support(found.shares.to_dicts(), found.alignment.to_dicts(), found.fresh, accuracy),
    ]


def _table(shares: pl.DataFrame) -> list[str]:
    columns = [(group, measure) for group in ("all", "object") for measure in ("interpretable", "concrete")]
    return [
        f"| {lens.title} | {' | '.join(_mean(shares, lens.name, *column) for column in columns)} |"
        for lens in LENSES.values()
    ]


def _mean(shares: pl.DataFrame, lens: str, group: str, measure: str) -> str:
    """`98.1 (10.9)`: means of share and chance over the layers 1 and up, in percent."""
    rows = shares.filter(pl.col("visual_layer") >= 1, lens=lens, patch_group=group, measure=measure)
    assert rows["visual_layer"].to_list() == list(range(1, 8))
    return "{:.1f} ({:.1f})".format(*(100 * rows[name].mean() for name in ("share", "chance")))


def _of_logitlens(shares: pl.DataFrame) -> list[str]:
    rows = shares.filter(visual_layer=5, lens="logitlens", patch_group="object").rows_by_key("measure", named=True)
    said = {
        measure: {name: f"{100 * one:.1f}" for name, one in row.items() if isinstance(one, float)}
        for measure, (row,) in rows.items()
    }
    whole = said["interpretable"]
    return [
        f"at layer 5, {whole['share']} % [{whole['low']}-{whole['high']}] of the patches on objects are interpretable "
        f"by it (chance {whole['chance']} % [{whole['chance_low']}-{whole['chance_high']}]), "
        f"{said['global']['share']} % by a word for what is elsewhere in the picture, and "
        f"{said['concrete']['share']} % by a word for the object itself."
    ]


def _of_fresh_scenes(fresh: dict[str, Any]) -> list[str]:
    own, embedding = fresh[FRESH]["latentlens"], fresh[FRESH]["embeddinglens"]["object"]["concrete"]
    every, objects = own["all"], own["object"]
    whole = [one["interpretable"] for one in (every, objects)]
    percent = [f"{100 * one[name]:.1f}" for name in ("mean", "mean_chance") for one in whole]
    real, untrained = (fresh[study]["latentlens"]["all"]["mean"] for study in (REAL, UNTRAINED))
    return [
        f"On {fresh['scenes']} fresh scenes drawn at random, on which nothing was chosen, {percent[0]} % of all "
        f"patches and {percent[1]} % of those on objects are interpretable by LatentLens (chance {percent[2]} and "
        f"{percent[3]}). It has a concrete word for {100 * every['mean']:.1f} and {100 * objects['mean']:.1f} %, on "
        f"objects from {100 * objects['concrete'][1]:.0f} % at layer 1 to {100 * objects['concrete'][7]:.0f} % at "
        f"layer 7; EmbeddingLens falls from {100 * embedding[1]:.0f} % to {100 * embedding[7]:.0f} % on objects.",
        f"LatentLens has one for {100 * real:.1f} % of all patches, with an untrained connector for "
        f"{100 * untrained:.1f} %.",
    ]


def _of_captions(training: dict[str, Any]) -> list[str]:
    captions = [seed["connector"] for seed in training["seeds"]]
    means = [sum(one[name] for one in captions) / len(captions) for name in ("object_recall", "object_precision")]
    missed = 0.95 - training["stages"]["vision"]["object_accuracy"]
    assert 0.003 < missed < 0.006, "README says by half a percent"
    return [
        f"The model's captions name {100 * captions[0]['object_recall']:.1f} % of the objects, and "
        f"{100 * captions[0]['object_precision']:.1f} % of what they name is there (means of three seeds: "
        f"{100 * means[0]:.1f} and {100 * means[1]:.1f})"
    ]
