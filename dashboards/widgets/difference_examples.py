"""Examples of a difference: the patches that one side has and the other has not, and the other way around."""

from __future__ import annotations

import streamlit as st

from latentlens_dag.browse.browser_data import BrowserData, StudyFacts
from latentlens_dag.browse.difference_examples import Counted, LensAtLayer, one_sided
from latentlens_dag.text.display import clip
from widgets.examples import HOW_TO_CHOOSE, current_point
from widgets.labels import counted as number_of
from widgets.labels import lens_name
from widgets.small_pictures import Entry, explore_links, study_tiles

MOST = 12
"""Of each kind."""


def difference_examples(data: BrowserData, study: StudyFacts, comparison: str, counted: Counted) -> None:
    """The patches of the difference that the address names; how to choose one if it names none."""
    at = current_point()
    lens, layer, other = at.get("lens"), at.get("layer"), at.get("other")
    if comparison == "layers":
        other = lens
    if lens not in study.lenses or other not in study.lenses or layer not in study.visual_layers:
        st.caption(HOW_TO_CHOOSE)
        return
    one = LensAtLayer(lens, layer)
    sides = (one, LensAtLayer(other, layer if comparison == "lenses" else study.visual_layers[0]))
    if sides[0] == sides[1]:
        st.caption(HOW_TO_CHOOSE)
        return
    for first, second in (sides, sides[::-1]):
        _draw(data, study, first, second, counted)


def _draw(data: BrowserData, study: StudyFacts, one: LensAtLayer, other: LensAtLayer, counted: Counted) -> None:
    found = one_sided(data, study.name, one, other, counted, MOST)
    kind = "patch", "patches"
    if counted.patch_group != "all":
        kind = f"{counted.patch_group} patch", f"{counted.patch_group} patches"
    head = f"**{_name(one, other)} only**: {number_of(found.patches, *kind)} {counted.measure} by {_name(one, other)}"
    drawn = f"; {len(found.examples)} of them drawn at random" if found.patches > len(found.examples) else ""
    st.markdown(f"{head} and not by {_name(other, one)}{drawn}")
    rows = found.examples.to_dicts()
    if not rows:
        return
    entries = [
        Entry(
            row["image_id"],
            f"{_word(row['word'])} ≠ {_word(row['other_word'])}",
            None if row["x0"] is None else [[row[side] for side in ("x0", "y0", "x1", "y1")]],
        )
        for row in rows
    ]
    tiles = [
        {**tile, "id": f"{row['image_id']} {row['token_index']}"}
        for tile, row in zip(study_tiles(data, study, entries), rows, strict=True)
    ]

    def address(tile: str) -> dict[str, str]:
        image, token = tile.split(" ")
        return {"image": image, "token": token, "lens": one.lens, "layer": str(one.layer)}

    explore_links(tiles, f"only-{one.lens}-{one.layer}", address)


def _name(one: LensAtLayer, other: LensAtLayer) -> str:
    """The lens, or of one lens at two layers the layer."""
    return lens_name(one.lens) if one.layer == other.layer else f"layer {one.layer}"


def _word(word: str | None) -> str:
    return clip(word, 30) or "–"
