"""The library that the browser was started with, opened once for all sessions."""

from __future__ import annotations

import gc
import os

import streamlit as st

from latentlens_dag.browse.browser_data import BrowserData, StudyFacts, open_browser_data, source_fingerprint
from latentlens_dag.browse.sql_worker import SqlWorker
from widgets.labels import plain
from widgets.permalink import choice, here

SOURCE = "LATENTLENS_BROWSE"
"""The variable by which `latentlens-dag browse` says what to open."""
OTHER = "LATENTLENS_BROWSE_WITH"
"""The variable that names another source, to compare with."""
TRUST = "LATENTLENS_BROWSE_TRUST"
"""The variable that is 1 where whoever started the browser allows the code that comes with models."""


@st.cache_resource(show_spinner="Opening …", max_entries=1)
def _opened(source: str, made: str) -> BrowserData:
    gc.collect()  # a library that nobody has any more holds hundreds of megabytes
    return open_browser_data(source)


@st.cache_resource(show_spinner="Opening …", max_entries=1)
def _other_opened(source: str, made: str) -> BrowserData:
    gc.collect()
    return open_browser_data(source)


@st.cache_data(show_spinner=False, ttl=2)
def _stamp_of(source: str) -> str:
    return source_fingerprint(source)


@st.cache_resource(show_spinner=False)
def confined() -> SqlWorker:
    """What runs the SQL of people, for all sessions."""
    return SqlWorker()


def library() -> BrowserData:
    """The library; opened anew when a build has changed its files."""
    source = os.environ.get(SOURCE) or ".latentlens"
    return _opened(source, _stamp_of(source))


def may_run_code() -> bool:
    """Whether the code that comes with a study's model may be run."""
    return os.environ.get(TRUST) == "1"


def other_library() -> BrowserData | None:
    """The library to compare with; None where the browser was started without one."""
    source = os.environ.get(OTHER)
    return _other_opened(source, _stamp_of(source)) if source else None


def chosen_study(data: BrowserData) -> StudyFacts | None:
    """The study that the address names, else the first; asks where there are several.

    None where there is none with answers, which is told.
    """
    facts = data.facts()
    if not facts:
        st.info(
            f"Nothing to see in {data.source} yet: no study has tokens or answers. "
            "Build one with `latentlens-dag build`, and reload this page."
        )
        return None
    if (wanted := here("study")) and wanted not in facts:
        st.warning(plain(f"There is no study {wanted!r} here; this is {next(iter(facts))!r}."))
    name = next(iter(facts))
    if len(facts) > 1:
        name = choice("Study", "study", list(facts), name, wide=True, width=260)
    if facts[name].answers:
        return facts[name]
    st.info(plain(f"Study {name!r} has no answers yet. Reload this page when its build has come to its first lens."))
    return None
