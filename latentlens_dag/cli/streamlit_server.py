"""The process that serves the pages: Streamlit, with what the pages need loaded before anybody looks.

Started as `python -m latentlens_dag.cli.streamlit_server run APP ...`. Streamlit loads an app's modules when the first
person comes, who would wait for duckdb, pyarrow and polars (0.4 s). What a newcomer gets wrong: they are not loaded in
a thread beside Streamlit's own start, since two threads that import the same modules may meet one that is half loaded.
"""

from __future__ import annotations

import runpy
from importlib import import_module

_NEEDED = ("polars", "latentlens_dag.browse.browser_data", "latentlens_dag.inputs.images")


def main() -> None:
    """Load them, and be `streamlit` from then on, with the same arguments."""
    for name in _NEEDED:
        import_module(name)
    runpy.run_module("streamlit", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
