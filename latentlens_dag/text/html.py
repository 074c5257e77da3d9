"""Small HTML tables for notebooks; every text is escaped, for it may come from data."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape


def table_html(title: str, headers: Sequence[str], rows: Iterable[Sequence[object]], foot: str = "") -> str:
    """A table with a title above it and a line below it.

    Args:
        title: plain text.
        headers: one for each column; none for a table without a head.
        rows: cells, plain text or numbers.
        foot: plain text.
    """
    head = "<tr>" + "".join(f"<th>{escape(header)}</th>" for header in headers) + "</tr>" if headers else ""
    body = "".join("<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows)
    below = f"<small>{escape(foot)}</small>" if foot else ""
    return f"<div><strong>{escape(title)}</strong><table>{head}{body}</table>{below}</div>"


def some(items: Sequence[object], most: int = 8) -> str:
    """The first items with commas, and how many there are where that is not all."""
    listed = ", ".join(map(str, items[:most]))
    return f"{listed}, … {len(items):,} in all" if len(items) > most else listed
