"""Charts as plain Vega-Lite: building the same with Altair takes 80 ms more."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from itertools import cycle
from typing import Any, Literal

import polars as pl
import streamlit as st

from latentlens_dag.schema import LENSES

_PALETTE = ("#0072b2", "#009e73", "#cc7a00", "#cc79a7", "#d55e00")
COLORS = {lens.title: color for lens, color in zip(LENSES.values(), cycle(_PALETTE), strict=False)}
"""Of Okabe and Ito's palette, the orange darker: all stand out from white and from the dark scheme's paper, 3 to 1."""
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


def _plain(frame: pl.DataFrame) -> list[dict[str, Any]]:
    return frame.to_dicts()


Picked = Callable[[dict[str, Any]], None]
"""Is told the fields of what a person clicked."""
_PICK = "pick"


def _draw(
    spec: dict[str, Any],
    alt: str,
    key: str = "",
    picked: Picked | None = None,
    width: int | Literal["stretch"] = "stretch",
) -> None:
    """Draw a chart; a click on a mark of the layer with the parameter `pick` tells `picked`."""
    spec = {**spec, "config": _PLAIN}
    if picked is None:
        st.vega_lite_chart(spec=spec, alt=alt, theme=None, width=width)
        return

    def changed() -> None:
        points = st.session_state[key].selection.get(_PICK) or []
        if points:
            picked(dict(points[0]))

    st.vega_lite_chart(spec=spec, alt=alt, theme=None, width=width, key=key, on_select=changed)


def _param(*fields: str) -> list[dict[str, Any]]:
    return [{"name": _PICK, "select": {"type": "point", "fields": list(fields), "toggle": False}}]


def _outline(chosen: dict[str, Any] | None) -> dict[str, Any]:
    """What outlines the marks whose fields are those of `chosen`, clicked or of a permalink."""
    if not chosen:
        return {"value": "transparent"}
    test = " && ".join(f"datum[{json.dumps(name)}] === {json.dumps(value)}" for name, value in chosen.items())
    ink = "#e8eaed" if st.context.theme.type == "dark" else "#1b1f24"
    return {"condition": {"test": test, "value": ink}, "value": "transparent"}


def _ink(field: str, most: float) -> dict[str, Any]:
    """The color of a number on a cell of the scheme `blues`, which 4.5 to 1 sets apart from every one of them."""
    return {"condition": {"test": f"datum[{json.dumps(field)}] > {0.73 * most}", "value": "white"}, "value": "black"}


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
            `picked` for points that can be clicked, which tell x and color; `chosen`, the fields of what is outlined.
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
        points = {
            "mark": dot,
            "encoding": {**encoding, "stroke": _outline(more.get("chosen"))},
            "params": _param(x, color),
        }
    layers.append(points)
    spec: dict[str, Any] = {"layer": layers, "height": 300, "data": {"values": _plain(frame)}}
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

    `more`: `order` of y; `key` and `picked` for cells that can be clicked, which tell x and y; `chosen`, the fields
    of what is outlined.
    """
    across, down = (
        {"field": n, "type": "ordinal", "title": t, "axis": {"labelAngle": 0}} for n, t in ((x, x_title), (y, y_title))
    )
    down |= {"sort": more["order"]} if "order" in more else {}
    hue = {"field": value, "type": "quantitative", "title": title, "scale": {"scheme": "blues", "domainMin": 0}}
    hue["legend"] = {"format": ".0%"}
    ink = _ink(value, float(frame[value].max() or 0))  # type: ignore[arg-type]
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
        layer.append(
            {"mark": cell, "encoding": {"tooltip": tip, "stroke": _outline(more.get("chosen"))}, "params": _param(x, y)}
        )
    spec = {"data": {"values": _plain(frame)}, "encoding": {"x": across, "y": down}, "layer": layer, "height": 290}
    _draw(spec, title, more.get("key", ""), more.get("picked"))


def histograms(
    frame: pl.DataFrame,
    facet: str,
    *,
    x_title: str,
    facet_title: str,
    key: str,
    picked: Picked,
    chosen: dict[str, Any] | None,
) -> None:
    """A histogram per value of a column, of rows low, high, tokens, share; a click on a bar tells value, low, high.

    The bar whose fields are `chosen` is outlined. They share axes, and stand in as many columns as there is room for.
    """
    tip = [{"field": n, "type": "quantitative", "title": t} for n, t in (("low", "from"), ("high", "to"))]
    tip += [{"field": "tokens", "type": "quantitative"}, {"field": "share", "type": "quantitative", "format": ".1%"}]
    ends = {"domain": [frame["low"].min(), frame["high"].max()], "nice": True}
    across = {"field": "low", "type": "quantitative", "title": None, "bin": {"binned": True}, "scale": ends}
    up = {"field": "share", "type": "quantitative", "title": None, "axis": {"format": ".0%", "tickCount": 3}}
    up["scale"] = {"domain": [0, frame["share"].max()]}
    encoding = {"x": across, "x2": {"field": "high"}, "y": up, "tooltip": tip, "stroke": _outline(chosen)}
    with st.container(horizontal=True, gap="small"):
        for value, part in frame.partition_by(facet, as_dict=True, maintain_order=True).items():
            name = f"{facet_title} {value[0]}"
            spec = {
                "mark": {"type": "bar", "cursor": "pointer", "color": "#0072b2", "strokeWidth": 2, "binSpacing": 0.5},
                "title": {"text": name, "fontSize": 12, "anchor": "middle"},
                "encoding": encoding,
                "params": _param(facet, "low", "high"),
                "data": {"values": _plain(part)},
                "height": 150,
            }
            _draw(spec, f"Histogram of {x_title} at {name}", f"{key}-{value[0]}", picked, 290)


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
    ink = _ink("count", most)
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
    _draw(spec, f"How often {y_title} and {x_title} gave each verdict")


def bars(values: list[dict[str, Any]], alt: str) -> None:
    """A bar of height y for each x, in their order."""
    across = {"field": "x", "type": "nominal", "sort": None, "title": None}
    encoding = {"x": across, "y": {"field": "y", "type": "quantitative", "title": None}}
    mark = {"type": "bar", "tooltip": True, "color": COLORS["LatentLens"]}
    _draw({"data": {"values": values}, "mark": mark, "encoding": encoding, "height": 300}, alt)
