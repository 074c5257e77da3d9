"""Connectors: what was trained, the losses of the trainings, and what the lenses read after each kept step."""

from __future__ import annotations

from itertools import cycle

import polars as pl
import streamlit as st
from widgets import permalink
from widgets.charts import PALETTE
from widgets.curves import lines
from widgets.labels import interval_text, lens_name
from widgets.sources import browser_data

from latentlens_dag.browse.connectors import connectors, loss_curves, measured_layers, shares_by_step
from latentlens_dag.dataset.dataset import Dataset
from latentlens_dag.schema import LENSES
from latentlens_dag.study.interpretability import MEASURES

GROUPS = ("all", "object", "background")
_SHOWN = ["connector", "kind", "seed", "steps", "images", "language_model", "vision_encoder", "layer", "pool"]


def connectors_page(dataset: Dataset) -> None:
    """The connectors of the source, and the curves of those that are chosen."""
    found = connectors(dataset)
    if found.is_empty():
        st.info(
            "There are no connectors here. One is declared in a defs.yaml (docs/connectors.md), trained by "
            "`latentlens-dag build`, and read by studies with `vlm: {connector: NAME}`."
        )
        return
    names = found["connector"].to_list()
    chosen = permalink.multi_choice("Connectors", "connectors", names)
    colors = dict(zip(chosen, cycle(PALETTE), strict=False))
    losses(dataset, chosen, colors)
    training_steps(dataset, chosen, colors)
    st.markdown("**What they were trained with**")
    st.dataframe(found.filter(pl.col("connector").is_in(chosen)).select(_SHOWN), hide_index=True)
    with st.expander("All settings"):
        st.dataframe(found.select("connector", "settings"), hide_index=True)


def losses(dataset: Dataset, chosen: list[str], colors: dict[str, str]) -> None:
    """The loss of each training over its steps."""
    st.markdown("**Loss of the captions' tokens over the training**, in nats")
    frame = loss_curves(dataset, chosen)
    most = int(frame["steps"].max() or 1)  # type: ignore[arg-type]
    st.caption(
        "The mean over the tokens of the captions of a step."
        + (
            f" A point is the mean of up to {most} steps; the band, the lowest and the highest of them."
            if most > 1
            else ""
        )
    )
    log_scale = permalink.toggle("Logarithmic", "log")
    lines(
        frame,
        "step",
        "loss",
        "connector",
        y_title="Loss",
        x_title="Step",
        band=("low", "high") if most > 1 else None,
        number_format=".3~f",
        colors=colors,
        log_scale=log_scale,
        numeric_x=True,
        dots=False,
    )


def training_steps(dataset: Dataset, chosen: list[str], colors: dict[str, str]) -> None:
    """How much is interpretable after each step that a study reads."""
    there = measured_layers(dataset, chosen) if "study_connectors" in dataset.tables else pl.DataFrame()
    if there.is_empty():
        st.info(
            "No judged study reads a model of these connectors. Studies with `vlm: {connector: NAME, step: STEP}` and "
            "`judge: {regions: {}}` show here how much the lenses read after each step."
        )
        return
    lenses = [lens for lens in LENSES if lens in there["lens"]]
    layers = sorted(there["visual_layer"].unique())
    with st.container(horizontal=True, vertical_alignment="bottom"):
        lens = permalink.choice("Lens", "lens", lenses, lenses[0], format_func=lens_name)
        layer = permalink.choice("Visual layer", "layer", layers, layers[len(layers) // 2])
        group = permalink.choice("Patches", "group", GROUPS, "all")
        measure = permalink.choice("Measure", "measure", MEASURES, MEASURES[0])
    shares = shares_by_step(dataset, chosen, lens, layer, group, measure)
    st.markdown(
        f"**Share of visual tokens that are {measure} by {lens_name(lens)} at layer {layer}, over the training**, with "
        "95 % intervals over images; dashed: chance"
    )
    st.caption("Step 0 is the untrained connector. Each point is a study that reads the model after that step.")
    lines(
        shares.with_columns(interval=pl.struct("low", "high").map_elements(interval_text, pl.String)),
        "step",
        "share",
        "connector",
        y_title="Share of visual tokens",
        x_title="Step",
        band=("low", "high"),
        chance="chance",
        number_format=".0%",
        colors=colors,
        numeric_x=True,
        notes={"study": "Study", "interval": "95 % interval", "images": "Images", "tokens": "Patches"},
    )
    with st.expander("Figures"):
        columns = ["connector", "step", "study", "share", "low", "high", "chance", "chance_low", "chance_high"]
        st.dataframe(shares.select(*columns, "images", "tokens"), hide_index=True)


connectors_page(browser_data().full_dataset)
