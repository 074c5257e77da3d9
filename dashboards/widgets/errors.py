"""User errors on a page: one message instead of a traceback."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import streamlit as st

from latentlens_dag.errors import UserError
from widgets.labels import escape_markdown


@contextmanager
def show_user_errors() -> Iterator[None]:
    """Show a UserError; around a page, and as a decorator of every fragment, which reruns without its page."""
    try:
        yield
    except UserError as error:
        st.error(escape_markdown(str(error)))
        st.caption("If files were moved or a build is running, reload this page when it is done.")
