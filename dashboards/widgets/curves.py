"""Curves, one for each name: in one chart, or in small ones side by side.

Note: what has a fixed width is cut off on a phone. Legends have as many columns as there is room for, and small charts
are charts of their own, in lines that wrap: facets of Vega have one number of columns for every screen.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from html import escape
from types import MappingProxyType
from typing import Any

import polars as pl
import streamlit as st

from widgets.charts import COLORS, SMALL, Clicks, click_params, draw, outline

_WIDEST_NAME = 300  # in a legend, in pixels


def lines(
    frame: pl.DataFrame,
    x: str,
    y: str,
    color: str,
    *,
    y_title: str,
    x_title: str = "Visual layer",
    facet: str | None = None,
    facet_title: str = "",
    band: tuple[str, str] | None = None,
    chance: str | None = None,
    chance_band: tuple[str, str] | None = None,
    number_format: str = ",d",
    colors: Mapping[str, str] = COLORS,
    log_scale: bool = False,
    log_x: bool = False,
    numeric_x: bool = False,
    dots: bool = True,
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
        facet: a column with a chart for each value, in their order; they share axes, and stand in as many columns as
            fit.
        facet_title: stands before the value in the title of its chart.
        band: columns of the lower and the upper end of a shaded band.
        chance: column of a dashed curve.
        chance_band: columns of the ends of its band.
        number_format: of y, in the notation of D3.
        colors: by name.
        log_scale: whether y has a logarithmic scale.
        log_x: whether x is a number on a logarithmic scale.
        numeric_x: whether x is a number on a linear scale.
        dots: whether points are drawn, too.
        zero: whether to draw a line at y = 0.
        crosses: column that says whether a point is a cross instead of a dot.
        notes: columns that the tooltip of a point shows too, and their titles.
        clicks: makes points clickable; they report x, color and facet.
    """
    tips = {color: color.capitalize(), x: x_title, **notes}
    encoding: dict[str, Any] = {
        "x": _across(x, x_title, log_x, numeric_x),
        "y": _up(y, y_title, number_format, log_scale),
        "color": _hue(frame, color, colors),
        "tooltip": [{"field": name, "type": "nominal", "title": title} for name, title in tips.items()],
    }
    encoding["tooltip"].insert(2, {"field": y, "type": "quantitative", "format": number_format, "title": y_title})
    if facet:
        heights = [y, *(band or ()), *([chance] if chance else []), *(chance_band or ())]
        encoding |= _shared_axes(frame, encoding, heights)
    below = [*_bands(encoding, chance_band, 0.12), *_bands(encoding, band, 0.25), *_zero_line(zero)]
    curves = [{"mark": {"type": "line"}, "encoding": encoding}, *_dashed(encoding, chance)]

    def layers(own: Clicks | None) -> list[dict[str, Any]]:
        return [*below, *curves, *(_points(encoding, own, crosses, facet) if dots else [])]

    if facet:
        _side_by_side(frame, facet, facet_title, layers, clicks)
    else:
        spec = {"data": {"values": frame.to_dicts()}, "layer": layers(clicks), "height": 300}
        draw(spec, f"{y_title} by {x_title}", clicks)


def _side_by_side(
    frame: pl.DataFrame,
    facet: str,
    facet_title: str,
    layers: Callable[[Clicks | None], list[dict[str, Any]]],
    clicks: Clicks | None,
) -> None:
    """Small charts below one legend: Vega's own facets have a fixed number of columns, whatever the screen's width."""
    encoding = layers(None)[-1]["encoding"]
    scale = encoding["color"]["scale"]
    legend(dict(zip(scale.get("domain", ()), scale.get("range", ()), strict=True)))
    with st.container(horizontal=True, gap="small"):
        for value, part in frame.partition_by(facet, as_dict=True, maintain_order=True).items():
            name = f"{facet_title} {value[0]}".strip()
            own = clicks and clicks._replace(key=f"{clicks.key}-{value[0]}")
            title = {"text": name, "fontSize": 12, "anchor": "middle", "limit": SMALL - 40}
            spec = {"data": {"values": part.to_dicts()}, "layer": layers(own), "height": 210, "title": title}
            draw(spec, f"{encoding['y']['title']} by {encoding['x']['title']}: {name}", own, width=SMALL)


def legend(colors: Mapping[str, str]) -> None:
    """The names of colors in lines of text, which no narrow screen cuts; nothing for a single one."""
    if len(colors) < 2:
        return
    dot = '<span class="ll-round" style="background:{}"></span>'
    names = (f"<span>{dot.format(color)}{escape(name)}</span>" for name, color in colors.items())
    st.html(f'<div class="ll-legend">{"".join(names)}</div>')


