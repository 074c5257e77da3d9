"""About: the dataset, its terms, how it was made, how to load and to cite it."""

from __future__ import annotations

import streamlit as st
from widgets.labels import lens_name
from widgets.sources import browser_data
from widgets.token_html import facts_html

import latentlens_dag
from latentlens_dag.browse.browser_data import BrowserData
from latentlens_dag.dataset.provenance import LicenseTerms, license_terms, provenance, study_declaration, summary_rows
from latentlens_dag.publish.card import citation
from latentlens_dag.publish.snippets import snippets_of, table_snippets

LOAD = """from latentlens_dag import open_dataset

data = open_dataset({source!r})
data.sql("FROM neighbors WHERE word = 'dog'").pl()
data.scan("neighbors")                                   # a Polars LazyFrame"""
SNIPPETS = {"latentlens_dag": "LatentLens DAG", "datasets": "datasets", "streaming": "datasets, streaming"}
SNIPPETS |= {"polars": "Polars", "duckdb": "DuckDB", "pandas": "pandas"}
TABLES = """SELECT table_name AS table, column_name AS column, data_type AS type
FROM duckdb_columns() WHERE NOT internal AND database_name = 'memory' ORDER BY table_name, column_index"""


def about_page(data: BrowserData) -> None:
    """Everything in one column."""
    terms = license_terms(data.source, data.full_dataset)
    st.header("What is here")
    what_is_here(data)
    st.header("License")
    for one in terms:
        st.html(facts_html(terms_lines(one)))
    if not terms:
        st.caption(
            "No release of this was built here, so no terms are set; pictures and texts keep those of their sources."
        )
    st.header("Where it comes from")
    for study in data.studies():
        origin(data, study)
    st.header("How to load it")
    how_to_load(data, terms)
    st.header("Tables")
    st.dataframe(data.full_dataset.collect(TABLES), hide_index=True)
    st.header("How to cite it")
    st.markdown(citation())
    st.caption(f"Shown by latentlens-dag {latentlens_dag.__version__}, Apache-2.0.")


def what_is_here(data: BrowserData) -> None:
    """A row for each study."""
    rows = [
        {
            "study": one.name,
            "images or texts": one.images or one.texts,
            "tokens": one.visual_tokens,
            "answers": one.answers,
            "visual layers": ", ".join(map(str, one.visual_layers)),
            "lenses": ", ".join(map(lens_name, one.lenses)),
            "read from": data.read_from(one.name),
        }
        for one in data.studies().values()
    ]
    st.dataframe(rows, hide_index=True)


def terms_lines(terms: LicenseTerms) -> list[tuple[str, str]]:
    """The terms of a release as pairs of a name and a text."""
    unknown = "not stated here; see the card of the release"
    lines = [
        ("Release", f"{terms.release}{f', made by latentlens-dag {terms.package}' if terms.package else ''}"),
        ("Repository", f"{terms.repo}{f' at commit {terms.commit}' if terms.commit else ''}" if terms.repo else ""),
        ("Tables", terms.tables or unknown),
        ("Pictures", terms.pictures or unknown),
        ("Sentences and texts", terms.texts or unknown),
    ]
    return [line for line in lines if line[1]]


def origin(data: BrowserData, study: str) -> None:
    """The declaration of a study, and how each of its steps was made."""
    facts = summary_rows(study_declaration(data.source, data.dataset(study), study))
    steps = provenance(data.source, study)
    if facts:
        st.html(facts_html([("Study", study), *facts]))
    if not steps.is_empty():
        with st.expander(f"Every step of {study}: when, with which settings and packages"):
            st.dataframe(steps, hide_index=True, height=260)
    if not facts and steps.is_empty():
        st.caption("This source carries no record of how it was made.")


def how_to_load(data: BrowserData, terms: list[LicenseTerms]) -> None:
    """Code that loads a release by its name, in several libraries, or anything else by its path."""
    if data.full_dataset.release is None or not terms or not terms[0].repo:
        st.code(LOAD.format(source=data.source), language="python")
        return
    st.code(f"latentlens-dag pull {data.source}", language="bash")
    code = snippets_of("\n".join(table_snippets(terms[0].repo, set(data.full_dataset.release.tables))))
    known = [name for name in SNIPPETS if name in code]
    for tab, name in zip(st.tabs([SNIPPETS[name] for name in known]), known, strict=True):
        own = LOAD.format(source=data.source) if name == "latentlens_dag" else code[name]
        tab.code(own, language="python")


about_page(browser_data())
