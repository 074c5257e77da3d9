"""The agreement of judges: a table of all pairs, and the verdicts of two of them against each other."""

from __future__ import annotations

import polars as pl
import streamlit as st

from latentlens_dag.study.agreement import Agreement, agreements
from latentlens_dag.study.interpretability import ALL
from widgets import permalink
from widgets.charts import count_table
from widgets.downloads import download_buttons
from widgets.labels import counted, lens_name

COUNTS = ("four verdicts", "interpretable or none")


def agreement_view(ratings: pl.DataFrame) -> None:
    """The agreement of several judges, from their ratings."""
    how = permalink.choice("Compare by", "compare", COUNTS, COUNTS[0])
    found = agreements(ratings, two_categories=how == COUNTS[1])
    pairs = list(dict.fromkeys(f"{one.first} – {one.second}" for one in found))
    if not pairs:
        st.info("No item has two judges yet. Give others the address of this page: they get the same sample.")
        return
    table = agreement_table(found)
    st.markdown(
        "**Each pair of judges**: Cohen's κ with its 95 % interval (bootstrap over images; unreliable for few images)"
    )
    st.dataframe(table.filter(pl.col("lens") == ALL).drop("lens"), hide_index=True, column_config=_FORMATS)
    pair = permalink.choice("Judges", "pair", pairs, pairs[0], dropdown=True, width=300) if len(pairs) > 1 else pairs[0]
    chosen = [one for one in found if f"{one.first} – {one.second}" == pair]
    left, right = st.columns([1, 1], gap="medium")
    with left:
        st.markdown("**Who said what**")
        count_table(chosen[0].table, chosen[0].categories, chosen[0].second, chosen[0].first)
    with right:
        st.markdown("**Lens by lens**")
        named = pl.col("lens").map_elements(lens_name, return_dtype=pl.String)
        by_lens = agreement_table(chosen[1:]).drop("one", "other").with_columns(named)
        st.dataframe(by_lens, hide_index=True, column_config=_FORMATS)
    download_buttons(table, "agreement", "Agreement")


def agreement_table(found: list[Agreement]) -> pl.DataFrame:
    """The pairs as a table; percentages in 0..100."""
    rows = [
        {
            "one": one.first,
            "other": one.second,
            "lens": one.lens,
            "common": one.common,
            "images": one.images,
            "percent": 100 * one.agreement,
            "kappa": one.kappa,
            "low": one.interval.low,
            "high": one.interval.high,
        }
        for one in found
    ]
    kinds = {"kappa": pl.Float64, "low": pl.Float64, "high": pl.Float64}
    return pl.DataFrame(rows, schema_overrides=kinds)


def summary(ratings: pl.DataFrame, left_out: int, unreadable: int) -> None:
    """The number of judgements, and of those that do not count."""
    people = ratings.filter(~pl.col("rater").str.ends_with(" (machine)"))
    st.markdown(
        f"{counted(people['rater'].n_unique(), 'person', 'people')} gave {counted(len(people), 'judgement')} "
        "of this study's answers."
    )
    if left_out:
        st.caption(f"{counted(left_out, 'judgement')} of answers that a build has replaced are left out.")
    if unreadable:
        st.caption(f"{counted(unreadable, 'line')} in the files of judgements cannot be read.")


_FORMATS = {
    "common": st.column_config.NumberColumn("items of both"),
    "percent": st.column_config.NumberColumn("agreement", format="%.1f %%"),
    "kappa": st.column_config.NumberColumn("κ", format="%.2f"),
    "low": st.column_config.NumberColumn("95 % from", format="%.2f"),
    "high": st.column_config.NumberColumn("to", format="%.2f"),
}
