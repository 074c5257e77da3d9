"""Explore: a gallery of images (or texts), and one image with all that is said of each of its patches."""

from __future__ import annotations

from typing import Any

import streamlit as st
from widgets import patch_grid, permalink, small_pictures, token_html
from widgets.errors import told
from widgets.exporting import export_button, export_if_asked
from widgets.image_state import Shown, hits_of
from widgets.labels import counted, lens_name
from widgets.layer_strip import strip, strip_data
from widgets.sources import chosen_study, library

from latentlens_dag.browse.browser_data import BrowserData, StudyFacts, Thumbnail, parse_words, similarity_thresholds
from latentlens_dag.browse.layout import regions_in_box, token_views
from latentlens_dag.models.layers import middle_layer

PER_PAGE = 24
MANY_LAYERS, MANY_VIEWS = 12, 4  # from then on a list, not buttons
VERDICTS = ("any", "concrete", "abstract", "global", "none")


def lens_and_layer(study: StudyFacts) -> tuple[str, int]:
    """Ask for the lens and the visual layer."""
    lens = permalink.choice("Lens", "lens", study.lenses, study.lenses[0], shown=lens_name)
    middle = middle_layer(study.visual_layers)
    many = len(study.visual_layers) > MANY_LAYERS
    layer = permalink.choice("Visual layer", "layer", study.visual_layers, middle, wide=many, **_width(many))
    return lens, layer


def _width(many: bool) -> dict[str, Any]:
    return {"width": 120} if many else {}


