"""Charts as plain Vega-Lite: building the same with Altair takes 80 ms more."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from itertools import cycle
from types import MappingProxyType
from typing import Any, NamedTuple

import polars as pl
import streamlit as st

from latentlens_dag.schema import DECLARED_LENSES, LENSES

PALETTE = ("#0072b2", "#009e73", "#cc7a00", "#cc79a7", "#d55e00")
_SHARED = (lens for lens in LENSES if lens not in DECLARED_LENSES)
_BY_LENS = dict(zip((*DECLARED_LENSES, *_SHARED), cycle(PALETTE), strict=False))
COLORS = {lens.title: _BY_LENS[lens.name] for lens in LENSES.values()}
"""Okabe and Ito's palette with a darker orange: each has a contrast of 3 to 1 on white and on the dark scheme."""
SOURCE_COLORS = {"visual tokens": "#0072b2", "text tokens of the index": "#cc79a7"}
DRIFT_COLORS = {"the layer before": "#0072b2", "the first layer": "#d55e00"}
_PLAIN: dict[str, Any] = {
    "view": {"stroke": None},
    "axis": {"domain": False, "ticks": False, "labelPadding": 8, "titlePadding": 12, "titleFontWeight": "normal"},
    "axisX": {"grid": False},
    "legend": {"labelFontSize": 12},
    "axisQuantitative": {"tickCount": 6},
    "header": {"labelFontSize": 12},
}
"""How charts look. Streamlit's own theme for them writes in a gray that is too weak on white, 3.7 to 1."""


class Clicks(NamedTuple):
    """What happens when a person clicks a mark of a chart."""

    key: str
    """Of the widget."""
    picked: Callable[[dict[str, Any]], None]
    """Gets the fields of the mark."""
    chosen: dict[str, Any] | None
    """Fields of the mark to outline."""
    only: str | None = None
    """Column that says which points can be clicked; all without it."""


_PICK = "pick"
_WHERE_ROOM = {"fontSize": 11, "opacity": {"expr": "bandwidth('x') < 30 ? 0 : 1"}}  # else numbers overlap
_ROW = 22  # of a heat map, in pixels
SMALL = 290
"""Width of one of several charts, which a phone has room for, in pixels."""


def draw(spec: dict[str, Any], alt: str, clicks: Clicks | None = None, width: int | None = None) -> None:
    """Draw a chart; a click on a mark of the layer with the parameter `pick` is passed to `clicks`."""
    spec = {**spec, "config": _PLAIN}
    size: Any = width or "stretch"
    if clicks is None:
        st.vega_lite_chart(spec=spec, alt=alt, theme=None, width=size)
        return

    def changed() -> None:
        points = st.session_state[clicks.key].selection.get(_PICK) or []
        if points:
            clicks.picked(dict(points[0]))

    st.vega_lite_chart(spec=spec, alt=alt, theme=None, width=size, key=clicks.key, on_select=changed)


def click_params(*fields: str) -> list[dict[str, Any]]:
    """The parameter of a layer whose marks can be clicked; a click reports these fields."""
    return [{"name": _PICK, "select": {"type": "point", "fields": list(fields), "toggle": False}}]


def outline(chosen: dict[str, Any] | None) -> dict[str, Any]:
    """The stroke of marks: visible for those whose fields are `chosen`."""
    if not chosen:
        return {"value": "transparent"}
    test = " && ".join(f"datum[{json.dumps(name)}] === {json.dumps(value)}" for name, value in chosen.items())
    ink = "#e8eaed" if st.context.theme.type == "dark" else "#1b1f24"
    return {"condition": {"test": test, "value": ink}, "value": "transparent"}


def _ink(field: str, most: float, signed: bool = False) -> dict[str, Any]:
    """The color of a number on a cell of `blues` or, signed, of `redblue`: its contrast is 4.5 to 1 on each of them."""
    value = f"datum[{json.dumps(field)}]"
    dark = f"abs({value}) > {0.72 * most}" if signed else f"{value} > {0.73 * most}"
    return {"condition": {"test": dark, "value": "white"}, "value": "black"}


