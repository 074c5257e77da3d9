"""Explore: a gallery of images (or texts), and one image with the neighbors of each of its patches."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st
from widgets import patch_grid, permalink, token_html
from widgets.errors import show_user_errors
from widgets.exporting import export_if_requested
from widgets.image_state import ImageState, choose_view, middle_token, spotlight_hits
from widgets.labels import counted, lens_name
from widgets.layer_strip import strip, strip_data
from widgets.neighbors import draw_neighbors, ground_truth_html
from widgets.small_pictures import Entry, small_pictures, study_tiles
from widgets.sources import browser_data, choose_study

from latentlens_dag.browse.browser_data import BrowserData, StudyFacts, parse_words, similarity_thresholds
from latentlens_dag.models.layers import middle_layer

PER_PAGE = 24
MANY_LAYERS = 12  # from then on a list, not buttons
CAPTION_LETTERS = 600  # of at most 60 tokens
VERDICTS = ("any", "concrete", "abstract", "global", "none")


def choose_lens_and_layer(study: StudyFacts) -> tuple[str, int]:
    """Ask for the lens and the visual layer."""
    lens = permalink.choice("Lens", "lens", study.lenses, study.lenses[0], format_func=lens_name)
    layers = study.visual_layers
    many = len(layers) > MANY_LAYERS
    middle = middle_layer(layers)
    return lens, permalink.choice("Visual layer", "layer", layers, middle, dropdown=many, width=120 if many else None)


def gallery(data: BrowserData, study: StudyFacts) -> None:
    """The images with patches that pass the filters."""
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        lens, layer = choose_lens_and_layer(study)
        words = parse_words(permalink.text_input("With the words", "word", placeholder="dog, cat", width=190))
        verdict = permalink.choice("Verdict", "verdict", VERDICTS, "any", dropdown=True, width=130)
        thresholds = ("any", *similarity_thresholds(data, study.name, lens, layer))
        least = permalink.choice("Similarity at least", "similarity", thresholds, "any", dropdown=True, width=150)
    filters = {
        "words": words,
        "verdict": None if verdict == "any" else verdict,
        "similarity": None if least == "any" else least,
    }
    images = data.collect(study.name, "find_images", lens=lens, layer=layer, **filters)
    filtered = any(value is not None for value in filters.values())
    with st.container(horizontal=True, vertical_alignment="center"):
        what = counted(len(images), "text" if study.of_texts else "image")
        st.markdown(f"{what} with such patches, most patches first" if filtered else what)
        page = permalink.page(max(1, -(-len(images) // PER_PAGE)))
    if images.is_empty():
        st.info("No image passes these filters. Remove one, or try another layer or lens.")
        return
    rows = images[(page - 1) * PER_PAGE : page * PER_PAGE].iter_rows(named=True)
    tiles = study_tiles(data, study, [Entry(row["image_id"], _note(study, row, filtered)) for row in rows])

    def opened(image: str) -> None:
        permalink.update(image=image, token=None, overlay="spotlight" if words else None, view=None)

    small_pictures(tiles, "gallery", opened)


def _note(study: StudyFacts, row: patch_grid.Row, filtered: bool) -> str:
    what = "tokens" if study.of_texts else "patches"
    count = f"{row['patches']} of {row['tokens']} {what}, most often" if filtered else "mostly"
    return f"{count} {row['frequent_word'] or '–'}"


@st.fragment
@show_user_errors()
def image_view(study: StudyFacts, image: str) -> None:
    """One image: the toolbar, the picture, the neighbors of the chosen patch, the strip."""
    data = browser_data()  # at every click, so that a page that stays open reads what was built since
    state = choose_state(data, study, image)
    if state is None:
        st.warning("This study has no visual tokens of such an image. Go back to all images.")
        return
    st.html(f"<h1>{token_html.safe(state.title(data), 80)}</h1>")
    grid = state.grid(data)
    left, right = st.columns([1.4 if grid["large"] else 0.82, 1], gap="medium")
    with left, st.container(key="seen"):
        patch_grid.patch_grid(grid, "grid", lambda index: permalink.update(token=index))
        if (caption := data.caption(study.name, image)) is not None:
            st.html(
                f"<p>The model's caption: {token_html.safe(caption, CAPTION_LETTERS) if caption else '(empty)'}</p>"
            )
    with right:
        draw_neighbors(data, state, "Token", ground_truth_html(data, state))
    st.markdown(f"**The same {'token' if study.of_texts else 'patch'} through all layers and lenses**")
    strip(
        strip_data(state.answers(data), study.lenses, study.visual_layers, state.lens, state.layer),
        "strip",
        lambda lens, layer: permalink.update(lens=lens, layer=layer),
    )
    export_if_requested(state)


def choose_state(data: BrowserData, study: StudyFacts, image: str) -> ImageState | None:
    """Draw the toolbar, which asks how to show the image; None if it has no tokens."""
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small", key="toolbar"):
        if st.button("← All texts" if study.of_texts else "← All images", on_click=_leave):
            st.rerun()
        lens, layer = choose_lens_and_layer(study)
        names = patch_grid.OVERLAY_NAMES | ({"none": "Text"} if study.of_texts else {})
        overlay = permalink.choice(
            "Overlay", "overlay", patch_grid.OVERLAYS, "none", format_func=names.__getitem__, dropdown=True, width=170
        )
        rows = data.collect(study.name, "patches", image_id=image, lens=lens, layer=layer).to_dicts()
        view = choose_view(rows, permalink.get_int("token"))
        typed = ""
        if overlay == "spotlight":
            name = "lit" if permalink.get("lit") else "word"  # of a category, by which the gallery is not filtered
            typed = permalink.text_input("Word", name, placeholder="dog, cat", width=170)
        if not rows:
            return None
        opened = lambda: permalink.update(export="yes")  # noqa: E731
        st.button("Export", on_click=opened, help="This picture and its tables, as files")
    hits = spotlight_hits(data, study.name, image, lens, layer, typed) if overlay == "spotlight" else frozenset()
    token = _choose_token(rows, view.tokens if view else (), hits)
    return ImageState(study, image, lens, layer, rows, view, token, overlay, typed)


def _leave() -> None:
    permalink.update(image=None, token=None, view=None, lit=None)


def _choose_token(rows: Sequence[patch_grid.Row], shown: Sequence[int], hits: frozenset[int]) -> int | None:
    """The token that the address names, else the nearest hit of the spotlight, else the middle of the view."""
    wanted = permalink.get_int("token")
    if wanted in {row["token_index"] for row in rows}:
        return wanted
    if lit := [row for row in rows if row["token_index"] in hits]:
        return int(max(lit, key=patch_grid.similarity)["token_index"])
    return middle_token([row for row in rows if row["token_index"] in set(shown)] or rows)


data = browser_data()
study = choose_study(data)
if image := permalink.get("image"):
    image_view(study, image)
else:
    gallery(data, study)