def _legend(names: Sequence[str]) -> dict[str, Any]:
    """A legend above the chart, in as many columns as its width has room for."""
    wide = 35 + min(_WIDEST_NAME, 7 * max(map(len, names), default=0))
    columns = {"expr": f"max(1, floor(width / {wide}))"}
    return {"title": None, "orient": "top", "symbolOpacity": 1, "labelLimit": _WIDEST_NAME, "columns": columns}


def _hue(frame: pl.DataFrame, column: str, colors: Mapping[str, str]) -> dict[str, Any]:
    found = set(frame[column].unique())
    names = [name for name in colors if name in found]
    scale = {"domain": names, "range": [colors[name] for name in names]} if names else {}
    return {"field": column, "type": "nominal", "legend": _legend(names), "scale": scale}


def _across(column: str, title: str, log: bool, numeric: bool) -> dict[str, Any]:
    axis: dict[str, Any] = {"labelAngle": 0, "labelOverlap": "greedy"}
    if numeric and not log:
        return {"field": column, "type": "quantitative", "title": title, "axis": axis | {"format": "~s"}}
    if not log:
        return {"field": column, "type": "ordinal", "title": title, "axis": axis}
    axis |= {"format": "~s", "tickCount": 3}
    return {"field": column, "type": "quantitative", "title": title, "axis": axis, "scale": {"type": "log"}}


def _up(column: str, title: str, number_format: str, log: bool) -> dict[str, Any]:
    scale = {"scale": {"type": "log", "nice": False}} if log else {}
    axis = {"format": number_format} | ({"tickMinStep": 1} if number_format == ",d" else {})
    return {"field": column, "type": "quantitative", "title": title, "axis": axis, **scale}


def _shared_axes(frame: pl.DataFrame, encoding: Mapping[str, Any], heights: Sequence[str]) -> dict[str, Any]:
    """The encodings of small charts beside each other: of the domains of the whole frame, without a legend."""
    across, up = encoding["x"], encoding["y"]
    places = frame[across["field"]].drop_nulls().unique().sort().to_list()
    known = [value for name in heights for value in frame[name].drop_nulls()]
    domain = [places[0], places[-1]] if across["type"] == "quantitative" and places else places
    return {
        "x": {**across, "scale": {**across.get("scale", {}), "domain": domain}},
        "y": {**up, "scale": {"nice": True, **up.get("scale", {}), "domain": [min(0, *known, 0), max(0, *known, 0)]}},
        "color": {**encoding["color"], "legend": None},
    }


def _bands(encoding: Mapping[str, Any], ends: tuple[str, str] | None, opacity: float) -> list[dict[str, Any]]:
    if ends is None:
        return []
    heights = {"y": {**encoding["y"], "field": ends[0]}, "y2": {"field": ends[1]}}
    area = {"x": encoding["x"], "color": encoding["color"], **heights}
    return [{"mark": {"type": "area", "opacity": opacity}, "encoding": area}]


def _zero_line(drawn: bool) -> list[dict[str, Any]]:
    return [{"mark": {"type": "rule", "color": "#808080"}, "encoding": {"y": {"datum": 0}}}] if drawn else []


def _dashed(encoding: Mapping[str, Any], column: str | None) -> list[dict[str, Any]]:
    if column is None:
        return []
    heights = {**encoding["y"], "field": column}
    mark = {"type": "line", "strokeDash": [4, 4], "strokeWidth": 1.5}
    return [{"mark": mark, "encoding": {"x": encoding["x"], "y": heights, "color": encoding["color"]}}]


def _points(
    encoding: dict[str, Any], clicks: Clicks | None, crosses: str | None, facet: str | None
) -> list[dict[str, Any]]:
    """The layers of points: those that can be clicked are large, and report x, color and facet."""
    if crosses:
        shape = {"condition": {"test": f"datum[{json.dumps(crosses)}]", "value": "cross"}, "value": "circle"}
        encoding = {**encoding, "shape": shape}
    dot: dict[str, Any] = {"type": "point", "filled": True, "opacity": 1, "size": 45}
    if clicks is None:
        return [{"mark": dot, "encoding": encoding}]
    fields = [encoding["x"]["field"], encoding["color"]["field"], *([facet] if facet else [])]
    large: dict[str, Any] = {
        "mark": dot | {"size": 110, "cursor": "pointer", "strokeWidth": 3},
        "encoding": {**encoding, "stroke": outline(clicks.chosen)},
        "params": click_params(*fields),
    }
    if clicks.only is None:
        return [large]
    test = f"datum[{json.dumps(clicks.only)}]"
    small = {"mark": dot, "encoding": encoding, "transform": [{"filter": f"!{test}"}]}
    return [small, {**large, "transform": [{"filter": test}]}]
