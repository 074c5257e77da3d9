"""SQL: named queries with their parameters, or your own; read-only, and stopped after a time limit."""

from __future__ import annotations

import polars as pl
import streamlit as st
from widgets import permalink
from widgets.charts import bars
from widgets.downloads import download_buttons
from widgets.labels import escape_markdown
from widgets.sources import browser_data, sql_worker

from latentlens_dag.browse.browser_data import BrowserData
from latentlens_dag.dataset.named_queries import NamedQuery, named_queries
from latentlens_dag.errors import UserError

OWN = "my own SQL"
SHAPES = ("table", "chart")
SECONDS, ROWS = 10.0, 10_000
MOST_BARS = 500
BEGIN = """SELECT word, count(*) AS patches
FROM neighbors
WHERE lens = 'latentlens' AND rank = 1
GROUP BY word
ORDER BY patches DESC
LIMIT 20"""


def sql_page(data: BrowserData) -> None:
    """Choose a query and its parameters, and look at its result."""
    known = named_queries()
    name = permalink.choice("Query", "query", (OWN, *known), OWN, dropdown=True)
    with st.form("sql", border=False):
        text, values = (_own(), {}) if name == OWN else (name, _parameters(known[name]))
        st.form_submit_button("Run", type="primary", on_click=_submit, args=[None if name == OWN else known[name]])
    if name != OWN:
        with st.expander("Its SQL"):
            st.code(known[name].sql, language="sql")
    needed = [parameter.name for parameter in known[name].parameters if parameter.required] if name != OWN else []
    if permalink.get("sql") if name == OWN else all(values[parameter] for parameter in needed):
        show(data, text, {key: value for key, value in values.items() if value})


def _submit(query: NamedQuery | None) -> None:
    """Put what is typed into the address, from which it is run."""
    if query is None:
        permalink.update(sql=st.session_state["sql-text"])
    else:
        permalink.update(
            **{f"p_{one.name}": st.session_state[f"sql-{query.name}-{one.name}"] for one in query.parameters}
        )


def _own() -> str:
    key = "sql-text"
    _as_in_address(key, permalink.get("sql", BEGIN) or BEGIN)
    return st.text_area("SQL", key=key, height=160, help="One SELECT; see About for the tables.")


def _parameters(query: NamedQuery) -> dict[str, str]:
    st.markdown(query.description)
    values = {}
    with st.container(horizontal=True):
        for one in query.parameters:
            key = f"sql-{query.name}-{one.name}"
            _as_in_address(key, permalink.get(f"p_{one.name}", one.default) or "")
            values[one.name] = st.text_input(one.name, help=one.description, key=key, width=200)
    return values


def _as_in_address(key: str, said: str) -> None:
    """Write a new value of the address into a field; what is typed and not run yet stays."""
    if key not in st.session_state or st.session_state.get(f"{key}-in-address") != said:
        st.session_state[key] = st.session_state[f"{key}-in-address"] = said


def show(data: BrowserData, text: str, values: dict[str, str]) -> None:
    """Run it and draw the result."""
    try:
        with st.spinner(f"Running, for at most {SECONDS:g} s …"):
            found = sql_worker().collect(data, text, SECONDS, ROWS + 1, **values)
    except UserError as error:
        st.error(escape_markdown(str(error)))
        return
    cut = len(found) > ROWS
    found = found.head(ROWS)
    st.caption(f"The first {ROWS:,} rows; there are more." if cut else f"{len(found):,} rows")
    shown = found.select(column for column in found.columns if found[column].dtype != pl.Binary)
    if (
        permalink.choice("Show", "show", SHAPES, "table", format_func=str.capitalize, label_visibility="collapsed")
        == "table"
    ):
        st.dataframe(shown, hide_index=True)
    else:
        draw(shown)
    download_buttons(found, "latentlens", f"First {ROWS:,} rows" if cut else "")


def _first_varied(found: pl.DataFrame, names: list[str]) -> str:
    """The column to begin with: the visual layer, or the first with several values."""
    if "visual_layer" in names:
        return "visual_layer"
    return next((name for name in names if found[name].n_unique() > 1), names[0])


def draw(found: pl.DataFrame) -> None:
    """Bars of a column of numbers by another column; several rows with the same value give their mean."""
    numbers = [name for name, kind in found.schema.items() if kind.is_numeric()]
    others = [
        name for name, kind in found.schema.items() if kind == pl.String or (kind.is_integer() and name != numbers[-1])
    ]
    if not numbers or not others or found.is_empty():
        st.caption("A chart needs a column of numbers and another column.")
        return
    with st.container(horizontal=True):
        x = permalink.choice("Horizontal axis", "x", others, _first_varied(found, others), dropdown=True, width=200)
        heights = [name for name in numbers if name != x]
        y = permalink.choice("Vertical axis", "y", heights, heights[-1], dropdown=True, width=200)
    means = found.group_by(x, maintain_order=True).agg(pl.col(y).mean())
    if len(means) < len(found):
        st.caption(f"Mean {y} of all rows with the same {x}.")
    if len(means) > MOST_BARS:
        st.caption(f"The first {MOST_BARS} of {len(means):,}.")
    values = [dict(zip(("x", "y"), row, strict=True)) for row in means.head(MOST_BARS).iter_rows()]
    bars(values, f"Bars of {y} by {x}")


sql_page(browser_data())
