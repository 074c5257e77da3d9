"""Tables as files to download."""

from __future__ import annotations

import io
from functools import partial

import polars as pl
import streamlit as st


def download_buttons(found: pl.DataFrame, name: str, label: str = "") -> None:
    """Two buttons to download the table as NAME.csv and NAME.parquet; a click makes the file."""
    said = f"{label}: " if label else ""
    with st.container(horizontal=True):
        for kind, mime, content in (("CSV", "text/csv", _csv), ("Parquet", None, _parquet)):
            file, key = f"{name}.{kind.lower()}", f"{kind.lower()}-{name}"
            st.download_button(f"{said}{kind}", partial(content, found), file, mime, key=key, on_click="ignore")


def _csv(found: pl.DataFrame) -> bytes:
    """CSV has neither lists, which become text, nor bytes, which are left out."""
    plain = found.select(column for column in found.columns if found[column].dtype != pl.Binary)
    nested = [name for name, kind in plain.schema.items() if kind.is_nested()]
    texts = [pl.Series(name, [str(value) for value in plain[name].to_list()]) for name in nested]
    return plain.with_columns(texts).write_csv().encode()


def _parquet(found: pl.DataFrame) -> bytes:
    file = io.BytesIO()
    found.write_parquet(file)
    return file.getvalue()
