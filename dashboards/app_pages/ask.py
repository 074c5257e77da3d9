"""Ask: the words and the patches that a token of your own sentence is like, as the study's model reads it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import streamlit as st
from widgets import permalink, token_html
from widgets.labels import counted, escape_markdown
from widgets.small_pictures import Entry, explore_links, study_tiles
from widgets.sources import browser_data, choose_study, may_run_code

from latentlens_dag.browse.browser_data import BrowserData, StudyFacts
from latentlens_dag.browse.reverse_search import NearestToken, NearestTokens, token_boxes, visual_state_files
from latentlens_dag.browse.text_search import (
    LONGEST_TEXT,
    TextSearch,
    Unique,
    build_times,
    home_warehouse,
    open_study_index,
)
from latentlens_dag.errors import UserError
from latentlens_dag.models.layers import middle_layer
from latentlens_dag.models.model_ref import ModelRef
from latentlens_dag.storage.warehouse import Warehouse
from latentlens_dag.study.source import StudySource, study_source
from latentlens_dag.text.display import clip, printable

if TYPE_CHECKING:
    from latentlens_dag.models.language_model import LanguageModel

COUNTS = (25, 50, 100)
ANSWERS = (5, 10, 20)
UNIQUE: dict[str, Unique] = {"none": None, "word": "word", "sentence": "sentence"}
HINT = (
    "Type a phrase or a sentence. The study's language model reads it. For each of its tokens, this page shows the "
    "words of the index, or the patches of the images, that are nearest to it."
)


def ask_page(data: BrowserData, study: StudyFacts) -> None:
    """Ask for a text, and show what one of its tokens is like."""
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        text = permalink.text_input("Text", "text", placeholder="a red ball", width=420, max_chars=LONGEST_TEXT)
        targets = {"sentences": "Sentences like it", "patches": f"{'Tokens' if study.of_texts else 'Patches'} like it"}
        target = permalink.choice("Show", "show", tuple(targets), "sentences", format_func=targets.__getitem__)
    text = text.strip()[:LONGEST_TEXT]
    try:
        warehouse = home_warehouse(data.source)
        if not text:
            st.info(HINT)
            return
        search = open_text_search(data, study.name)
        chips = st.container()
        with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
            middle = middle_layer(search.index.layers)
            layer = permalink.choice("Read at layer", "at", range(search.model.depth), middle, dropdown=True, width=120)
            with chips:
                token = choose_token(search.encode(text, layer).tokens)
            if target == "sentences":
                options = choose_search_options(search)
            else:
                count, files = choose_states(visual_state_files(warehouse, study.name), layer)
        if target == "sentences":
            draw_sentences(search, text, layer, token, options)
        else:
            draw_patches(data, study, search.nearest_tokens(text, layer, token, count, files))
    except UserError as error:
        st.error(escape_markdown(str(error)))


def open_text_search(data: BrowserData, study: str) -> TextSearch:
    """The study's model and index, loaded once per server until the home changes."""
    warehouse = home_warehouse(data.source)
    source = study_source(warehouse, study, may_run_code())
    times = build_times(warehouse, study, source.index_name)
    model = _model(source.model, open_study_index(warehouse, study, source.index_name).dtype)
    return _text_search(source, str(warehouse.root), study, times, model)


@st.cache_resource(show_spinner="Loading the language model …", max_entries=1)
def _model(model: ModelRef, dtype: str | None) -> LanguageModel:
    """The model in the dtype of the index, if that is known.

    The same files with and without trust in their code are two models.
    """
    from latentlens_dag.models.loading import load_language_model

    return load_language_model(model, dtype=dtype)


@st.cache_resource(show_spinner="Opening the index …", max_entries=2)
def _text_search(
    source: StudySource, warehouse: str, study: str, times: tuple[int, ...], _model: LanguageModel
) -> TextSearch:
    return TextSearch(_model, open_study_index(Warehouse(Path(warehouse)), study, source.index_name))


def choose_token(tokens: Sequence[str]) -> int:
    """Ask for a token of the text; by default the last one, which has read all of it."""
    chip = lambda number: escape_markdown(clip(tokens[number].strip(), 24) or "␣")  # noqa: E731
    return permalink.choice("Token", "piece", range(len(tokens)), len(tokens) - 1, format_func=chip)


class SearchOptions(NamedTuple):
    """How the index is searched."""

    k: int
    layers: tuple[int, ...] | None
    unique: Unique


