"""The data that the browser was started with, opened once for all sessions."""

from __future__ import annotations

import gc
import os

import streamlit as st

from latentlens_dag.browse.browser_data import BrowserData, StudyFacts, open_browser_data, source_fingerprint
from latentlens_dag.browse.sql_worker import SqlWorker
from widgets import permalink
from widgets.labels import escape_markdown

SOURCE = "LATENTLENS_BROWSE"
"""The variable by which `latentlens-dag browse` names the source to open."""
OTHER_SOURCE = "LATENTLENS_BROWSE_WITH"
"""The variable that names another source, to compare with."""
TRUST = "LATENTLENS_BROWSE_TRUST"
"""The variable that is 1 if whoever started the browser allows the code that comes with models."""


@st.cache_resource(show_spinner="Opening …", max_entries=1)
def _open(source: str, fingerprint: str) -> BrowserData:
    gc.collect()  # data that nobody uses any more holds hundreds of megabytes
    return open_browser_data(source)


@st.cache_resource(show_spinner="Opening …", max_entries=1)
def _open_other(source: str, fingerprint: str) -> BrowserData:
    gc.collect()
    return open_browser_data(source)


_fingerprint = st.cache_data(show_spinner=False, ttl=2)(source_fingerprint)


@st.cache_resource(show_spinner=False)
def sql_worker() -> SqlWorker:
    """The process that runs people's SQL, for all sessions."""
    return SqlWorker()


def browser_data() -> BrowserData:
    """The data of the source; opened anew when a build has changed its files."""
    source = os.environ.get(SOURCE) or ".latentlens"
    return _open(source, _fingerprint(source))


def other_browser_data() -> BrowserData | None:
    """The data to compare with; None if the browser was started without any."""
    source = os.environ.get(OTHER_SOURCE)
    return _open_other(source, _fingerprint(source)) if source else None


def may_run_code() -> bool:
    """Whether the code that comes with a study's model may be run."""
    return os.environ.get(TRUST) == "1"


def choose_study(data: BrowserData) -> StudyFacts:
    """The study that the address names, else the first one; asks if there are several.

    Ends the page with a message if it has no answers.
    """
    studies = data.studies()
    if not studies:
        st.info(
            f"Nothing to see in {data.source} yet: no study has tokens or answers. "
            "Build one with `latentlens-dag build`, and reload this page."
        )
        st.stop()
    name = next(iter(studies))
    if (wanted := permalink.get("study")) and wanted not in studies:
        st.warning(escape_markdown(f"There is no study {wanted!r} here; this is {name!r}."))
    if len(studies) > 1:
        name = permalink.choice("Study", "study", list(studies), name, dropdown=True, width=260)
    if not studies[name].answers:
        hint = f"Study {name!r} has no answers yet. Reload this page when its build has finished its first lens."
        st.info(escape_markdown(hint))
        st.stop()
    return studies[name]