def heat_map(
    frame: pl.DataFrame,
    x: str,
    y: str,
    value: str,
    *,
    x_title: str,
    y_title: str,
    title: str,
    order: Sequence[str],
    signed: bool = False,
    notes: Mapping[str, str] = MappingProxyType({}),
    clicks: Clicks | None = None,
) -> None:
    """Shares as colors, with their numbers; a click on a cell reports x and y.

    Args:
        frame: a row per cell.
        x: column of the positions from left to right.
        y: column of the positions from top to bottom.
        value: column of the shares, 0..1, or where `signed` of their differences, -1..1.
        x_title: title of x.
        y_title: title of y.
        title: title of the value.
        order: of y.
        signed: whether values are below 0, too: then red, and 0 is white.
        notes: columns of shares that the tooltip of a cell shows too, and their titles.
        clicks: what a click does; nothing without it.
    """
    across, down = (
        {"field": n, "type": "ordinal", "title": t, "axis": {"labelAngle": 0, "labelOverlap": "greedy"}}
        for n, t in ((x, x_title), (y, y_title))
    )
    down["sort"] = list(order)
    most = max((abs(one) for one in frame[value].drop_nulls()), default=0.0)
    colors = {"scheme": "redblue", "domain": [-most, most]} if signed else {"scheme": "blues", "domainMin": 0}
    form = "+.0%" if signed else ".0%"
    hue = {"field": value, "type": "quantitative", "title": title, "scale": colors, "legend": {"format": form}}
    number = {"field": value, "type": "quantitative", "format": form}
    tip = [{"field": n, "type": "ordinal", "title": t} for n, t in ((x, x_title), (y, y_title))]
    tip.append({**number, "title": title, "format": form.replace(".0", ".1")})
    tip += [{"field": n, "type": "quantitative", "title": t, "format": ".1%"} for n, t in notes.items()]
    cell: dict[str, Any] = {"mark": {"type": "rect", "fill": "transparent", "strokeWidth": 3}}
    cell["encoding"] = {"tooltip": tip, "stroke": outline(clicks.chosen if clicks else None)}
    if clicks:
        cell["mark"]["cursor"] = "pointer"
        cell["params"] = click_params(x, y)
    layer: list[dict[str, Any]] = [
        {"mark": {"type": "rect", "tooltip": True}, "encoding": {"color": hue}},
        {"mark": {"type": "text", **_WHERE_ROOM}, "encoding": {"text": number, "color": _ink(value, most, signed)}},
        cell,  # on top of the numbers, which would catch the clicks
    ]
    spec: dict[str, Any] = {"data": {"values": frame.to_dicts()}, "layer": layer}
    spec["encoding"] = {"x": across, "y": down}
    spec["height"] = max(290, _ROW * frame[y].n_unique())
    draw(spec, title, clicks)


def histograms(frame: pl.DataFrame, facet: str, *, x_title: str, facet_title: str, clicks: Clicks) -> None:
    """A histogram per value of a column, of rows low, high, tokens, share; a click on a bar reports value, low, high.

    They share axes, and stand in as many columns as fit.
    """
    tip = [{"field": n, "type": "quantitative", "title": t} for n, t in (("low", "from"), ("high", "to"))]
    tip += [{"field": "tokens", "type": "quantitative"}, {"field": "share", "type": "quantitative", "format": ".1%"}]
    ends = {"domain": [frame["low"].min(), frame["high"].max()], "nice": True}
    across = {"field": "low", "type": "quantitative", "title": None, "bin": {"binned": True}, "scale": ends}
    up = {"field": "share", "type": "quantitative", "title": None, "axis": {"format": ".0%", "tickCount": 3}}
    up["scale"] = {"domain": [0, frame["share"].max()]}
    encoding = {"x": across, "x2": {"field": "high"}, "y": up, "tooltip": tip, "stroke": outline(clicks.chosen)}
    with st.container(horizontal=True, gap="small"):
        for value, part in frame.partition_by(facet, as_dict=True, maintain_order=True).items():
            name = f"{facet_title} {value[0]}"
            spec = {
                "mark": {"type": "bar", "cursor": "pointer", "color": "#0072b2", "strokeWidth": 2, "binSpacing": 0.5},
                "title": {"text": name, "fontSize": 12, "anchor": "middle"},
                "encoding": encoding,
                "params": click_params(facet, "low", "high"),
                "data": {"values": part.to_dicts()},
                "height": 150,
            }
            own = clicks._replace(key=f"{clicks.key}-{value[0]}")
            draw(spec, f"Histogram of {x_title} at {name}", own, width=SMALL)


def count_table(counts: Sequence[Sequence[int]], names: Sequence[str], x_title: str, y_title: str) -> None:
    """A square table of counts; more is darker."""
    rows = [
        {"x": column, "y": row, "count": count}
        for row, line in zip(names, counts, strict=True)
        for column, count in zip(names, line, strict=True)
    ]
    axis = {"type": "nominal", "sort": list(names)}
    across = {**axis, "field": "x", "title": x_title, "axis": {"labelAngle": 0, "orient": "top"}}
    down = {**axis, "field": "y", "title": y_title}
    most = max((count for line in counts for count in line), default=0)
    hue = {"field": "count", "type": "quantitative", "scale": {"scheme": "blues", "domainMin": 0}, "legend": None}
    ink = _ink("count", most)
    tip = [{"field": n, "type": "nominal", "title": t} for n, t in (("y", y_title), ("x", x_title))]
    tip.append({"field": "count", "type": "quantitative"})
    layer = [
        {"mark": "rect", "encoding": {"color": hue, "tooltip": tip}},
        {"mark": "text", "encoding": {"text": {"field": "count", "type": "quantitative"}, "color": ink}},
    ]
    spec = {"data": {"values": rows}, "encoding": {"x": across, "y": down}, "layer": layer, "height": 230}
    draw(spec, f"How often {y_title} and {x_title} gave each verdict")


def bars(values: list[dict[str, Any]], alt: str) -> None:
    """A bar of height y for each x, in their order."""
    across = {"field": "x", "type": "nominal", "sort": None, "title": None}
    encoding = {"x": across, "y": {"field": "y", "type": "quantitative", "title": None}}
    mark = {"type": "bar", "tooltip": True, "color": COLORS["LatentLens"]}
    draw({"data": {"values": values}, "mark": mark, "encoding": encoding, "height": 300}, alt)
