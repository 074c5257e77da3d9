"""Charts as plain Vega-Lite: building the same with Altair takes 80 ms more."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl
import streamlit as st

COLORS = {"LatentLens": "#0072b2", "EmbeddingLens": "#e69f00", "LogitLens": "#009e73"}
"""Of Okabe and Ito's palette."""


def _plain(frame: pl.DataFrame) -> list[dict[str, Any]]:
    return frame.to_dicts()


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
    """Curves over an ordered x, a color per value of `color`; `more`: band (two columns), chance (a column), format."""
    form = more.get("format", ",d")
    names = [name for name in COLORS if name in frame[color].unique().to_list()]
    scale = {"domain": names, "range": [COLORS[name] for name in names]} if names else {}
    hue = {"field": color, "type": "nominal", "scale": scale, "legend": {"title": None, "orient": "top"}}
    across = {"field": x, "type": "ordinal", "title": x_title, "axis": {"labelAngle": 0}}
    up = {"field": y, "type": "quantitative", "title": y_title, "axis": {"format": form}}
    tip = [{"field": n, "type": "nominal"} for n in (color, x)] + [{"field": y, "type": "quantitative", "format": form}]
    layers: list[dict[str, Any]] = [
        {"mark": {"type": "line", "point": True}, "encoding": {"x": across, "y": up, "color": hue, "tooltip": tip}}
    ]
    if band := more.get("band"):
        ends = {"y": {**up, "field": band[0]}, "y2": {"field": band[1]}}
        area = {"x": across, "color": {**hue, "legend": None}, **ends}
        layers.insert(0, {"mark": {"type": "area", "opacity": 0.2}, "encoding": area})
    if chance := more.get("chance"):
        low = {"x": across, "y": {**up, "field": chance}, "color": hue}
        layers.append({"mark": {"type": "line", "strokeDash": [4, 4], "opacity": 0.8}, "encoding": low})
    spec: dict[str, Any] = {"layer": layers, "height": 240, "data": {"values": _plain(frame)}}
    if facet:
        inner = {"layer": layers, "height": 170, "width": 230}
        spec = {
            "data": spec["data"],
            "columns": 4,
            "facet": {"field": facet, "type": "nominal", "title": None},
            "spec": inner,
        }
    st.vega_lite_chart(spec=spec, alt=f"{y_title} by {x_title}")


def heat_map(frame: pl.DataFrame, x: str, y: str, value: str, *, x_title: str, y_title: str, title: str) -> None:
    """Shares in 0..1 as colors, with their numbers."""
    across, down = (
        {"field": n, "type": "ordinal", "title": t, "axis": {"labelAngle": 0}} for n, t in ((x, x_title), (y, y_title))
    )
    hue = {"field": value, "type": "quantitative", "title": title, "scale": {"scheme": "blues", "domainMin": 0}}
    ink = {"condition": {"test": f"datum['{value}'] > 0.35", "value": "white"}, "value": "#1b1f24"}
    number = {"field": value, "type": "quantitative", "format": ".0%"}
    layer = [
        {"mark": {"type": "rect", "tooltip": True}, "encoding": {"color": hue}},
        {"mark": {"type": "text", "fontSize": 11}, "encoding": {"text": number, "color": ink}},
    ]
    spec = {"data": {"values": _plain(frame)}, "encoding": {"x": across, "y": down}, "layer": layer, "height": 290}
    st.vega_lite_chart(spec=spec, alt=title)


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
