"""The model's card, written from figures: the stages' own, those of fresh scenes, and those of the built study.

Every number in the card comes from a file that a stage or a build wrote, so the card cannot say what was
not measured. What a newcomer gets wrong: the study's figures are of the shipped scenes, which no stage has
seen but which were chosen; those of fresh scenes and of captions are of other scenes, which were not.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from latentlens_dag.demo.measure import FRESH, REAL, UNTRAINED
from latentlens_dag.demo.world import World
from latentlens_dag.schema import LATENTLENS, LENSES
from latentlens_dag.warehouse import Warehouse

STUDY = "demo"
TEMPLATE = Path(__file__).with_name("card.md")


def write_card(world: World, stages: Mapping[str, Mapping[str, Any]], warehouse: Warehouse, out: Path) -> None:
    """Write the card.

    Args:
        world: the demo's world.
        stages: the figures of `language`, `vision`, `connector` and `measure` (their DONE.json).
        warehouse: where the study `demo` is built.
        out: the README.md to write.
    """
    rows = pq.read_table(warehouse.summary(STUDY, "interpretability")).to_pylist()
    text = TEMPLATE.read_text(encoding="utf-8").format(
        objects=len(world.objects),
        backgrounds=len(world.backgrounds),
        table=shares_table(rows),
        scenes=stages["measure"]["scenes"],
        fresh=fresh_table(stages["measure"]),
        diversity=f"{stages['measure'][FRESH][LATENTLENS]['distinct_words']:.2f}",
        gates="\n".join(_gate_rows(stages)),
        **{stage: "\n".join(_facts(stages[stage])) for stage in ("language", "vision", "connector")},
    )
    out.write_text(text, encoding="utf-8")


def _gate_rows(stages: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Markdown: what every gate asks for, what was reached, and whether that is enough."""
    from latentlens_dag.demo import assemble, vision
    from latentlens_dag.demo.stages import LANGUAGE_GATES

    gates = {"language": LANGUAGE_GATES, "vision": vision.GATES, "connector": assemble.GATES}
    rows = ["| stage | figure | asked for | reached | |", "|---|---|---|---|---|"]
    for stage, asked in gates.items():
        for gate in asked:
            value = stages[stage][gate.figure]
            name, verdict = gate.figure.replace("_", " "), "passed" if value >= gate.least else "**missed**"
            rows.append(f"| {stage} | {name} | {gate.least} | {value:.3f} | {verdict} |")
    return rows


def shares_table(rows: list[dict[str, Any]]) -> str:
    """Markdown: % of visual tokens with a concrete word, per lens, group and layer, chance in brackets."""
    layers = sorted({row["visual_layer"] for row in rows})
    lines = ["| lens | patches | " + " | ".join(map(str, layers)) + " |", "|---" * (len(layers) + 2) + "|"]
    by_key = {(row["lens"], row["patch_group"], row["visual_layer"]): row for row in rows}
    for lens in LENSES:
        for group in ("all", "object", "background"):
            cells = [_cell(by_key[lens, group, layer]) for layer in layers]
            lines.append(f"| {lens} | {group} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def fresh_table(figures: Mapping[str, Any]) -> str:
    """Markdown: the means over layers 1 and up of every study, lens and patch group that `measure` gave."""
    lines = ["| | lens | patches | concrete | chance | excess |", "|---|---|---|---|---|---|"]
    for study, text in _STUDIES.items():
        lenses = figures.get(study, {})
        for lens in [lens for lens in LENSES if lens in lenses and (study == FRESH or lens == LATENTLENS)]:
            for group in ("all", "object", "background"):
                found = lenses[lens][group]
                cells = [f"{100 * found[name]:.1f}" for name in ("mean", "mean_chance", "mean_excess")]
                lines.append(f"| {text} | {lens} | {group} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


_STUDIES = {
    FRESH: "the model",
    REAL: "the model, index of real sentences only",
    UNTRAINED: "its connector untrained",
}


def _cell(row: Mapping[str, Any]) -> str:
    return f"{100 * row['concrete']:.0f} ({100 * row['concrete_chance']:.0f})"


def _facts(figures: Mapping[str, Any]) -> list[str]:
    """A line per figure, in order of name; nested ones as they are."""
    return [f"- {name.replace('_', ' ')}: {_number(value)}" for name, value in sorted(figures.items())]


def _number(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    return f"{value:.4g}" if isinstance(value, float) and abs(value) < 1e4 else f"{value:,.0f}"