def gallery(data: BrowserData, study: StudyFacts) -> None:
    """The images that have patches of a kind."""
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        lens, layer = lens_and_layer(study)
        typed = permalink.words("Words found", "word", placeholder="dog, cat", width=190)
        verdict = permalink.choice("Judged", "verdict", VERDICTS, "any", wide=True, width=130)
        steps = similarity_thresholds(data, study.name, lens, layer)
        least = permalink.choice("Similarity at least", "similarity", ("any", *steps), "any", wide=True, width=150)
    found = data.ask(
        study.name,
        "find_images",
        lens=lens,
        layer=layer,
        words=parse_words(typed),
        verdict=None if verdict == "any" else verdict,
        similarity=None if least == "any" else least,
    )
    filtered = bool(parse_words(typed)) or verdict != "any" or least != "any"
    kind = "text" if study.of_texts else "image"
    pages = max(1, -(-len(found) // PER_PAGE))
    with st.container(horizontal=True, vertical_alignment="center"):
        tail = ", most patches first" if filtered else ""
        st.markdown(f"{counted(len(found), kind)}{' with such patches' if filtered else ''}{tail}")
        page = permalink.page(pages)
    if found.is_empty():
        st.info("Nothing fits. Take a filter away, or try another layer or lens.")
        return
    rows = found[(page - 1) * PER_PAGE : page * PER_PAGE].to_dicts()
    ids = tuple(row["image_id"] for row in rows)
    texts = data.texts(study.name, ids) if study.of_texts else {}
    pictures = data.pictures(study.name, ids)
    tiles = []
    for row in rows:
        name = "" if study.of_texts else row["file_name"] or row["image_id"]
        picture = pictures.get(row["image_id"]) or Thumbnail(row["image_id"], name, 1, 1, "")
        what = "tokens" if study.of_texts else "patches"
        count = f"{row['patches']} of {row['tokens']} {what}, most often" if filtered else "mostly"
        tiles.append(
            small_pictures.tile(picture, f"{count} {row['frequent_word'] or '–'}", text=texts.get(row["image_id"]))
        )

    def opened(image: str) -> None:
        overlay = "spotlight" if parse_words(typed) else None
        permalink.go(image=image, token=None, overlay=overlay, view=None)

    small_pictures.small_pictures(tiles, "gallery", opened)


@st.fragment
@told()
def image_view(study: StudyFacts, image: str) -> None:
    """One image: the toolbar, the picture, the neighbors of the chosen patch, the strip."""
    data = library()  # asked for again with every click, so that a page that stays open reads what was built since
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small", key="toolbar"):
        if st.button("← All texts" if study.of_texts else "← All images", on_click=_leave):
            st.rerun()
        lens, layer = lens_and_layer(study)
        overlay = permalink.choice(
            "Overlay",
            "overlay",
            patch_grid.OVERLAYS,
            "none",
            shown=lambda name: "Text" if name == "none" and study.of_texts else patch_grid.OVERLAY_NAMES[name],
            wide=True,
            width=170,
        )
        rows = data.ask(study.name, "patches", image_id=image, lens=lens, layer=layer).to_dicts()
        views = token_views(rows)
        view = views[0] if views else None
        if len(views) > 1:
            names = [one.name for one in views]
            many = len(names) > MANY_VIEWS
            name = permalink.choice("View", "view", names, names[0], wide=many, **_width(many))
            view = next(one for one in views if one.name == name)
        typed = ""
        if overlay == "spotlight":
            name = "lit" if permalink.here("lit") else "word"  # of a category, by which the gallery is not filtered
            typed = permalink.words("Word", name, placeholder="dog, cat", width=170)
        if rows:
            export_button()
    if not rows:
        st.warning("This study has no visual tokens of such an image. Go back to all images.")
        return
    hits = hits_of(data, study.name, image, lens, layer, typed) if overlay == "spotlight" else frozenset()
    token = _chosen(rows, view.tokens if view else (), hits)
    shown = Shown(study, image, lens, layer, overlay, typed, rows, view, len(views), token)
    st.html(f"<h1>{token_html.safe(shown.title(data), 80)}</h1>")
    answers = data.ask(study.name, "token", image_id=image, token_index=token).to_dicts()
    here = [one for one in answers if one["lens"] == lens and one["visual_layer"] == layer]
    nearest = list({one["rank"]: one for one in here}.values())
    drawn = shown.drawn(data)
    left, right = st.columns([1.4 if drawn["large"] else 0.82, 1], gap="medium")
    with left, st.container(key="seen"):
        patch_grid.patch_grid(drawn, "grid", lambda index: permalink.go(token=index))
    with right:
        draw_neighbors(data, shown, nearest)
    what = "token" if study.of_texts else "patch"
    st.markdown(f"**The same {what} through all layers and lenses**")
    strip(
        strip_data(answers, study.lenses, study.visual_layers, lens, layer),
        "strip",
        lambda to_lens, to_layer: permalink.go(lens=to_lens, layer=to_layer),
    )
    export_if_asked(shown, nearest)


def _leave() -> None:
    permalink.go(image=None, token=None, view=None, lit=None)


def _chosen(rows: list[dict[str, Any]], shown: tuple[int, ...], hits: frozenset[int]) -> int:
    """The token that the address names, else the surest hit of the spotlight, else the middle."""
    wanted = permalink.number_here("token")
    known = {row["token_index"] for row in rows}
    if wanted in known and wanted is not None:
        return wanted
    lit = [row for row in rows if row["token_index"] in hits]
    if lit:
        return max(lit, key=lambda row: row["cosine"] if row["cosine"] is not None else row["logit"] or 0)[
            "token_index"
        ]
    placed = [row for row in rows if row["token_index"] in set(shown)]
    return _central(placed)["token_index"] if placed else rows[0]["token_index"]


def _central(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The patch in the middle of the others."""
    across, down = (sum(row[a] + row[b] for row in rows) / len(rows) for a, b in (("x0", "x1"), ("y0", "y1")))
    return min(rows, key=lambda row: abs(row["x0"] + row["x1"] - across) + abs(row["y0"] + row["y1"] - down))


def draw_neighbors(data: BrowserData, shown: Shown, nearest: list[dict[str, Any]]) -> None:
    """What the lens says of the patch, and what is really there."""
    study, row = shown.study.name, shown.row
    head = (
        f"<b>Token {shown.token}</b> · {token_html.safe(shown.place(data))} · "
        f"{lens_name(shown.lens)}, layer {shown.layer}"
    )
    if verdict := token_html.verdict_html(row["verdict"]):
        head += f" · {verdict}"
    truth = ""
    if row["x0"] is not None:
        box = [row[side] for side in ("x0", "y0", "x1", "y1")]
        regions = data.regions(study, shown.image)
        truth = token_html.truth_html(regions_in_box(regions, box, shown.picture(data).width))
    layers = data.contextual_layers(study) or patch_grid.contextual_layers(nearest)
    facts = f'<p class="ll-facts">{head}{"<br>" + truth if truth else ""}</p>'
    st.html(f"{facts}{token_html.neighbors_html(nearest, layers)}")


data = library()
study = chosen_study(data)
if study is not None:
    image = permalink.here("image")
    if image is None:
        gallery(data, study)
    else:
        image_view(study, image)
