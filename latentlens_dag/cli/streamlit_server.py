"""The process that serves the pages: Streamlit, with the pages' imports done before the first visit.

Started as `python -m latentlens_dag.cli.streamlit_server run APP ...`. Streamlit imports an app's modules at the first
visit, which would wait for duckdb, pyarrow and polars (0.4 s). Note: they are not imported in a thread beside
Streamlit's own start, since two threads that import the same module may see it half loaded.
"""

from __future__ import annotations

import runpy
from importlib import import_module

_PRELOADED = ("polars", "latentlens_dag.browse.browser_data", "latentlens_dag.inputs.images")


def main() -> None:
    """Import the modules, then run `streamlit` with the same arguments."""
    for name in _PRELOADED:
        import_module(name)
    runpy.run_module("streamlit", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