def choose_search_options(search: TextSearch) -> SearchOptions:
    """Ask for the layers of the index to search, and for the number of answers."""
    layers = ("any", *search.index.layers)
    layer = permalink.choice("Contextual layer", "from", layers, "any", dropdown=True, width=140)
    unique = permalink.choice("Deduplicate by", "unique", tuple(UNIQUE), "none", dropdown=True, width=150)
    count = permalink.choice("Answers", "answers", ANSWERS, ANSWERS[0], dropdown=True, width=90)
    return SearchOptions(count, None if layer == "any" else (int(str(layer)),), UNIQUE[unique])


def draw_sentences(search: TextSearch, text: str, layer: int, token: int, options: SearchOptions) -> None:
    """The occurrences of the index that are nearest to the token."""
    neighbors = search.neighbors(text, layer, token, *options)
    rows = [{**row, "logit": None, "earned": None} for row in neighbors.rows]
    name = token_html.safe(search.encode(text, layer).tokens[token].strip() or "␣", 40)
    head = f'<p class="ll-facts"><b>{name}</b>, token {token + 1} of the text, at layer {layer} is like:</p>'
    st.html(f'<div style="max-width: 60rem">{head}{token_html.neighbors_html(rows, search.index.layers)}</div>')
    layers = counted(len(options.layers or search.index.layers), "layer")
    method = printable(neighbors.method.partition(":")[0])
    st.caption(f"Compared with {search.index.rows:,} occurrences at {layers} of the index; method: {method}.")


def choose_states(
    files: Mapping[int, Sequence[Path]], layer: int
) -> tuple[int, tuple[tuple[int, tuple[Path, ...]], ...]]:
    """Ask for the number of patches and the visual layer; returns the number and the files of states, by layer."""
    near = min(files, key=lambda number: (abs(number - layer), number))
    wanted = permalink.choice("Visual layer", "states", (*files, "any"), near, dropdown=True, width=110)
    count = permalink.choice("At most", "count", COUNTS, COUNTS[1], dropdown=True, width=90)
    return count, tuple((one, tuple(paths)) for one, paths in files.items() if wanted in (one, "any"))


def draw_patches(data: BrowserData, study: StudyFacts, nearest: NearestTokens) -> None:
    """The visual tokens that are nearest to the token, image by image, the image with the nearest one first."""
    by_image: dict[str, list[NearestToken]] = {}
    for token in nearest.tokens:
        by_image.setdefault(token.image_id, []).append(token)
    kind = "states of tokens" if study.of_texts else "states of patches"
    images = counted(len(by_image), "text" if study.of_texts else "image")
    st.markdown(
        f"The {len(nearest.tokens)} nearest of {nearest.compared:,} {kind}, in {images}; a click opens the nearest one"
    )
    boxes = token_boxes(data.dataset(study.name), study.name, nearest.tokens)
    entries = [
        Entry(image, note(data, study, tokens), None if study.of_texts else _boxes_of(tokens, boxes))
        for image, tokens in by_image.items()
    ]

    lens = {"lens": "latentlens"} if "latentlens" in study.lenses else {}

    def address(image: str) -> dict[str, str]:
        best = by_image[image][0]
        return {"study": study.name, "image": image, "token": str(best.token_index), "layer": str(best.visual_layer)}

    explore_links(study_tiles(data, study, entries), "nearest", lambda image: address(image) | lens)


def _boxes_of(tokens: Sequence[NearestToken], boxes: Mapping[tuple[str, int], list[float]]) -> list[list[float]]:
    """The boxes of the tokens, once each whatever the layers."""
    keys = dict.fromkeys((token.image_id, token.token_index) for token in tokens)
    return [boxes[key] for key in keys if key in boxes]


def note(data: BrowserData, study: StudyFacts, tokens: Sequence[NearestToken]) -> str:
    """The line below an image, or text."""
    best, count = tokens[0], len({token.token_index for token in tokens})
    at = f"cosine {best.cosine:.2f} at layer {best.visual_layer}"
    if not study.of_texts:
        return f"{counted(count, 'patch', 'patches')}, {at}"
    nearest = data.token_texts(study.name, best.image_id).get(best.token_index, "").strip()
    return f"{counted(count, 'token')}, nearest {nearest}, {at}"


data = browser_data()
ask_page(data, choose_study(data))
