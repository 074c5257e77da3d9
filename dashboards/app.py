"""The browser: its pages, and what they have in common. Started by `latentlens-dag browse`.

Streamlit puts this folder first on the path, so pages import `widgets`. Pages only query and draw.
"""

from __future__ import annotations

from pathlib import Path

import streamlit as st
from widgets.errors import show_user_errors

HERE = Path(__file__).parent
PAGES = ("Explore", "Words", "Layers", "Compare", "Ask", "Judge", "Connectors", "SQL", "About")

st.set_page_config("LatentLens", page_icon=str(HERE / "widgets" / "favicon.svg"), layout="wide")
st.html(HERE / "widgets" / "style.css")
page = st.navigation(
    [
        st.Page(HERE / "app_pages" / f"{name.lower()}.py", title=name, url_path=name.lower(), default=name == "Explore")
        for name in PAGES
    ],
    position="top",
)
with show_user_errors():
    page.run()
