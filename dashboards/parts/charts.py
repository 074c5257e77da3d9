"""Charts as plain Vega-Lite: building the same with Altair takes 80 ms more."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import polars as pl
import streamlit as st

COLORS = {"LatentLens": "#0072b2", "EmbeddingLens": "#e69f00", "LogitLens": "#009e73"}
"""Of Okabe and Ito's palette."""


def _plain(frame: pl.DataFrame) -> list[dict[str, Any]]:
    return frame.to_dicts()


Picked = Callable[[dict[str, Any]], None]
"""Is told the fields of what a person clicked."""
_PICK = "pick"


def _draw(spec: dict[str, Any], alt: str, key: str = "", picked: Picked | None = None) -> None:
    """Draw a chart; a click on a mark of the layer with the parameter `pick` tells `picked`."""
    if picked is None:
        st.vega_lite_chart(spec=spec, alt=alt)
        return

    def changed() -> None:
        points = st.session_state[key].selection.get(_PICK) or []
        if points:
            picked(dict(points[0]))

    st.vega_lite_chart(spec=spec, alt=alt, key=key, on_select=changed)


def _param(*fields: str) -> list[dict[str, Any]]:
    return [{"name": _PICK, "select": {"type": "point", "fields": list(fields), "toggle": False}}]


_CHOSEN = {"condition": {"param": _PICK, "empty": False, "value": "#d55e00"}, "value": "transparent"}
"""What outlines a mark that was clicked."""


def lines(
    frame: pl.DataFrame,
    x: str,
    y: str,
    color: str,
    *,
    facet: str | None = None,
    x_title: str,
    y_title: str,
    **more: Any,
) -> None:
    """Curves over an ordered x, a color per value of `color`.

    Args:
        frame: a row per point.
        x: its column of places.
        y: its column of heights.
        color: its column of names.
        facet: a column with a chart for each value.
        x_title: what x is.
        y_title: what y is.
        more: `band` (two columns), `chance` (a column), `format`, `colors` (by name), `scale` (of y); `key` and
            `picked` for points that can be clicked, which tell x and color.
    """
    form, colors = more.get("format", ",d"), more.get("colors", COLORS)
    names = [name for name in colors if name in frame[color].unique().to_list()]
    scale = {"domain": names, "range": [colors[name] for name in names]} if names else {}
    hue = {
        "field": color,
        "type": "nominal",
        "scale": scale,
        "legend": {"title": None, "orient": "top", "symbolOpacity": 1},
    }
    across = {"field": x, "type": "ordinal", "title": x_title, "axis": {"labelAngle": 0}}
    up = {"field": y, "type": "quantitative", "title": y_title, "axis": {"format": form}}
    up |= {"scale": more["scale"]} if "scale" in more else {}
    tip = [{"field": n, "type": "nominal", "title": t} for n, t in ((color, color), (x, x_title))]
    tip.append({"field": y, "type": "quantitative", "format": form, "title": y_title})
    encoding = {"x": across, "y": up, "color": hue, "tooltip": tip}
    layers: list[dict[str, Any]] = [{"mark": {"type": "line"}, "encoding": encoding}]
    if band := more.get("band"):
        ends = {"y": {**up, "field": band[0]}, "y2": {"field": band[1]}}
        area = {"x": across, "color": hue, **ends}
        layers.insert(0, {"mark": {"type": "area", "opacity": 0.2}, "encoding": area})
    if chance := more.get("chance"):
        low = {"x": across, "y": {**up, "field": chance}, "color": hue}
        layers.append({"mark": {"type": "line", "strokeDash": [4, 4], "opacity": 0.8}, "encoding": low})
    dot = {"type": "point", "filled": True, "opacity": 1, "size": 45}
    points: dict[str, Any] = {"mark": dot, "encoding": encoding}
    if "picked" in more:
        dot |= {"size": 110, "cursor": "pointer", "strokeWidth": 3}
        points = {"mark": dot, "encoding": {**encoding, "stroke": _CHOSEN}, "params": _param(x, color)}
    layers.append(points)
    spec: dict[str, Any] = {"layer": layers, "height": 240, "data": {"values": _plain(frame)}}
    if facet:
        inner = {"layer": layers, "height": 170, "width": 230}
        spec = {
            "data": spec["data"],
            "columns": 4,
            "facet": {"field": facet, "type": "nominal", "title": None},
            "spec": inner,
        }
    _draw(spec, f"{y_title} by {x_title}", more.get("key", ""), more.get("picked"))


