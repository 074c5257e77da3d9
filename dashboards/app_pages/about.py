"""About: what this dataset is, how it was made, how to cite and to load it."""

from __future__ import annotations

import streamlit as st
from parts.names import lens_name
from parts.opened import library

from latentlens_dag import __version__
from latentlens_dag.browsing import Library, provenance
from latentlens_dag.release_card import CITATION

LOAD = """from latentlens_dag import open_dataset

data = open_dataset({source!r})
data.sql("FROM neighbors WHERE word = 'dog'").pl()
data.scan("neighbors")                                   # a Polars LazyFrame"""
TABLES = """SELECT table_name AS table, string_agg(column_name, ', ' ORDER BY column_index) AS columns
FROM duckdb_columns() WHERE NOT internal AND database_name = 'memory' GROUP BY table_name ORDER BY table_name"""


def about_page(data: Library) -> None:
    """Everything in one column."""
    st.header("What is here")
    facts = data.facts().values()
    rows = [
        {
            "study": one.name,
            "images": one.images or one.texts,
            "tokens": one.visual_tokens,
            "answers": one.answers,
            "visual layers": ", ".join(map(str, one.visual_layers)),
            "lenses": ", ".join(map(lens_name, one.lenses)),
            "read from": "catalog" if one.name in data.catalogs else "Parquet",
        }
        for one in facts
    ]
    st.dataframe(rows, hide_index=True)
    st.header("How it was made")
    for study in data.facts():
        made = provenance(data.source, study)
        if made.is_empty():
            st.caption("This source carries no record of how it was made.")
        else:
            st.dataframe(made, hide_index=True, height=260)
    st.header("How to load it")
    st.code(LOAD.format(source=data.source), language="python")
    st.header("Its tables")
    st.dataframe(data.whole.collect(TABLES), hide_index=True)
    st.header("How to cite it")
    st.markdown(CITATION)
    st.caption(f"latentlens-dag {__version__}, Apache-2.0. Pictures and texts keep the licences of their sources.")


about_page(library())
