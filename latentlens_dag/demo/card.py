"""The model's card, written from figures: the three stages' own, and those of the built study.

Every number in the card comes from a file that a stage or a build wrote, so the card cannot say what was
not measured. What a newcomer gets wrong: the study's figures are of the 48 shipped scenes, which no stage
has seen; the captions' are of other held-out scenes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from latentlens_dag.schema import LATENTLENS, LENSES
from latentlens_dag.warehouse import Warehouse

STUDY, INDEX, IMAGES = "demo", "demo_index", "demo_scenes"
TEMPLATE = Path(__file__).with_name("card.md")


def write_card(
    stages: Mapping[str, Mapping[str, Any]], warehouse: Warehouse, untrained: Path, scenes: Path, out: Path
) -> None:
    """Write the card.

    Args:
        stages: the figures of `language`, `vision` and `connector` (their DONE.json).
        warehouse: where the study `demo` is built.
        untrained: folder of the same model with an untrained connector.
        scenes: folder of the shipped scenes.
        out: the README.md to write.
    """
    rows = pq.read_table(warehouse.summary(STUDY, "interpretability")).to_pylist()
    control = untrained_shares(warehouse, untrained, scenes)
    text = TEMPLATE.read_text(encoding="utf-8").format(
        table=shares_table(rows),
        control="\n".join(f"| {group} | {100 * share:.1f} |" for group, share in control.items()),
        diversity=_diversity(warehouse),
        gates="\n".join(_gate_rows(stages)),
        **{stage: "\n".join(_facts(figures)) for stage, figures in stages.items()},
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


def untrained_shares(warehouse: Warehouse, model: Path, scenes: Path) -> dict[str, float]:
    """The share of visual tokens with a concrete word, by group, for another model of the same language model.

    Mean over the study's visual layers from 1 on, LatentLens through the study's own index.
    """
    from latentlens_dag.images import files_of_table, read_images
    from latentlens_dag.judges import build_truth, judge_regions
    from latentlens_dag.models import load_vlm
    from latentlens_dag.studies import IndexFiles, latent_answers, visual_token_table
    from latentlens_dag.tables import States

    index_folder = warehouse.selection(INDEX).parent
    tables = {int(path.stem[-2:]): path for path in sorted(index_folder.glob("layer_*.lance"))}
    index = IndexFiles(tables, sorted((index_folder / "occurrences").glob("*.parquet")))
    pictures = _all(warehouse.pictures(IMAGES, 0), "batch_*.parquet")
    images = list(read_images(files_of_table(pictures, scenes)))
    layers = sorted(tables)
    seen = load_vlm(model).visual_states([image for _, image in images], layers)
    tokens = visual_token_table(STUDY, [image_id for image_id, _ in images], seen.tokens)
    at = {
        layer: States(tokens["image_id"].to_pylist(), tokens["token_index"].to_numpy().astype(np.int32), states.numpy())
        for layer, states in seen.states.items()
    }
    answers = pa.concat_tables([table for _, table in latent_answers(STUDY, at, index, 5)])
    truth = build_truth([_all(warehouse.regions(IMAGES, 0), "regions_*.parquet")], [tokens], [pictures])
    return _concrete_by_group(judge_regions(answers, truth))


def _concrete_by_group(judgements: pa.Table) -> dict[str, float]:
    import polars as pl

    frame = pl.DataFrame(judgements.select(["patch_group", "verdict"]))
    shares = frame.group_by("patch_group").agg((pl.col("verdict") == "concrete").mean())
    return dict(shares.sort("patch_group", descending=True).iter_rows())


def _all(one: Path, pattern: str) -> pa.Table:
    return pa.concat_tables([pq.read_table(path) for path in sorted(one.parent.glob(pattern))])


def _cell(row: Mapping[str, Any]) -> str:
    return f"{100 * row['concrete']:.0f} ({100 * row['concrete_chance']:.0f})"


def _diversity(warehouse: Warehouse) -> str:
    rows = pq.read_table(warehouse.summary(STUDY, "diversity")).to_pylist()
    mine = [row["distinct_words"] for row in rows if row["lens"] == LATENTLENS and row["visual_layer"] >= 1]
    return f"{sum(mine) / len(mine):.2f}"


def _facts(figures: Mapping[str, Any]) -> list[str]:
    """A line per figure, in order of name; nested ones as they are."""
    return [f"- {name.replace('_', ' ')}: {_number(value)}" for name, value in sorted(figures.items())]


def _number(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    return f"{value:.4g}" if isinstance(value, float) and abs(value) < 1e4 else f"{value:,.0f}"