def heat_map(
    frame: pl.DataFrame, x: str, y: str, value: str, *, x_title: str, y_title: str, title: str, **more: Any
) -> None:
    """Shares in 0..1 as colors, with their numbers.

    `more`: `order` of y; `key` and `picked` for cells that can be clicked, which tell x and y.
    """
    across, down = (
        {"field": n, "type": "ordinal", "title": t, "axis": {"labelAngle": 0}} for n, t in ((x, x_title), (y, y_title))
    )
    down |= {"sort": more["order"]} if "order" in more else {}
    hue = {"field": value, "type": "quantitative", "title": title, "scale": {"scheme": "blues", "domainMin": 0}}
    ink = {"condition": {"test": f"datum['{value}'] > 0.35", "value": "white"}, "value": "#1b1f24"}
    number = {"field": value, "type": "quantitative", "format": ".0%"}
    layer: list[dict[str, Any]] = [
        {"mark": {"type": "rect", "tooltip": True}, "encoding": {"color": hue}},
        {"mark": {"type": "text", "fontSize": 11}, "encoding": {"text": number, "color": ink}},
    ]
    if "picked" in more:
        # On top of the numbers, which would catch the clicks.
        tip = [{"field": n, "type": "ordinal", "title": t} for n, t in ((x, x_title), (y, y_title))]
        tip.append({**number, "title": title, "format": ".1%"})
        cell = {"type": "rect", "fill": "transparent", "cursor": "pointer", "strokeWidth": 3}
        layer.append({"mark": cell, "encoding": {"tooltip": tip, "stroke": _CHOSEN}, "params": _param(x, y)})
    spec = {"data": {"values": _plain(frame)}, "encoding": {"x": across, "y": down}, "layer": layer, "height": 290}
    _draw(spec, title, more.get("key", ""), more.get("picked"))


def histograms(frame: pl.DataFrame, facet: str, *, x_title: str, facet_title: str, key: str, picked: Picked) -> None:
    """A histogram per value of a column, of rows low, high, tokens, share; a click on a bar tells value, low, high."""
    tip = [{"field": facet, "type": "ordinal", "title": facet_title}]
    tip += [{"field": n, "type": "quantitative", "title": t} for n, t in (("low", "from"), ("high", "to"))]
    tip += [{"field": "tokens", "type": "quantitative"}, {"field": "share", "type": "quantitative", "format": ".1%"}]
    bar = {
        "mark": {"type": "bar", "cursor": "pointer", "color": "#0072b2", "strokeWidth": 2, "binSpacing": 0.5},
        "encoding": {
            "x": {"field": "low", "type": "quantitative", "title": x_title, "bin": {"binned": True}},
            "x2": {"field": "high"},
            "y": {"field": "share", "type": "quantitative", "title": None, "axis": {"format": ".0%", "tickCount": 3}},
            "tooltip": tip,
            "stroke": _CHOSEN,
        },
        "params": _param(facet, "low", "high"),
        "width": 250,
        "height": 100,
    }
    facets = {"field": facet, "type": "ordinal", "title": facet_title}
    spec = {"data": {"values": _plain(frame)}, "columns": 4, "facet": facets, "spec": bar}
    _draw(spec, f"Histograms of {x_title} by {facet_title}", key, picked)


def count_table(counts: Sequence[Sequence[int]], names: Sequence[str], x_title: str, y_title: str) -> None:
    """A square table of counts; the darker, the more."""
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
    ink = {"condition": {"test": f"datum.count > {0.6 * most}", "value": "white"}, "value": "#1b1f24"}
    tip = [
        {"field": "y", "type": "nominal", "title": y_title},
        {"field": "x", "type": "nominal", "title": x_title},
        {"field": "count", "type": "quantitative"},
    ]
    layer = [
        {"mark": "rect", "encoding": {"color": hue, "tooltip": tip}},
        {"mark": "text", "encoding": {"text": {"field": "count", "type": "quantitative"}, "color": ink}},
    ]
    spec = {"data": {"values": rows}, "encoding": {"x": across, "y": down}, "layer": layer, "height": 230}
    st.vega_lite_chart(spec=spec, alt=f"How often {y_title} and {x_title} gave each verdict")
