"""How much is interpretable from smaller indexes: a chart per visual layer, over the number of vectors."""

from __future__ import annotations

from typing import Any

import polars as pl
import streamlit as st

from latentlens_dag.browse.browser_data import BrowserData, StudyFacts
from latentlens_dag.schema import LATENTLENS
from latentlens_dag.study.interpretability import MEASURES
from widgets import permalink
from widgets.charts import Clicks
from widgets.curves import lines
from widgets.examples import current_point, pick
from widgets.labels import answer_count, interval_text, lens_name

GROUPS = ("all", "object", "background")
_FIGURES = ["fraction", "occurrences", "sentences", "token_ids", "visual_layer", "share", "low", "high"]
_FIGURES += ["chance", "chance_low", "chance_high", "excess", "excess_low", "excess_high", "tokens", "images"]
_NOTES = {"interval": "95 % interval", "by_chance": "Chance (95 % interval)", "part": "Of the sentences"}
_NOTES |= {"sentences": "Sentences", "images": "Images", "tokens": "Patches"}


def corpus_ablation(data: BrowserData, study: StudyFacts) -> str | None:
    """The curves of LatentLens over the size of the index.

    Returns:
        The group of patches shown, if there are points of the whole index, whose answers can be shown.
    """
    dataset = data.dataset(study.name)
    sql = "FROM corpus_ablation WHERE study = $study ORDER BY visual_layer, fraction"
    found = dataset.collect(sql, study=study.name) if "corpus_ablation" in dataset.tables else pl.DataFrame()
    if found.is_empty():
        st.info(
            "This study has answers from its whole index only. With `corpus_ablation: [0.01, 0.1, 1.0]` in its "
            "defs.yaml, which needs a judge, it has answers from parts of the index, too. No model runs for them."
        )
        return None
    ks = found["k"].unique().sort(descending=True).to_list()
    with st.container(horizontal=True, vertical_alignment="bottom"):
        group = permalink.choice("Patches", "group", GROUPS, "all")
        measure = permalink.choice("Measure", "measure", MEASURES, MEASURES[0])
        k = permalink.choice("Judged by", "k", ks, ks[0], format_func=answer_count)
    shown = found.filter(pl.col("patch_group") == group, pl.col("measure") == measure, pl.col("k") == k)
    whole = _curves(shown, study, measure)
    return group if whole else None


def _curves(shown: pl.DataFrame, study: StudyFacts, measure: str) -> bool:
    """Draw the curves; returns whether there are points of the whole index, which can be clicked."""
    st.markdown(
        f"**Share of visual tokens that are {measure} by LatentLens, by the size of its index**, with 95 % intervals "
        "over images; dashed: chance"
    )
    whole = bool((shown["fraction"] == 1).any())
    click = " Large points, of the whole index, can be clicked; answers from its parts are counted, but not listed."
    st.caption(
        "Each point is a part of the index: the occurrences in a fraction of its sentences. Smaller parts lie in "
        "larger ones. Chance: the same answers against patches of the same group in other images."
        f"{click if whole else ''}"
    )

    def picked(point: dict[str, Any]) -> None:
        pick(lens=LATENTLENS, layer=point["visual_layer"])

    at = current_point()
    chosen = {"visual_layer": at["layer"]} if at.keys() == {"lens", "layer"} and at["lens"] == LATENTLENS else None
    lines(
        shown.with_columns(
            lens=pl.lit(lens_name(LATENTLENS)),
            part=pl.col("fraction").map_elements(lambda part: f"{100 * part:g} %", pl.String),
            interval=pl.struct("low", "high").map_elements(interval_text, pl.String),
            by_chance=pl.struct("chance", "chance_low", "chance_high").map_elements(_chance_text, pl.String),
            whole=pl.col("fraction") == 1,
        ),
        "occurrences",
        "share",
        "lens",
        x_title="Vectors per contextual layer",
        y_title="Share of visual tokens",
        facet="visual_layer",
        facet_title="Visual layer",
        band=("low", "high"),
        chance="chance",
        chance_band=("chance_low", "chance_high"),
        number_format=".0%",
        log_x=True,
        notes=_NOTES,
        clicks=Clicks("size", picked, chosen, "whole") if whole else None,
    )
    with st.expander("Figures"):
        st.dataframe(shown.select(_FIGURES), hide_index=True)
    return whole


def _chance_text(row: dict[str, float | None]) -> str:
    """2.9 %, and its interval."""
    share = "–" if row["chance"] is None else f"{100 * row['chance']:.1f} %"
    return f"{share} ({interval_text({'low': row['chance_low'], 'high': row['chance_high']})})"
