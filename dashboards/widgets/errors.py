"""What goes wrong with the data, told in one message instead of a trace."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import streamlit as st

from latentlens_dag.errors import UserError
from widgets.labels import plain


@contextmanager
def told() -> Iterator[None]:
    """Show a UserError; around a page, and as `@told()` of every fragment, which runs again without its page."""
    try:
        yield
    except UserError as error:
        st.error(plain(str(error)))
        st.caption("If files were moved or a build is running, reload this page when it is done.")
