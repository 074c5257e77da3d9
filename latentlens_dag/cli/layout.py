"""The layout of a query's rows on a terminal: a table, or a block per row where a table would be too wide to read."""

from __future__ import annotations

from collections.abc import Sequence

from latentlens_dag.cli.output import table_text

_READABLE = 16  # characters of a column below which its cells are folded into a tower
_GAP = 2
_BLOCKS = 10


def rows_text(
    headers: Sequence[str], rows: Sequence[Sequence[str]], width: int | None, left: Sequence[str], vertical: bool
) -> tuple[str, int]:
    """Rows as a table, or one below another with a line per column; and how many rows that shows.

    Args:
        headers: of the columns, without control characters.
        rows: cells, likewise.
        width: of the terminal, in characters; None for lines of any length.
        left: the headers of columns that are aligned to the left in a table.
        vertical: a line per column even where a table fits.
    """
    if vertical or not fits(headers, rows, width):
        shown = rows[:_BLOCKS]
        return _blocks(headers, shown), len(shown)
    return table_text(headers, rows, width, left), len(rows)


def fits(headers: Sequence[str], rows: Sequence[Sequence[str]], width: int | None) -> bool:
    """Whether a table is readable in this width: no header is folded, nor a cell into less than 16 characters."""
    if width is None:
        return True
    longest = [max((len(row[column]) for row in rows), default=0) for column in range(len(headers))]
    needed = [max(len(header), min(cell, _READABLE)) for header, cell in zip(headers, longest, strict=True)]
    return sum(needed) + _GAP * (len(needed) - 1) <= width


def _blocks(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    name = max((len(header) for header in headers), default=0)
    blocks = [
        "\n".join([f"row {number}", *(f"  {header:{name}}  {cell}" for header, cell in zip(headers, row, strict=True))])
        for number, row in enumerate(rows, start=1)
    ]
    return "\n\n".join(blocks) if blocks else "  ".join(headers)
