"""Charts as plain Vega-Lite: building the same with Altair takes 80 ms more."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from itertools import cycle
from types import MappingProxyType
from typing import Any, NamedTuple

import polars as pl
import streamlit as st

from latentlens_dag.schema import LENSES

PALETTE = ("#0072b2", "#009e73", "#cc7a00", "#cc79a7", "#d55e00")
COLORS = {lens.title: color for lens, color in zip(LENSES.values(), cycle(PALETTE), strict=False)}
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


_PICK = "pick"


def _draw(spec: dict[str, Any], alt: str, clicks: Clicks | None = None, width: int | None = None) -> None:
    """Draw a chart; a click on a mark of the layer with the parameter `pick` is passed to `clicks`."""
    spec = {**spec, "config": _PLAIN}
    if clicks is None:
        st.vega_lite_chart(spec=spec, alt=alt, theme=None)
        return

    def changed() -> None:
        points = st.session_state[clicks.key].selection.get(_PICK) or []
        if points:
            clicks.picked(dict(points[0]))

    st.vega_lite_chart(spec=spec, alt=alt, theme=None, width=width or "stretch", key=clicks.key, on_select=changed)


def _param(*fields: str) -> list[dict[str, Any]]:
    return [{"name": _PICK, "select": {"type": "point", "fields": list(fields), "toggle": False}}]


def _outline(chosen: dict[str, Any] | None) -> dict[str, Any]:
    """The stroke of marks: visible for those whose fields are `chosen`."""
    if not chosen:
        return {"value": "transparent"}
    test = " && ".join(f"datum[{json.dumps(name)}] === {json.dumps(value)}" for name, value in chosen.items())
    ink = "#e8eaed" if st.context.theme.type == "dark" else "#1b1f24"
    return {"condition": {"test": test, "value": ink}, "value": "transparent"}


def _ink(field: str, most: float) -> dict[str, Any]:
    """The color of a number on a cell of the scheme `blues`, with a contrast of 4.5 to 1 on each of them."""
    return {"condition": {"test": f"datum[{json.dumps(field)}] > {0.73 * most}", "value": "white"}, "value": "black"}


def lines(
    frame: pl.DataFrame,
    x: str,
    y: str,
    color: str,
    *,
    y_title: str,
    x_title: str = "Visual layer",
    facet: str | None = None,
    band: tuple[str, str] | None = None,
    chance: str | None = None,
    chance_band: tuple[str, str] | None = None,
    number_format: str = ",d",
    colors: Mapping[str, str] = COLORS,
    log_scale: bool = False,
    log_x: bool = False,
    zero: bool = False,
    crosses: str | None = None,
    notes: Mapping[str, str] = MappingProxyType({}),
    clicks: Clicks | None = None,
) -> None:
    """Curves over an ordered x, or a number, a color per value of `color`.

    Args:
        frame: a row per point.
        x: column of the positions.
        y: column of the heights.
        color: column of names.
        y_title: title of y.
        x_title: title of x.
        facet: a column with a chart for each value.
        band: columns of the lower and the upper end of a shaded band.
        chance: column of a dashed curve.
        chance_band: columns of the ends of its band.
        number_format: of y, in the notation of D3.
        colors: by name.
        log_scale: whether y has a logarithmic scale.
        log_x: whether x is a number on a logarithmic scale.
        zero: whether to draw a line at y = 0.
        crosses: column that says whether a point is a cross instead of a dot.
        notes: columns that the tooltip of a point shows too, and their titles.
        clicks: makes points clickable; they report x and color.
    """
    names = [name for name in colors if name in frame[color].unique().to_list()]
    hue: dict[str, Any] = {"field": color, "type": "nominal"}
    hue["scale"] = {"domain": names, "range": [colors[name] for name in names]} if names else {}
    hue["legend"] = {"title": None, "orient": "top", "symbolOpacity": 1}
    across: dict[str, Any] = {"field": x, "type": "ordinal", "title": x_title, "axis": {"labelAngle": 0}}
    if log_x:
        across |= {"type": "quantitative", "scale": {"type": "log"}, "axis": {"format": "~s", "tickCount": 3}}
    up: dict[str, Any] = {"field": y, "type": "quantitative", "title": y_title, "axis": {"format": number_format}}
    up |= {"scale": {"type": "log", "nice": False}} if log_scale else {}
    tip = [{"field": n, "type": "nominal", "title": t} for n, t in ((color, color), (x, x_title))]
    tip.append({"field": y, "type": "quantitative", "format": number_format, "title": y_title})
    tip += [{"field": n, "type": "nominal", "title": t} for n, t in notes.items()]
    encoding = {"x": across, "y": up, "color": hue, "tooltip": tip}
    points = _points(encoding, clicks)
    if crosses:
        test = f"datum[{json.dumps(crosses)}]"
        points["encoding"] = {
            **points["encoding"],
            "shape": {"condition": {"test": test, "value": "cross"}, "value": "circle"},
        }
    layers: list[dict[str, Any]] = [{"mark": {"type": "line"}, "encoding": encoding}, points]
    if zero:
        layers.insert(0, {"mark": {"type": "rule", "color": "#808080"}, "encoding": {"y": {"datum": 0}}})
    if chance:
        dashed = {"type": "line", "strokeDash": [4, 4], "opacity": 0.8}
        layers.insert(1, {"mark": dashed, "encoding": {"x": across, "y": {**up, "field": chance}, "color": hue}})
    for columns, opacity in ((band, 0.2), (chance_band, 0.1)):
        if columns:
            ends = {"y": {**up, "field": columns[0]}, "y2": {"field": columns[1]}}
            area = {"x": across, "color": hue, **ends}
            layers.insert(0, {"mark": {"type": "area", "opacity": opacity}, "encoding": area})
    spec: dict[str, Any] = {"data": {"values": frame.to_dicts()}}
    if facet:
        inner = {"layer": layers, "height": 170, "width": 230}
        spec |= {"columns": 4, "facet": {"field": facet, "type": "nominal", "title": None}, "spec": inner}
    else:
        spec |= {"layer": layers, "height": 300}
    _draw(spec, f"{y_title} by {x_title}", clicks)


def _points(encoding: dict[str, Any], clicks: Clicks | None) -> dict[str, Any]:
    """The layer of points; with `clicks` they are large, and report x and color."""
    dot: dict[str, Any] = {"type": "point", "filled": True, "opacity": 1, "size": 45}
    if clicks is None:
        return {"mark": dot, "encoding": encoding}
    return {
        "mark": dot | {"size": 110, "cursor": "pointer", "strokeWidth": 3},
        "encoding": {**encoding, "stroke": _outline(clicks.chosen)},
        "params": _param(encoding["x"]["field"], encoding["color"]["field"]),
    }


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
    clicks: Clicks,
) -> None:
    """Shares in 0..1 as colors, with their numbers; `order` is that of y. A click on a cell reports x and y."""
    across, down = (
        {"field": n, "type": "ordinal", "title": t, "axis": {"labelAngle": 0}} for n, t in ((x, x_title), (y, y_title))
    )
    down["sort"] = list(order)
    hue = {"field": value, "type": "quantitative", "title": title, "scale": {"scheme": "blues", "domainMin": 0}}
    hue["legend"] = {"format": ".0%"}
    ink = _ink(value, float(frame[value].max() or 0))  # type: ignore[arg-type]
    number = {"field": value, "type": "quantitative", "format": ".0%"}
    tip = [{"field": n, "type": "ordinal", "title": t} for n, t in ((x, x_title), (y, y_title))]
    tip.append({**number, "title": title, "format": ".1%"})
    cell = {"type": "rect", "fill": "transparent", "cursor": "pointer", "strokeWidth": 3}
    layer: list[dict[str, Any]] = [
        {"mark": {"type": "rect", "tooltip": True}, "encoding": {"color": hue}},
        {"mark": {"type": "text", "fontSize": 11}, "encoding": {"text": number, "color": ink}},
        # On top of the numbers, which would catch the clicks.
        {"mark": cell, "encoding": {"tooltip": tip, "stroke": _outline(clicks.chosen)}, "params": _param(x, y)},
    ]
    spec = {"data": {"values": frame.to_dicts()}, "encoding": {"x": across, "y": down}, "layer": layer, "height": 290}
    _draw(spec, title, clicks)


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
    encoding = {"x": across, "x2": {"field": "high"}, "y": up, "tooltip": tip, "stroke": _outline(clicks.chosen)}
    with st.container(horizontal=True, gap="small"):
        for value, part in frame.partition_by(facet, as_dict=True, maintain_order=True).items():
            name = f"{facet_title} {value[0]}"
            spec = {
                "mark": {"type": "bar", "cursor": "pointer", "color": "#0072b2", "strokeWidth": 2, "binSpacing": 0.5},
                "title": {"text": name, "fontSize": 12, "anchor": "middle"},
                "encoding": encoding,
                "params": _param(facet, "low", "high"),
                "data": {"values": part.to_dicts()},
                "height": 150,
            }
            own = clicks._replace(key=f"{clicks.key}-{value[0]}")
            _draw(spec, f"Histogram of {x_title} at {name}", own, width=290)


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
    _draw(spec, f"How often {y_title} and {x_title} gave each verdict")


def bars(values: list[dict[str, Any]], alt: str) -> None:
    """A bar of height y for each x, in their order."""
    across = {"field": "x", "type": "nominal", "sort": None, "title": None}
    encoding = {"x": across, "y": {"field": "y", "type": "quantitative", "title": None}}
    mark = {"type": "bar", "tooltip": True, "color": COLORS["LatentLens"]}
    _draw({"data": {"values": values}, "mark": mark, "encoding": encoding, "height": 300}, alt)
