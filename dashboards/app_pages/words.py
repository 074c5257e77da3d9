"""Words: where a word, or any of several, lights up, over images, layers and lenses."""

from __future__ import annotations

from html import escape
from typing import Any

import polars as pl
import streamlit as st
from widgets import permalink, small_pictures
from widgets.curves import lines
from widgets.labels import counted, lens_name
from widgets.sources import browser_data, choose_study

from latentlens_dag.browse.browser_data import BrowserData, StudyFacts, parse_words
from latentlens_dag.text.display import clip

MOST = 24
MOST_CURVES = 12
MOST_CATEGORIES = 1000
NO_CATEGORY = "–"


def words_page(data: BrowserData, study: StudyFacts) -> None:
    """Ask for words, and draw where they are."""
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        typed = permalink.text_input("Words", "word", placeholder="dog, cat", width=260)
        category = choose_category(data, study)
        lens = permalink.choice("Lens", "lens", study.lenses, study.lenses[0], format_func=lens_name)
        layer = permalink.choice(
            "Visual layer", "layer", ("any", *study.visual_layers), "any", dropdown=True, width=120
        )
    words = parse_words(",".join([typed, *category]))
    if words is None:
        frequent(data, study)
        return
    if category:
        names = ", ".join(clip(word, 40) for word in category)
        st.html(f'<p class="ll-muted">Looking for {escape(names)}.</p>')
    images = data.collect(study.name, "where_words", words=words, lens=lens, layer=None if layer == "any" else layer)
    at = "any layer" if layer == "any" else f"layer {layer}"
    if images.is_empty():
        st.markdown(f"No patch has such a word at {at} by {lens_name(lens)}.")
    else:
        st.markdown(
            f"{counted(int(images['patches'].sum()), 'patch', 'patches')} in {counted(len(images), 'image')} "
            f"at {at} by {lens_name(lens)}, most patches first"
        )
        lit = {"lit" if category else "word": words}
        draw_images(data, study, images.head(MOST), lens, layer, lit)
    by_layer = data.collect(study.name, "words_by_layer", words=words)  # of all lenses, so after the pictures
    if by_layer.is_empty():
        st.info(
            "No visual token of this study has such a word among its answers. Whole words are "
            "compared, whatever their case."
        )
        return
    curves(study, by_layer)


def choose_category(data: BrowserData, study: StudyFacts) -> tuple[str, ...]:
    """The words of the category that a person chooses; asks only if annotated regions have any."""
    if "regions" not in data.dataset(study.name).tables:  # of a release of which they were not pulled
        return ()
    rows = data.collect(study.name, "categories").head(MOST_CATEGORIES).to_dicts()
    known = {f"{row['of']}:{row['category']}": row for row in rows}
    if not known:
        return ()

    def shown(option: str) -> str:
        if option not in known:
            return option
        row = known[option]
        return f"{clip(row['category'], 30)}: {row['size']} {'names' if row['of'] == 'shared' else 'words'}"

    options = (NO_CATEGORY, *known)
    chosen = permalink.choice("Category", "category", options, NO_CATEGORY, format_func=shown, dropdown=True, width=210)
    if chosen == NO_CATEGORY:
        return ()
    own = [known[chosen]["category"]] if known[chosen]["of"] == "shared" else []
    return tuple(dict.fromkeys(word for word in [*own, *known[chosen]["words"]] if "," not in word))


def curves(study: StudyFacts, by_layer: pl.DataFrame) -> None:
    """The words layer by layer; of many words, those with the most patches."""
    counts = by_layer.group_by("word").agg(pl.col("patches").sum()).sort(["patches", "word"], descending=[True, False])
    kept = counts.head(MOST_CURVES)["word"].to_list()
    of = f"; the {MOST_CURVES} of {len(counts)} words that have most" if len(counts) > MOST_CURVES else ""
    st.markdown(f"**Layer by layer**: patches with the word among their answers{of}")
    names = {lens: lens_name(lens) for lens in study.lenses}
    shown = by_layer.filter(pl.col("word").is_in(kept)).with_columns(pl.col("lens").replace_strict(names, default=None))
    order = shown.join(pl.DataFrame({"word": kept}).with_row_index("place"), on="word").sort("place", "visual_layer")
    lines(order, "visual_layer", "patches", "lens", facet="word", y_title="Number of patches")


def frequent(data: BrowserData, study: StudyFacts) -> None:
    """Words to begin with."""
    names = data.collect(study.name, "frequent_words", lens=study.lenses[0])["word"].to_list()
    picked = st.pills("Frequent words of this study", names, key="frequent")
    if picked:
        permalink.update(word=picked)
        st.rerun()


def draw_images(
    data: BrowserData, study: StudyFacts, images: pl.DataFrame, lens: str, layer: Any, lit: dict[str, str]
) -> None:
    """The images, all but the hits darkened; a click opens one in Explore, with the words `lit` in the spotlight."""
    entries = [
        small_pictures.Entry(
            row["image_id"],
            f"{counted(row['patches'], 'patch', 'patches')}, best rank {row['best_rank']}",
            row["boxes"] or [],
        )
        for row in images.to_dicts()
    ]

    address = {"lens": lens, "overlay": "spotlight", "lit": None, **lit}
    address |= {} if layer == "any" else {"layer": str(layer)}
    tiles = small_pictures.study_tiles(data, study, entries)
    small_pictures.explore_links(tiles, "where", lambda image: {**address, "image": image})


data = browser_data()
words_page(data, choose_study(data))
