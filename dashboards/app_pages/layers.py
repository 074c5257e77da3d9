"""Layers: how much is interpretable at which visual layer, and from which contextual layers the answers come."""

from __future__ import annotations

from typing import Any

import polars as pl
import streamlit as st
from parts import address
from parts.charts import heat_map, lines
from parts.names import lens_name
from parts.opened import chosen_study, library

from latentlens_dag.browsing import Library, StudyFacts

GROUPS = ("all", "object", "background")
MEASURES = ("interpretable", "concrete")


def layers_page(data: Library, study: StudyFacts) -> None:
    """Draw the summaries of a study."""
    dataset = data.dataset(study.name)
    shares = dataset.collect("FROM interpretability WHERE study = $study ORDER BY lens, visual_layer", study=study.name)
    if shares.is_empty():
        st.info("This study has no judgements, so nothing says how much of it is interpretable.")
    else:
        with st.container(horizontal=True, vertical_alignment="bottom"):
            group = address.choice("Patches", "group", GROUPS, "all")
            measure = address.choice("Measure", "measure", MEASURES, "interpretable")
        curves(shares.filter(pl.col("patch_group") == group), measure)
    alignment = dataset.collect("FROM layer_alignment WHERE study = $study", study=study.name)
    if not alignment.is_empty():
        st.markdown(
            "**Where LatentLens's answers come from**: share of each visual layer's answers; a row sums to 100 %"
        )
        shown = alignment.select("visual_layer", "contextual_layer", "share")
        names = {"x_title": "Contextual layer", "y_title": "Visual layer", "title": "Share of answers"}
        heat_map(shown, "contextual_layer", "visual_layer", "share", **names)


def curves(shares: pl.DataFrame, measure: str) -> None:
    """The curves of all lenses, with their intervals and chance."""
    ends = {
        "interpretable": ("low", "high", "chance"),
        "concrete": ("concrete_low", "concrete_high", "concrete_chance"),
    }
    low, high, chance = ends[measure]
    shown = shares.select(
        "visual_layer",
        pl.col(measure).alias("share"),
        pl.col(low).alias("low"),
        pl.col(high).alias("high"),
        pl.col(chance).alias("chance"),
        pl.col("lens").map_elements(lens_name, return_dtype=pl.String),
    )
    st.markdown(f"**Share of visual tokens that are {measure}**, with 95 % intervals over images; dashed: chance")
    more: dict[str, Any] = {"band": ("low", "high"), "chance": "chance", "format": ".0%"}
    lines(shown, "visual_layer", "share", "lens", x_title="Visual layer", y_title="Visual tokens", **more)


data = library()
study = chosen_study(data)
if study is not None:
    layers_page(data, study)
