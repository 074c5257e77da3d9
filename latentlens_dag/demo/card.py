"""The model's card, written from figures: the stages' own, those of fresh scenes, and those of the built study.

Every number in the card comes from a file that a stage or a build wrote, so the card cannot say what was not measured.

Note: the study's figures are of the shipped scenes, which no stage has seen but which were selected; those of fresh
scenes and of captions are of scenes drawn at random.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from latentlens_dag.demo import assemble, vision
from latentlens_dag.demo.measure import FRESH, REAL, UNTRAINED
from latentlens_dag.demo.scenes import DEMO_SCENES
from latentlens_dag.demo.stages import LANGUAGE_GATES
from latentlens_dag.demo.world import World
from latentlens_dag.schema import LATENTLENS, LENSES
from latentlens_dag.storage.warehouse import Warehouse

STUDY = "demo"
TEMPLATE = Path(__file__).with_name("card.md")


def write_card(
    world: World,
    stages: Mapping[str, Mapping[str, Any]],
    warehouse: Warehouse,
    out: Path,
    other_seeds: Sequence[Mapping[str, Mapping[str, Any]]] = (),
) -> None:
    """Write the card.

    Args:
        world: the demo's world.
        stages: the figures of `language`, `vision`, `connector` and `measure` (their DONE.json).
        warehouse: where the study `demo` is built.
        out: the README.md to write.
        other_seeds: `connector` and `measure` of connectors of other seeds between the same frozen models.
    """
    rows = pq.read_table(warehouse.summary(STUDY, "interpretability")).to_pylist()
    text = TEMPLATE.read_text(encoding="utf-8").format(
        objects=len(world.objects),
        backgrounds=len(world.backgrounds),
        table=shares_table(rows, "interpretable"),
        concrete_table=shares_table(rows, "concrete"),
        shipped=DEMO_SCENES,
        steps=stages["connector"]["steps"],
        oracle=f"{100 * stages['language']['oracle_mean']:.1f}",
        scenes=stages["measure"]["scenes"],
        fresh=fresh_table(stages["measure"]),
        diversity=f"{stages['measure'][FRESH][LATENTLENS]['distinct_words']:.2f}",
        seeds=seeds_table([stages, *other_seeds]),
        gates="\n".join(_gate_rows(stages)),
        **{stage: "\n".join(_figure_lines(stages[stage])) for stage in ("language", "vision", "connector")},
    )
    out.write_text(text, encoding="utf-8")


def _gate_rows(stages: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Markdown: for every gate the threshold, the figure reached and the verdict."""
    gates = {"language": LANGUAGE_GATES, "vision": vision.GATES, "connector": assemble.GATES}
    rows = ["| stage | figure | asked for | reached | |", "|---|---|---|---|---|"]
    for stage, asked in gates.items():
        for gate in asked:
            value = stages[stage][gate.figure]
            name, verdict = gate.figure.replace("_", " "), "passed" if value >= gate.least else "**missed**"
            rows.append(f"| {stage} | {name} | {gate.least} | {value:.3f} | {verdict} |")
    return rows


def shares_table(rows: list[dict[str, Any]], measure: str) -> str:
    """Markdown: % of visual tokens per lens, group and layer, judged by all answers, chance in brackets.

    Args:
        rows: INTERPRETABILITY of one study and judge.
        measure: `interpretable`, or another one.
    """
    k = max(row["k"] for row in rows)
    rows = [row for row in rows if (row["measure"], row["k"]) == (measure, k)]
    layers = sorted({row["visual_layer"] for row in rows})
    lines = ["| lens | patches | " + " | ".join(map(str, layers)) + " |", "|---" * (len(layers) + 2) + "|"]
    by_key = {(row["lens"], row["patch_group"], row["visual_layer"]): row for row in rows}
    named = {row["lens"] for row in rows}
    for lens in (lens for lens in LENSES if lens in named):
        for group in ("all", "object", "background"):
            found = (by_key[lens, group, layer] for layer in layers)
            cells = [f"{100 * row['share']:.0f} ({100 * row['chance']:.0f})" for row in found]
            lines.append(f"| {lens} | {group} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def fresh_table(figures: Mapping[str, Any]) -> str:
    """Markdown: the means over layers 1 and up of every study, lens and patch group that `measure` gave."""
    names = " | ".join(f"{measure} | chance | excess" for measure in ("interpretable", "concrete"))
    lines = [f"| | lens | patches | {names} |", "|---" * 9 + "|"]
    for study, text in _STUDIES.items():
        lenses = figures.get(study, {})
        for lens in [lens for lens in LENSES if lens in lenses and (study == FRESH or lens == LATENTLENS)]:
            for group in ("all", "object", "background"):
                found = lenses[lens][group]
                whole = found.get("interpretable", {})  # which runs before it was measured lack
                values = [one.get(name) for one in (whole, found) for name in ("mean", "mean_chance", "mean_excess")]
                cells = ["-" if value is None else f"{100 * value:.1f}" for value in values]
                lines.append(f"| {text} | {lens} | {group} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def seeds_table(runs: Sequence[Mapping[str, Mapping[str, Any]]]) -> str:
    """Markdown: a row per connector seed, the shipped one first, and their mean."""
    rows = [_seed_figures(run) for run in runs]
    names = [str(run["connector"]["seed"]) for run in runs]
    names[0] += " (shipped)"
    lines = ["| seed | " + " | ".join(rows[0]) + " |", "|---" * (len(rows[0]) + 1) + "|"]
    lines += [
        f"| {name} | " + " | ".join(map(_rounded, row.values())) + " |" for name, row in zip(names, rows, strict=True)
    ]
    means = [sum(row[figure] for row in rows) / len(rows) for figure in rows[0]]
    return "\n".join([*lines, f"| **mean of {len(rows)}** | " + " | ".join(map(_rounded, means)) + " |"])


def _seed_figures(run: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """The figures by which seeds are compared: in %, except excess (0..1) and distinct words."""
    captions, read = run["connector"], run["measure"][FRESH][LATENTLENS]
    figures = {f"captions {name}": 100 * captions[f"object_{name}"] for name in ("recall", "precision")}
    figures |= {group: 100 * read[group]["mean"] for group in ("object", "background", "all")}
    figures |= {"excess": read["all"]["mean_excess"], "distinct words": read["distinct_words"]}
    if REAL in run["measure"]:
        figures["real sentences, all"] = 100 * run["measure"][REAL][LATENTLENS]["all"]["mean"]
    return figures | {"untrained, object": 100 * run["measure"][UNTRAINED][LATENTLENS]["object"]["mean"]}


def _rounded(value: float) -> str:
    return f"{value:.1f}" if value > 10 else f"{value:.2f}"


_STUDIES = {
    FRESH: "the model",
    REAL: "the model, index of real sentences only",
    UNTRAINED: "its connector untrained",
}


def _figure_lines(figures: Mapping[str, Any]) -> list[str]:
    """A line per figure, sorted by name."""
    return [f"- {name.replace('_', ' ')}: {_number(value)}" for name, value in sorted(figures.items())]


def _number(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    return f"{value:.4g}" if isinstance(value, float) and abs(value) < 1e4 else f"{value:,.0f}"
