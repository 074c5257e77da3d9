"""Words: where does a word, or any of several, light up, over images, layers and lenses."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any

import polars as pl
import streamlit as st
from widgets import permalink, small_pictures
from widgets.charts import lines
from widgets.labels import counted, lens_name
from widgets.sources import chosen_study, library

from latentlens_dag.browse.browser_data import BrowserData, StudyFacts, Thumbnail, parse_words
from latentlens_dag.text.display import clip

MOST = 24
MOST_CURVES = 12
MOST_CATEGORIES = 1000
NO_CATEGORY = "–"
EXPLORE = Path(__file__).parent / "explore.py"


def words_page(data: BrowserData, study: StudyFacts) -> None:
    """Ask for words and draw what was found."""
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        typed = permalink.words("Words", "word", placeholder="dog, cat", width=260)
        category = chosen_category(data, study)
        lens = permalink.choice("Lens", "lens", study.lenses, study.lenses[0], shown=lens_name)
        layer = permalink.choice("Visual layer", "layer", ("any", *study.visual_layers), "any", wide=True, width=120)
    words = parse_words(",".join([typed, *category]))
    if words is None:
        frequent(data, study)
        return
    if category:
        names = ", ".join(clip(word, 40) for word in category)
        st.html(f'<p class="ll-muted">Looking for {escape(names)}.</p>')
    found = data.ask(study.name, "where_words", words=words, lens=lens, layer=None if layer == "any" else layer)
    at = "any layer" if layer == "any" else f"layer {layer}"
    if found.is_empty():
        st.markdown(f"No patch at {at} by {lens_name(lens)}.")
    else:
        st.markdown(
            f"{counted(int(found['patches'].sum()), 'patch', 'patches')} of {counted(len(found), 'image')} "
            f"at {at} by {lens_name(lens)}, most patches first"
        )
        lit = {"lit" if category else "word": words}
        small_multiples(data, study, found.head(MOST), lens, layer, lit)
    by_layer = data.ask(study.name, "words_by_layer", words=words)  # of all lenses, so the pictures do not wait for it
    if by_layer.is_empty():
        st.info(
            "No visual token of this study has such a word among its answers. Whole words are compared, in any case."
        )
        return
    curves(study, by_layer)


def chosen_category(data: BrowserData, study: StudyFacts) -> tuple[str, ...]:
    """The words of the category that a person chooses; asks only where annotated regions know of any."""
    if "regions" not in data.dataset(study.name).tables:  # of a release of which they were not pulled
        return ()
    rows = data.ask(study.name, "categories").head(MOST_CATEGORIES).to_dicts()
    known = {f"{row['of']}:{row['category']}": row for row in rows}
    if not known:
        return ()

    def shown(option: str) -> str:
        if option not in known:
            return option
        row = known[option]
        return f"{clip(row['category'], 30)}: {row['size']} {'names' if row['of'] == 'shared' else 'words'}"

    options = (NO_CATEGORY, *known)
    chosen = permalink.choice("Category", "category", options, NO_CATEGORY, shown=shown, wide=True, width=210)
    if chosen == NO_CATEGORY:
        return ()
    own = [known[chosen]["category"]] if known[chosen]["of"] == "shared" else []
    return tuple(dict.fromkeys(word for word in [*own, *known[chosen]["words"]] if "," not in word))


def curves(study: StudyFacts, by_layer: pl.DataFrame) -> None:
    """The words layer by layer; of many those with the most patches."""
    counts = by_layer.group_by("word").agg(pl.col("patches").sum()).sort(["patches", "word"], descending=[True, False])
    kept = counts.head(MOST_CURVES)["word"].to_list()
    of = f"; the {MOST_CURVES} of {len(counts)} words that have most" if len(counts) > MOST_CURVES else ""
    st.markdown(f"**Layer by layer**: patches with the word among their answers{of}")
    names = {lens: lens_name(lens) for lens in study.lenses}
    shown = by_layer.filter(pl.col("word").is_in(kept)).with_columns(pl.col("lens").replace_strict(names, default=None))
    lines(shown, "visual_layer", "patches", "lens", facet="word", x_title="Visual layer", y_title="Patches")


def frequent(data: BrowserData, study: StudyFacts) -> None:
    """Words to begin with."""
    names = data.ask(study.name, "frequent_words", lens=study.lenses[0])["word"].to_list()
    picked = st.pills("Frequent words of this study", names, key="frequent")
    if picked:
        permalink.go(word=picked)
        st.rerun()


def small_multiples(
    data: BrowserData, study: StudyFacts, found: pl.DataFrame, lens: str, layer: Any, lit: dict[str, str]
) -> None:
    """The images where it lights up, all but the hits darkened; a click opens one, which `lit` tells the words of."""
    rows = found.to_dicts()
    ids = tuple(row["image_id"] for row in rows)
    pictures = data.pictures(study.name, ids)
    texts = data.texts(study.name, ids) if study.of_texts else {}
    tiles = [
        small_pictures.tile(
            pictures.get(row["image_id"]) or Thumbnail(row["image_id"], row["image_id"], 1, 1, ""),
            counted(row["patches"], "patch", "patches") + f", best rank {row['best_rank']}",
            row["boxes"] or [],
            texts.get(row["image_id"]),
        )
        for row in rows
    ]

    def opened(image: str) -> None:
        st.session_state["words-opened"] = {"image": image, "lens": lens, "overlay": "spotlight"}

    small_pictures.small_pictures(tiles, "where", opened)
    if to := st.session_state.pop("words-opened", None):
        # The way back leads over an address of this page with the new parameters: with its own, too, it shows the same.
        at = {} if layer == "any" else {"layer": str(layer)}
        here = {
            name: value for name, value in st.query_params.to_dict().items() if name != "lit"
        }  # of a picture before
        st.switch_page(EXPLORE, query_params={**here, **lit, **to, **at})


data = library()
study = chosen_study(data)
if study is not None:
    words_page(data, study)
