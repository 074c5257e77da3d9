"""How much is interpretable from smaller indexes: a chart per visual layer, over the number of vectors."""

from __future__ import annotations

import polars as pl
import streamlit as st

from latentlens_dag.browse.browser_data import BrowserData, StudyFacts
from latentlens_dag.schema import LATENTLENS
from latentlens_dag.study.interpretability import MEASURES
from widgets import permalink
from widgets.charts import lines
from widgets.labels import lens_name

GROUPS = ("all", "object", "background")
_FIGURES = ["fraction", "occurrences", "sentences", "token_ids", "visual_layer", "share", "low", "high"]
_FIGURES += ["chance", "chance_low", "chance_high", "excess", "excess_low", "excess_high", "tokens", "images"]


def corpus_ablation(data: BrowserData, study: StudyFacts) -> str | None:
    """The curves of LatentLens over the size of the index. Returns the group of patches shown."""
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
        k = permalink.choice(
            "Judged by", "k", ks, ks[0], format_func=lambda n: f"{n} answers" if n > 1 else "the nearest answer"
        )
    shown = found.filter(pl.col("patch_group") == group, pl.col("measure") == measure, pl.col("k") == k)
    _curves(shown, measure)
    return group


def _curves(shown: pl.DataFrame, measure: str) -> None:
    st.markdown(
        f"**Share of visual tokens that are {measure} by LatentLens, by the size of its index**, with 95 % intervals "
        "over images; dashed: chance"
    )
    st.caption(
        "Each point is a part of the index: the occurrences of a fraction of its sentences. Smaller parts lie in "
        "larger ones. Chance: the same answers against patches of the same group in other images."
    )
    lines(
        shown.with_columns(
            lens=pl.lit(lens_name(LATENTLENS)),
            layer=pl.format("Visual layer {}", "visual_layer"),
            part=pl.col("fraction").map_elements(lambda part: f"{100 * part:g} %", pl.String),
        ),
        "occurrences",
        "share",
        "lens",
        x_title="Vectors per layer",
        y_title="Visual tokens",
        facet="layer",
        band=("low", "high"),
        chance="chance",
        chance_band=("chance_low", "chance_high"),
        number_format=".0%",
        log_x=True,
        notes={"part": "Part of the sentences", "sentences": "Sentences", "images": "Images", "tokens": "Patches"},
    )
    with st.expander("Figures"):
        st.dataframe(shown.select(_FIGURES), hide_index=True)
