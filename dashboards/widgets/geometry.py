"""The geometry of a study's states on the page Layers: text tokens beside visual tokens."""

from __future__ import annotations

from typing import Any

import polars as pl
import streamlit as st

from latentlens_dag.browse.browser_data import BrowserData, StudyFacts
from latentlens_dag.browse.geometry import DIRECTIONS, SOURCES, directions
from widgets.charts import SOURCE_COLORS, Clicks
from widgets.curves import lines
from widgets.examples import current_point, pick

NO_STATISTICS = (
    "There are no {} here: an older version made this, or it is not built yet. In a home that has the states, "
    "`latentlens-dag build` computes them."
)
_FIGURES = ["source", "layer", "states", "norm_median", "norm_p99", "norm_max", "sinks", "directions", *DIRECTIONS[:4]]
_OF_HUBS = ["hub_word", "hub_share", "first_answers", "hub_tokens"]


def statistics_of(data: BrowserData, study: StudyFacts) -> pl.DataFrame:
    """STATE_STATISTICS of a study, with the columns that its maker knew; empty where there are none."""
    dataset = data.dataset(study.name)
    sql = "FROM state_statistics WHERE study = $study ORDER BY source, layer"
    return dataset.collect(sql, study=study.name) if "state_statistics" in dataset.tables else pl.DataFrame()


def layer_clicks(key: str) -> Clicks:
    """Clicks on points of layers: those of visual tokens have examples."""

    def picked(point: dict[str, Any]) -> None:
        of_tokens = point.get("source", SOURCES["visual"]) == SOURCES["visual"]
        pick(layer=point["layer"] if of_tokens else None)  # the index's text has no pictures

    point = current_point()
    return Clicks(key, picked, {"layer": point["layer"]} if point.keys() == {"layer"} else None)


def directions_view(data: BrowserData, study: StudyFacts) -> str | None:
    """How the directions of the states are spread, and how much a few states or rows stand out."""
    found = statistics_of(data, study)
    shown = directions(found) if len(found) else found
    if shown.is_empty():
        st.info(NO_STATISTICS.format("figures of directions"))
        return None
    st.caption(
        "Cosines compare directions, so these charts say how much a cosine can tell apart. All but the one of "
        "the sinks leave sinks out. Text tokens are a sample of the index."
    )
    left, right = st.columns(2, gap="medium")
    with left:
        _anisotropy(shown)
        _sinks(shown)
    with right:
        _top_dimensions(shown)
        _hubs(shown)
    with st.expander("Figures"):
        st.dataframe(shown.select(*_FIGURES, "top_dimension", *_OF_HUBS), hide_index=True)
    return "all"


def _curve(shown: pl.DataFrame, name: str, title: str, number_format: str, **more: Any) -> None:
    lines(
        shown.drop_nulls(name),
        "layer",
        name,
        "source",
        x_title="Layer",
        y_title=title,
        number_format=number_format,
        colors=SOURCE_COLORS,
        clicks=layer_clicks(name),
        **more,
    )


def _anisotropy(shown: pl.DataFrame) -> None:
    st.markdown("**Anisotropy**: mean cosine of two states of different images (or texts, or sentences)")
    _curve(shown, "anisotropy", "Mean cosine", ".2f", notes={"directions": "States"})
    st.caption(
        "At 0, states have no direction in common. The cosine of an answer means something where it is well above this."
    )


def _top_dimensions(shown: pl.DataFrame) -> None:
    st.markdown(
        "**Top dimensions**: share of the squared length in the largest (line) and in the ten largest (end of the band)"
    )
    rounded = [pl.col(name).map_elements("{:.1%}".format, pl.String).alias(f"{name}_text") for name in DIRECTIONS[1:4]]
    notes = {"top_dimension": "Dimension", "top_10_share_text": "Ten largest", "even_share_text": "If all were equal"}
    band = ("top_dimension_share", "top_10_share")
    _curve(shown.with_columns(rounded), "top_dimension_share", "Share of squared length", ".0%", band=band, notes=notes)
    st.caption("A dimension that holds much of every state makes all cosines alike, whatever the states mean.")


def _sinks(shown: pl.DataFrame) -> None:
    st.markdown("**Sinks**: share of the states with an outlying norm and one common direction")
    notes = {"sinks": "Sinks", "states": "States", "norm_max": "Largest norm"}
    if shown["sinks"].sum():
        _curve(shown, "sink_share", "Share of states", ".1%", notes=notes)
    else:
        st.info("There are none, neither among the visual tokens nor in the text of the index.")
    st.caption("Attention goes to them, but they say nothing about the image: they are left out of all other shares.")


def _hubs(shown: pl.DataFrame) -> None:
    st.markdown("**Hubs**: share of the tokens whose first LatentLens answer is the most frequent one")
    notes = {
        "hub_word": "Word",
        "hub_layer": "From layer",
        "first_answers": "Different answers",
        "hub_tokens": "Tokens",
    }
    if shown["hub_share"].count():
        _curve(shown, "hub_share", "Share of tokens", ".1%", notes=notes)
    else:
        st.info("This study has no answers of LatentLens.")
    st.caption(
        "One row of the index that answers many tokens says more about the index than about the tokens. Text tokens, "
        "searched without their own sentence, show what is usual. Of few tokens, a single one is a large share."
    )
