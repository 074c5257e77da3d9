"""Tables as files to download."""

from __future__ import annotations

import io

import polars as pl
import streamlit as st


def download_buttons(found: pl.DataFrame, name: str, label: str = "") -> None:
    """Two buttons to download the table as NAME.csv and NAME.parquet; a click makes the file."""
    said = f"{label}: " if label else ""
    with st.container(horizontal=True):
        st.download_button(
            f"{said}CSV",
            lambda: _flat(found).write_csv().encode(),
            f"{name}.csv",
            "text/csv",
            key=f"csv-{name}",
            on_click="ignore",
        )
        st.download_button(
            f"{said}Parquet", lambda: _parquet(found), f"{name}.parquet", key=f"parquet-{name}", on_click="ignore"
        )


def _flat(found: pl.DataFrame) -> pl.DataFrame:
    """CSV has neither lists, which become text, nor bytes, which are left out."""
    plain = found.select(column for column in found.columns if found[column].dtype != pl.Binary)
    nested = [name for name, kind in plain.schema.items() if kind.is_nested()]
    return plain.with_columns(pl.Series(name, [str(value) for value in plain[name].to_list()]) for name in nested)


def _parquet(found: pl.DataFrame) -> bytes:
    file = io.BytesIO()
    found.write_parquet(file)
    return file.getvalue()
