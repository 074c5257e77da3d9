"""How many different words the answers of a token are, lens by lens and layer by layer."""

from __future__ import annotations

from typing import Any

import polars as pl
import streamlit as st

from latentlens_dag.browse.browser_data import BrowserData, StudyFacts
from widgets.charts import Clicks
from widgets.curves import lines
from widgets.examples import current_point, pick
from widgets.labels import lens_name, shared_note


def distinct_words(data: BrowserData, study: StudyFacts) -> str | None:
    """The curves of all lenses, with their intervals."""
    found = data.dataset(study.name).collect(
        "FROM diversity WHERE study = $study ORDER BY visual_layer", study=study.name
    )
    if found.is_empty():
        st.info("The different words of this study were not counted. In a home, `latentlens-dag build` counts them.")
        return None
    known = {"low", "high"} <= set(found.columns)  # else an older version counted them
    st.markdown(
        f"**Different words among a token's answers**, mean{', with 95 % intervals over images' if known else ''}"
    )
    st.caption(
        "An answer counts as a different word unless it matches a nearer one, whatever the case and inflection. More "
        f"different words are more chances to be right. {shared_note(study.lenses)}"
    )
    by_name = {lens_name(lens): lens for lens in study.lenses}

    def picked(point: dict[str, Any]) -> None:
        pick(lens=by_name.get(point["lens"]), layer=point["visual_layer"])

    point, chosen = current_point(), None
    if point.keys() == {"lens", "layer"}:
        chosen = {"visual_layer": point["layer"], "lens": lens_name(point["lens"])}
    lines(
        found.with_columns(pl.col("lens").map_elements(lens_name, return_dtype=pl.String)),
        "visual_layer",
        "distinct_words",
        "lens",
        y_title="Different words per token",
        band=("low", "high") if known else None,
        number_format=".2f",
        clicks=Clicks("distinct-words", picked, chosen),
    )
    return "all"
